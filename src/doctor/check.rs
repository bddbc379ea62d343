//! `planb check`: what a monitoring system is told, judged from facts. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backup::rpo::{Rpo, State};
use crate::mysql::dialect::Version;

/// By the convention of monitoring plugins, whose exit codes these are.
/// Source: <https://www.monitoring-plugins.org/doc/guidelines.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// What is known to be wrong counts for more than what is not known.
    fn weight(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unknown => 1,
            Self::Warning => 2,
            Self::Critical => 3,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub level: Level,
    pub about: &'static str,
    pub text: String,
}

pub fn line(level: Level, about: &'static str, text: impl Into<String>) -> Line {
    Line {
        level,
        about,
        text: text.into(),
    }
}

/// The worst of all.
pub fn overall(lines: &[Line]) -> Level {
    let levels = lines.iter().map(|line| line.level);
    levels.max_by_key(|level| level.weight()).unwrap_or(Level::Unknown)
}

/// What the store says of its backups.
#[derive(Debug, Clone)]
pub struct Backups {
    pub rpo: Rpo,
    pub target: Duration,
    pub unusable: usize,
    /// Since one was last restored and checked.
    pub proof_age: Option<Duration>,
    pub proof_max_age: Duration,
    /// Of this machine's clock against the store's.
    pub clock_skew: SignedDuration,
}

pub fn backups(facts: &Backups) -> Vec<Line> {
    let target = told(facts.target);
    let loss = facts.rpo.loss_now.map(told);
    let backup = match (facts.rpo.state, loss) {
        (State::Met, Some(loss)) => line(Level::Ok, "backup", format!("{loss} would be lost, target {target}")),
        (State::AtRisk, Some(loss)) => line(
            Level::Warning,
            "backup",
            format!(
                "{loss} would be lost, and the target of {target} will be missed before the next backup can land; is the agent running?"
            ),
        ),
        (State::Breached, Some(loss)) => line(
            Level::Critical,
            "backup",
            format!("{loss} would be lost, more than the target of {target}: see the agent's log, and planb doctor"),
        ),
        (State::Unknown, _) => line(Level::Unknown, "backup", "nobody knows what would be lost"),
        (_, None) => line(
            Level::Critical,
            "backup",
            "there is no good backup: everything would be lost",
        ),
    };
    let mut lines = vec![backup];
    lines.push(match facts.proof_age {
        Some(age) if age <= facts.proof_max_age => line(
            Level::Ok,
            "proof",
            format!("a backup was restored and checked {} ago", told(age)),
        ),
        Some(age) => line(
            Level::Warning,
            "proof",
            format!(
                "the latest proof is {} old, more than verify.proof_max_age = {}: restore and check a newer backup",
                told(age),
                told(facts.proof_max_age)
            ),
        ),
        None => line(
            Level::Warning,
            "proof",
            "no backup was restored and checked yet: planb verify --restore-to",
        ),
    });
    if facts.unusable > 0 {
        lines.push(line(
            Level::Warning,
            "backups",
            format!("{} are unusable: planb backups says why", facts.unusable),
        ));
    }
    let skew = facts.clock_skew.abs();
    let level = match skew.as_secs() {
        0..60 => Level::Ok,
        60..300 => Level::Warning,
        // Retention holds everything from here on.
        _ => Level::Critical,
    };
    lines.push(line(level, "clock", format!("{} s from the store's", skew.as_secs())));
    lines
}

/// Who holds the lease that keeps runs from overlapping; none if nobody ever did.
pub fn lease(holder: Option<(&str, Timestamp, bool)>, now: Timestamp) -> Line {
    match holder {
        None => line(Level::Ok, "lease", "never taken: no run yet"),
        Some((_, _, true)) => line(Level::Ok, "lease", "free"),
        Some((by, until, false)) if until > now => line(Level::Ok, "lease", format!("held by {by}")),
        Some((by, _, false)) => line(
            Level::Warning,
            "lease",
            format!("{by} vanished with it; the next run takes it over"),
        ),
    }
}

/// What the journal of failovers says.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Who serves, in words.
    pub standing: String,
    pub nobody_serves: bool,
    /// The command of the operation that is open, and the steps of it that failed.
    pub open: Option<(String, Vec<String>)>,
    pub pending_fences: Vec<&'static str>,
}

pub fn recovery(facts: &Recovery) -> Vec<Line> {
    let level = if facts.nobody_serves {
        Level::Critical
    } else {
        Level::Ok
    };
    let mut lines = vec![line(level, "serving", facts.standing.clone())];
    if let Some((command, failed)) = &facts.open {
        lines.push(if failed.is_empty() {
            line(
                Level::Warning,
                "operation",
                format!("{command} is open: planb status --follow"),
            )
        } else {
            line(
                Level::Critical,
                "operation",
                format!("{command} stands at {}: {command} --resume goes on", failed.join(", ")),
            )
        });
    }
    for site in &facts.pending_fences {
        lines.push(line(
            Level::Critical,
            "fence",
            format!("that of the {site} is not proven: a {site} that comes back may take writes"),
        ));
    }
    lines
}

