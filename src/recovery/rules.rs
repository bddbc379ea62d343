//! Why an operation may not begin or go on: rules by name, each said with its reason and a way out. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::event::{Accepted, Chosen};
use super::plan::{Aim, Role, Site};
use super::state::State;

/// What stands between a person and a disaster of their own making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The primary answers: an unplanned failover would lose what it takes in.
    PrimaryHealthy,
    /// There is nothing to restore.
    NoBackup,
    /// More would be lost than the configuration allows.
    BackupTooOld,
    /// No backup was restored and checked lately.
    BackupUnproven,
    /// The chosen backup is of a site that no longer served.
    Orphan,
    /// An operation is open already.
    Unfinished,
    /// The site serves already.
    Serving,
    /// The site takes no writes.
    NotServing,
    /// The other site may still take writes.
    Unfenced,
    /// The old primary, whose data is about to be preserved or replaced, may still take writes.
    OldPrimaryUnfenced,
    /// What was restored was not compared with its backup.
    Unverified,
    /// The standby never took writes: it has nothing that the primary lacks.
    NeverServed,
    /// The configuration is not the one that the operation began with.
    PlanChanged,
    /// Another process is at work on the step, and may be for a while.
    StillAtWork,
    /// The journal cannot be read.
    JournalDamaged,
    /// After the commit point there is no way back.
    Committed,
    /// Another process acts for the same place.
    LeaseHeld,
    /// This process acted for it, and does not any more.
    LeaseLost,
    /// Somebody else wrote to the journal first.
    Raced,
    /// There is nothing to go on with.
    NothingOpen,
    /// From where its steps are done, the primary's database cannot be reached.
    PrimaryUnreachable,
}

impl Rule {
    pub const ALL: [Self; 21] = [
        Self::PrimaryHealthy,
        Self::NoBackup,
        Self::BackupTooOld,
        Self::BackupUnproven,
        Self::Orphan,
        Self::Unfinished,
        Self::Serving,
        Self::NotServing,
        Self::Unfenced,
        Self::OldPrimaryUnfenced,
        Self::Unverified,
        Self::NeverServed,
        Self::PlanChanged,
        Self::StillAtWork,
        Self::JournalDamaged,
        Self::Committed,
        Self::LeaseHeld,
        Self::LeaseLost,
        Self::Raced,
        Self::NothingOpen,
        Self::PrimaryUnreachable,
    ];

    /// As `--accept` and the journal name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrimaryHealthy => "primary-healthy",
            Self::NoBackup => "no-backup",
            Self::BackupTooOld => "backup-too-old",
            Self::BackupUnproven => "backup-unproven",
            Self::Orphan => "orphan",
            Self::Unfinished => "unfinished-operation",
            Self::Serving => "serving",
            Self::NotServing => "not-serving",
            Self::Unfenced => "unfenced",
            Self::OldPrimaryUnfenced => "old-primary-unfenced",
            Self::Unverified => "unverified",
            Self::NeverServed => "never-served",
            Self::PlanChanged => "plan-changed",
            Self::StillAtWork => "still-at-work",
            Self::JournalDamaged => "journal-damaged",
            Self::Committed => "committed",
            Self::LeaseHeld => "lease-held",
            Self::LeaseLost => "lease-lost",
            Self::Raced => "raced",
            Self::NothingOpen => "nothing-open",
            Self::PrimaryUnreachable => "primary-unreachable",
        }
    }

    /// Whether a person may answer for it.
    pub fn can_be_waived(self) -> bool {
        match self {
            Self::PrimaryHealthy
            | Self::BackupTooOld
            | Self::BackupUnproven
            | Self::Orphan
            | Self::Unfenced
            | Self::OldPrimaryUnfenced
            | Self::Unverified
            | Self::PlanChanged
            | Self::StillAtWork
            | Self::JournalDamaged
            | Self::PrimaryUnreachable => true,
            Self::NoBackup
            | Self::Unfinished
            | Self::Serving
            | Self::NotServing
            | Self::NeverServed
            | Self::Committed
            | Self::LeaseHeld
            | Self::LeaseLost
            | Self::Raced
            | Self::NothingOpen => false,
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }
}

/// The name under which a step is left out: `--accept skip-STEP=REASON`.
pub fn skip(step: &str) -> String {
    format!("skip-{step}")
}

/// Whether the data stays safe without such a step.
pub fn can_be_skipped(role: Role) -> bool {
    match role {
        Role::Work | Role::Traffic(_) | Role::LastBackup(_) => true,
        Role::Restore(_)
        | Role::Verify(_)
        | Role::Fence(_)
        | Role::Open(_)
        | Role::Preserve(_)
        | Role::Destroy
        | Role::Unfence(_) => false,
    }
}

/// One rule that stands against it, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub rule: Rule,
    pub why: String,
}

/// What was looked at before an operation begins.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Whether the primary answered, and as what; none if it was not asked.
    pub primary: Option<Answer>,
    pub chosen: Option<Candidate>,
    /// When the newest backup that was restored and checked, was.
    pub proven_at: Option<Timestamp>,
    /// By the store's clock.
    pub now: Timestamp,
}

/// How the primary answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Healthy(String),
    Gone(String),
    /// Nobody could look: address or password were not to be had. That is no sign that it is gone.
    Unasked(String),
}

