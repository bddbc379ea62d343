//! What Terraform says with `-json`, one object a line, folded into what a caller needs. Pure.
//!
//! The format is Terraform's "machine-readable UI" 1.x; unknown types of message are left out, as it asks. OpenTofu
//! writes the same.

use serde::Deserialize;

/// What a plan would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Resources to be made, changed and destroyed; one that is replaced counts as made and as destroyed.
    pub add: u64,
    pub change: u64,
    pub destroy: u64,
    /// One entry for each resource that is touched.
    pub resources: Vec<Change>,
    /// Terraform's own word for it (exit code 2). True with all counts zero when outputs alone change.
    pub anything: bool,
}

/// What would become of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub address: String,
    /// `azurerm_storage_account`
    pub kind: String,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create,
    Read,
    Update,
    Replace,
    Delete,
    /// Taken into or out of the state, or renamed there; the thing itself is left as it is.
    Import,
    Move,
    Forget,
    /// A word that came up after this was written.
    #[serde(other)]
    Unknown,
}

impl Action {
    /// Whether the thing that is there now may be gone afterwards. What is not known may destroy.
    pub fn destroys(self) -> bool {
        match self {
            Self::Replace | Self::Delete | Self::Unknown => true,
            Self::Create | Self::Read | Self::Update | Self::Import | Self::Move | Self::Forget => false,
        }
    }
}

/// How far an apply or destroy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Somebody else holds the state's lock; it is waited for.
    WaitingForLock,
    Resource {
        address: String,
        action: Action,
        phase: Phase,
        /// Since this resource was begun.
        elapsed_seconds: u64,
        /// Changes that are done, of those planned. A replacement is two.
        completed: u64,
        planned: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Begun,
    Going,
    Done,
    Failed,
}

/// An error as Terraform tells it, without the source excerpt, which may show values.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Diagnostic {
    pub summary: String,
    #[serde(default)]
    pub detail: String,
    /// The resource it is about, where it is about one.
    pub address: Option<String>,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = &self.address {
            write!(f, "{address}: ")?;
        }
        f.write_str(&self.summary)?;
        if self.detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.detail.trim_end())
    }
}

/// The lock on a state, as its holder wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    pub id: String,
    /// `user@host`
    pub who: String,
    /// As Terraform prints it: `2026-11-21 09:19:08.7 +0000 UTC`.
    pub since: String,
    /// `OperationTypeApply`
    pub operation: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    change: Option<Planned>,
    changes: Option<Summary>,
    hook: Option<Hook>,
    diagnostic: Option<Told>,
}

#[derive(Deserialize)]
struct Planned {
    resource: Resource,
    action: Action,
}

#[derive(Deserialize)]
struct Resource {
    addr: String,
    #[serde(default)]
    resource_type: String,
}

#[derive(Deserialize)]
struct Summary {
    add: u64,
    change: u64,
    remove: u64,
    operation: String,
}

#[derive(Deserialize)]
struct Hook {
    resource: Option<Resource>,
    action: Option<Action>,
    #[serde(default)]
    elapsed_seconds: u64,
}

#[derive(Deserialize)]
struct Told {
    severity: String,
    #[serde(flatten)]
    what: Diagnostic,
}

/// Everything that one run of Terraform said, so far.
#[derive(Debug, Default)]
pub struct Account {
    pub changes: Changes,
    /// The operation of the closing summary (`plan`, `apply`, `destroy`). A run that ended well has one.
    pub closed: Option<String>,
    pub errors: Vec<Diagnostic>,
    /// Resources that were begun, and changes that were completed.
    pub begun: u64,
    pub completed: u64,
    /// Changes expected, from the plan that is being applied.
    pub planned: u64,
    /// The first line that is no message of Terraform's.
    pub strange: Option<String>,
}

/// Of a line that makes no sense, this much is worth showing.
const SHOWN_CHARS: usize = 160;

impl Account {
    /// For the apply of a plan with this many changes.
    pub fn of(changes: &Changes) -> Self {
        Self {
            planned: changes.add + changes.change + changes.destroy,
            ..Self::default()
        }
    }

