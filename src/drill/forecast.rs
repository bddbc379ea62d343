//! How long the next disaster will take: of each step, a part that is always the same and a part that grows with the data, from
//! what earlier rehearsals took; along the longest chain of the plan. Pure.
//!
//! The model is a straight line through the sizes that were seen, and no cleverer. Sizes that hardly differ are one: their noise would be
//! taken for growth. Where rehearsals saw one size only, what handles data grows as the proofs say (restores into a scratch server, of whatever
//! sizes there were), from where the rehearsals stand; without those either, it is taken to be all growing and everything else all fixed, and the
//! forecast says so.

use std::collections::BTreeMap;

use crate::recovery::plan::{Plan, Role, Step};

/// One step of one rehearsal.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub step: String,
    /// SQL of the backup that was restored.
    pub raw_bytes: u64,
    pub seconds: f64,
}

/// Sizes that differ less than by this factor are one.
const APART: u64 = 3;
const APART_OF: u64 = 2;

/// Everything that was measured.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    pub samples: Vec<Sample>,
    /// Of each rehearsal: what went by between the steps.
    pub idle_seconds: Vec<f64>,
    /// What restoring and comparing took as a proof, by the SQL's size.
    pub proofs: Vec<(u64, f64)>,
}

/// What a step takes: so long in any case, and so much more for each byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub fixed_seconds: f64,
    pub seconds_per_byte: f64,
    /// Different sizes that it was seen with.
    pub sizes: usize,
}

impl Line {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn at(&self, raw_bytes: u64) -> f64 {
        self.fixed_seconds + self.seconds_per_byte * raw_bytes as f64
    }
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    pub raw_bytes: u64,
    pub seconds: f64,
    /// Steps along the longest chain, in order.
    pub chain: Vec<String>,
    /// The size at which the target is missed, if it ever is.
    pub breaks_at_bytes: Option<u64>,
    /// Fewest sizes that a step with data was seen with; with one, growth is a guess.
    pub sizes: usize,
    /// Proofs that growth was taken from, if it was.
    pub proofs: usize,
}

/// Sizes that are apart enough to tell growth from noise; the smallest counts as one.
fn sizes(samples: &[(u64, f64)]) -> usize {
    let sorted: std::collections::BTreeSet<u64> = samples.iter().map(|(bytes, _)| *bytes).collect();
    let mut last = None;
    sorted
        .into_iter()
        .filter(|bytes| {
            let is_apart = last.is_none_or(|last: u64| bytes.saturating_mul(APART_OF) >= last.saturating_mul(APART));
            if is_apart {
                last = Some(*bytes);
            }
            is_apart
        })
        .count()
}

/// Least squares; neither part below nothing.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub fn fit(samples: &[(u64, f64)], grows: bool) -> Option<Line> {
    if samples.is_empty() {
        return None;
    }
    let count = samples.len() as f64;
    let mean_x = samples.iter().map(|(bytes, _)| *bytes as f64).sum::<f64>() / count;
    let mean_y = samples.iter().map(|(_, seconds)| *seconds).sum::<f64>() / count;
    let sizes = sizes(samples);
    let proportional = || Line {
        fixed_seconds: 0.0,
        seconds_per_byte: if mean_x > 0.0 { mean_y / mean_x } else { 0.0 },
        sizes,
    };
    let constant = || Line {
        fixed_seconds: mean_y,
        seconds_per_byte: 0.0,
        sizes,
    };
    if !grows {
        return Some(constant());
    }
    if sizes < 2 {
        return Some(proportional());
    }
    let spread = samples
        .iter()
        .map(|(bytes, _)| (*bytes as f64 - mean_x).powi(2))
        .sum::<f64>();
    let together = samples
        .iter()
        .map(|(bytes, seconds)| (*bytes as f64 - mean_x) * (seconds - mean_y))
        .sum::<f64>();
    let slope = together / spread;
    if slope <= 0.0 {
        return Some(constant());
    }
    let fixed = mean_y - slope * mean_x;
    if fixed >= 0.0 {
        return Some(Line {
            fixed_seconds: fixed,
            seconds_per_byte: slope,
            sizes,
        });
    }
    // A line through nothing: the best one is not the mean's.
    let squares = samples.iter().map(|(bytes, _)| (*bytes as f64).powi(2)).sum::<f64>();
    let products = samples
        .iter()
        .map(|(bytes, seconds)| *bytes as f64 * seconds)
        .sum::<f64>();
    Some(Line {
        fixed_seconds: 0.0,
        seconds_per_byte: products / squares,
        sizes,
    })
}

/// Whether a step's time grows with the data.
fn grows(step: &Step) -> bool {
    matches!(step.role, Role::Restore(_) | Role::Verify(_))
}

