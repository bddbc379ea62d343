//! Whoever watches the primary, and whoever is told, as they are at one moment.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::gauges::{Gauges, seconds};
use crate::serve::board::{Channel, Facts, Found};
use crate::watch::quorum::Ballot;
use crate::watch::verdict::Health;

const HEALTHS: [Health; 3] = [Health::Healthy, Health::Unhealthy, Health::Unknown];
/// Of a watcher that wrote nothing that counts.
const ABSENT: &str = "absent";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Seen {
    watcher: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByChannel {
    channel: String,
}

/// What the watchers found; nothing where nobody is to watch.
pub(super) fn watchers(gauges: &mut Gauges, facts: &Facts) {
    let Some(watched) = &facts.watched else { return };
    gauges.value(
        "watch_readable",
        "Whether what the watchers wrote could be read when it was last looked at",
        f64::from(u8::from(watched.found.is_ok())),
    );
    if let Ok(found) = &watched.found {
        verdicts(gauges, found);
    }
}

fn verdicts(gauges: &mut Gauges, found: &Found) {
    let of = |health: Health| {
        let family = Family::<Verdict, Gauge>::default();
        for one in HEALTHS {
            let label = Verdict { verdict: one.name() };
            family.get_or_create(&label).set((one == health).into());
        }
        family
    };
    gauges.0.register(
        "watch_verdict",
        "What most of the configured watchers see of the primary now",
        of(found.tally.verdict),
    );
    gauges.0.register(
        "watch_ruling",
        "What they hold for true until most of them say otherwise; a failover goes by this",
        of(found.ruling.as_ref().map_or(Health::Unknown, |ruling| ruling.verdict)),
    );
    gauges.value(
        "watch_ruling_timestamp_seconds",
        "Since when they hold it for true",
        found.ruling.as_ref().map(|ruling| seconds(ruling.since)),
    );
    let sees = Family::<Seen, Gauge>::default();
    for (watcher, ballot) in &found.tally.ballots {
        let says = match ballot {
            Ballot::Vote { health, .. } => health.name(),
            Ballot::Never | Ballot::Stale(_) | Ballot::Future(_) | Ballot::Unreadable(_) => ABSENT,
        };
        for verdict in HEALTHS.map(Health::name).into_iter().chain([ABSENT]) {
            let label = Seen {
                watcher: watcher.clone(),
                verdict,
            };
            sees.get_or_create(&label).set((verdict == says).into());
        }
    }
    gauges.0.register(
        "watcher_sees",
        "What each watcher sees of the primary; absent: it wrote nothing that counts",
        sees,
    );
}

/// How each channel does by which people are told.
pub(super) fn channels(gauges: &mut Gauges, channels: &[Channel]) {
    let counted = |figure: fn(&Channel) -> u64| {
        let family = Family::<ByChannel, Counter>::default();
        for channel in channels {
            family.get_or_create(&label(channel)).inc_by(figure(channel));
        }
        family
    };
    let waiting = Family::<ByChannel, Gauge>::default();
    for channel in channels {
        let figure = i64::try_from(channel.waiting).unwrap_or(i64::MAX);
        waiting.get_or_create(&label(channel)).set(figure);
    }
    gauges.0.register(
        "notifications_waiting",
        "Messages that wait until the channel takes them",
        waiting,
    );
    gauges.0.register(
        "notifications_delivered",
        "Messages that the channel took",
        counted(|channel| channel.delivered),
    );
    gauges.0.register(
        "notification_failures",
        "Tries that the channel did not take",
        counted(|channel| channel.failed),
    );
    gauges.0.register(
        "notifications_dropped",
        "Messages given up because too many waited",
        counted(|channel| channel.dropped),
    );
}

fn label(channel: &Channel) -> ByChannel {
    ByChannel {
        channel: channel.name.clone(),
    }
}
