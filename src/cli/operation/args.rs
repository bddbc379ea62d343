//! What every command about an operation may be told: who types it, whether to ask, and which rules are answered for.

use clap::Args;

use crate::backup::lease;
use crate::cli::failure::Failure;
use crate::recovery::event::{Accepted, By};
use crate::recovery::rules::Rule;

#[derive(Debug, Args)]
pub struct OperationArgs {
    /// Show the steps, what is done already, how long it should take and what would be lost; touch nothing
    #[arg(long, conflicts_with_all = ["yes", "resume", "abandon", "approve"])]
    pub plan: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Go on with the operation that is open, from whichever machine it was begun
    #[arg(long, conflicts_with_all = ["abandon", "approve"])]
    pub resume: bool,
    /// Take back what was done; possible until the commit point (a proven fence, or the opening of the other site)
    #[arg(long, conflicts_with = "approve")]
    pub abandon: bool,
    /// Agree, as another person, with the operation that waits for it
    #[arg(long)]
    pub approve: bool,
    /// Answer for one rule by name, with a reason that is kept and told: unfenced="the region is gone"; also
    /// skip-STEP=REASON and confirm-STEP=WHAT-WAS-DONE
    #[arg(long, value_name = "RULE=REASON")]
    pub accept: Vec<String>,
    /// Who you are, for the journal; default: the user of this machine
    #[arg(long = "as", value_name = "NAME")]
    pub as_who: Option<String>,
}

impl OperationArgs {
    pub fn is_about_an_open_one(&self) -> bool {
        self.resume || self.abandon || self.approve
    }

    pub fn by(&self, run: String) -> By {
        By {
            who: self.as_who.clone().unwrap_or_else(user),
            host: lease::host_name(),
            run,
        }
    }

    /// What was answered for; a name that is no rule is a mistake.
    pub fn accepted(&self, who: &str) -> Result<Vec<Accepted>, Failure> {
        let one = |text: &String| {
            let wrong = |why: &str| Failure::Usage(format!("--accept {text}: {why}"));
            let (rule, reason) = text.split_once('=').ok_or_else(|| wrong("write it as RULE=REASON"))?;
            if reason.trim().is_empty() {
                return Err(wrong("say why: the reason is kept and told"));
            }
            let is_of_a_step = rule.starts_with("skip-") || rule.starts_with("confirm-");
            match Rule::named(rule) {
                Some(known) if !known.can_be_waived() => Err(wrong("nobody can answer for this one")),
                None if !is_of_a_step => {
                    let names: Vec<&str> = Rule::ALL
                        .into_iter()
                        .filter(|rule| rule.can_be_waived())
                        .map(Rule::name)
                        .collect();
                    Err(wrong(&format!(
                        "there is no such rule; there are {}, skip-STEP and confirm-STEP",
                        names.join(", ")
                    )))
                }
                Some(_) | None => Ok(Accepted {
                    rule: rule.to_owned(),
                    reason: reason.trim().to_owned(),
                    who: who.to_owned(),
                }),
            }
        };
        self.accept.iter().map(one).collect()
    }
}

/// Whoever sits at this machine.
pub fn user() -> String {
    let name = |key: &str| std::env::var(key).ok().filter(|name| !name.is_empty());
    name("SUDO_USER")
        .or_else(|| name("USER"))
        .or_else(|| name("LOGNAME"))
        .unwrap_or_else(|| "unknown".to_owned())
}