/// The backup that would be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub backup: Chosen,
    pub is_orphan: bool,
    /// A person named it, rather than its being the newest good one.
    pub was_named: bool,
}

/// How much may be lost without a word, and how old a proof may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_loss: Duration,
    pub proof_max_age: Duration,
}

/// Everything that stands against beginning such an operation, whether or not it was accepted.
pub fn against(aim: Aim, state: &State, facts: &Facts, limits: &Limits) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |rule, why: String| refusals.push(Refusal { rule, why });
    if let Some(operation) = state.open() {
        refuse(
            Rule::Unfinished,
            format!(
                "{} of {} by {} is not finished; go on with it ({} --resume) or, before its commit point, take it back ({} --abandon)",
                operation.aim.command(),
                operation.opened_at,
                operation.opened_by.who,
                operation.aim.command(),
                operation.aim.command(),
            ),
        );
    }
    let standing = &state.standing;
    match aim {
        Aim::Failover { stage, planned } => {
            if standing.serving == Some(Site::Standby) {
                refuse(
                    Rule::Serving,
                    "the standby serves already; planb status shows since when, planb failback takes the service home"
                        .to_owned(),
                );
            }
            if stage < 2 {
                return refusals;
            }
            if let (false, Some(Answer::Healthy(as_what))) = (planned, &facts.primary) {
                refuse(
                    Rule::PrimaryHealthy,
                    format!(
                        "the primary answers ({as_what}): what it takes in from now on would be lost; a planned move loses \
                         nothing: {} --planned",
                        aim.command()
                    ),
                );
            }
            if let (false, Some(Answer::Unasked(why))) = (planned, &facts.primary) {
                refuse(
                    Rule::PrimaryHealthy,
                    format!(
                        "whether the primary still answers could not be asked from here ({why}): if it does, what it takes in from now \
                         on would be lost; begin where its address and password are to be had, or answer for its being gone"
                    ),
                );
            }
            backup(&mut refuse, facts, limits, planned);
        }
        Aim::Failback => {
            if let Some(Answer::Gone(why) | Answer::Unasked(why)) = &facts.primary {
                refuse(
                    Rule::PrimaryUnreachable,
                    format!(
                        "the primary's database does not answer from here ({why}), and steps of the way home are done here; begin \
                         where it can be reached, or when it is back"
                    ),
                );
            }
        }
        Aim::StandDown | Aim::Drill { .. } => {}
    }
    refusals
}

/// Whoever goes home does not go on with the way out unasked, nor the other way round.
pub fn other_way(state: &State, towards: Site) -> Option<Refusal> {
    let operation = state.open().filter(|operation| operation.aim.towards() != towards)?;
    let command = operation.aim.command();
    let back = if operation.committed_at.is_none() {
        format!("; {command} --abandon takes it back")
    } else if operation.can_be_given_up(&state.standing) {
        "; planb failback alone gives it up, and the primary serves again".to_owned()
    } else {
        String::new()
    };
    Some(Refusal {
        rule: Rule::Unfinished,
        why: format!(
            "what is open goes to the {}, and this command to the {towards}: {command} --resume goes on with it{back}",
            operation.aim.towards()
        ),
    })
}

fn backup(refuse: &mut impl FnMut(Rule, String), facts: &Facts, limits: &Limits, planned: bool) {
    let Some(candidate) = &facts.chosen else {
        refuse(
            Rule::NoBackup,
            "there is no good backup to restore; planb backups shows what there is, and why it is not good".to_owned(),
        );
        return;
    };
    let age = facts.now.duration_since(candidate.backup.consistent_at);
    let is_old = age > jiff::SignedDuration::try_from(limits.max_loss).unwrap_or(jiff::SignedDuration::MAX);
    // A planned one takes a last backup of its own; whoever names an older one knows what they do, and is asked all the same.
    if is_old && !planned {
        refuse(
            Rule::BackupTooOld,
            format!(
                "{} is of {}: everything since would be lost, more than [failover] max_loss allows",
                candidate.backup.id, candidate.backup.consistent_at
            ),
        );
    }
    if candidate.is_orphan {
        refuse(
            Rule::Orphan,
            format!(
                "{} was taken at a site when it no longer served; it is evidence of what was lost, not the service's data",
                candidate.backup.id
            ),
        );
    }
    let limit = jiff::SignedDuration::try_from(limits.proof_max_age).unwrap_or(jiff::SignedDuration::MAX);
    let is_proven = facts.proven_at.is_some_and(|at| facts.now.duration_since(at) <= limit);
    if !is_proven {
        refuse(
            Rule::BackupUnproven,
            match facts.proven_at {
                Some(at) => format!("no backup was restored and checked since {at}; planb verify --restore-to does it"),
                None => "no backup was ever restored and checked; planb verify --restore-to does it".to_owned(),
            },
        );
    }
}

/// Those that nobody has answered for.
pub fn standing(refusals: Vec<Refusal>, accepted: &[Accepted]) -> Vec<Refusal> {
    refusals
        .into_iter()
        .filter(|refusal| {
            let is_accepted = accepted.iter().any(|accepted| accepted.rule == refusal.rule.name());
            !(refusal.rule.can_be_waived() && is_accepted)
        })
        .collect()
}
