//! Promise 6, prune is shy: what retention must never do, whatever the backups, the policy and the day.
//! proptest prints a failing case and its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use planb::backup::entry::{BackupId, Entry, Standing};
use planb::backup::retention::{Because, Excess, Freeze, Holds, Pruning, Reason, keep};
use planb::config::{Generations, Removal, Retention};
use planb::store::ETag;
use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence};

/// 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(EPOCH + 60 * minutes).expect("a date")
}

fn entry(minutes: i64, standing: Standing) -> Entry {
    let id = BackupId::at(at(minutes));
    Entry {
        blob: id.blob(if standing == Standing::Preserved {
            "preserved/"
        } else {
            "backups/"
        }),
        etag: ETag(format!("e{minutes}")),
        size_bytes: 1,
        raw_bytes: 1,
        rows: 1,
        site: "primary".into(),
        epoch: 1,
        consistent_at: at(minutes),
        committed_at: at(minutes + 1),
        digest: String::new(),
        standing,
        proven_at: None,
        structure_checked_at: None,
        id,
    }
}

fn policy() -> Retention {
    Retention {
        keep_all: Duration::from_secs(48 * 3600),
        keep_hourly: Duration::from_secs(7 * 86_400),
        keep_days: 30,
        keep_at_least: 12,
        generations: Generations::default(),
        removal: Removal::Delete,
    }
}

fn kept_blobs(pruning: &Pruning) -> BTreeSet<String> {
    pruning.kept.iter().map(|k| k.blob.clone()).collect()
}

fn survivors(backups: &[Entry], pruning: &Pruning) -> Vec<Entry> {
    let kept = kept_blobs(pruning);
    backups.iter().filter(|b| kept.contains(&b.blob)).cloned().collect()
}

fn good_count(backups: &[Entry]) -> usize {
    backups.iter().filter(|b| b.standing == Standing::Good).count()
}

/// Applies retention, however many it takes away, until it wants nothing more.
fn drain(mut backups: Vec<Entry>, policy: &Retention, now: Timestamp) -> Vec<Entry> {
    loop {
        let approved = keep(&backups, policy, &Holds::default(), now)
            .approve(Excess::Allow)
            .expect("allowed");
        if approved.pruning().removals.is_empty() {
            return backups;
        }
        backups = survivors(&backups, approved.pruning());
    }
}

fn policies() -> impl Strategy<Value = Retention> {
    let generations = (0u32..4, 0u32..4, 0u32..4, 0u32..3).prop_map(|(daily, weekly, monthly, yearly)| Generations {
        daily,
        weekly,
        monthly,
        yearly,
    });
    // Minutes, not hours: the horizon then falls into the middle of an hour, where mistakes hide.
    let keep_all = prop_oneof![0u64..300, 0u64..4_000];
    let keep_hourly = prop_oneof![0u64..4_000, 0u64..14_000];
    (keep_all, keep_hourly, 0u32..40, 0u32..20, generations).prop_map(
        |(all_minutes, hourly_minutes, keep_days, keep_at_least, generations)| Retention {
            keep_all: Duration::from_secs(all_minutes * 60),
            keep_hourly: Duration::from_secs(hourly_minutes * 60),
            keep_days,
            keep_at_least,
            generations,
            removal: Removal::Delete,
        },
    )
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        12 => Just(Standing::Good),
        2 => Just(Standing::Orphan),
        1 => Just(Standing::Preserved),
        1 => Just(Standing::Unusable("no footer".into())),
    ]
}

/// Distinct minutes over some sixty days, dense towards the end, a few beyond `NOW`.
fn backups() -> impl Strategy<Value = Vec<Entry>> {
    let minute = prop_oneof![0i64..86_400, 86_200i64..86_420, (0i64..200).prop_map(|n| NOW - 20 * n)];
    proptest::collection::btree_map(minute, (standings(), any::<bool>()), 0..120).prop_map(|chosen| {
        let proven_at = |minutes: i64, proven: bool| (proven && minutes % 7 == 0).then(|| at(minutes + 5));
        chosen
            .into_iter()
            .map(|(minutes, (standing, proven))| Entry {
                proven_at: proven_at(minutes, proven),
                ..entry(minutes, standing)
            })
            .collect()
    })
}

