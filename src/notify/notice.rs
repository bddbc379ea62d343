//! What people can be told: a closed list, each with how grave it is and the key under which it is raised and resolved. Pure.
//!
//! Some of these last (a breached RPO): raised, perhaps again and again, then resolved; people are told once, reminded, and
//! told that it is over. The others happen (a step ended): told once.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How grave it is; channels are chosen by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know in the morning.
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody has to get up.
    Critical,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the watched primary stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Healthy,
    /// Users are not served.
    Down,
    /// Users are served, and the cloud's own API does not answer.
    ControlDown,
    /// No majority of the configured watchers says either.
    Unknown,
}

/// How an operation came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Done,
    /// Taken back before its commit point.
    Abandoned,
    /// Nobody serves, until a stand-down lets the primary serve again.
    GivenUp,
}

/// Everything there is to tell. No text in it holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum What {
    BackupFailed {
        error: String,
    },
    /// Read back, and not what was written: it counts as unusable.
    BackupDamaged {
        id: String,
        place: String,
    },
    RpoAtRisk {
        loss_seconds: Option<u64>,
        target_seconds: u64,
    },
    /// `loss_seconds` is missing where there is no good backup: everything would be lost.
    RpoBreached {
        loss_seconds: Option<u64>,
        target_seconds: u64,
    },
    ProofTooOld {
        age_seconds: u64,
        allowed_seconds: u64,
    },
    /// The restore that was to prove a backup failed, or came out different.
    ProofFailed {
        error: String,
    },
    StoreUnreachable {
        error: String,
    },
    VerdictChanged {
        verdict: Verdict,
        /// Which probes say so, from where.
        why: String,
    },
    /// The primary is down, and the policy or a rule forbids that a failover begins by itself.
    FailoverWithheld {
        why: String,
    },
    OperationBegun {
        operation: u64,
        /// As it is typed: `planb failover --stage 3`.
        command: String,
        who: String,
        /// What would be lost, from where it goes on; in lines.
        facts: Vec<String>,
    },
    /// Nothing is taken back from here on.
    CommitPoint {
        operation: u64,
        command: String,
        epoch: u64,
    },
    /// It stopped part-way, and waits for a person.
    OperationStopped {
        operation: u64,
        command: String,
        why: String,
    },
    OperationEnded {
        operation: u64,
        command: String,
        how: Outcome,
        /// Who serves now.
        standing: String,
    },
    StepBegan {
        operation: u64,
        step: String,
    },
    StepEnded {
        operation: u64,
        step: String,
        note: String,
    },
    StepFailed {
        operation: u64,
        step: String,
        error: String,
    },
    RuleAccepted {
        operation: u64,
        rule: String,
        reason: String,
        who: String,
    },
    /// A site that was fenced, and nobody could prove it: a primary that comes back may take writes.
    PendingFence {
        site: String,
        why: String,
    },
    DrillResult {
        passed: bool,
        /// RPO and RTO that were reached, or what went wrong.
        summary: String,
    },
    /// A rehearsal whose process is gone: what it made still stands, and costs.
    DrillLeft {
        /// When it was begun, as people read it.
        begun: String,
        who: String,
        host: String,
    },
    /// Something that a recovery needs hangs on the cloud that may be down.
    DarkCheck {
        findings: Vec<String>,
    },
    CertificateExpiring {
        /// Whose it is: `source`, a file's name.
        name: String,
        expires_at: Timestamp,
    },
    /// One channel takes no messages: told on the others.
    ChannelFailing {
        channel: String,
        error: String,
    },
    /// `planb notify --test`
    Test {
        who: String,
    },
}

/// Names of events, as `[[notify.channels]] events` and JSON write them.
pub use crate::config::notify::EVENTS;

