//! Steps on what is neither a database nor Terraform's: manifests on a cluster, the edge's traffic, the primary's other parts.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::{Executor, store_error};
use crate::backup::claim;
use crate::config::steps::{Manifests, PrimaryReady, Site, Traffic};
use crate::edge::{Edge, EdgeError, Goal, read_kept, routes};
use crate::kubernetes::{Applied, Cluster};
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;
use crate::secret::Secret;
use crate::source::ready;
use crate::store::{Condition, StoreError};

/// How often what is not ready yet is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often others may change the same behaviours between our look and our write.
const PLANS: u32 = 5;

impl Executor {
    /// Applied, secrets first; done once the rollout is the new one.
    pub(super) async fn manifests(&self, task: &Task, manifests: &Manifests) -> Result<Outcome, StepError> {
        let kubeconfig = self.render(&manifests.kubeconfig, task).await?;
        let kubeconfig = match Path::new(kubeconfig.expose()).is_absolute() {
            true => {
                let read = tokio::fs::read_to_string(kubeconfig.expose()).await;
                Secret::new(
                    read.map_err(|error| StepError::permanent(format!("kubeconfig {}: {error}", kubeconfig.expose())))?,
                )
            }
            false => Secret::new(kubeconfig.expose()),
        };
        let cluster = Cluster::connect(&kubeconfig, task.standing.epoch())
            .await
            .map_err(cluster_error)?;
        let mut variables = BTreeMap::new();
        for (name, value) in &manifests.variables {
            let value = self.render(value, task).await?.plain(&format!("variable {name}"))?;
            variables.insert(name.clone(), value);
        }
        let mut secrets: BTreeMap<(String, String), BTreeMap<String, Secret>> = BTreeMap::new();
        for (place, reference) in &manifests.secrets {
            let Ok([namespace, name, key]) = <[&str; 3]>::try_from(place.split('/').collect::<Vec<_>>()) else {
                return Err(StepError::permanent(format!(
                    "secrets: {place} is not NAMESPACE/SECRET/KEY"
                )));
            };
            let value = self.secret(reference, place).await?;
            let of = (namespace.to_owned(), name.to_owned());
            secrets.entry(of).or_default().insert(key.to_owned(), value);
        }
        let told = |applied: &Applied| self.tell.tell(&task.step.name, &applied.title());
        let work = async {
            // The directory first where it brings the namespaces; a pod waits for a secret that is not there yet.
            let applied = cluster.apply(&manifests.dir, &variables, &told).await?;
            for ((namespace, name), values) in &secrets {
                cluster.apply_secret(namespace, name, values).await?;
            }
            let limit = Duration::from_secs(task.step.timeout_seconds);
            cluster
                .wait_rollout(&applied, limit, &|one, what| {
                    self.tell.tell(&task.step.name, &format!("{}: {what}", one.title()));
                })
                .await?;
            Ok(applied.len())
        };
        tokio::select! {
            done = work => Ok(Outcome {
                note: format!("{} objects stand as in {}", done.map_err(cluster_error)?, manifests.dir.display()),
                ..Outcome::default()
            }),
            () = task.cancel.cancelled() => Err(StepError::passing("stopped before the rollout was complete")),
        }
    }

    /// Every behaviour to the site's origin; what was before is kept in the store first.
    pub(super) async fn traffic(&self, task: &Task, traffic: &Traffic) -> Result<Outcome, StepError> {
        let edge = Edge::new(&traffic.distribution);
        let goal = match traffic.site {
            Site::Standby => {
                let Some(domain) = &traffic.domain else {
                    return Err(StepError::permanent("domain is missing: where the standby's origin is"));
                };
                Goal::To(routes::Origin {
                    id: traffic.origin.clone(),
                    domain: self.render(domain, task).await?.plain("domain")?,
                    path: String::new(),
                })
            }
            Site::Primary => {
                let kept = self.kept(&traffic.distribution).await?;
                // AWS was away when traffic went over, and users came another way.
                if kept.is_empty() && !edge.points_at(&traffic.origin).await.map_err(edge_error)? {
                    return Ok(Outcome {
                        found: true,
                        note: format!("no behaviour goes to {}: it was never switched", traffic.origin),
                        ..Outcome::default()
                    });
                }
                Goal::Back(kept)
            }
        };
        let mut changed = 0;
        for _ in 0..PLANS {
            let planned = edge.plan(&goal).await.map_err(edge_error)?;
            for doubt in &planned.doubts {
                self.tell.tell(&task.step.name, doubt);
            }
            if let Some(kept) = &planned.kept {
                self.keep(task, &traffic.distribution, kept).await?;
            }
            changed = planned.retargets.len();
            task.confirm().await?;
            match edge.apply(&goal, &planned).await {
                Err(EdgeError::Changed { .. }) => {}
                done => {
                    done.map_err(edge_error)?;
                    let limit = Duration::from_secs(task.step.timeout_seconds);
                    let told = |text: &str| self.tell.tell(&task.step.name, text);
                    tokio::select! {
                        deployed = edge.wait_deployed(limit, &told) => deployed.map_err(edge_error)?,
                        () = task.cancel.cancelled() => return Err(StepError::passing("stopped while CloudFront was deploying")),
                    }
                    return Ok(Outcome {
                        found: changed == 0,
                        note: format!("{changed} behaviours switched, deployed"),
                        ..Outcome::default()
                    });
                }
            }
        }
        Err(StepError::passing(format!(
            "{} is being changed by somebody else all the time ({changed} behaviours are still to be switched)",
            traffic.distribution
        )))
    }

