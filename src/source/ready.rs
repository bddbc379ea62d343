//! Whether the primary's platform is ready to serve: node groups, load balancer targets and the database instance, each a fact with what is missing.

use aws_sdk_eks::types::{Nodegroup, NodegroupStatus};
use aws_sdk_elasticloadbalancingv2::types::{TargetHealthDescription, TargetHealthStateEnum};

use super::rds::{Rds, RdsError};
use crate::aws::{Access, Failure, bounded, failure};

/// What has to be ready.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Without one, this machine's.
    pub region: Option<String>,
    /// EKS clusters, each with its node groups.
    pub node_groups: Vec<(String, String)>,
    /// ARNs of target groups.
    pub target_groups: Vec<String>,
    pub rds_instances: Vec<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub what: String,
    /// None: it is ready.
    pub missing: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadyError {
    #[error("AWS does not answer about {what} ({detail})")]
    Unavailable { what: String, detail: String },
    #[error("AWS refused to describe {what} ({detail}); see config/aws-iam-operator.json")]
    Denied { what: String, detail: String },
}

impl ReadyError {
    /// Whether trying again without a change by a person cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unavailable { .. } => false,
            Self::Denied { .. } => true,
        }
    }
}

/// Looks at everything once. What is not there is missing, and no error.
///
/// # Errors
/// [`ReadyError`] of the first thing that AWS did not tell about.
pub async fn look(wanted: &Wanted) -> Result<Vec<Fact>, ReadyError> {
    let access = Access::default();
    let region = wanted.region.as_deref();
    let mut facts = Vec::new();
    for (cluster, group) in &wanted.node_groups {
        let what = format!("EKS node group {cluster}/{group}");
        let seen = bounded(node_group(&access, region, cluster, group)).await;
        facts.push(fact(what, seen.map(|group| of_node_group(group.as_ref())))?);
    }
    for arn in &wanted.target_groups {
        let what = format!("targets of {}", arn.rsplit("targetgroup/").next().unwrap_or(arn));
        let seen = bounded(targets(&access, region, arn)).await;
        facts.push(fact(what, seen.map(|targets| of_targets(&targets)))?);
    }
    for id in &wanted.rds_instances {
        let what = format!("RDS instance {id}");
        let missing = match Rds::default().describe(id, region).await {
            Ok(instance) if instance.status.is_available() => None,
            Ok(instance) => Some(format!("it is {}, not available", instance.status)),
            Err(error @ (RdsError::NoSuchInstance { .. } | RdsError::NoAddress { .. } | RdsError::Unusable { .. })) => {
                Some(error.to_string())
            }
            Err(RdsError::Denied { detail, .. } | RdsError::SnapshotDenied { detail, .. }) => {
                return Err(ReadyError::Denied { what, detail });
            }
            Err(RdsError::Unavailable { detail, .. } | RdsError::Token { detail, .. }) => {
                return Err(ReadyError::Unavailable { what, detail });
            }
            Err(RdsError::BadTokenRequest { detail }) => Some(detail.to_owned()),
        };
        facts.push(Fact { what, missing });
    }
    Ok(facts)
}

fn fact(what: String, seen: Result<Option<String>, Failure>) -> Result<Fact, ReadyError> {
    match seen {
        Ok(missing) => Ok(Fact { what, missing }),
        Err(Failure::Missing(detail)) => Ok(Fact {
            what,
            missing: Some(format!("it is not there ({detail})")),
        }),
        Err(Failure::Denied(detail)) => Err(ReadyError::Denied { what, detail }),
        Err(Failure::Unavailable(detail)) => Err(ReadyError::Unavailable { what, detail }),
    }
}

async fn node_group(
    access: &Access,
    region: Option<&str>,
    cluster: &str,
    group: &str,
) -> Result<Option<Nodegroup>, Failure> {
    let client = aws_sdk_eks::Client::new(&access.config(region).await?);
    let sent = client
        .describe_nodegroup()
        .cluster_name(cluster)
        .nodegroup_name(group)
        .send()
        .await;
    match sent {
        Ok(answer) => Ok(answer.nodegroup),
        Err(error) => Err(failure(&error)),
    }
}

async fn targets(access: &Access, region: Option<&str>, arn: &str) -> Result<Vec<TargetHealthDescription>, Failure> {
    let client = aws_sdk_elasticloadbalancingv2::Client::new(&access.config(region).await?);
    match client.describe_target_health().target_group_arn(arn).send().await {
        Ok(answer) => Ok(answer.target_health_descriptions.unwrap_or_default()),
        Err(error)
            if error
                .as_service_error()
                .is_some_and(|error| error.is_target_group_not_found_exception()) =>
        {
            Err(Failure::Missing("TargetGroupNotFound".to_owned()))
        }
        Err(error) => Err(failure(&error)),
    }
}

/// `ACTIVE`, with nodes, and without what EKS itself calls an issue.
fn of_node_group(group: Option<&Nodegroup>) -> Option<String> {
    let Some(group) = group else {
        return Some("EKS tells nothing about it".to_owned());
    };
    match group.status() {
        Some(NodegroupStatus::Active) => {}
        Some(other) => return Some(format!("it is {}, not ACTIVE", other.as_str())),
        None => return Some("EKS tells no status".to_owned()),
    }
    let issues = group.health().map(|health| health.issues()).unwrap_or_default();
    if !issues.is_empty() {
        let codes: Vec<&str> = issues
            .iter()
            .map(|issue| issue.code().map_or("an unknown one", |code| code.as_str()))
            .collect();
        return Some(format!("EKS names issues: {}", codes.join(", ")));
    }
    let nodes = group.scaling_config().and_then(|scaling| scaling.desired_size());
    (nodes == Some(0)).then(|| "it is scaled to no node: raise its desired size".to_owned())
}

/// One healthy at least, and none that is neither healthy nor on its way out.
fn of_targets(targets: &[TargetHealthDescription]) -> Option<String> {
    let mut healthy = 0;
    let mut others = Vec::new();
    for target in targets {
        let health = target.target_health();
        match health.and_then(|health| health.state()) {
            Some(TargetHealthStateEnum::Healthy) => healthy += 1,
            Some(TargetHealthStateEnum::Draining) => {}
            other => {
                let id = target.target().and_then(|target| target.id()).unwrap_or("?");
                let state = other.map_or("unknown", |state| state.as_str());
                let why = health
                    .and_then(|health| health.reason())
                    .map_or("", |reason| reason.as_str());
                others.push(format!("{id} is {state} {why}").trim_end().to_owned());
            }
        }
    }
    match (healthy, others.is_empty()) {
        (_, false) => Some(others.join("; ")),
        (0, true) => Some("it has no healthy target".to_owned()),
        (_, true) => None,
    }
}

#[cfg(test)]
#[path = "ready_tests.rs"]
mod tests;