/// Room where backups or state are kept.
pub fn disk(about: &str, free_bytes: u64, total_bytes: u64) -> Line {
    let percent = free_bytes.saturating_mul(100) / total_bytes.max(1);
    let level = match percent {
        0..3 => Level::Critical,
        3..10 => Level::Warning,
        _ => Level::Ok,
    };
    line(level, "disk", format!("{percent} % free at {about}"))
}

/// Until when the certificates of a file hold.
pub fn certificates(key: &str, ends: &[Timestamp], now: Timestamp) -> Line {
    // Of a bundle some may have ended: it serves as long as one holds, and the next to end is what somebody has to look after.
    let Some(last) = ends.iter().max() else {
        return line(
            Level::Critical,
            "certificates",
            format!("{key} holds no certificate that can be read"),
        );
    };
    let days = |at: &Timestamp| at.duration_since(now).as_hours() / 24;
    if *last <= now {
        return line(
            Level::Critical,
            "certificates",
            format!("{key} ended on {}", last.strftime("%Y-%m-%d")),
        );
    }
    let level = match days(last) {
        ..7 => Level::Critical,
        7..30 => Level::Warning,
        _ => Level::Ok,
    };
    let ended = ends.iter().filter(|at| **at <= now).count();
    let ended = if ended > 0 {
        format!(", {ended} of {} ended", ends.len())
    } else {
        String::new()
    };
    line(
        level,
        "certificates",
        format!(
            "{key} holds until {} ({} days{ended})",
            last.strftime("%Y-%m-%d"),
            days(last)
        ),
    )
}

/// Something with a known end: a secret, a certificate that an endpoint shows.
pub fn ends(about: &'static str, what: &str, at: Timestamp, now: Timestamp) -> Line {
    let date = at.strftime("%Y-%m-%d");
    if at <= now {
        return line(Level::Critical, about, format!("{what} ended on {date}: renew it now"));
    }
    let days = at.duration_since(now).as_hours() / 24;
    let level = match days {
        ..7 => Level::Critical,
        7..30 => Level::Warning,
        _ => Level::Ok,
    };
    line(level, about, format!("{what} holds until {date} ({days} days)"))
}

/// What people should have been told and were not.
pub fn untold(count: usize, first_channel: Option<&str>) -> Line {
    match first_channel {
        None => line(Level::Ok, "told", "everything was told"),
        Some(channel) => line(
            Level::Warning,
            "told",
            format!(
                "{count} messages were not told, first on {channel}: planb notify --undelivered says which and why"
            ),
        ),
    }
}

/// None: it does not answer.
pub fn versions(source: Option<&Version>, standby: Option<&Version>) -> Line {
    let about = "servers";
    let (source, standby) = match (source, standby) {
        (Some(source), Some(standby)) => (source, standby),
        (Some(source), None) => {
            return line(
                Level::Ok,
                about,
                format!(
                    "source {source}; the standby does not answer, as it should where it is made only in a disaster"
                ),
            );
        }
        // Whether the source lives is what backups and watchers tell.
        (None, Some(standby)) => {
            return line(
                Level::Ok,
                about,
                format!("standby {standby}; the source does not answer here"),
            );
        }
        (None, None) => return line(Level::Ok, about, "neither answers here"),
    };
    let number = |version: &Version| (version.major, version.minor);
    if source.family != standby.family {
        line(
            Level::Critical,
            about,
            format!("the source is {source} and the standby {standby}: a restore would be refused"),
        )
    } else if number(standby) < number(source) {
        line(
            Level::Critical,
            about,
            format!(
                "the standby ({standby}) is older than the source ({source}): a restore would be refused; upgrade it"
            ),
        )
    } else {
        line(Level::Ok, about, format!("source {source}, standby {standby}"))
    }
}

