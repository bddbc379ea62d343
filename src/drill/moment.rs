//! The moment of loss: drawn at random, so that nobody picks a good one; and which backup there was to restore then. Pure.

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::backup::entry::{Entry, Standing};

/// Moments are drawn of this long a past; what is restored is as good as new, and nothing of it is pruned by then.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// A disaster that might have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    pub seed: u64,
    /// When everything is taken to have been lost.
    pub at: Timestamp,
    /// The newest good backup of then.
    pub backup: Entry,
    /// From its data to the loss.
    pub loss: SignedDuration,
    /// The most that could have been lost at any moment of the window.
    pub worst_loss: SignedDuration,
}

/// None where there is no good backup.
pub fn draw(entries: &[Entry], now: Timestamp, seed: u64) -> Option<Moment> {
    let mut good: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.standing == Standing::Good)
        .collect();
    good.sort_by_key(|entry| (entry.committed_at, entry.consistent_at));
    let begin = good
        .first()?
        .committed_at
        .max(now.saturating_sub(WINDOW).unwrap_or(Timestamp::MIN))
        .min(now);
    let span = u64::try_from(now.duration_since(begin).as_millis()).unwrap_or(0);
    let drawn = StdRng::seed_from_u64(seed).random_range(0..=span);
    let at = begin
        .saturating_add(SignedDuration::from_millis(i64::try_from(drawn).unwrap_or(0)))
        .unwrap_or(now);
    // Nobody can restore what was not there yet.
    let newest = |at: Timestamp| {
        let there = good.iter().filter(|entry| entry.committed_at <= at);
        there.max_by_key(|entry| entry.consistent_at)
    };
    let backup = newest(at)?;
    let loss = |at: Timestamp, of: &Entry| at.duration_since(of.consistent_at).max(SignedDuration::ZERO);
    // Just before a commit lands, and now, most is lost.
    let worst_loss = good
        .iter()
        .map(|entry| entry.committed_at)
        .filter(|at| *at > begin)
        .filter_map(|at| {
            let before = good.iter().filter(|entry| entry.committed_at < at);
            before
                .max_by_key(|entry| entry.consistent_at)
                .map(|entry| loss(at, entry))
        })
        .chain(newest(now).map(|entry| loss(now, entry)))
        .max()?;
    Some(Moment {
        seed,
        at,
        backup: (**backup).clone(),
        loss: loss(at, backup),
        worst_loss,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::entry::BackupId;
    use crate::store::ETag;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a date")
    }

    /// Consistent then, committed 20 s later.
    fn entry(second: i64) -> Entry {
        let id = BackupId::at(at(second));
        Entry {
            blob: id.blob("b/"),
            id,
            etag: ETag(String::new()),
            size_bytes: 1,
            raw_bytes: 1,
            rows: 1,
            site: String::new(),
            epoch: 0,
            consistent_at: at(second),
            committed_at: at(second + 20),
            digest: "d".to_owned(),
            standing: Standing::Good,
            proven_at: None,
            structure_checked_at: None,
        }
    }

    #[test]
    fn the_newest_that_was_there_is_taken_and_the_loss_counts_from_its_data() {
        let entries: Vec<Entry> = (0..10).map(|n| entry(n * 300)).collect();
        let now = at(3_000);
        let mut moments = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let moment = draw(&entries, now, seed).expect("a backup");
            assert_eq!(Some(moment.clone()), draw(&entries, now, seed), "a seed says it all");
            assert!(moment.at >= at(20) && moment.at <= now);
            assert!(moment.backup.committed_at <= moment.at, "it was not there yet");
            let later = entries.iter().filter(|entry| entry.committed_at <= moment.at);
            assert_eq!(
                later.map(|entry| entry.consistent_at).max(),
                Some(moment.backup.consistent_at)
            );
            assert_eq!(moment.loss, moment.at.duration_since(moment.backup.consistent_at));
            assert!(moment.loss <= moment.worst_loss && moment.loss >= SignedDuration::from_secs(20));
            assert_eq!(moment.worst_loss, SignedDuration::from_secs(320), "interval and run");
            moments.insert(moment.at);
        }
        assert!(moments.len() > 400, "they are drawn at random");
    }

    #[test]
    fn without_a_good_backup_there_is_no_rehearsal() {
        assert_eq!(draw(&[], at(0), 1), None);
        let mut orphan = entry(0);
        orphan.standing = Standing::Orphan;
        assert_eq!(draw(&[orphan], at(100), 1), None);
        let one = draw(&[entry(0)], at(100_000), 1).expect("the only one");
        assert!(one.at >= at(100_000 - 86_400), "the window is a day");
    }
}
