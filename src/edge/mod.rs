//! The traffic switch: every behaviour of a CloudFront distribution to the standby's origin, and back.
//!
//! Two calls, so that what was can be kept before it is changed: `plan` reads, the caller keeps [`Planned::kept`] in its store, `apply` updates.
//! `UpdateDistribution` replaces the whole configuration; so the one that is there is read, its targets are changed, and it is sent back under its
//! ETag. What the SDK that this program was built with does not know would be dropped on the way: the request is compared with what was
//! read, and not sent if anything is missing.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::aws::{Access, Failure};

mod cloudfront;
pub mod routes;

pub use routes::{Kept, Origin, Retarget, Routes, Standing};

use cloudfront::{Answer, Refusal};
use routes::{Conflict, KEPT_VERSION};

/// How often another's change, or an answer that was lost, is read and merged again.
const TRIES: u32 = 6;
/// How often a distribution that is being deployed is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Longest that one update may take; CloudFront checks a lot before it answers.
const UPDATE: Duration = Duration::from_secs(30);

/// What is wanted of a distribution.
#[derive(Debug, Clone)]
pub enum Goal {
    /// Every behaviour to this origin, which is added if it is not there.
    To(Origin),
    /// Every behaviour that was switched back to where it was: what was kept, oldest first.
    Back(Vec<Kept>),
}

/// What applying would change.
#[derive(Debug, Clone)]
pub struct Planned {
    pub retargets: Vec<Retarget>,
    /// JSON, to be kept before applying; none where nothing is to change, or the way is back. Never overwrite an earlier one.
    pub kept: Option<String>,
    pub doubts: Vec<String>,
}

/// How a distribution stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub standing: Standing,
    /// All of CloudFront's places have it.
    pub is_deployed: bool,
    pub doubts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    #[error(
        "AWS cannot be reached to switch distribution {distribution} ({detail}); if that lasts, go the other way: a `command` step that points \
         the service's DNS record at the standby"
    )]
    Unreachable { distribution: String, detail: String },
    #[error("AWS refused {call} of distribution {distribution} ({detail}); see config/aws-iam-operator.json")]
    Denied {
        distribution: String,
        call: &'static str,
        detail: String,
    },
    #[error("there is no distribution {distribution} in this AWS account ({detail}): check its id and the account")]
    Missing { distribution: String, detail: String },
    #[error("CloudFront does not take the change of {distribution} ({detail}); nothing was changed")]
    Refused { distribution: String, detail: String },
    #[error(
        "behaviours of {distribution} were changed by somebody else meanwhile: plan again, keep what is there now, and apply"
    )]
    Changed { distribution: String },
    #[error("others change {distribution} all the time: stop what deploys it, and repeat")]
    Contended { distribution: String },
    #[error("origin {id} of {distribution} is {host}, not the standby: give the standby's origin another id")]
    Taken {
        distribution: String,
        id: String,
        host: String,
    },
    #[error("{behaviour} of {distribution} went to {target}, which is not there any more: make it again, and repeat")]
    Gone {
        distribution: String,
        behaviour: String,
        target: String,
    },
    #[error("nothing that was kept says where {distribution} went before: set its behaviours by hand")]
    Unknown { distribution: String },
    #[error("this program would drop {} of {distribution}: take a newer one, or switch by a `command` step", elements.join(", "))]
    TooNew {
        distribution: String,
        elements: Vec<String>,
    },
    #[error("{distribution} is not deployed everywhere after {} s: look at it again", after.as_secs())]
    Deploying { distribution: String, after: Duration },
    #[error("a kept configuration cannot be read ({detail})")]
    Record { detail: String },
}

impl EdgeError {
    /// Whether trying again by itself cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Changed { .. } | Self::Contended { .. } | Self::Deploying { .. } => false,
            Self::Denied { .. }
            | Self::Missing { .. }
            | Self::Refused { .. }
            | Self::Taken { .. }
            | Self::Gone { .. }
            | Self::Unknown { .. }
            | Self::TooNew { .. }
            | Self::Record { .. } => true,
        }
    }
}

/// One distribution.
pub struct Edge {
    access: Access,
    distribution: String,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("distribution", &self.distribution)
            .finish_non_exhaustive()
    }
}

/// Reads what [`Planned::kept`] wrote.
///
/// # Errors
/// [`EdgeError::Record`].
pub fn read_kept(text: &str) -> Result<Kept, EdgeError> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| EdgeError::Record {
        detail: error.to_string(),
    })?;
    if kept.v > KEPT_VERSION {
        return Err(EdgeError::Record {
            detail: format!("version {} is newer than this program", kept.v),
        });
    }
    Ok(kept)
}

impl Edge {
    pub fn new(distribution: impl Into<String>) -> Self {
        Self {
            access: Access::default(),
            distribution: distribution.into(),
        }
    }

