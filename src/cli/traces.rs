//! Logging, and traces beside it where this planb was built with them and the configuration names a collector.

use super::Common;
use crate::agent::logging;

/// What is to be ended with the process.
pub struct Traces {
    #[cfg(feature = "otlp")]
    exporter: Option<crate::telemetry::Exporter>,
}

/// Sets up both; to be called on the runtime. Whatever is wrong with traces, the command goes on: it says itself what is wrong with the
/// configuration.
#[cfg(feature = "otlp")]
pub fn begin(common: &Common, is_traced: bool) -> Traces {
    use crate::backup::lease;
    use crate::config::Config;
    use crate::telemetry::Exporter;

    let config = is_traced.then(|| Config::load(&common.config).ok()).flatten();
    let started = config.as_ref().and_then(|config| {
        let telemetry = config.telemetry.as_ref()?;
        Some(Exporter::start(config, telemetry, lease::host_name()))
    });
    let (exporter, failure) = match started {
        Some(Ok(exporter)) => (Some(exporter), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    log(exporter.as_ref().map(Exporter::layer));
    if let Some(error) = failure {
        tracing::warn!(%error, "nothing is traced");
    }
    Traces { exporter }
}

/// Sets up logging: this planb cannot trace.
#[cfg(not(feature = "otlp"))]
pub fn begin(_: &Common, _: bool) -> Traces {
    log(None);
    Traces {}
}

impl Traces {
    /// Sends what is left, for two seconds at most.
    pub fn end(&self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = &self.exporter {
            exporter.stop();
        }
    }
}

fn log(beside: Option<logging::Listener>) {
    if let Err(error) = logging::init(beside) {
        eprintln!("planb: {error}");
    }
}
