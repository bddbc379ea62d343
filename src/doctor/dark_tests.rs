//! Each trouble on its own, beside a plan to which nothing is wrong.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn fine() -> Seen {
    let now = at("2026-01-10T00:00:00Z");
    Seen {
        now,
        looker: Looker::Operator,
        valid_for: Duration::from_secs(30 * 86_400),
        max_age: Duration::from_secs(7 * 86_400),
        newest: Newest::Read {
            id: "backup-1".to_owned(),
            proven_at: Some(at("2026-01-09T00:00:00Z")),
        },
        prepared: Ok(Some(at("2026-01-08T00:00:00Z"))),
        tools: vec![Tool {
            step: "database".to_owned(),
            path: "/usr/bin/terraform".to_owned(),
            now: Ok("1.11.4".to_owned()),
            then: Some("1.11.4".to_owned()),
        }],
        roots: vec![planned("database")],
        secrets: vec![Secret {
            of: "[standby] password".to_owned(),
            went: Ok(()),
        }],
        manifests: Vec::new(),
        images: vec![Image {
            name: "r.example/a@sha256:00".to_owned(),
            went: Pulled::There,
        }],
        certificates: vec![certificate_until("2027-01-01T00:00:00Z")],
        runner: Runner::Said {
            at: at("2026-01-09T12:00:00Z"),
            host: "vm".to_owned(),
            errors: 0,
            worst: Vec::new(),
        },
        runner_max_age: Duration::from_secs(2 * 86_400),
        operator_looked: None,
        servers: vec![Server {
            site: "standby",
            went: Reached::NotYet,
        }],
        quota: Quota::Known(Vec::new()),
        needs_aws: Vec::new(),
    }
}

fn planned(step: &str) -> Root {
    Root {
        step: step.to_owned(),
        dir: "/etc/planb/azure/2".to_owned(),
        went: Went::Planned { changes: 3 },
        refused: Vec::new(),
        has_mirror: true,
        has_lock_file: true,
        altered: Vec::new(),
    }
}

fn certificate_until(until: &str) -> Certificate {
    Certificate {
        at: "standby.tls_ca /ca.pem".to_owned(),
        read: Ok(vec![("CN=x".to_owned(), at("2025-01-01T00:00:00Z"), at(until))]),
    }
}

/// Exactly one finding that is more than a note.
#[track_caller]
fn one(seen: &Seen, severity: Severity, word: &str) {
    let findings = dark(seen);
    let loud: Vec<&Finding> = findings.iter().filter(|f| f.severity != Severity::Note).collect();
    let [only] = loud.as_slice() else {
        panic!("{word}: {findings:?}")
    };
    assert!(only.severity == severity && only.what.contains(word), "{only:?}");
    assert!(!only.remedy.is_empty(), "{only:?}");
}

#[test]
fn with_everything_in_place_nothing_would_fail() {
    let findings = dark(&fine());
    assert!(findings.iter().all(|f| f.severity == Severity::Note), "{findings:?}");
}

#[test]
fn every_lack_is_told_once_with_a_remedy() {
    type Break = fn(&mut Seen);
    let troubles: [(Break, Severity, &str); 20] = [
        (|s| s.newest = Newest::Absent, Severity::Error, "no good backup"),
        (
            |s| s.newest = Newest::Unread("x".into()),
            Severity::Error,
            "cannot be read",
        ),
        (
            |s| {
                s.newest = Newest::Read {
                    id: "b".into(),
                    proven_at: None,
                }
            },
            Severity::Warning,
            "ever restored",
        ),
        (|s| s.prepared = Ok(None), Severity::Warning, "ever prepared"),
        (
            |s| s.prepared = Ok(Some(at("2026-01-01T00:00:00Z"))),
            Severity::Warning,
            "9 days ago",
        ),
        (
            |s| s.tools[0].now = Err("not there".into()),
            Severity::Error,
            "not there",
        ),
        (
            |s| s.tools[0].then = Some("1.9.0".into()),
            Severity::Warning,
            "was 1.9.0",
        ),
        (
            |s| {
                s.roots[0].went = Went::Failed {
                    doing: "init",
                    why: "no provider".into(),
                };
                s.roots[0].refused = vec!["registry.example".into()];
            },
            Severity::Error,
            "registry.example",
        ),
        (
            |s| s.roots[0].refused = vec!["sts.example".into()],
            Severity::Warning,
            "without sts.example",
        ),
        (|s| s.roots[0].altered = vec!["a.zip".into()], Severity::Error, "a.zip"),
        (|s| s.roots[0].has_lock_file = false, Severity::Warning, "lock.hcl"),
        (
            |s| {
                s.secrets[0].went = Err(Unresolved {
                    why: "only AWS has it".into(),
                    is_refused: false,
                });
            },
            Severity::Error,
            "only AWS",
        ),
        (|s| s.images[0].went = Pulled::Missing, Severity::Error, "registry"),
        (|s| s.images[0].went = Pulled::Unpinned, Severity::Error, "digest"),
        (
            |s| s.certificates = vec![certificate_until("2026-01-09T00:00:00Z")],
            Severity::Error,
            "ran out on 2026-01-09",
        ),
        (
            |s| s.certificates = vec![certificate_until("2026-02-01T00:00:00Z")],
            Severity::Warning,
            "ends on 2026-02-01",
        ),
        (|s| s.runner = Runner::Silent, Severity::Error, "none has ever"),
        (
            |s| s.servers[0].went = Reached::No("refused".into()),
            Severity::Error,
            "does not reach",
        ),
        (
            |s| s.quota = Quota::Known(vec!["cores: 9 of 10".into()]),
            Severity::Error,
            "cores",
        ),
        (|s| s.needs_aws = vec!["traffic".into()], Severity::Warning, "AWS"),
    ];
    for (trouble, severity, word) in troubles {
        let mut seen = fine();
        trouble(&mut seen);
        one(&seen, severity, word);
    }
}