    /// Reads the distribution, and what would be changed. Changes nothing.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn plan(&self, goal: &Goal) -> Result<Planned, EdgeError> {
        let present = self.read().await?;
        let retargets = self.retargets(&present.routes, goal)?;
        let kept = match goal {
            Goal::To(origin) if !retargets.is_empty() => {
                let kept = Kept {
                    v: KEPT_VERSION,
                    distribution: self.distribution.clone(),
                    etag: present.etag.clone(),
                    to: origin.id.clone(),
                    routes: present.routes.clone(),
                    configuration: routes::without_secrets(&present.text),
                };
                Some(serde_json::to_string_pretty(&kept).map_err(|error| EdgeError::Record {
                    detail: error.to_string(),
                })?)
            }
            Goal::To(_) | Goal::Back(_) => None,
        };
        Ok(Planned {
            retargets,
            kept,
            doubts: present.routes.doubts,
        })
    }

    /// Makes the planned change. Others' changes meanwhile are preserved; if they are about the same behaviours, it is [`EdgeError::Changed`].
    /// Whether the answer of an update got lost shows by reading again. Can be repeated.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn apply(&self, goal: &Goal, planned: &Planned) -> Result<(), EdgeError> {
        let mut last = None;
        for _ in 0..TRIES {
            let present = match self.read().await {
                Ok(present) => present,
                Err(error @ EdgeError::Unreachable { .. }) => {
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let retargets = self.retargets(&present.routes, goal)?;
            if retargets.is_empty() {
                return Ok(());
            }
            if retargets != planned.retargets {
                return Err(EdgeError::Changed {
                    distribution: self.distribution.clone(),
                });
            }
            let added = match goal {
                Goal::To(origin) if !present.routes.origins.contains_key(&origin.id) => Some(origin),
                Goal::To(_) | Goal::Back(_) => None,
            };
            let sent = within(
                UPDATE,
                present.update(&self.access, &self.distribution, &retargets, added),
            )
            .await;
            match sent {
                Ok(()) => return Ok(()),
                // Somebody was faster, or it was ourselves and the answer got lost.
                Err(Refusal::Raced) => last = None,
                Err(Refusal::Lost(elements)) => {
                    return Err(EdgeError::TooNew {
                        distribution: self.distribution.clone(),
                        elements,
                    });
                }
                Err(Refusal::Invalid(detail)) => {
                    return Err(EdgeError::Refused {
                        distribution: self.distribution.clone(),
                        detail,
                    });
                }
                Err(Refusal::Failed(failure @ Failure::Unavailable(_))) => {
                    last = Some(self.sorted("UpdateDistribution", failure));
                }
                Err(Refusal::Failed(failure)) => return Err(self.sorted("UpdateDistribution", failure)),
            }
        }
        Err(last.unwrap_or_else(|| EdgeError::Contended {
            distribution: self.distribution.clone(),
        }))
    }

    /// How the behaviours stand to `origin`.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn status(&self, origin: &Origin) -> Result<Status, EdgeError> {
        let present = self.read().await?;
        let deployed = crate::aws::bounded(cloudfront::is_deployed(&self.access, &self.distribution)).await;
        let is_deployed = deployed.map_err(|failure| self.sorted("GetDistribution", failure))?;
        Ok(Status {
            standing: routes::standing(&present.routes, origin),
            is_deployed,
            doubts: present.routes.doubts,
        })
    }

    /// Whether any behaviour goes to the origin of that id.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub async fn points_at(&self, origin: &str) -> Result<bool, EdgeError> {
        let present = self.read().await?;
        let mut behaviours = present.routes.behaviours.iter();
        Ok(behaviours.any(|behaviour| behaviour.target == origin))
    }

    /// Waits until all of CloudFront's places have the configuration. AWS may be away meanwhile.
    ///
    /// # Errors
    /// [`EdgeError::Deploying`] at the timeout, or why AWS did not say.
    pub async fn wait_deployed(&self, timeout: Duration, told: &(dyn Fn(&str) + Sync)) -> Result<(), EdgeError> {
        let until = Instant::now() + timeout;
        let mut last;
        loop {
            match crate::aws::bounded(cloudfront::is_deployed(&self.access, &self.distribution)).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    told("CloudFront is still deploying");
                    last = None;
                }
                Err(failure @ Failure::Unavailable(_)) => last = Some(self.sorted("GetDistribution", failure)),
                Err(failure) => return Err(self.sorted("GetDistribution", failure)),
            }
            if Instant::now() >= until {
                return Err(last.unwrap_or_else(|| EdgeError::Deploying {
                    distribution: self.distribution.clone(),
                    after: timeout,
                }));
            }
            tokio::time::sleep_until((Instant::now() + LOOK).min(until)).await;
        }
    }

    async fn read(&self) -> Result<Answer, EdgeError> {
        let answer = crate::aws::bounded(cloudfront::read(&self.access, &self.distribution)).await;
        answer.map_err(|failure| self.sorted("GetDistributionConfig", failure))
    }

    fn retargets(&self, present: &Routes, goal: &Goal) -> Result<Vec<Retarget>, EdgeError> {
        let retargets = match goal {
            Goal::To(origin) => routes::towards(present, origin),
            Goal::Back(kept) => {
                let own: Vec<Kept> = kept
                    .iter()
                    .filter(|kept| kept.distribution == self.distribution)
                    .cloned()
                    .collect();
                routes::back(present, &own)
            }
        };
        let distribution = self.distribution.clone();
        retargets.map_err(|conflict| match conflict {
            Conflict::Taken { id, host } => EdgeError::Taken { distribution, id, host },
            Conflict::Gone { behaviour, target } => EdgeError::Gone {
                distribution,
                behaviour,
                target,
            },
            Conflict::Unknown => EdgeError::Unknown { distribution },
        })
    }

    fn sorted(&self, call: &'static str, failure: Failure) -> EdgeError {
        let distribution = self.distribution.clone();
        match failure {
            Failure::Unavailable(detail) => EdgeError::Unreachable { distribution, detail },
            Failure::Denied(detail) => EdgeError::Denied {
                distribution,
                call,
                detail,
            },
            Failure::Missing(detail) => EdgeError::Missing { distribution, detail },
        }
    }
}

async fn within(bound: Duration, work: impl Future<Output = Result<(), Refusal>>) -> Result<(), Refusal> {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done,
        Err(_) => Err(Refusal::Failed(Failure::Unavailable(format!(
            "no answer from AWS within {} s",
            bound.as_secs()
        )))),
    }
}