/// The proofs' growth from where the rehearsals of one size stand.
fn scaled(samples: &[(u64, f64)], shape: Line) -> Option<Line> {
    let took: f64 = samples.iter().map(|(_, seconds)| *seconds).sum();
    let expected: f64 = samples.iter().map(|(bytes, _)| shape.at(*bytes)).sum();
    (expected > 0.0).then(|| Line {
        fixed_seconds: shape.fixed_seconds * took / expected,
        seconds_per_byte: shape.seconds_per_byte * took / expected,
        sizes: shape.sizes,
    })
}

/// For a backup of this size. None while some step of the plan was never done.
pub fn forecast(plan: &Plan, measured: &Measured, raw_bytes: u64, target_seconds: f64) -> Option<Forecast> {
    let proven = fit(&measured.proofs, true).filter(|line| line.sizes >= 2);
    let mut by_proofs = false;
    let mut lines: BTreeMap<&str, Line> = BTreeMap::new();
    for step in &plan.steps {
        let seen: Vec<(u64, f64)> = measured
            .samples
            .iter()
            .filter(|sample| sample.step == step.name)
            .map(|sample| (sample.raw_bytes, sample.seconds))
            .collect();
        let own = fit(&seen, grows(step))?;
        let shaped = proven.filter(|_| grows(step) && own.sizes < 2);
        let line = match shaped.and_then(|shape| scaled(&seen, shape)) {
            Some(line) => {
                by_proofs = true;
                line
            }
            None => own,
        };
        lines.insert(&step.name, line);
    }
    let idle = fit(
        &measured.idle_seconds.iter().map(|idle| (0, *idle)).collect::<Vec<_>>(),
        false,
    );
    let idle = idle.map_or(0.0, |idle| idle.fixed_seconds);
    let (seconds, chain) = longest(plan, &lines, raw_bytes)?;
    let sized = plan.steps.iter().filter(|step| grows(step));
    let sizes = sized
        .filter_map(|step| lines.get(step.name.as_str()))
        .map(|line| line.sizes)
        .min();
    Some(Forecast {
        raw_bytes,
        seconds: seconds + idle,
        chain,
        breaks_at_bytes: breaks_at(plan, &lines, target_seconds - idle),
        sizes: sizes.unwrap_or(0),
        proofs: if by_proofs { measured.proofs.len() } else { 0 },
    })
}

fn longest(plan: &Plan, lines: &BTreeMap<&str, Line>, raw_bytes: u64) -> Option<(f64, Vec<String>)> {
    fn until(plan: &Plan, lines: &BTreeMap<&str, Line>, raw_bytes: u64, step: &Step) -> Option<(f64, Vec<String>)> {
        let mut latest: (f64, Vec<String>) = (0.0, Vec::new());
        for need in &step.needs {
            let of = until(plan, lines, raw_bytes, plan.step(need)?)?;
            if of.0 > latest.0 {
                latest = of;
            }
        }
        latest.0 += lines.get(step.name.as_str())?.at(raw_bytes);
        latest.1.push(step.name.clone());
        Some(latest)
    }
    let ends = plan.steps.iter().map(|step| until(plan, lines, raw_bytes, step));
    let ends: Option<Vec<(f64, Vec<String>)>> = ends.collect();
    ends?.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))
}