/// A failing case's seed is printed and kept here, to be run first from then on.
fn seeds() -> Box<dyn FailurePersistence> {
    Box::new(FileFailurePersistence::Direct("tests/retention.seeds"))
}

/// Day sixty.
const NOW: i64 = 86_400;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: Some(seeds()), ..ProptestConfig::default() })]

    #[test]
    fn every_backup_is_either_kept_with_a_reason_or_removed_with_one(b in backups(), p in policies()) {
        let pruning = keep(&b, &p, &Holds::default(), at(NOW));
        let removed = pruning.removals.iter().map(|r| &r.blob);
        let mut seen: Vec<&String> = pruning.kept.iter().map(|k| &k.blob).chain(removed).collect();
        seen.sort();
        let mut all: Vec<&String> = b.iter().map(|e| &e.blob).collect();
        all.sort();
        prop_assert_eq!(seen, all);
        prop_assert!(pruning.kept.iter().all(|k| !k.reasons.is_empty()));
    }

    #[test]
    fn every_removal_is_justified_by_newer_good_backups_that_are_kept(b in backups(), p in policies()) {
        let pruning = keep(&b, &p, &Holds::default(), at(NOW));
        let kept = kept_blobs(&pruning);
        let good: BTreeMap<&BackupId, &Entry> =
            b.iter().filter(|e| e.standing == Standing::Good).map(|e| (&e.id, e)).collect();
        for removal in &pruning.removals {
            prop_assert!(!removal.kept_instead.is_empty());
            for id in &removal.kept_instead {
                let other = good[id];
                prop_assert!(kept.contains(&other.blob) && other.id > removal.id && other.consistent_at <= at(NOW));
            }
        }
    }

    #[test]
    fn the_floor_the_newest_proven_and_what_is_restored_from_stay(
        b in backups(), p in policies(), pick in any::<proptest::sample::Index>(),
    ) {
        let restored = (!b.is_empty()).then(|| b[pick.index(b.len())].id.clone());
        let holds = Holds { restoring_from: restored.clone().into_iter().collect(), ..Holds::default() };
        let removed: BTreeSet<BackupId> = keep(&b, &p, &holds, at(NOW)).removals.into_iter().map(|r| r.id).collect();
        let past = |e: &&Entry| e.consistent_at <= at(NOW) && e.committed_at <= at(NOW);
        let good: Vec<&Entry> = b.iter().rev().filter(|e| e.standing == Standing::Good).filter(past).collect();
        for must_stay in good.iter().take((p.keep_at_least as usize).max(1)) {
            prop_assert!(!removed.contains(&must_stay.id));
        }
        if let Some(proven) = good.iter().find(|e| e.proven_at.is_some()) {
            prop_assert!(!removed.contains(&proven.id));
        }
        prop_assert!(restored.is_none_or(|id| !removed.contains(&id)));
    }

    #[test]
    fn other_standings_and_the_future_are_never_touched(b in backups(), p in policies(), open in any::<bool>()) {
        let holds = Holds { operation_open: open, ..Holds::default() };
        let by_blob: BTreeMap<&String, &Entry> = b.iter().map(|e| (&e.blob, e)).collect();
        for removal in keep(&b, &p, &holds, at(NOW)).removals {
            let entry = by_blob[&removal.blob];
            prop_assert!(entry.consistent_at <= at(NOW) && entry.committed_at <= at(NOW));
            match entry.standing {
                Standing::Good => {}
                Standing::Orphan => prop_assert!(!open && removal.because == Because::OrphanPastEveryRule),
                Standing::Preserved | Standing::Unusable(_) => prop_assert!(false, "{removal}"),
            }
        }
    }

    #[test]
    fn any_freeze_stops_everything(b in backups(), p in policies(), which in 0usize..5) {
        let skew = Freeze::ClockSkew(SignedDuration::from_mins(6));
        let freeze = [Freeze::Failover, Freeze::NotServing, Freeze::Drill, Freeze::RpoBreach, skew][which].clone();
        let holds = Holds { freezes: vec![freeze], ..Holds::default() };
        prop_assert!(keep(&b, &p, &holds, at(NOW)).removals.is_empty());
    }

    #[test]
    fn no_more_than_a_fifth_goes_in_one_run_oldest_first(b in backups(), p in policies()) {
        let pruning = keep(&b, &p, &Holds::default(), at(NOW));
        let limit = good_count(&b) / 5;
        let wanted = pruning.removals.clone();
        prop_assert!(wanted.is_sorted_by_key(|r| r.id.second()));
        let deferred = pruning.clone().approve(Excess::Defer).expect("never refuses");
        prop_assert_eq!(&deferred.pruning().removals[..], &wanted[..wanted.len().min(limit)]);
        prop_assert_eq!(deferred.pruning().kept.len() + deferred.pruning().removals.len(), b.len());
        prop_assert_eq!(pruning.clone().approve(Excess::Refuse).is_err(), wanted.len() > limit);
        let allowed = pruning.approve(Excess::Allow).expect("allowed");
        prop_assert_eq!(&allowed.pruning().removals, &wanted);
    }

    #[test]
    fn doing_it_again_removes_nothing_more(b in backups(), p in policies()) {
        let rest = survivors(&b, &keep(&b, &p, &Holds::default(), at(NOW)));
        prop_assert!(keep(&rest, &p, &Holds::default(), at(NOW)).removals.is_empty());
    }

    #[test]
    fn a_more_generous_policy_keeps_more_and_time_only_takes_away(
        b in backups(), p in policies(), later in 0i64..10_000,
    ) {
        let mut generous = p.clone();
        generous.keep_all += Duration::from_secs(7200);
        generous.keep_hourly += Duration::from_secs(7200);
        generous.keep_days += 1;
        generous.keep_at_least += 1;
        generous.generations.weekly += 1;
        let kept = |b: &[Entry], p: &Retention, minutes: i64| kept_blobs(&keep(b, p, &Holds::default(), at(minutes)));
        prop_assert!(kept(&b, &p, NOW).is_subset(&kept(&b, &generous, NOW)));
        // One dated in the future comes of age as time passes; all others only grow older.
        let past: Vec<Entry> = b.into_iter().filter(|e| e.committed_at <= at(NOW)).collect();
        prop_assert!(kept(&past, &p, NOW + later).is_subset(&kept(&past, &p, NOW)));
    }

    /// Pruning after each of many steps, all at once or by the agent's fifth, ends exactly where pruning once at
    /// the end would: no representative that the policy promised is lost on the way, nothing is kept by accident.
    #[test]
    fn thinning_step_by_step_equals_thinning_once(
        b in backups(), p in policies(), mut steps in proptest::collection::vec(1_000i64..NOW, 0..25),
    ) {
        let past: Vec<Entry> = b.into_iter().filter(|e| e.committed_at <= at(NOW)).collect();
        steps.sort_unstable();
        let (mut standing, mut from) = (Vec::new(), i64::MIN);
        for step in steps.into_iter().chain([NOW]) {
            let arrived = |e: &&Entry| e.committed_at <= at(step) && e.committed_at.as_second() > from;
            standing.extend(past.iter().filter(arrived).cloned());
            from = at(step).as_second();
            let excess = if step % 2 == 0 { Excess::Allow } else { Excess::Defer };
            let run = keep(&standing, &p, &Holds::default(), at(step)).approve(excess).expect("not refused");
            standing = survivors(&standing, run.pruning());
        }
        let blobs = |entries: Vec<Entry>| entries.into_iter().map(|e| e.blob).collect::<BTreeSet<_>>();
        prop_assert_eq!(blobs(drain(standing, &p, at(NOW))), blobs(drain(past, &p, at(NOW))));
    }

    /// Stated without looking at `keep`: an hour (day) within the promise that had a backup still has one.
    #[test]
    fn no_promised_hour_or_day_loses_its_last_backup(b in backups(), p in policies()) {
        let past = |e: &Entry| e.standing == Standing::Good && e.committed_at <= at(NOW);
        let past: Vec<Entry> = b.into_iter().filter(past).collect();
        let rest = drain(past.clone(), &p, at(NOW));
        let whole_days = Duration::from_secs(86_400 * u64::from(p.keep_days));
        for (seconds, horizon) in [(3600, p.keep_hourly), (86_400, whole_days)] {
            let period = |e: &Entry| e.consistent_at.as_second() / seconds;
            for e in past.iter().filter(|e| at(NOW).duration_since(e.consistent_at).unsigned_abs() <= horizon) {
                prop_assert!(rest.iter().any(|r| period(r) == period(e)), "{} has no stand-in", e.id);
            }
        }
    }
}

