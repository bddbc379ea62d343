//! What the service manager is told. Outside systemd, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// One message to the service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Ready,
    /// One line for `systemctl status`.
    Status(String),
    Reloading,
    Stopping,
    /// A stop takes longer than the unit allows for: so long from now until the next word.
    MoreTime(Duration),
    /// The loop is alive and nothing hangs.
    Watchdog,
}

/// Where notices go.
pub trait Notifier: Send + Sync {
    fn notify(&self, notice: &Notice);
}

/// systemd, by `$NOTIFY_SOCKET`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Systemd;

impl Notifier for Systemd {
    fn notify(&self, notice: &Notice) {
        let sent = match notice {
            Notice::Ready => sd_notify::notify(&[NotifyState::Ready]),
            Notice::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
            // systemd 253 and newer waits for this time stamp; older ones ignore it.
            Notice::Reloading => {
                NotifyState::monotonic_usec_now().and_then(|stamp| sd_notify::notify(&[NotifyState::Reloading, stamp]))
            }
            Notice::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
            Notice::MoreTime(time) => {
                let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
                sd_notify::notify(&[NotifyState::ExtendTimeoutUsec(micros)])
            }
            Notice::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
        };
        if let Err(error) = sent {
            tracing::warn!(%error, ?notice, "the service manager could not be told");
        }
    }
}

/// How often systemd wants to hear from us (`WatchdogSec`); `None` if it does not.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
