//! Whether a rollout is done, and really the new one. Pure: objects as the API server gives them in, a verdict out.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// What is still to come.
    Waiting(String),
    /// The cluster gave up.
    Failed(String),
}

/// Judges a Deployment, StatefulSet or DaemonSet of which `generation` was applied. A status that was written for an earlier
/// generation says nothing, its conditions neither: the controller has not seen the new one yet.
pub fn judge(kind: &str, object: &Value, generation: i64) -> Verdict {
    let status = &object["status"];
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    let generation = generation.max(object["metadata"]["generation"].as_i64().unwrap_or(0));
    if count("observedGeneration") < generation {
        return Verdict::Waiting("the cluster has not taken notice of it yet".into());
    }
    let gave_up = status["conditions"].as_array().into_iter().flatten().find(|condition| {
        condition["type"] == "Progressing"
            && condition["status"] == "False"
            && condition["reason"] == "ProgressDeadlineExceeded"
    });
    if let Some(condition) = gave_up {
        return Verdict::Failed(
            condition["message"]
                .as_str()
                .unwrap_or("progress deadline exceeded")
                .into(),
        );
    }
    let replicas = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (wanted, updated, all, available, unavailable) = match kind {
        "DaemonSet" => {
            let wanted = count("desiredNumberScheduled");
            let available = count("numberAvailable");
            (
                wanted,
                count("updatedNumberScheduled"),
                wanted,
                available,
                count("numberUnavailable"),
            )
        }
        "StatefulSet" => {
            // Over only when the new revision has become the current one. With a partition it never does: not all is new.
            if status["currentRevision"] != status["updateRevision"] {
                return Verdict::Waiting(format!("{} of {replicas} new", count("updatedReplicas")));
            }
            let available = count("availableReplicas").min(count("readyReplicas"));
            (replicas, count("updatedReplicas"), count("replicas"), available, 0)
        }
        _ => (
            replicas,
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas"),
        ),
    };
    if updated == wanted && all == wanted && available == wanted && unavailable == 0 {
        return Verdict::Done;
    }
    Verdict::Waiting(format!(
        "{updated} of {wanted} new, {available} available, {all} in all"
    ))
}

/// Why a pod is not ready, in the cluster's own words, if it has any.
pub fn trouble(pod: &Value) -> Option<String> {
    let name = pod["metadata"]["name"].as_str().unwrap_or("a pod");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let status = &pod["status"];
    let mut containers = list(&status["initContainerStatuses"]);
    containers.extend(list(&status["containerStatuses"]));
    let waits = containers.iter().map(|container| &container["state"]["waiting"]);
    let unscheduled = list(&status["conditions"]);
    let unscheduled = unscheduled
        .iter()
        .filter(|c| c["type"] == "PodScheduled" && c["status"] == "False");
    waits
        .chain(unscheduled)
        .find_map(|told| {
            let reason = told["reason"].as_str()?;
            // The usual course of things.
            (!["ContainerCreating", "PodInitializing"].contains(&reason)).then_some((reason, &told["message"]))
        })
        .map(|(reason, message)| match message.as_str() {
            Some(message) => format!("pod {name}: {reason}: {message}"),
            None => format!("pod {name}: {reason}"),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(kind: &str, replicas: i64, status: Value) -> Verdict {
        let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": replicas}, "status": status});
        judge(kind, &object, 2)
    }

    #[test]
    fn a_stateful_set_is_done_when_its_revision_is_the_new_one() {
        let status = |current: &str, updated: i64, ready: i64| {
            json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": updated, "availableReplicas": 3,
                "readyReplicas": ready, "currentRevision": current, "updateRevision": "b"})
        };
        assert_eq!(judged("StatefulSet", 3, status("b", 3, 3)), Verdict::Done);
        assert!(matches!(
            judged("StatefulSet", 3, status("a", 3, 3)),
            Verdict::Waiting(_)
        ));
        assert!(matches!(
            judged("StatefulSet", 3, status("b", 3, 2)),
            Verdict::Waiting(_)
        ));
    }

    #[test]
    fn a_daemon_set_is_done_when_every_node_has_the_new_one() {
        let status = |observed: i64, updated: i64, available: i64| {
            json!({"observedGeneration": observed, "desiredNumberScheduled": 3, "updatedNumberScheduled": updated,
                "numberAvailable": available, "numberUnavailable": 3 - available})
        };
        assert_eq!(judged("DaemonSet", 0, status(2, 3, 3)), Verdict::Done);
        assert!(matches!(judged("DaemonSet", 0, status(1, 3, 3)), Verdict::Waiting(_)));
        assert!(matches!(judged("DaemonSet", 0, status(2, 2, 3)), Verdict::Waiting(_)));
        assert!(matches!(judged("DaemonSet", 0, status(2, 3, 2)), Verdict::Waiting(_)));
    }

    #[test]
    fn nothing_but_a_deployment_scaled_to_zero_is_done_with_nothing() {
        assert_eq!(judged("Deployment", 0, json!({"observedGeneration": 2})), Verdict::Done);
        assert!(matches!(
            judged("Deployment", 1, json!({"observedGeneration": 2})),
            Verdict::Waiting(_)
        ));
        assert!(matches!(judged("Deployment", 0, json!({})), Verdict::Waiting(_)));
    }

    #[test]
    fn a_pod_that_finds_no_node_is_trouble_and_one_that_is_starting_is_not() {
        let pod = |conditions: Value, waiting: Value| {
            json!({"metadata": {"name": "x"}, "status": {"conditions": conditions,
                "containerStatuses": [{"state": {"waiting": waiting}}]}})
        };
        let unscheduled =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]);
        let told = trouble(&pod(unscheduled, json!({"reason": "ContainerCreating"})));
        assert_eq!(told.as_deref(), Some("pod x: Unschedulable: 0/3"));
        assert_eq!(trouble(&pod(json!([]), json!({"reason": "PodInitializing"}))), None);
        assert_eq!(trouble(&pod(json!([]), Value::Null)), None);
    }
}
