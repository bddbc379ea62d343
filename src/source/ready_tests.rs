use aws_sdk_eks::types::{Issue, NodegroupHealth, NodegroupIssueCode, NodegroupScalingConfig};
use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetHealth, TargetHealthReasonEnum};

use super::*;

fn target(id: &str, state: TargetHealthStateEnum) -> TargetHealthDescription {
    TargetHealthDescription::builder()
        .target(TargetDescription::builder().id(id).build())
        .target_health(
            TargetHealth::builder()
                .state(state)
                .reason(TargetHealthReasonEnum::FailedHealthChecks)
                .build(),
        )
        .build()
}

#[test]
fn targets_are_ready_when_one_is_healthy_and_none_is_ill() {
    use TargetHealthStateEnum::{Draining, Healthy, Initial, Unhealthy};
    assert_eq!(of_targets(&[target("i-1", Healthy), target("i-2", Draining)]), None);
    for (targets, word) in [
        (vec![], "no healthy target"),
        (vec![target("i-1", Draining)], "no healthy target"),
        (
            vec![target("i-1", Healthy), target("i-2", Unhealthy)],
            "i-2 is unhealthy Target.FailedHealthChecks",
        ),
        (vec![target("i-1", Initial)], "i-1 is initial"),
        (vec![TargetHealthDescription::builder().build()], "unknown"),
    ] {
        let missing = of_targets(&targets).expect("missing");
        assert!(missing.contains(word), "{word}: {missing}");
    }
}

#[test]
fn a_node_group_is_ready_when_it_is_active_with_nodes_and_without_issues() {
    let group = |status, issues: &[NodegroupIssueCode], nodes| {
        let issues = issues
            .iter()
            .map(|code| Issue::builder().code(code.clone()).build())
            .collect();
        Nodegroup::builder()
            .status(status)
            .health(NodegroupHealth::builder().set_issues(Some(issues)).build())
            .scaling_config(NodegroupScalingConfig::builder().desired_size(nodes).build())
            .build()
    };
    assert_eq!(of_node_group(Some(&group(NodegroupStatus::Active, &[], 2))), None);
    for (group, word) in [
        (Some(group(NodegroupStatus::Degraded, &[], 2)), "DEGRADED, not ACTIVE"),
        (
            Some(group(NodegroupStatus::Active, &[NodegroupIssueCode::AccessDenied], 2)),
            "AccessDenied",
        ),
        (Some(group(NodegroupStatus::Active, &[], 0)), "no node"),
        (Some(Nodegroup::builder().build()), "no status"),
        (None, "nothing"),
    ] {
        let missing = of_node_group(group.as_ref()).expect("missing");
        assert!(missing.contains(word), "{word}: {missing}");
    }
}
