//! Logs go to stderr: text for a person at a terminal, JSON for the journal and everything else.
//!
//! Spans are for traces and are not logged: a line says by itself what it is about.

use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// Text only for a person: on a terminal that the journal does not read.
    pub fn choose(terminal: bool, journal: bool) -> Self {
        if terminal && !journal { Self::Text } else { Self::Json }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("logging was set up already")]
pub struct AlreadySet;

/// Who listens beside the log.
pub type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets up logging for the process. `RUST_LOG` says what is shown, `info` by default.
pub fn init(beside: Option<Listener>) -> Result<(), AlreadySet> {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let (filter, unreadable) = match EnvFilter::try_from_default_env() {
        Ok(filter) => (filter, None),
        // Unset is the usual case; only what was set and makes no sense is worth a line.
        Err(error) => (EnvFilter::new("info"), std::env::var_os("RUST_LOG").map(|_| error)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match Format::choose(std::io::stderr().is_terminal(), journal) {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines
        .with_filter(filter.and(filter_fn(|metadata| metadata.is_event())))
        .boxed();
    let listeners: Vec<Listener> = beside.into_iter().chain([lines]).collect();
    let set = tracing_subscriber::registry().with(listeners).try_init();
    set.map_err(|_| AlreadySet)?;
    if let Some(error) = unreadable {
        tracing::warn!(%error, "RUST_LOG is not understood; showing info and above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_for_people_json_for_the_journal() {
        assert_eq!(Format::choose(true, false), Format::Text);
        for (terminal, journal) in [(true, true), (false, true), (false, false)] {
            assert_eq!(Format::choose(terminal, journal), Format::Json);
        }
    }
}
