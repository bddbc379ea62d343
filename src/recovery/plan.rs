//! The recovery plan: steps, what each needs, and what it means for the safety of the data. Pure.
//!
//! The configuration says what a step does; here stands only what deciding needs, and that much is kept in the journal, so
//! that every machine goes on with the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// A place that can serve the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// Where the service lives.
    Primary,
    /// The second cloud.
    Standby,
}

impl Site {
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Standby,
            Self::Standby => Self::Primary,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which process carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The command that a person typed.
    Operator,
    /// `planb runner`, inside the second cloud's network.
    Runner,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Runner => "runner",
        }
    }
}

/// What a step means for the data and for who serves. Whatever its kind does, these are what the rules speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "role", content = "site")]
pub enum Role {
    /// Provisions, waits, publishes: nothing that the rules are about.
    Work,
    /// Takes one more backup of a site, after it was fenced.
    LastBackup(Site),
    /// Puts the chosen backup into the database of a site.
    Restore(Site),
    /// Compares that database with the backup.
    Verify(Site),
    /// Makes sure that a site takes no more writes.
    Fence(Site),
    /// Lets the application write at a site.
    Open(Site),
    /// Sends users to a site.
    Traffic(Site),
    /// Keeps what a site has and the other one never got.
    Preserve(Site),
    /// Destroys what an earlier stage built.
    Destroy,
    /// Lets a site that was fenced take writes again, where the other one never served.
    Unfence(Site),
}

/// What becomes of the operation when a step has failed as often as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Nothing new begins; a person looks, and resumes or abandons.
    Stop,
    /// Told, and gone on without it.
    Continue,
}

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    /// 1 to 3.
    pub stage: u8,
    #[serde(flatten)]
    pub role: Role,
    /// As the configuration names it, for people.
    pub kind: String,
    /// Names of steps that must be done before.
    pub needs: Vec<String>,
    pub at: Place,
    pub timeout_seconds: u64,
    pub on_failure: OnFailure,
    /// Times it is tried again by itself.
    pub retries: u32,
    /// Whether abandoning takes it back.
    pub takes_back: bool,
    /// Its effect guards itself against a second one at work (a state lock, a hold on the target), so that whoever takes
    /// over need not wait for the first one's time to pass.
    pub guards_itself: bool,
}

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Aim {
    /// To the standby, as far as `stage`. `planned`: the primary is well, and nothing may be lost.
    Failover { stage: u8, planned: bool },
    /// Home, with the data that the standby took in.
    Failback,
    /// Home, from a standby that never served: no data moves.
    StandDown,
    /// A rehearsal as far as `stage`, beside everything that is real: it commits to nothing, and ends with everything taken back.
    Drill { stage: u8 },
}

impl Aim {
    /// The site that is to serve in the end.
    pub fn towards(self) -> Site {
        match self {
            Self::Failover { .. } | Self::Drill { .. } => Site::Standby,
            Self::Failback | Self::StandDown => Site::Primary,
        }
    }

    /// For messages and for `planb … --resume`.
    pub fn command(self) -> String {
        match self {
            Self::Failover { stage, planned } => {
                let planned = if planned { " --planned" } else { "" };
                format!("planb failover --stage {stage}{planned}")
            }
            Self::Failback | Self::StandDown => "planb failback".to_owned(),
            Self::Drill { stage } => format!("planb drill --stage {stage}"),
        }
    }
}

/// Steps in the order in which a person reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// Why steps make no plan; each with what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Number of the step, from 0.
    pub step: usize,
    pub key: &'static str,
    pub message: String,
}

