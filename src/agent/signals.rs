//! What the service manager, or a person, asks of the daemon.

use async_trait::async_trait;
use tokio::signal::unix::{self, SignalKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: end, leaving nothing.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Where signals come from.
#[async_trait]
pub trait Signals: Send {
    /// The next one. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Signal;
}

/// The process's own signals.
#[derive(Debug)]
pub struct Process {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Process {
    /// From here on these signals no longer end the process.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }
}

#[async_trait]
impl Signals for Process {
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
