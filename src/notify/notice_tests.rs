use super::*;

/// One of each, and both faces of those that have two.
pub(in crate::notify) fn one_of_each() -> Vec<What> {
    let text = || "text".to_owned();
    let verdict = |verdict| What::VerdictChanged { verdict, why: text() };
    vec![
        What::BackupFailed { error: text() },
        What::BackupDamaged {
            id: text(),
            place: text(),
        },
        What::RpoAtRisk {
            loss_seconds: Some(290),
            target_seconds: 300,
        },
        What::RpoBreached {
            loss_seconds: None,
            target_seconds: 300,
        },
        What::ProofTooOld {
            age_seconds: 100_000,
            allowed_seconds: 93_600,
        },
        What::ProofFailed { error: text() },
        What::StoreUnreachable { error: text() },
        verdict(Verdict::Down),
        verdict(Verdict::ControlDown),
        verdict(Verdict::Unknown),
        verdict(Verdict::Healthy),
        What::FailoverWithheld { why: text() },
        What::OperationBegun {
            operation: 7,
            command: "planb failover --stage 3".to_owned(),
            who: text(),
            facts: vec![text()],
        },
        What::CommitPoint {
            operation: 7,
            command: "planb failover".to_owned(),
            epoch: 2,
        },
        What::OperationStopped {
            operation: 7,
            command: "planb failover --stage 3".to_owned(),
            why: text(),
        },
        What::OperationEnded {
            operation: 7,
            command: "planb failback".to_owned(),
            how: Outcome::Done,
            standing: text(),
        },
        What::StepBegan {
            operation: 7,
            step: text(),
        },
        What::StepEnded {
            operation: 7,
            step: text(),
            note: text(),
        },
        What::StepFailed {
            operation: 7,
            step: text(),
            error: text(),
        },
        What::RuleAccepted {
            operation: 7,
            rule: "unfenced".to_owned(),
            reason: text(),
            who: text(),
        },
        What::PendingFence {
            site: "primary".to_owned(),
            why: text(),
        },
        What::DrillResult {
            passed: true,
            summary: text(),
        },
        What::DrillResult {
            passed: false,
            summary: text(),
        },
        What::DrillLeft {
            begun: text(),
            who: text(),
            host: text(),
        },
        What::DarkCheck { findings: vec![text()] },
        What::CertificateExpiring {
            name: "source".to_owned(),
            expires_at: Timestamp::UNIX_EPOCH,
        },
        What::ChannelFailing {
            channel: text(),
            error: text(),
        },
        What::Test { who: text() },
    ]
}

#[test]
fn every_event_has_its_name_in_the_list_and_in_json() {
    let mut seen: Vec<&str> = Vec::new();
    for what in one_of_each() {
        let json = serde_json::to_value(&what).expect("json");
        assert_eq!(json["event"], what.event());
        seen.push(what.event());
        let back: What = serde_json::from_value(json).expect("read back");
        assert_eq!(back, what);
    }
    seen.dedup();
    assert_eq!(seen, EVENTS);
}

#[test]
fn what_grows_worse_keeps_its_key() {
    let at = Timestamp::UNIX_EPOCH;
    let loss = (Some(1), 300);
    let risk = Notice::new(
        What::RpoAtRisk {
            loss_seconds: loss.0,
            target_seconds: loss.1,
        },
        at,
    );
    let breach = Notice::new(
        What::RpoBreached {
            loss_seconds: loss.0,
            target_seconds: loss.1,
        },
        at,
    );
    assert_eq!(risk.key, breach.key);
    assert!(risk.severity < breach.severity);
}

#[test]
fn what_lasts_is_at_least_a_warning_and_what_is_healthy_does_not_last() {
    for what in one_of_each() {
        if what.lasts() {
            assert!(
                what.severity() >= Severity::Warning,
                "{what:?} would remind people of nothing"
            );
        }
    }
}