#[test]
fn a_runner_that_fell_silent_is_not_believed() {
    let mut seen = fine();
    let said = |when: &str, errors| Runner::Said {
        at: at(when),
        host: "vm".to_owned(),
        errors,
        worst: vec!["no terraform".to_owned()],
    };
    seen.runner = said("2026-01-07T00:00:00Z", 0);
    one(&seen, Severity::Error, "3 days ago");
    seen.runner = said("2026-01-09T12:00:00Z", 1);
    one(&seen, Severity::Error, "no terraform");
}

#[test]
fn of_a_bundle_the_one_that_lasts_decides() {
    let mut seen = fine();
    let old = (
        "CN=old".to_owned(),
        at("2020-01-01T00:00:00Z"),
        at("2024-01-01T00:00:00Z"),
    );
    if let Ok(all) = &mut seen.certificates[0].read {
        all.push(old.clone());
    }
    assert!(dark(&seen).iter().all(|f| f.severity == Severity::Note));
    seen.certificates[0].read = Ok(vec![old.clone(), old]);
    one(&seen, Severity::Error, "ran out");
}

#[test]
fn what_fails_comes_before_what_may_and_what_comes_first_on_the_night_before_the_rest() {
    let mut seen = fine();
    seen.needs_aws = vec!["traffic".to_owned()];
    seen.images[0].went = Pulled::Missing;
    seen.newest = Newest::Absent;
    let about: Vec<String> = dark(&seen).into_iter().map(|f| f.about).take(3).collect();
    assert_eq!(about, ["backups", "image r.example/a@sha256:00", "step traffic"]);
}

#[test]
fn what_the_agent_may_not_see_is_no_error_as_long_as_an_operator_looks() {
    let mut seen = fine();
    seen.secrets[0].went = Err(Unresolved {
        why: "access refused".into(),
        is_refused: true,
    });
    one(&seen, Severity::Error, "access refused");
    seen.images[0].went = Pulled::Refused("no rights".into());
    seen.roots[0].went = Went::Stateless { why: "403".into() };
    seen.quota = Quota::Refused("403".into());
    seen.looker = Looker::Agent;
    one(&seen, Severity::Warning, "no operator ever looked");
    seen.operator_looked = Some(at("2025-09-01T00:00:00Z"));
    one(&seen, Severity::Warning, "131 days");
    seen.operator_looked = Some(at("2025-12-01T00:00:00Z"));
    let findings = dark(&seen);
    assert!(findings.iter().all(|f| f.severity == Severity::Note), "{findings:?}");
    // What is not there is not there, for the agent too.
    seen.images[0].went = Pulled::Missing;
    one(&seen, Severity::Error, "registry");
}

#[test]
fn a_runner_that_rests_by_day_is_believed_for_as_long_as_the_plan_says() {
    let mut seen = fine();
    seen.runner = Runner::Said {
        at: at("2025-11-01T00:00:00Z"),
        host: "vm".to_owned(),
        errors: 0,
        worst: Vec::new(),
    };
    one(&seen, Severity::Error, "70 days ago");
    seen.runner_max_age = Duration::from_secs(100 * 86_400);
    assert!(dark(&seen).iter().all(|f| f.severity == Severity::Note));
}

#[test]
fn certificates_that_end_soon_are_named_with_their_end() {
    let mut seen = fine();
    assert!(ends(&seen).values().all(|(_, is_soon)| !is_soon));
    seen.certificates = vec![certificate_until("2026-02-01T00:00:00Z")];
    let wanted = [("standby.tls_ca /ca.pem".to_owned(), (at("2026-02-01T00:00:00Z"), true))];
    assert_eq!(ends(&seen), wanted.into());
}
