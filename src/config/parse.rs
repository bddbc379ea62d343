//! TOML text to [`Config`]: every problem is reported together, each with its key, and none repeats a value.

use std::fmt;
use std::path::{Path, PathBuf};

use super::collect::Document;
pub use super::collect::Problem;
use super::{
    Config, accounts, cost, drill, notify, prepare, sections, serve, standby, steps, store, telemetry, verify, watch,
};

/// A configuration is a page or two. More than this is some other file.
const LARGEST_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read ({detail}): {hint}", .path.display())]
    Unreadable {
        path: PathBuf,
        detail: String,
        hint: &'static str,
    },
    #[error("{}", Listing { origin, problems })]
    Invalid { origin: String, problems: Vec<Problem> },
}

impl ConfigError {
    /// Whether trying again without a change by a person cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreadable { .. } | Self::Invalid { .. } => true,
        }
    }

    /// Empty if the file could not be read at all.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

struct Listing<'a> {
    origin: &'a str,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems {
            [only] => write!(f, "{}: {only}", self.origin),
            problems => {
                write!(f, "{}: {} problems", self.origin, problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        Self::parse_as(&path.display().to_string(), &text)
    }

    /// Checks `text`; for tests and for text that is in no file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_as("configuration", text)
    }

    fn parse_as(origin: &str, text: &str) -> Result<Self, ConfigError> {
        let invalid = |problems| ConfigError::Invalid {
            origin: origin.to_owned(),
            problems,
        };
        let mut document = Document::parse(text).map_err(invalid)?;
        // Where a value is wrong, its section holds a placeholder; with any problem the whole is thrown away.
        let (service, targets) = (sections::service(&mut document), sections::targets(&mut document));
        let (source, store) = (sections::source(&mut document), store::store(&mut document));
        let standby = standby::server(&mut document, "standby");
        let failover = steps::failover(&mut document);
        let failover_steps = steps::steps(&mut document, "failover_steps", steps::Site::Standby);
        let config = Self {
            service,
            targets,
            watch: watch::watch(&mut document, &source, failover, &failover_steps),
            source,
            backup: sections::backup(&mut document),
            retention: sections::retention(&mut document),
            verify: verify::verify(&mut document, &store.place, standby.as_ref()),
            serve: serve::serve(&mut document),
            telemetry: telemetry::telemetry(&mut document, cfg!(feature = "otlp")),
            store,
            accounts: accounts::accounts(&mut document, standby.as_ref()),
            standby,
            primary: standby::server(&mut document, "primary"),
            cost: cost::cost(&mut document),
            notify: notify::notify(&mut document),
            drill: drill::drill(&mut document),
            doctor: prepare::doctor(&mut document, !failover_steps.is_empty()),
            prepare: prepare::prepare(&mut document),
            quota: prepare::quota(&mut document),
            failover,
            failover_steps,
            failback_steps: steps::steps(&mut document, "failback_steps", steps::Site::Primary),
        };
        let problems = document.finish();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(invalid(problems))
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |detail: String, hint| ConfigError::Unreadable {
        path: path.to_owned(),
        detail,
        hint,
    };
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => unreadable(
            "no such file".into(),
            "name it with --config or PLANB_CONFIG, or begin with a copy of config/smallest.toml",
        ),
        std::io::ErrorKind::PermissionDenied => unreadable(
            "permission denied".into(),
            "run as the user that owns it, or let that user's group read it",
        ),
        kind => unreadable(kind.to_string(), "name a readable file with --config or PLANB_CONFIG"),
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LARGEST_BYTES {
        return Err(unreadable(
            "not a regular file of at most 1 MiB".into(),
            "name the configuration file itself with --config or PLANB_CONFIG",
        ));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8 text".into(), "save it as UTF-8"))
}