    /// Takes one line in; what of it is worth telling at once comes back.
    pub fn take(&mut self, line: &str) -> Option<Progress> {
        if line.trim().is_empty() {
            return None;
        }
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            self.strange
                .get_or_insert_with(|| line.chars().take(SHOWN_CHARS).collect());
            return None;
        };
        match line.kind.as_str() {
            "planned_change" => self.changes.resources.extend(line.change.map(|planned| Change {
                address: planned.resource.addr,
                kind: planned.resource.resource_type,
                action: planned.action,
            })),
            "change_summary" => {
                if let Some(summary) = line.changes {
                    self.closed = Some(summary.operation);
                    (self.changes.add, self.changes.change) = (summary.add, summary.change);
                    self.changes.destroy = summary.remove;
                }
            }
            "diagnostic" => self.errors.extend(
                line.diagnostic
                    .filter(|told| told.severity == "error")
                    .map(|told| told.what),
            ),
            "state_lock_acquire" => return Some(Progress::WaitingForLock),
            "apply_start" => return self.moved(line.hook, Phase::Begun),
            "apply_progress" => return self.moved(line.hook, Phase::Going),
            "apply_complete" => return self.moved(line.hook, Phase::Done),
            "apply_errored" => return self.moved(line.hook, Phase::Failed),
            _ => {}
        }
        None
    }

    fn moved(&mut self, hook: Option<Hook>, phase: Phase) -> Option<Progress> {
        let hook = hook?;
        let (resource, action) = (hook.resource?, hook.action?);
        // Data sources read during an apply are no changes.
        if action == Action::Read {
            return None;
        }
        self.begun += u64::from(phase == Phase::Begun);
        self.completed += u64::from(phase == Phase::Done);
        Some(Progress::Resource {
            address: resource.addr,
            action,
            phase,
            elapsed_seconds: hook.elapsed_seconds,
            completed: self.completed,
            planned: self.planned,
        })
    }

    /// The lock that stood in the way, if one did.
    pub fn lock(&self) -> Option<Lock> {
        let refused = self
            .errors
            .iter()
            .find(|error| error.summary == "Error acquiring the state lock")?;
        let mut lock = Lock::default();
        for (name, value) in refused.detail.lines().filter_map(|line| line.trim().split_once(':')) {
            let place = match name {
                "ID" => &mut lock.id,
                "Who" => &mut lock.who,
                "Created" => &mut lock.since,
                "Operation" => &mut lock.operation,
                _ => continue,
            };
            value.trim().clone_into(place);
        }
        // Without an id it is not a lock of somebody's: the place of the state could not be reached or locked at all.
        (!lock.id.is_empty()).then_some(lock)
    }

    /// Whether the saved plan was refused because the state moved on after it was made.
    pub fn is_stale(&self) -> bool {
        self.errors.iter().any(|error| error.summary == "Saved plan is stale")
    }
}

/// Which resources `changes` would destroy although they are protected. A rule is a type (`azurerm_storage_account`), an
/// address, or the beginning of one (`module.stage1`), and never a part of a name.
///
/// If Terraform counts more destructions than it lists, something goes that nobody can name, and that is told too.
pub fn protected(changes: &Changes, rules: &[String]) -> Vec<String> {
    let going: Vec<&Change> = changes.resources.iter().filter(|c| c.action.destroys()).collect();
    let is_protected = |change: &&&Change| {
        rules.iter().any(|rule| {
            let below = change.address.strip_prefix(rule.as_str());
            change.kind == *rule || below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    let mut found: Vec<String> = going.iter().filter(is_protected).map(|c| c.address.clone()).collect();
    let listed = u64::try_from(going.len()).unwrap_or(u64::MAX);
    if !rules.is_empty() && changes.destroy > listed {
        found.push(format!("{} that the plan does not name", changes.destroy - listed));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(address: &str, action: Action) -> Change {
        let kind = address.rsplit_once('.').expect("a type").0;
        Change {
            address: address.into(),
            kind: kind.rsplit('.').next().expect("a type").into(),
            action,
        }
    }

    fn plan(resources: Vec<Change>) -> Changes {
        let destroy = resources.iter().filter(|c| c.action.destroys()).count() as u64;
        Changes {
            destroy,
            resources,
            anything: true,
            ..Changes::default()
        }
    }

    #[test]
    fn only_what_would_be_gone_is_protected_and_names_are_whole() {
        let rules = ["store".to_owned(), "module.stage1".into(), "net.main".into()];
        let going = |action| {
            plan(vec![
                change("store.backups", action),
                change("module.stage1.net.x", action),
                change("module.stage10.net.x", action),
                change("net.main[0]", action),
                change("net.mainly", action),
            ])
        };
        let expected = ["store.backups", "module.stage1.net.x", "net.main[0]"];
        assert_eq!(protected(&going(Action::Delete), &rules), expected);
        assert_eq!(protected(&going(Action::Replace), &rules), expected);
        assert_eq!(protected(&going(Action::Unknown), &rules), expected);
        assert!(protected(&going(Action::Update), &rules).is_empty());
        assert!(protected(&going(Action::Delete), &[]).is_empty());
    }

    #[test]
    fn a_destruction_that_is_counted_but_not_named_is_told() {
        let mut changes = plan(vec![change("net.x", Action::Delete)]);
        changes.destroy = 2;
        assert_eq!(protected(&changes, &["store".into()]).len(), 1);
    }

    #[test]
    fn a_lock_is_read_from_what_terraform_prints() {
        let mut account = Account::default();
        account.take(
            r#"{"type":"diagnostic","diagnostic":{"severity":"error","summary":"Error acquiring the state lock","detail":"Error message: state blob is already locked\nLock Info:\n  ID:        b04849d2\n  Path:      x\n  Operation: OperationTypeApply\n  Who:       root@vm\n  Version:   1.11.4\n  Created:   2026-11-21 09:19:08.7 +0000 UTC\n  Info:      \n\nplease try"}}"#,
        );
        let lock = account.lock().expect("a lock");
        assert_eq!((lock.id.as_str(), lock.who.as_str()), ("b04849d2", "root@vm"));
        assert_eq!(lock.since, "2026-11-21 09:19:08.7 +0000 UTC");
    }

    #[test]
    fn garbage_is_kept_to_be_shown_and_an_unknown_message_is_not_garbage() {
        let mut account = Account::default();
        account.take(r#"{"type":"news","@message":"of a later version"}"#);
        assert_eq!(account.strange, None);
        account.take("Segmentation fault");
        account.take("{\"type\":");
        assert_eq!(account.strange.as_deref(), Some("Segmentation fault"));
    }
}