impl Plan {
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    pub fn with_role(&self, is: impl Fn(Role) -> bool) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| is(step.role))
    }

    /// Everything that must be done before `name`, through any number of steps between.
    pub fn before(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![name];
        while let Some(name) = open.pop() {
            for need in self.step(name).map_or(&[][..], |step| &step.needs) {
                if found.insert(need.as_str()) {
                    open.push(need);
                }
            }
        }
        found
    }

    /// Everything that waits for `name`.
    pub fn after(&self, name: &str) -> BTreeSet<&str> {
        let waits = |step: &&Step| self.before(&step.name).contains(name);
        self.steps.iter().filter(waits).map(|step| step.name.as_str()).collect()
    }

    /// What is wrong with the steps of a whole failover or failback.
    pub fn mistakes(&self, towards: Site) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let mut seen = BTreeMap::new();
        for (at, step) in self.steps.iter().enumerate() {
            let mut wrong = |key, message: String| {
                mistakes.push(Mistake { step: at, key, message });
            };
            if seen.insert(step.name.as_str(), at).is_some() {
                wrong(
                    "name",
                    format!("{} is the name of an earlier step: give it one of its own", step.name),
                );
            }
            for need in &step.needs {
                match self.step(need) {
                    None => wrong("needs", format!("there is no step {need}")),
                    Some(other) if other.stage > step.stage => wrong(
                        "needs",
                        format!(
                            "{need} belongs to stage {}, which comes after this step's stage {}",
                            other.stage, step.stage
                        ),
                    ),
                    Some(_) => {}
                }
            }
            if self.before(&step.name).contains(step.name.as_str()) {
                wrong(
                    "needs",
                    "comes round to the step itself: take one of the steps in the circle out".to_owned(),
                );
            }
            if self.before(&step.name).len() > self.steps.len() {
                continue;
            }
            let must_stop = match step.role {
                Role::Restore(_) | Role::Fence(_) | Role::Open(_) | Role::LastBackup(_) | Role::Preserve(_) => true,
                // What users are still sent to would be destroyed.
                Role::Traffic(site) => site == towards && self.with_role(|role| role == Role::Destroy).next().is_some(),
                Role::Work | Role::Verify(_) | Role::Destroy | Role::Unfence(_) => false,
            };
            if must_stop && step.on_failure == OnFailure::Continue {
                wrong(
                    "on_failure",
                    match step.role {
                        Role::Traffic(_) => {
                            "must be \"stop\": the other site is destroyed afterwards, and users would still be sent there".to_owned()
                        }
                        _ => "must be \"stop\": without this step data would be lost, and nobody asked".to_owned(),
                    },
                );
            }
            for (role, wanted) in self.order(step.role, towards) {
                let before = self.before(&step.name);
                let missing: Vec<&str> = self
                    .with_role(|other| other == wanted)
                    .map(|other| other.name.as_str())
                    .filter(|name| !before.contains(name))
                    .collect();
                if !missing.is_empty() {
                    wrong("needs", format!("must hold {}: {role}", missing.join(", ")));
                }
            }
        }
        let end = self.steps.len().saturating_sub(1);
        let opens = self.with_role(|role| role == Role::Open(towards)).count();
        let restores = self.with_role(|role| role == Role::Restore(towards)).count();
        let is_complete = self.steps.iter().any(|step| step.stage == 3);
        if is_complete && opens != 1 {
            mistakes.push(Mistake {
                step: end,
                key: "kind",
                message: format!("one step must open the {towards} for writes; there are {opens}"),
            });
        }
        for (wanted, what, site) in [
            (Role::Fence(towards.other()), "fence", towards.other()),
            (
                Role::LastBackup(towards.other()),
                "take a last backup of",
                towards.other(),
            ),
            (Role::Verify(towards), "compare what was restored at", towards),
        ] {
            if opens > 0 && self.with_role(|role| role == wanted).next().is_none() {
                mistakes.push(Mistake {
                    step: end,
                    key: "kind",
                    message: format!("one step must {what} the {site}; there is none"),
                });
            }
        }
        if opens > 0 && restores != 1 {
            mistakes.push(Mistake {
                step: end,
                key: "kind",
                message: format!("one step must restore the {towards}; there are {restores}"),
            });
        }
        mistakes
    }

    /// What must come before a step of this role whatever the plan's author had in mind, each with the reason.
    fn order(&self, role: Role, towards: Site) -> Vec<(&'static str, Role)> {
        match role {
            Role::Verify(site) => vec![("there is nothing to compare before", Role::Restore(site))],
            Role::Open(site) if site == towards => vec![
                ("it serves what was restored", Role::Restore(site)),
                ("what was not compared must not serve", Role::Verify(site)),
                ("two sites must never serve at once", Role::Fence(site.other())),
                (
                    "what the other site took last must not be left behind",
                    Role::LastBackup(site.other()),
                ),
            ],
            Role::LastBackup(site) => vec![("what is written after it would be lost", Role::Fence(site))],
            Role::Traffic(site) if site == towards => {
                vec![(
                    "users must not be sent to a site that takes no writes",
                    Role::Open(site),
                )]
            }
            Role::Destroy => vec![
                ("what serves must not be destroyed", Role::Traffic(towards)),
                ("what serves must not be destroyed", Role::Open(towards)),
            ],
            Role::Restore(site) if site == Site::Primary => {
                vec![
                    ("it holds what nobody else has", Role::Preserve(site)),
                    (
                        "it brings home what the standby took in",
                        Role::LastBackup(site.other()),
                    ),
                ]
            }
            Role::Work
            | Role::Restore(_)
            | Role::Fence(_)
            | Role::Open(_)
            | Role::Traffic(_)
            | Role::Preserve(_)
            | Role::Unfence(_) => Vec::new(),
        }
    }

    /// The steps that an operation takes, of all that are configured for its direction.
    #[must_use]
    pub fn for_aim(&self, aim: Aim) -> Self {
        let takes = |step: &&Step| match aim {
            Aim::Failover { stage: 1, .. } => step.stage == 1,
            Aim::Failover { stage, planned } => {
                (2..=stage).contains(&step.stage)
                    && (planned || stage == 3 || !matches!(step.role, Role::LastBackup(_)))
            }
            Aim::Failback => !matches!(step.role, Role::Unfence(_)),
            Aim::StandDown => matches!(step.role, Role::Unfence(_) | Role::Destroy),
            Aim::Drill { stage } => (2..=stage).contains(&step.stage),
        };
        let mut plan = Self {
            steps: self.steps.iter().filter(takes).cloned().collect(),
        };
        let names: BTreeSet<String> = plan.steps.iter().map(|step| step.name.clone()).collect();
        for step in &mut plan.steps {
            step.needs.retain(|need| names.contains(need));
        }
        if let Aim::Failover { planned: true, .. } = aim {
            plan.fence_first();
        }
        if aim == Aim::StandDown {
            let first: Vec<String> = plan
                .with_role(|role| matches!(role, Role::Unfence(_)))
                .map(|step| step.name.clone())
                .collect();
            for step in plan.steps.iter_mut().filter(|step| step.role == Role::Destroy) {
                step.needs.extend(first.iter().cloned());
            }
        }
        plan
    }

    /// Planned: the fence comes before the last backup, and that before the restore, whatever the order otherwise.
    fn fence_first(&mut self) {
        let (fence, last, restore) = (
            Role::Fence(Site::Primary),
            Role::LastBackup(Site::Primary),
            Role::Restore(Site::Standby),
        );
        let names = |plan: &Self, role: Role| -> Vec<String> {
            plan.with_role(|other| other == role)
                .map(|step| step.name.clone())
                .collect()
        };
        let (fences, lasts) = (names(self, fence), names(self, last));
        let mut late: BTreeSet<String> = names(self, restore).into_iter().collect();
        for name in late.clone() {
            late.extend(self.after(&name).into_iter().map(str::to_owned));
        }
        // Whatever takes long and can come before the service stops, does.
        let early: BTreeMap<String, Vec<String>> = self
            .with_role(|role| role == fence || role == last)
            .map(|step| {
                let before = self.before(&step.name).into_iter().map(str::to_owned);
                (step.name.clone(), before.filter(|need| !late.contains(need)).collect())
            })
            .collect();
        for step in &mut self.steps {
            if let Some(early) = early.get(&step.name) {
                step.needs.clone_from(early);
            }
            if step.role == last {
                step.needs.extend(fences.iter().cloned());
            }
            if step.role == restore {
                step.needs.extend(if lasts.is_empty() {
                    fences.clone()
                } else {
                    lasts.clone()
                });
            }
            step.needs.sort();
            step.needs.dedup();
        }
    }
}