fn told(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Figures as monitoring plugins give them: label, value with its unit, and from where on it warns and is critical.
pub fn perfdata(facts: &Backups, good: usize, stored_bytes: u64) -> String {
    let target = facts.target.as_secs();
    let rpo = facts
        .rpo
        .loss_now
        .map_or("U".to_owned(), |loss| format!("{}s", loss.as_secs()));
    let proof = facts
        .proof_age
        .map_or("U".to_owned(), |age| format!("{}s", age.as_secs()));
    format!(
        "rpo={rpo};;{target};0 proof_age={proof};{};;0 backups={good};;;0 stored={stored_bytes}B;;;0",
        facts.proof_max_age.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn facts(state: State, loss: Option<u64>) -> Backups {
        Backups {
            rpo: Rpo {
                loss_now: loss.map(Duration::from_secs),
                newest: None,
                newest_proven: None,
                state,
            },
            target: Duration::from_secs(300),
            unusable: 0,
            proof_age: Some(Duration::from_secs(3_600)),
            proof_max_age: Duration::from_secs(93_600),
            clock_skew: SignedDuration::from_secs(-2),
        }
    }

    #[test]
    fn the_worst_that_is_known_decides() {
        assert_eq!(overall(&backups(&facts(State::Met, Some(10)))), Level::Ok);
        assert_eq!(overall(&backups(&facts(State::AtRisk, Some(200)))), Level::Warning);
        assert_eq!(overall(&backups(&facts(State::Breached, Some(400)))), Level::Critical);
        assert_eq!(overall(&backups(&facts(State::Breached, None))), Level::Critical);
        assert_eq!(overall(&backups(&facts(State::Unknown, None))), Level::Unknown);
        let never = Backups {
            proof_age: None,
            ..facts(State::Met, Some(1))
        };
        assert_eq!(overall(&backups(&never)), Level::Warning);
        assert_eq!(
            perfdata(&never, 3, 10),
            "rpo=1s;;300;0 proof_age=U;93600;;0 backups=3;;;0 stored=10B;;;0"
        );
        let unknown = line(Level::Unknown, "a", "");
        assert_eq!(
            overall(&[unknown.clone(), line(Level::Warning, "b", "")]),
            Level::Warning
        );
        assert_eq!(overall(&[unknown, line(Level::Ok, "b", "")]), Level::Unknown);
    }

    #[test]
    fn what_is_open_or_pending_is_told() {
        let quiet = Recovery {
            standing: "the primary serves".to_owned(),
            ..Recovery::default()
        };
        assert_eq!(overall(&recovery(&quiet)), Level::Ok);
        let command = "planb failover --stage 3".to_owned();
        let open = Recovery {
            open: Some((command.clone(), Vec::new())),
            ..quiet.clone()
        };
        assert_eq!(overall(&recovery(&open)), Level::Warning);
        let stuck = Recovery {
            open: Some((command, vec!["fence".to_owned()])),
            ..quiet.clone()
        };
        assert_eq!(overall(&recovery(&stuck)), Level::Critical);
        let pending = Recovery {
            pending_fences: vec!["primary"],
            ..quiet
        };
        assert_eq!(overall(&recovery(&pending)), Level::Critical);
        let now = at("2026-01-01T00:00:00Z");
        assert_eq!(
            lease(Some(("agent", at("2025-12-31T23:59:00Z"), false)), now).level,
            Level::Warning
        );
        assert_eq!(
            lease(Some(("agent", at("2025-12-31T23:59:00Z"), true)), now).level,
            Level::Ok
        );
    }

    #[test]
    fn certificates_end_and_rooms_fill_up() {
        let now = at("2026-01-01T00:00:00Z");
        let level = |ends: &[&str]| {
            let ends: Vec<Timestamp> = ends.iter().map(|text| at(text)).collect();
            certificates("source.tls_ca", &ends, now).level
        };
        assert_eq!(level(&["2030-01-01T00:00:00Z", "2025-01-01T00:00:00Z"]), Level::Ok);
        assert_eq!(level(&["2026-01-20T00:00:00Z"]), Level::Warning);
        assert_eq!(level(&["2026-01-03T00:00:00Z"]), Level::Critical);
        assert_eq!(level(&["2025-12-31T00:00:00Z"]), Level::Critical);
        assert_eq!(level(&[]), Level::Critical);
        assert_eq!(disk("/", 1, 100).level, Level::Critical);
        assert_eq!(disk("/", 50, 100).level, Level::Ok);
    }

    #[test]
    fn what_ends_soon_is_told_before() {
        let now = at("2026-11-21T00:00:00Z");
        let level = |text: &str| ends("secrets", "a", at(text), now).level;
        assert_eq!(level("2027-01-01T00:00:00Z"), Level::Ok);
        assert_eq!(level("2026-12-10T00:00:00Z"), Level::Warning);
        assert_eq!(level("2026-11-27T00:00:00Z"), Level::Critical);
        assert_eq!(level("2026-11-20T00:00:00Z"), Level::Critical);
    }

    #[test]
    fn a_standby_that_would_refuse_a_restore_is_told() {
        let version = |text: &str| Version::of_text(text).expect("a version");
        let level = |source: &str, standby: &str| versions(Some(&version(source)), Some(&version(standby))).level;
        assert_eq!(level("MySQL 8.4.0", "MySQL 8.4.3"), Level::Ok);
        assert_eq!(level("MySQL 8.0.40", "MySQL 8.4.0"), Level::Ok);
        assert_eq!(level("MySQL 8.4.0", "MySQL 8.0.40"), Level::Critical);
        assert_eq!(level("MySQL 8.4.0", "MariaDB 11.4.2"), Level::Critical);
        assert_eq!(versions(Some(&version("MySQL 8.4.0")), None).level, Level::Ok);
    }
}