    fn kept_under(&self, distribution: &str) -> String {
        format!("edge/{}/{distribution}/", claim::key(&self.config.store.prefix))
    }

    /// Never overwrites what was kept before.
    async fn keep(&self, task: &Task, distribution: &str, kept: &str) -> Result<(), StepError> {
        let prefix = self.kept_under(distribution);
        let there = self.control.list(&prefix).await.map_err(store_error)?.len();
        let name = format!("{prefix}{:06}-{there:06}.json", task.standing.epoch());
        match self
            .control
            .put(&name, Bytes::from(kept.to_owned()), Condition::Absent)
            .await
        {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }

    /// What was kept when traffic last went over, oldest first.
    async fn kept(&self, distribution: &str) -> Result<Vec<routes::Kept>, StepError> {
        let prefix = self.kept_under(distribution);
        let mut blobs = self.control.list(&prefix).await.map_err(store_error)?;
        let epoch = |name: &str| {
            name.strip_prefix(&prefix)
                .and_then(|rest| rest.split('-').next())
                .map(str::to_owned)
        };
        let latest = blobs.iter().filter_map(|blob| epoch(&blob.name)).max();
        blobs.retain(|blob| epoch(&blob.name) == latest);
        blobs.sort_by(|a, b| a.name.cmp(&b.name));
        let mut kept = Vec::new();
        for blob in blobs {
            let read = self
                .control
                .read(&blob.name, 0..blob.size_bytes, Some(&blob.etag))
                .await;
            let bytes = read.map_err(store_error)?;
            kept.push(read_kept(&String::from_utf8_lossy(&bytes)).map_err(edge_error)?);
        }
        Ok(kept)
    }

    /// Waits until everything that the primary needs beside its database is there.
    pub(super) async fn primary_ready(&self, task: &Task, wanted: &PrimaryReady) -> Result<Outcome, StepError> {
        let mut node_groups = Vec::new();
        for text in &wanted.node_groups {
            let pair = text.split_once('/');
            let pair =
                pair.ok_or_else(|| StepError::permanent(format!("node_groups: {text} is not CLUSTER/NODEGROUP")))?;
            node_groups.push((pair.0.to_owned(), pair.1.to_owned()));
        }
        let wanted = ready::Wanted {
            region: wanted.region.clone(),
            node_groups,
            target_groups: wanted.target_groups.clone(),
            rds_instances: wanted.rds_instances.clone(),
        };
        loop {
            let facts = ready::look(&wanted).await.map_err(|error| StepError {
                is_permanent: error.is_permanent(),
                message: error.to_string(),
            })?;
            let missing: Vec<String> = facts
                .iter()
                .filter_map(|fact| fact.missing.as_ref().map(|what| format!("{}: {what}", fact.what)))
                .collect();
            if missing.is_empty() {
                return Ok(Outcome {
                    note: format!("{} things looked at, all ready", facts.len()),
                    ..Outcome::default()
                });
            }
            self.tell.tell(&task.step.name, &missing.join("; "));
            tokio::select! {
                () = task.cancel.cancelled() => {
                    return Err(StepError::passing(format!("the primary is not ready: {}", missing.join("; "))));
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

fn cluster_error(error: crate::kubernetes::Error) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}

fn edge_error(error: EdgeError) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}
