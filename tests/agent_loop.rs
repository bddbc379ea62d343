//! The daemon under paused time: virtual hours pass in milliseconds, and every sleep is part of a script.

mod agent_world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use agent_world::{Manner, World, cron, keep_rpo, lock, minutes, play, play_for};
use jiff::SignedDuration;
use planb::agent::AgentError;
use planb::agent::notify::Notice;
use planb::agent::runner::{RunError, Trigger};
use planb::agent::signals::Signal;
use planb::agent::state::Settings;

const EVERY_FIVE: &str = "*/5 * * * *";

#[tokio::test(start_paused = true)]
async fn runs_on_the_tick_and_logs_exactly_one_summary_each() {
    let world = World::with_backup(minutes(1));
    play_for(&world, cron(EVERY_FIVE), minutes(14))
        .await
        .expect("ends well");
    // 00:05, 00:10 and 00:15, counted from 00:02.
    assert_eq!(world.starts_seconds(), [180, 480, 780]);
    assert!(lock(&world.starts).iter().all(|(_, why)| *why == Trigger::Schedule));
    let summaries = world.summaries();
    assert_eq!(summaries.len(), 3);
    for (field, value) in [
        ("rows", 7),
        ("raw_bytes", 100),
        ("stored_bytes", 10),
        ("lock_ms", 3),
        ("skipped", 0),
    ] {
        assert_eq!(summaries[0][field], value, "{field}");
    }
    assert_eq!(
        (&summaries[0]["ratio"], &summaries[0]["seconds"]),
        (&10.0.into(), &20.0.into())
    );
    assert_eq!(summaries[0]["rpo_seconds"], 20);
    assert_eq!(
        summaries[0]["rpo_state"], "at_risk",
        "five minutes and a run are more than five minutes"
    );
    assert_eq!(world.logged(&["the schedule cannot meet the RPO"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_outlasts_its_interval_skips_counts_and_never_queues() {
    let world = World::with_backup(minutes(1));
    *lock(&world.run_takes) = minutes(12);
    play_for(&world, cron(EVERY_FIVE), minutes(30))
        .await
        .expect("ends well");
    // 00:05 to 00:17 swallows 00:10 and 00:15; the next is 00:20, not at once.
    assert_eq!(world.starts_seconds(), [180, 1080]);
    assert_eq!(world.summaries()[0]["skipped"], 2);
    assert_eq!(world.logged(&["the run outlasts its interval: tick skipped"]).len(), 4);
}

#[tokio::test(start_paused = true)]
async fn ten_minutes_without_a_store_cost_no_restart_and_end_within_a_minute_of_it() {
    let world = World::with_backup(minutes(1));
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        tokio::time::sleep(minutes(5)).await;
        *lock(&script.down) = true;
        tokio::time::sleep(minutes(10)).await;
        *lock(&script.down) = false;
        tokio::time::sleep(minutes(8)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    let commits: Vec<u64> = lock(&world.commits).iter().map(Duration::as_secs).collect();
    let first_after = commits.iter().find(|at| **at > 900).expect("a backup after the outage");
    assert!(*first_after <= 900 + 60 + 20, "{commits:?}");
    assert!(lock(&world.starts).iter().any(|(_, why)| *why == Trigger::Retry));
    assert_eq!(
        world.summaries().len(),
        world.starts_seconds().len(),
        "one line for each, failed ones too"
    );
    assert!(
        world.status_at(minutes(14)).starts_with("RPO breached: "),
        "{}",
        world.status_at(minutes(14))
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_time_to_spare_waits_for_the_next_tick() {
    let world = World::with_backup(minutes(1));
    *lock(&world.down) = false;
    let script = world.clone();
    let mut roomy = cron(EVERY_FIVE);
    roomy.rpo = minutes(60);
    let ended = play(&world, roomy, |signals| async move {
        tokio::time::sleep(minutes(2)).await;
        *lock(&script.down) = true;
        tokio::time::sleep(minutes(2)).await;
        *lock(&script.down) = false;
        tokio::time::sleep(minutes(6)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert_eq!(world.starts_seconds(), [180, 480]);
}

#[tokio::test(start_paused = true)]
async fn a_store_unreachable_at_the_start_is_unknown_then_known() {
    let world = World::with_backup(minutes(90));
    *lock(&world.down) = true;
    let script = world.clone();
    let ended = play(&world, cron("0 * * * *"), |signals| async move {
        tokio::time::sleep(minutes(2)).await;
        *lock(&script.down) = false;
        tokio::time::sleep(minutes(3)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert_eq!(
        world.status_at(minutes(1)),
        "RPO unknown: the store has not answered yet"
    );
    assert_eq!(
        lock(&world.notices)[0].1,
        Notice::Ready,
        "ready at once: it keeps trying"
    );
    let starts = lock(&world.starts).clone();
    assert_eq!(starts.len(), 1, "caught up once the store answered: {starts:?}");
    assert!(starts[0].1 == Trigger::CatchUp && starts[0].0 <= minutes(3));
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_what_there_is() {
    let fresh = World::with_backup(minutes(1));
    play_for(&fresh, cron(EVERY_FIVE), minutes(2)).await.expect("ends well");
    assert!(
        fresh.starts_seconds().is_empty(),
        "a fresh backup is there: no run before the tick"
    );
    let first = fresh.status_at(Duration::from_millis(1));
    assert!(
        first.ends_with("60 s would be lost, newest backup-20260101-000100, none proven"),
        "{first}"
    );

    let stale = World::with_backup(minutes(60));
    play_for(&stale, cron(EVERY_FIVE), minutes(2)).await.expect("ends well");
    assert_eq!(*lock(&stale.starts), [(Duration::ZERO, Trigger::CatchUp)]);

    let empty = World::new();
    play_for(&empty, cron(EVERY_FIVE), minutes(2)).await.expect("ends well");
    assert_eq!(*lock(&empty.starts), [(Duration::ZERO, Trigger::CatchUp)]);
}

#[tokio::test(start_paused = true)]
async fn stop_cancels_the_run_waits_for_it_and_ends_well() {
    let world = World::with_backup(minutes(1));
    *lock(&world.run_takes) = minutes(10);
    play_for(&world, cron(EVERY_FIVE), minutes(5)).await.expect("ends well");
    assert_eq!(
        (world.cancelled.load(Ordering::SeqCst), lock(&world.commits).len()),
        (1, 0)
    );
    assert_eq!(world.elapsed().as_secs(), 300, "it had nothing to wait for");
    assert_eq!(lock(&world.notices).last().expect("notices").1, Notice::Stopping);
}

#[tokio::test(start_paused = true)]
async fn stop_aborts_a_run_that_does_not_listen() {
    let world = World::with_backup(minutes(1));
    *lock(&world.manner) = Manner::IgnoresCancel;
    play_for(&world, cron(EVERY_FIVE), minutes(5)).await.expect("ends well");
    assert_eq!(world.elapsed(), minutes(6), "bounded by stop_within");
}

#[tokio::test(start_paused = true)]
async fn reload_takes_a_valid_configuration_and_keeps_the_old_one_otherwise() {
    let world = World::with_backup(minutes(1));
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        *lock(&script.next_load) = Some(Err(vec![
            "targets.rpo: not a duration".into(),
            "store.url: missing".into(),
        ]));
        signals.send(Signal::Reload).await.expect("the daemon listens");
        tokio::time::sleep(minutes(4)).await;
        *lock(&script.next_load) = Some(Ok(cron("*/2 * * * *")));
        signals.send(Signal::Reload).await.expect("the daemon listens");
        tokio::time::sleep(minutes(3)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    // 00:05 by the old schedule; 00:08 by the new one.
    assert_eq!(world.starts_seconds(), [180, 360]);
    let problems = world.logged(&["the new configuration is not valid; going on with the old one"]);
    assert_eq!(problems.len(), 2, "all problems, each a line");
    let told: Vec<Notice> = lock(&world.notices).iter().map(|(_, n)| n.clone()).collect();
    let reloads = told.iter().filter(|n| **n == Notice::Reloading).count();
    assert_eq!((reloads, told.iter().filter(|n| **n == Notice::Ready).count()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_an_hour_does_not_stop_backups() {
    let world = World::with_backup(minutes(1));
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        tokio::time::sleep(minutes(4)).await;
        script.set_wall_clock(SignedDuration::from_hours(-1));
        tokio::time::sleep(minutes(10)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert_eq!(world.starts_seconds(), [180, 480, 780]);
    let status = world.status_at(minutes(7));
    let lost: u64 = status.split(' ').find_map(|word| word.parse().ok()).expect("seconds");
    assert!((220..=240).contains(&lost), "by the store's clock: {status}");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_it_catches_up_at_once_if_the_rpo_is_at_risk() {
    let world = World::with_backup(minutes(1));
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        tokio::time::sleep(minutes(4)).await;
        // To 01:07:30, between two ticks.
        script.sleep_machine(SignedDuration::from_secs(61 * 60 + 30));
        tokio::time::sleep(minutes(2)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    let starts = lock(&world.starts).clone();
    assert_eq!(starts.len(), 2, "{starts:?}");
    assert!(
        starts[1].1 == Trigger::CatchUp && starts[1].0 <= Duration::from_secs(255),
        "{starts:?}"
    );
    assert_eq!(world.summaries()[1]["skipped"], 12);
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_forward_alone_asks_the_store_and_does_not_run_twice() {
    let world = World::with_backup(minutes(1));
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        tokio::time::sleep(minutes(4)).await;
        script.set_wall_clock(SignedDuration::from_secs(61 * 60 + 30));
        tokio::time::sleep(minutes(2)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert_eq!(world.starts_seconds(), [180], "the store says that the backup is fresh");
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_is_fed_while_all_is_well_and_starved_by_what_hangs() {
    let world = World::with_backup(minutes(1));
    *lock(&world.manner) = Manner::IgnoresCancel;
    let mut settings = cron(EVERY_FIVE);
    settings.run_deadline = minutes(10);
    let ended = play(&world, settings, |_signals| async {}).await;
    assert!(
        matches!(ended, Err(AgentError::Stuck)),
        "ends by itself where nobody watches"
    );
    let feeds = world.feeds();
    // Started at 3 min, deadline at 13, grace until 14.
    let last = *feeds.last().expect("fed at first");
    assert!(last > minutes(13) && last <= minutes(14), "{last:?}");
    let gaps = feeds.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(
        gaps.max().is_some_and(|gap| gap <= Duration::from_secs(20)),
        "a third of WatchdogSec"
    );
    assert_eq!(world.elapsed().as_secs() / 60, 17);
}

#[tokio::test(start_paused = true)]
async fn a_run_over_its_deadline_is_cancelled_and_the_next_one_starts() {
    let world = World::with_backup(minutes(1));
    *lock(&world.run_takes) = minutes(60);
    let mut settings = cron(EVERY_FIVE);
    settings.run_deadline = minutes(4);
    play_for(&world, settings, minutes(9)).await.expect("ends well");
    // The second one was cancelled by the stop.
    assert_eq!(world.cancelled.load(Ordering::SeqCst), 2);
    assert_eq!(world.summaries()[0]["error"], "stopped because it was asked to");
    assert_eq!(world.starts_seconds().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn keep_rpo_keeps_it() {
    let world = World::with_backup(minutes(1));
    play_for(&world, keep_rpo(), minutes(120)).await.expect("ends well");
    let summaries = world.summaries();
    assert!(
        (22..=32).contains(&summaries.len()),
        "no more often than needed: {}",
        summaries.len()
    );
    assert!(summaries.iter().all(|s| s["rpo_state"] == "met"));
    let lines = lock(&world.notices).clone();
    let statuses = lines
        .iter()
        .filter_map(|(_, n)| if let Notice::Status(line) = n { Some(line) } else { None });
    let after_the_first_survey: Vec<&String> = statuses.skip_while(|line| line.starts_with("RPO unknown")).collect();
    assert!(after_the_first_survey.len() > 100);
    for line in after_the_first_survey {
        assert!(line.starts_with("RPO met"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_repeated_at_the_schedules_pace_only() {
    let world = World::with_backup(minutes(1));
    *lock(&world.manner) = Manner::Permanent;
    play_for(&world, cron(EVERY_FIVE), minutes(14))
        .await
        .expect("ends well");
    assert_eq!(world.starts_seconds(), [180, 480, 780]);
}

#[tokio::test(start_paused = true)]
async fn whoever_stands_back_looks_for_the_others_backup_and_does_not_make_another() {
    for settings in [cron(EVERY_FIVE), keep_rpo()] {
        let world = World::with_backup(minutes(1));
        *lock(&world.manner) = Manner::Busy;
        // Five minutes and a run have to fit.
        let settings = Settings {
            rpo: minutes(6),
            ..settings
        };
        play_for(&world, settings, minutes(14)).await.expect("ends well");
        // Others need 20 s: tries five and fifteen seconds after the first are in vain, then theirs is found.
        let starts = world.starts_seconds();
        let runs = starts
            .iter()
            .zip(starts.iter().skip(1))
            .filter(|(a, b)| *b - *a > 60)
            .count()
            + 1;
        assert!(runs >= 2 && starts.len() <= runs * 3, "{starts:?}");
        for seconds in (240..840).step_by(20) {
            let status = world.status_at(Duration::from_secs(seconds));
            assert!(!status.contains("breached"), "at {seconds} s: {status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_defect_in_a_run_is_a_failed_run() {
    let world = World::with_backup(minutes(1));
    *lock(&world.manner) = Manner::Panics;
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        tokio::time::sleep(minutes(4)).await;
        *lock(&script.manner) = Manner::Works;
        tokio::time::sleep(minutes(3)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert!(!lock(&world.commits).is_empty(), "it went on");
    let error = world.summaries()[0]["error"].to_string();
    assert!(error.contains("a defect ended the run"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn retention_follows_a_good_run_at_most_hourly() {
    let world = World::with_backup(minutes(1));
    play_for(&world, cron(EVERY_FIVE), minutes(130))
        .await
        .expect("ends well");
    let prunes = lock(&world.prunes).clone();
    assert_eq!(prunes.len(), 3, "{prunes:?}");
    assert!(prunes[0] >= Duration::from_secs(200) && prunes.windows(2).all(|p| p[1] - p[0] >= minutes(60)));
}

#[tokio::test(start_paused = true)]
async fn each_backup_is_checked_once_after_its_run() {
    let world = World::with_backup(minutes(1));
    play_for(&world, cron(EVERY_FIVE), minutes(14))
        .await
        .expect("ends well");
    let checks: Vec<u64> = lock(&world.checks).iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(checks, [200, 500, 800], "as soon as the run is over");
    let verified = world.logged(&["backup verified"]);
    let committed = world.logged(&["backup committed"]);
    let ids = |lines: &[serde_json::Value]| lines.iter().map(|line| line["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&verified), ids(&committed));

    let off = World::with_backup(minutes(1));
    let settings = Settings {
        verify_structure: false,
        ..cron(EVERY_FIVE)
    };
    play_for(&off, settings, minutes(14)).await.expect("ends well");
    assert!(lock(&off.checks).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_check_gives_way_to_the_next_run_and_that_is_counted() {
    let world = World::with_backup(minutes(1));
    *lock(&world.check_takes) = minutes(20);
    play_for(&world, cron(EVERY_FIVE), minutes(14))
        .await
        .expect("ends well");
    assert_eq!(world.starts_seconds(), [180, 480, 780], "no run waits for a check");
    assert_eq!(lock(&world.commits).len(), 3);
    // The last one by the stop.
    assert_eq!(world.checks_cancelled.load(Ordering::SeqCst), 3);
    let skipped = world.logged(&["backup not verified: the next run, its deadline or the end came first"]);
    let counts: Vec<&serde_json::Value> = skipped.iter().map(|line| &line["skipped"]).collect();
    assert_eq!(counts[..2], [1, 2], "{skipped:?}");
    assert_eq!(world.elapsed(), minutes(14), "nor does the end");
}

#[tokio::test(start_paused = true)]
async fn a_check_has_a_deadline_of_its_own() {
    let world = World::with_backup(minutes(1));
    *lock(&world.check_takes) = minutes(600);
    let mut settings = cron("0 * * * *");
    (settings.rpo, settings.run_deadline) = (minutes(600), minutes(10));
    let script = world.clone();
    let ended = play(&world, settings, |signals| async move {
        // It began 20 s after 01:00, and the next run is at 02:00.
        tokio::time::sleep(minutes(58 + 12)).await;
        assert_eq!(script.checks_cancelled.load(Ordering::SeqCst), 1);
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert_eq!(lock(&world.checks).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_backup_is_an_error_and_the_rpo_falls_back_and_is_caught_up() {
    let world = World::with_backup(minutes(1));
    *lock(&world.damage) = Some("member 3 is damaged".into());
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        // The first run is at 180 s, its check over at 210 s.
        tokio::time::sleep(Duration::from_secs(211)).await;
        *lock(&script.damage) = None;
        tokio::time::sleep(Duration::from_secs(60)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    let error = world.logged(&[
        "THE BACKUP IS DAMAGED: it counts as unusable, and the RPO counts from the one before; look after the store",
    ]);
    assert_eq!((error.len(), &error[0]["level"]), (1, &"ERROR".into()));
    assert_eq!(error[0]["place"], "member 3 is damaged");
    // The older one is from 00:01; the check ended at 00:05:30.
    let status = world.status_at(Duration::from_secs(211));
    assert!(
        status.contains("270 s would be lost, newest backup-20260101-000100"),
        "{status}"
    );
    // It does not wait for the tick at 480 s.
    let starts = lock(&world.starts).clone();
    assert!(starts.len() == 2 && starts[1].1 == Trigger::CatchUp, "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_old_proof_is_told_once_and_none_at_all_is_not_an_old_one() {
    let world = World::with_backup(minutes(1));
    let script = world.clone();
    let ended = play(&world, cron(EVERY_FIVE), |signals| async move {
        tokio::time::sleep(minutes(30)).await;
        assert!(script.logged(&[OLD]).is_empty(), "nothing was proven yet");
        lock(&script.entries)[0].proven_at = Some(agent_world::base() - SignedDuration::from_hours(27));
        tokio::time::sleep(minutes(60)).await;
        assert_eq!(script.logged(&[OLD]).len(), 1);
        lock(&script.entries)[1].proven_at = Some(script.store_now());
        tokio::time::sleep(minutes(30)).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    });
    ended.await.expect("ends well");
    assert_eq!(world.logged(&[OLD]).len(), 1);
}

const OLD: &str = "the latest proof is older than verify.proof_max_age: restore and check a newer backup";

fn proving(schedule: &str) -> Settings {
    Settings {
        proving: Some(Box::new(
            planb::agent::schedule::Cron::parse(schedule, agent_world::base()).expect("a schedule"),
        )),
        ..cron(EVERY_FIVE)
    }
}

fn proofs_minutes(world: &agent_world::World) -> Vec<u64> {
    lock(&world.proofs).iter().map(|at| at.as_secs() / 60).collect()
}

const NOT_PROVEN: &str = "BACKUP NOT PROVEN: it could not be restored on the scratch server";

#[tokio::test(start_paused = true)]
async fn proofs_come_on_their_schedule_one_at_a_time_and_delay_no_run() {
    let world = World::with_backup(minutes(1));
    lock(&world.entries)[0].proven_at = Some(agent_world::base());
    // Each hour, and every third takes longer than that. It begins at two minutes past.
    *lock(&world.proof_takes) = minutes(80);
    let settings = proving("0 * * * *");
    play_for(&world, settings, minutes(5 * 60)).await.expect("ends well");
    assert_eq!(proofs_minutes(&world), [58, 178, 298], "the tick in between is gone");
    let runs = lock(&world.commits).len();
    assert!(runs >= 59, "{runs} backups in five hours");
    assert_eq!(
        world.proofs_cancelled.load(Ordering::SeqCst),
        3,
        "two by their deadline, one by the end"
    );
    assert_eq!(
        world
            .logged(&["the proof of a backup outlasts its interval: tick skipped"])
            .len(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_was_missed_is_caught_up_after_a_backup() {
    let world = World::new();
    play_for(&world, proving("0 3 * * *"), minutes(60))
        .await
        .expect("ends well");
    assert_eq!(
        proofs_minutes(&world).len(),
        1,
        "nothing was ever proven: not left to the night, and once"
    );
    assert!(lock(&world.proofs)[0] >= lock(&world.commits)[0], "backups come first");
    assert!(!world.status_at(minutes(30)).contains("FAILED"));

    let proven = World::with_backup(minutes(1));
    lock(&proven.entries)[0].proven_at = Some(agent_world::base() - SignedDuration::from_hours(20));
    play_for(&proven, proving("0 3 * * *"), minutes(60))
        .await
        .expect("ends well");
    assert_eq!(proofs_minutes(&proven), [] as [u64; 0], "young enough");
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_fails_is_told_and_tried_again_where_that_may_help() {
    for (failure, expected) in [
        (RunError::Transient("the standby\nis away".into()), vec![58, 125, 192]),
        (RunError::Permanent("it holds bank already".into()), vec![58]),
    ] {
        let world = World::with_backup(minutes(1));
        lock(&world.entries)[0].proven_at = Some(agent_world::base());
        *lock(&world.proof_failure) = Some(failure.clone());
        play_for(&world, proving("0 1 * * *"), minutes(4 * 60))
            .await
            .expect("ends well");
        assert_eq!(proofs_minutes(&world), expected, "{failure}");
        assert_eq!(world.logged(&[NOT_PROVEN]).len(), expected.len());
        let status = world.status_at(minutes(4 * 60));
        let told = failure.to_string().replace('\n', " ");
        assert!(status.contains(&format!("THE LAST PROOF FAILED: {told}")), "{status}");
    }
}
