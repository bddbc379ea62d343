//! What holds at one moment, made from the facts: ages are of that moment, and what nobody knows is absent instead of zero.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::people;
use crate::backup::entry::Standing;
use crate::backup::rpo;
use crate::dump::pipeline::Progress;
use crate::recovery::operation::Operation;
use crate::recovery::plan::Site;
use crate::recovery::state;
use crate::serve::board::Facts;

/// PlanB's own, and those of any process.
pub(super) fn of(facts: &Facts, now: Timestamp) -> (Registry, Registry) {
    let mut gauges = Gauges(Registry::with_prefix("planb"));
    backups(&mut gauges, facts, now);
    recovery(&mut gauges, facts);
    people::watchers(&mut gauges, facts);
    people::channels(&mut gauges, &facts.channels);
    let mut process = Gauges(Registry::with_prefix("process"));
    process.value("resident_memory_bytes", "Memory in use", resident_bytes());
    process.value(
        "start_time_seconds",
        "When the agent started, since 1970",
        facts.started.map(seconds),
    );
    (gauges.0, process.0)
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Label {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AtSite {
    site: &'static str,
}

/// Gauges of one moment.
pub(super) struct Gauges(pub(super) Registry);

impl Gauges {
    pub(super) fn value(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.0.register(name, help, ConstGauge::new(value));
        }
    }

    /// One of several: 1 for the one that holds, 0 for the others.
    fn state(&mut self, name: &str, help: &str, all: &[&'static str], current: &str) {
        let family = Family::<Label, Gauge>::default();
        for &state in all {
            family.get_or_create(&Label { state }).set((state == current).into());
        }
        self.0.register(name, help, family);
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for graphs")]
fn float(number: u64) -> f64 {
    number as f64
}

pub(super) fn seconds(at: Timestamp) -> f64 {
    at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()
}

fn age(at: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(at).as_secs_f64().max(0.0)
}

fn backups(gauges: &mut Gauges, facts: &Facts, now: Timestamp) {
    let targets = facts.config.as_ref().map(|config| &config.targets);
    let tick = facts.tick.as_ref().map(|(tick, _)| tick);
    gauges.value(
        "rpo_seconds",
        "Data that would be lost now, as time; absent if that is unknown, or there is no good backup at all",
        facts.loss().map(|loss| loss.as_secs_f64()),
    );
    gauges.value(
        "rpo_target_seconds",
        "targets.rpo",
        targets.map(|targets| targets.rpo.as_secs_f64()),
    );
    gauges.value(
        "rpo_worst_case_seconds",
        "The most that the schedule can lose: interval, and snapshot to commit",
        tick.and_then(|tick| tick.worst_case).map(|worst| worst.as_secs_f64()),
    );
    let state = tick.map_or(rpo::State::Unknown, |tick| tick.rpo.state);
    gauges.state(
        "rpo_state",
        "Whether the RPO is met; at_risk: it will be breached before the next backup can land",
        &["met", "at_risk", "breached", "unknown"],
        state.as_str(),
    );
    gauges.value(
        "newest_backup_timestamp_seconds",
        "The instant of the newest good backup's data",
        tick.and_then(|tick| tick.data_from).map(seconds),
    );
    let store_now = facts.store_now().unwrap_or(now);
    gauges.value(
        "proof_age_seconds",
        "Since a backup was last restored and checked; absent if none ever was",
        facts.latest_proof.map(|at| age(at, store_now)),
    );
    gauges.value(
        "proof_max_age_seconds",
        "verify.proof_max_age",
        facts
            .config
            .as_ref()
            .map(|config| config.verify.proof_max_age.as_secs_f64()),
    );
    let count =
        |wanted: fn(&Standing) -> bool| float(facts.backups.iter().filter(|one| wanted(&one.standing)).count() as u64);
    if matches!(facts.store, Some(Ok(_))) || !facts.backups.is_empty() {
        gauges.value(
            "backups_good",
            "Good backups in the store",
            count(|one| *one == Standing::Good),
        );
        gauges.value(
            "backups_unusable",
            "What looks like a backup and cannot be vouched for; planb backups says why",
            count(|one| matches!(one, Standing::Unusable(_))),
        );
        gauges.value(
            "backups_orphaned",
            "Backups of a site that no longer served",
            count(|one| *one == Standing::Orphan),
        );
        gauges.value(
            "backups_stored_bytes",
            "What all backups take in the store",
            float(facts.backups.iter().map(|one| one.size_bytes).sum()),
        );
    }
    last_and_running(gauges, facts);
    gauges.value(
        "store_up",
        "Whether the store answered when it was last asked",
        facts.store.as_ref().map(|store| f64::from(u8::from(store.is_ok()))),
    );
}

fn last_and_running(gauges: &mut Gauges, facts: &Facts) {
    if let Some(last) = &facts.last_commit {
        let backup = &last.backup;
        gauges.value(
            "backup_last_commit_timestamp_seconds",
            "When this agent's last backup was committed",
            seconds(backup.committed_at),
        );
        gauges.value("backup_last_duration_seconds", "How long that run took", last.seconds);
        gauges.value(
            "backup_last_read_bytes",
            "SQL in that backup, before compression",
            float(backup.raw_bytes),
        );
        gauges.value(
            "backup_last_stored_bytes",
            "Bytes of that backup in the store",
            float(backup.size_bytes),
        );
        gauges.value("backup_last_rows", "Rows in that backup", float(backup.rows));
        gauges.value(
            "backup_last_lock_seconds",
            "Longest time that the source was locked for it",
            last.lock_seconds,
        );
    }
    let running = facts.running.as_ref();
    gauges.value(
        "backup_running",
        "Whether a run is under way",
        f64::from(u8::from(running.is_some())),
    );
    let reads = running.and_then(|running| running.attempt.as_ref());
    gauges.value(
        "lease_held",
        "Whether this agent holds the lease that keeps runs from overlapping",
        f64::from(u8::from(reads.is_some())),
    );
    gauges.value(
        "backup_running_seconds",
        "How long the run under way has been at it; 0 if there is none",
        running.map_or(0.0, |running| running.begun.elapsed().as_secs_f64()),
    );
    let figure = |which: fn(&Progress) -> &AtomicU64| {
        reads.map_or(0.0, |(_, progress)| float(which(progress).load(Ordering::Relaxed)))
    };
    gauges.value(
        "backup_running_read_bytes",
        "SQL read by the attempt under way; 0 if there is none",
        figure(|progress| &progress.raw_bytes),
    );
    gauges.value(
        "backup_running_stored_bytes",
        "Bytes staged in the store by the attempt under way; 0 if there is none",
        figure(|progress| &progress.stored_bytes),
    );
}

fn recovery(gauges: &mut Gauges, facts: &Facts) {
    if let Some((tick, at)) = &facts.tick {
        gauges.value(
            "agent_tick_age_seconds",
            "Since the agent's loop last went round; it does every 15 s",
            at.elapsed().as_secs_f64(),
        );
        gauges.value(
            "agent_healthy",
            "Whether nothing is past its deadline",
            f64::from(u8::from(tick.is_healthy)),
        );
    }
    let Some(journal) = &facts.journal else { return };
    gauges.value(
        "journal_readable",
        "Whether the journal of failovers could be read when it was last looked at",
        f64::from(u8::from(journal.position.is_ok())),
    );
    let Ok(position) = &journal.position else { return };
    let standing = &position.state.standing;
    let serving = Family::<AtSite, Gauge>::default();
    for (name, site) in [
        ("primary", Some(Site::Primary)),
        ("standby", Some(Site::Standby)),
        ("none", None),
    ] {
        serving
            .get_or_create(&AtSite { site: name })
            .set((standing.serving == site).into());
    }
    gauges
        .0
        .register("serving", "Which site takes the application's writes", serving);
    gauges.value(
        "stage",
        "How far the standby is built; 1 at rest",
        f64::from(standing.stage),
    );
    gauges.value(
        "epoch",
        "Grows with each change of the serving site",
        float(standing.epoch()),
    );
    gauges.value(
        "fences_pending",
        "Sites whose fence nobody could prove yet",
        float(standing.pending_fences().count() as u64),
    );
    let open = position.state.open();
    gauges.value(
        "operation_open",
        "Whether a failover or failback is under way",
        f64::from(u8::from(open.is_some())),
    );
    let failed = |operation: &Operation| {
        let steps = operation.steps.values();
        steps
            .filter(|step| matches!(step, state::Progress::Failed { .. }))
            .count()
    };
    gauges.value(
        "operation_failed_steps",
        "Steps of the open operation that failed and were not done since",
        open.map_or(0.0, |operation| float(failed(operation) as u64)),
    );
}

/// Pages in memory, as the kernel counts them for this process; none where there is no such file.
fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(float(pages * rustix::param::page_size() as u64))
}