#[test]
fn five_minute_backups_for_forty_days_settle_at_the_default_policy() {
    let all: Vec<Entry> = (0..40 * 288).map(|n| entry(5 * n, Standing::Good)).collect();
    let now = at(40 * 1440 - 5);
    let rest = drain(all, &policy(), now);
    let between = |from: i64, to: i64| {
        let hours = |e: &&Entry| (from..to).contains(&now.duration_since(e.consistent_at).as_hours());
        rest.iter().filter(hours).count()
    };
    assert_eq!(
        (between(0, 48), between(48, 7 * 24), between(7 * 24, 999_999)),
        (48 * 12, 5 * 24, 24)
    );
}

#[test]
fn a_wrong_clock_or_too_few_backups_remove_nothing() {
    let old: Vec<Entry> = (0..20).map(|n| entry(n, Standing::Good)).collect();
    assert_eq!(
        Freeze::for_clocks(at(5), at(0)),
        Some(Freeze::ClockSkew(SignedDuration::from_mins(5)))
    );
    assert!(Freeze::for_clocks(at(0), at(5)).is_some() && Freeze::for_clocks(at(4), at(0)).is_none());
    // All of them years old: the floor holds, whatever the rules say.
    let pruning = keep(&old, &policy(), &Holds::default(), at(1_000_000));
    assert_eq!((pruning.kept.len(), pruning.removals.len()), (12, 8));
    assert!(
        pruning
            .kept
            .iter()
            .all(|k| k.reasons == BTreeSet::from([Reason::Floor]))
    );
    // The store's clock was set back: everything is in the future, everything stays.
    assert!(
        keep(&old, &policy(), &Holds::default(), at(-10_000))
            .removals
            .is_empty()
    );
}

#[test]
fn one_that_landed_just_now_is_young_whatever_its_date() {
    let mut all: Vec<Entry> = (0..40).map(|n| entry(NOW - 1 - n, Standing::Good)).collect();
    all.push(Entry {
        committed_at: at(NOW),
        ..entry(0, Standing::Good)
    });
    assert!(keep(&all, &policy(), &Holds::default(), at(NOW)).removals.is_empty());
}

#[test]
fn a_removal_says_why_and_what_is_kept_instead() {
    let all: Vec<Entry> = (0..40).map(|n| entry(5 * n, Standing::Good)).collect();
    let pruning = keep(&all, &policy(), &Holds::default(), at(4 * 1440));
    assert_eq!(
        pruning.removals[0].to_string(),
        "backups/backup-20260101-000000.sql.gz: not the newest of its hour; kept instead: backup-20260101-005500"
    );
    let refused = pruning.approve(Excess::Refuse).expect_err("more than a fifth");
    assert_eq!((refused.good, refused.limit), (40, 8));
    assert!(refused.to_string().contains("--allow-many"));
}
