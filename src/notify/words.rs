//! How a notice reads: what it means, what to do, and the command to type, in English or Korean. Pure.
//!
//! Whoever reads it was asleep a minute ago: the title alone says what is wrong, and one paragraph is all there is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::notice::{Notice, Verdict, What};

mod en;
mod ko;

pub use crate::config::notify::Language;

/// A notice in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// A few words, for a subject line.
    pub title: String,
    pub means: String,
    pub todo: String,
    /// To be typed as it stands.
    pub command: Option<String>,
}

/// What one part of a message is about its notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// It began, or grew worse, or happened.
    Raised,
    /// It still goes on.
    Reminder,
    /// It is over.
    Resolved,
}

impl Turn {
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
        }
    }
}

/// The notice in words, while it goes on.
pub fn words(notice: &Notice, language: Language) -> Words {
    let (title, means, todo) = match language {
        Language::En => en::words(&notice.what),
        Language::Ko => ko::words(&notice.what),
    };
    Words {
        title,
        means,
        todo,
        command: command(&notice.what),
    }
}

/// What helps to see more, or to go on.
fn command(what: &What) -> Option<String> {
    Some(match what {
        What::BackupFailed { .. } | What::StoreUnreachable { .. } => "planb doctor".to_owned(),
        What::BackupDamaged { id, .. } => format!("planb verify {id}"),
        What::RpoAtRisk { .. } | What::RpoBreached { .. } => "planb status".to_owned(),
        What::ProofTooOld { .. } | What::ProofFailed { .. } => "planb verify --restore-to standby".to_owned(),
        What::VerdictChanged {
            verdict: Verdict::Down, ..
        }
        | What::FailoverWithheld { .. } => "planb failover --stage 3 --plan".to_owned(),
        What::VerdictChanged { .. } => "planb watch --once".to_owned(),
        What::OperationBegun { .. } | What::CommitPoint { .. } => "planb status --follow".to_owned(),
        What::StepBegan { .. } | What::StepEnded { .. } | What::StepFailed { .. } => "planb status --follow".to_owned(),
        What::OperationStopped { command, .. } => format!("{} --resume", base(command)),
        What::OperationEnded { .. } | What::RuleAccepted { .. } => "planb history".to_owned(),
        What::PendingFence { .. } => "planb status".to_owned(),
        What::DrillResult { .. } => "planb history".to_owned(),
        What::DrillLeft { .. } => "planb drill --clean".to_owned(),
        What::DarkCheck { .. } => "planb doctor --dark".to_owned(),
        What::CertificateExpiring { .. } => "planb doctor".to_owned(),
        What::ChannelFailing { .. } => "planb notify --test".to_owned(),
        What::Test { .. } => return None,
    })
}

/// `planb failover` of `planb failover --stage 3`.
fn base(command: &str) -> &str {
    command.split(" --").next().unwrap_or(command)
}

/// How a part begins: that it is still so, or over, and since when.
pub fn turn(turn: Turn, language: Language, title: &str, since: Timestamp, at: Timestamp) -> String {
    let lasted = at.duration_since(since).as_secs().max(0);
    let lasted = duration(u64::try_from(lasted).unwrap_or_default(), language);
    match (turn, language) {
        (Turn::Raised, _) => title.to_owned(),
        (Turn::Reminder, Language::En) => format!("Still: {title} (for {lasted})"),
        (Turn::Reminder, Language::Ko) => format!("계속됨: {title} ({lasted}째)"),
        (Turn::Resolved, Language::En) => format!("Over: {title} (it lasted {lasted})"),
        (Turn::Resolved, Language::Ko) => format!("해소됨: {title} ({lasted} 동안 지속)"),
    }
}

/// That it came and went, for whoever wonders why it is told again.
pub fn flapping(times: u32, language: Language) -> String {
    match language {
        Language::En => {
            format!("It came and went {times} times within the hour; from here on it is told less often.")
        }
        Language::Ko => format!("한 시간 안에 {times}번 반복되었습니다. 앞으로는 알림 간격을 늘립니다."),
    }
}

/// The subject of several at once.
pub fn digest(count: usize, language: Language) -> String {
    match language {
        Language::En => format!("{count} messages at once, the gravest first"),
        Language::Ko => format!("알림 {count}건 묶음 (심각한 순)"),
    }
}

/// Of parts that a digest has no room for.
pub fn more(count: usize, language: Language) -> String {
    match language {
        Language::En => format!("… and {count} more"),
        Language::Ko => format!("… 외 {count}건"),
    }
}

/// Labels before what follows.
pub struct Labels {
    pub todo: &'static str,
    pub command: &'static str,
    pub contact: &'static str,
    pub noticed: &'static str,
}

pub fn labels(language: Language) -> Labels {
    match language {
        Language::En => Labels {
            todo: "What to do",
            command: "Type",
            contact: "Contact",
            noticed: "Noticed",
        },
        Language::Ko => Labels {
            todo: "조치",
            command: "명령",
            contact: "연락처",
            noticed: "감지 시각",
        },
    }
}

/// To the minute, in UTC, as `planb status` and the journal say it.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Two units at most: `1 h 4 min`.
pub fn duration(seconds: u64, language: Language) -> String {
    let [d, h, m, s] = match language {
        Language::En => [" d", " h", " min", " s"],
        Language::Ko => ["일", "시간", "분", "초"],
    };
    let parts = [
        (seconds / 86_400, d),
        (seconds / 3_600 % 24, h),
        (seconds / 60 % 60, m),
        (seconds % 60, s),
    ];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let told: Vec<String> = parts[first..]
        .iter()
        .take(2)
        .filter(|(count, _)| *count > 0 || first == 3)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    told.join(" ")
}

/// One line of an error that may be many, and not more of it than a telephone shows.
fn line(text: &str) -> String {
    const MOST: usize = 400;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