/// Halves its way: time only grows with size.
fn breaks_at(plan: &Plan, lines: &BTreeMap<&str, Line>, target_seconds: f64) -> Option<u64> {
    let is_within = |bytes| longest(plan, lines, bytes).is_some_and(|(seconds, _)| seconds <= target_seconds);
    let (mut low, mut high) = (0_u64, 1_u64 << 50);
    if is_within(high) {
        return None;
    }
    if !is_within(low) {
        return Some(0);
    }
    while high - low > (1 << 20) {
        let middle = low + (high - low) / 2;
        if is_within(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::plan::{OnFailure, Place, Site};

    const MIB: u64 = 1 << 20;

    fn plan() -> Plan {
        let step = |name: &str, role, needs: &[&str]| Step {
            name: name.to_owned(),
            stage: 2,
            role,
            kind: String::new(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            at: Place::Operator,
            timeout_seconds: 1,
            on_failure: OnFailure::Stop,
            retries: 0,
            takes_back: false,
            guards_itself: true,
        };
        Plan {
            steps: vec![
                step("database", Role::Work, &[]),
                step("cluster", Role::Work, &[]),
                step("restore", Role::Restore(Site::Standby), &["database"]),
                step("compare", Role::Verify(Site::Standby), &["restore"]),
                step("healthy", Role::Work, &["compare", "cluster"]),
            ],
        }
    }

    /// 60 s of database, 90 s of cluster; restore 4 s and 20 MiB/s, compare 1 s and 100 MiB/s; 10 s of health.
    fn took(mib: f64) -> [(&'static str, f64); 5] {
        [
            ("database", 60.0),
            ("cluster", 90.0),
            ("restore", 4.0 + mib / 20.0),
            ("compare", 1.0 + mib / 100.0),
            ("healthy", 10.0),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "small figures")]
    fn samples(sizes: &[u64]) -> Measured {
        let of = |mib: &u64| {
            let raw_bytes = mib * MIB;
            took(*mib as f64).map(|(step, seconds)| Sample {
                step: step.to_owned(),
                raw_bytes,
                seconds,
            })
        };
        Measured {
            samples: sizes.iter().flat_map(of).collect(),
            ..Measured::default()
        }
    }

    #[test]
    fn two_sizes_foretell_a_third() {
        let told = forecast(&plan(), &samples(&[100, 400]), 10_000 * MIB, 900.0).expect("everything was done");
        let by_hand = 60.0 + 4.0 + 500.0 + 1.0 + 100.0 + 10.0;
        assert!((told.seconds - by_hand).abs() < 1e-6, "{told:?}");
        assert_eq!(told.chain, ["database", "restore", "compare", "healthy"]);
        assert_eq!(told.sizes, 2);
        // 75 s are fixed, 0.06 s a MiB: 825 s are 13,750 MiB.
        let breaks = told.breaks_at_bytes.expect("it breaks") / MIB;
        assert!((13_748..=13_751).contains(&breaks), "{breaks}");
        // With little data, the cluster is what takes long.
        let small = forecast(&plan(), &samples(&[100, 400]), MIB, 50.0).expect("everything was done");
        assert_eq!(small.chain, ["cluster", "healthy"]);
        assert_eq!(small.breaks_at_bytes, Some(0), "missed whatever the size");
    }

    #[test]
    fn noise_of_a_tenth_keeps_a_third_size_within_a_quarter() {
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(7);
        for _ in 0..200 {
            let mut seen = samples(&[100, 100, 1_000, 1_000]);
            for sample in &mut seen.samples {
                sample.seconds *= rand::RngExt::random_range(&mut rng, 0.9..1.1);
            }
            let told = forecast(&plan(), &seen, 3_000 * MIB, 900.0).expect("everything was done");
            let real = 60.0 + 4.0 + 150.0 + 1.0 + 30.0 + 10.0;
            assert!((told.seconds - real).abs() / real < 0.25, "{}", told.seconds);
        }
    }

    #[test]
    fn one_size_grows_what_handles_data_and_says_so() {
        let told = forecast(&plan(), &samples(&[100]), 800 * MIB, 900.0).expect("everything was done");
        assert!(
            (told.seconds - (60.0 + 8.0 * 9.0 + 8.0 * 2.0 + 10.0)).abs() < 1e-6,
            "{told:?}"
        );
        assert_eq!(told.sizes, 1);
    }

    #[test]
    fn sizes_that_hardly_differ_are_one_and_the_proofs_tell_how_it_grows() {
        // A year of nights: the database grows by a tenth, and the machine's noise is as large.
        let mut seen = samples(&[100, 102, 105, 110]);
        seen.samples[2].seconds *= 1.3;
        let guessed = forecast(&plan(), &seen, 800 * MIB, 900.0).expect("everything was done");
        assert_eq!((guessed.sizes, guessed.proofs), (1, 0));
        // A scratch server that is twice as slow, with backups of two sizes.
        let mut seen = samples(&[100]);
        seen.proofs = [50_u64, 400]
            .map(|mib| {
                let (restore, compare) = (took(mib as f64)[2].1, took(mib as f64)[3].1);
                (mib * MIB, 2.0 * (restore + compare))
            })
            .to_vec();
        let told = forecast(&plan(), &seen, 800 * MIB, 900.0).expect("everything was done");
        let real = 60.0 + 4.0 + 40.0 + 1.0 + 8.0 + 10.0;
        assert!((told.seconds - real).abs() / real < 0.02, "{told:?}");
        assert_eq!((told.sizes, told.proofs), (2, 2));
    }

    #[test]
    fn what_goes_by_between_the_steps_counts() {
        let mut seen = samples(&[100, 400]);
        let without = forecast(&plan(), &seen, MIB, 900.0).expect("everything was done");
        seen.idle_seconds = vec![2.0, 4.0];
        let with = forecast(&plan(), &seen, MIB, 900.0).expect("everything was done");
        assert!((with.seconds - without.seconds - 3.0).abs() < 1e-6, "{with:?}");
        assert!(with.breaks_at_bytes < without.breaks_at_bytes);
    }

    #[test]
    fn what_was_never_done_is_not_foretold_and_no_part_is_below_nothing() {
        let mut seen = samples(&[100, 400]);
        seen.samples.retain(|sample| sample.step != "compare");
        assert_eq!(forecast(&plan(), &seen, MIB, 1.0), None);
        for points in [[(100, 9.0), (200, 5.0)], [(100, 1.0), (200, 9.0)]] {
            let line = fit(&points, true).expect("two points");
            assert!(line.fixed_seconds >= 0.0 && line.seconds_per_byte >= 0.0, "{line:?}");
        }
        assert_eq!(fit(&[], true), None);
    }
}