/// Keys that are resolved by somebody who has no notice of that kind at hand.
pub mod keys {
    pub const BACKUP: &str = "backup";
    pub const RPO: &str = "rpo";
    pub const PROOF_AGE: &str = "proof-age";
    pub const PROOF: &str = "proof";
    pub const STORE: &str = "store";
    /// The watched primary.
    pub const PRIMARY: &str = "primary";
    /// That nobody can tell how it is.
    pub const WATCH: &str = "watch";
    /// What operators go through.
    pub const CONTROL: &str = "control-plane";
    /// That nothing is begun by itself.
    pub const AUTO: &str = "auto";
    pub const DRILL: &str = "drill";
    pub const DRILL_LEFT: &str = "drill-left";
    pub const DARK_CHECK: &str = "dark-check";

    pub fn damaged(id: &str) -> String {
        format!("damaged/{id}")
    }

    pub fn operation(number: u64) -> String {
        format!("operation-{number}")
    }

    pub fn fence(site: &str) -> String {
        format!("fence/{site}")
    }

    pub fn certificate(name: &str) -> String {
        format!("certificate/{name}")
    }

    pub fn channel(name: &str) -> String {
        format!("channel/{name}")
    }
}

impl What {
    /// One of [`EVENTS`].
    pub fn event(&self) -> &'static str {
        match self {
            Self::BackupFailed { .. } => "backup-failed",
            Self::BackupDamaged { .. } => "backup-damaged",
            Self::RpoAtRisk { .. } => "rpo-at-risk",
            Self::RpoBreached { .. } => "rpo-breached",
            Self::ProofTooOld { .. } => "proof-too-old",
            Self::ProofFailed { .. } => "proof-failed",
            Self::StoreUnreachable { .. } => "store-unreachable",
            Self::VerdictChanged { .. } => "verdict-changed",
            Self::FailoverWithheld { .. } => "failover-withheld",
            Self::OperationBegun { .. } => "operation-begun",
            Self::CommitPoint { .. } => "commit-point",
            Self::OperationStopped { .. } => "operation-stopped",
            Self::OperationEnded { .. } => "operation-ended",
            Self::StepBegan { .. } => "step-began",
            Self::StepEnded { .. } => "step-ended",
            Self::StepFailed { .. } => "step-failed",
            Self::RuleAccepted { .. } => "rule-accepted",
            Self::PendingFence { .. } => "pending-fence",
            Self::DrillResult { .. } => "drill-result",
            Self::DrillLeft { .. } => "drill-left",
            Self::DarkCheck { .. } => "dark-check",
            Self::CertificateExpiring { .. } => "certificate-expiring",
            Self::ChannelFailing { .. } => "channel-failing",
            Self::Test { .. } => "test",
        }
    }

    /// One thing that is wrong has one key: an RPO that is at risk and then breached is the same one, grown worse.
    pub fn key(&self) -> String {
        match self {
            Self::BackupFailed { .. } => keys::BACKUP.to_owned(),
            Self::BackupDamaged { id, .. } => keys::damaged(id),
            Self::RpoAtRisk { .. } | Self::RpoBreached { .. } => keys::RPO.to_owned(),
            Self::ProofTooOld { .. } => keys::PROOF_AGE.to_owned(),
            Self::ProofFailed { .. } => keys::PROOF.to_owned(),
            Self::StoreUnreachable { .. } => keys::STORE.to_owned(),
            Self::VerdictChanged { verdict, .. } => match verdict {
                Verdict::Healthy | Verdict::Down => keys::PRIMARY.to_owned(),
                Verdict::Unknown => keys::WATCH.to_owned(),
                Verdict::ControlDown => keys::CONTROL.to_owned(),
            },
            Self::FailoverWithheld { .. } => keys::AUTO.to_owned(),
            Self::OperationStopped { operation, .. } => keys::operation(*operation),
            Self::OperationBegun { operation, .. } => format!("operation-{operation}/begun"),
            Self::CommitPoint { operation, .. } => format!("operation-{operation}/commit-point"),
            Self::OperationEnded { operation, .. } => format!("operation-{operation}/ended"),
            Self::StepBegan { operation, step } => format!("operation-{operation}/{step}/began"),
            Self::StepEnded { operation, step, .. } => format!("operation-{operation}/{step}/ended"),
            Self::StepFailed { operation, step, .. } => format!("operation-{operation}/{step}/failed"),
            Self::RuleAccepted { operation, rule, .. } => format!("operation-{operation}/accepted/{rule}"),
            Self::PendingFence { site, .. } => keys::fence(site),
            Self::DrillResult { .. } => keys::DRILL.to_owned(),
            Self::DrillLeft { .. } => keys::DRILL_LEFT.to_owned(),
            Self::DarkCheck { .. } => keys::DARK_CHECK.to_owned(),
            Self::CertificateExpiring { name, .. } => keys::certificate(name),
            Self::ChannelFailing { channel, .. } => keys::channel(channel),
            Self::Test { .. } => "test".to_owned(),
        }
    }

    pub fn severity(&self) -> Severity {
        match self {
            Self::RpoBreached { .. }
            | Self::BackupDamaged { .. }
            | Self::ProofFailed { .. }
            | Self::PendingFence { .. }
            | Self::OperationStopped { .. }
            | Self::FailoverWithheld { .. }
            | Self::DrillResult { passed: false, .. }
            | Self::VerdictChanged {
                verdict: Verdict::Down, ..
            } => Severity::Critical,
            Self::BackupFailed { .. }
            | Self::RpoAtRisk { .. }
            | Self::ProofTooOld { .. }
            | Self::StoreUnreachable { .. }
            | Self::OperationBegun { .. }
            | Self::CommitPoint { .. }
            | Self::OperationEnded { .. }
            | Self::StepFailed { .. }
            | Self::RuleAccepted { .. }
            | Self::DrillLeft { .. }
            | Self::DarkCheck { .. }
            | Self::CertificateExpiring { .. }
            | Self::ChannelFailing { .. }
            | Self::VerdictChanged {
                verdict: Verdict::ControlDown | Verdict::Unknown,
                ..
            } => Severity::Warning,
            Self::StepBegan { .. }
            | Self::StepEnded { .. }
            | Self::DrillResult { passed: true, .. }
            | Self::VerdictChanged {
                verdict: Verdict::Healthy,
                ..
            }
            | Self::Test { .. } => Severity::Info,
        }
    }

    /// Whether it goes on until it is resolved; the others are told once, and are over.
    pub fn lasts(&self) -> bool {
        match self {
            Self::BackupFailed { .. }
            | Self::BackupDamaged { .. }
            | Self::RpoAtRisk { .. }
            | Self::RpoBreached { .. }
            | Self::ProofTooOld { .. }
            | Self::ProofFailed { .. }
            | Self::StoreUnreachable { .. }
            | Self::OperationStopped { .. }
            | Self::FailoverWithheld { .. }
            | Self::PendingFence { .. }
            | Self::DrillLeft { .. }
            | Self::DarkCheck { .. }
            | Self::CertificateExpiring { .. }
            | Self::ChannelFailing { .. }
            | Self::DrillResult { passed: false, .. } => true,
            // Healthy again is said by resolving `keys::PRIMARY`.
            Self::VerdictChanged { verdict, .. } => *verdict != Verdict::Healthy,
            Self::OperationBegun { .. }
            | Self::CommitPoint { .. }
            | Self::OperationEnded { .. }
            | Self::StepBegan { .. }
            | Self::StepEnded { .. }
            | Self::StepFailed { .. }
            | Self::RuleAccepted { .. }
            | Self::DrillResult { passed: true, .. }
            | Self::Test { .. } => false,
        }
    }
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Raised and resolved by the same key.
    pub key: String,
    pub what: What,
    pub severity: Severity,
    /// When it was noticed.
    pub at: Timestamp,
}

impl Notice {
    /// With the key and the severity that such a thing has.
    pub fn new(what: What, at: Timestamp) -> Self {
        Self {
            key: what.key(),
            severity: what.severity(),
            what,
            at,
        }
    }
}

#[cfg(test)]
#[path = "notice_tests.rs"]
pub(in crate::notify) mod tests;
