//! Charts as SVG, drawn from figures. Pure.
//!
//! Each is stretched to the width of its place, so lines keep their thickness and there is no text in it: what stands beside a
//! chart is HTML, and as large on a phone as everything else.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::html::Html;

pub const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 150.0;
const LOW: f64 = 36.0;
const BARS: f64 = 72.0;
/// More points than this are drawn as the highest and lowest of each of so many columns.
const COLUMNS: usize = 480;

/// What would have been lost at each moment of a span, as corners of a line.
pub fn losses(commits: &BTreeMap<Timestamp, Timestamp>, from: Timestamp, now: Timestamp) -> Vec<(Timestamp, f64)> {
    let mut newest: Option<Timestamp> = commits.range(..=from).map(|(_, data_from)| *data_from).max();
    let loss = |at: Timestamp, data_from: Timestamp| at.duration_since(data_from).as_secs_f64().max(0.0);
    let mut line = Vec::new();
    if let Some(data_from) = newest {
        line.push((from, loss(from, data_from)));
    }
    for (&at, &data_from) in commits.range((std::ops::Bound::Excluded(from), std::ops::Bound::Included(now))) {
        if let Some(before) = newest {
            line.push((at, loss(at, before)));
        }
        newest = newest.max(Some(data_from));
        if let Some(after) = newest {
            line.push((at, loss(at, after)));
        }
    }
    if let Some(data_from) = newest {
        line.push((now, loss(now, data_from)));
    }
    line
}

/// Where a moment stands between `from` and `now`, from 0 to [`WIDTH`].
fn across(at: Timestamp, from: Timestamp, now: Timestamp) -> f64 {
    let whole = now.duration_since(from).as_secs_f64().max(1.0);
    (at.duration_since(from).as_secs_f64() / whole).clamp(0.0, 1.0) * WIDTH
}

/// The line thinned to what can be seen: the lowest and the highest of each column.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= 3 * COLUMNS {
        return points;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "columns of a picture"
    )]
    let column = |x: f64| (x / WIDTH * COLUMNS as f64) as usize;
    let mut columns: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
    for (x, y) in points {
        let seen = columns.entry(column(x)).or_insert((x, y, y));
        seen.1 = seen.1.min(y);
        seen.2 = seen.2.max(y);
    }
    let pair = |(x, low, high): (f64, f64, f64)| [(x, low), (x, high)];
    columns.into_values().flat_map(pair).collect()
}

/// What was lost over the span, against the target. Says the highest value of its scale.
pub fn loss(html: &mut Html, line: &[(Timestamp, f64)], target: f64, from: Timestamp, now: Timestamp) -> f64 {
    let most = line.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
    let top = (target * 1.25).max(most * 1.05).max(1.0);
    let height = |seconds: f64| HEIGHT - seconds / top * HEIGHT;
    let points: Vec<(f64, f64)> = line
        .iter()
        .map(|(at, loss)| (across(*at, from, now), height(*loss)))
        .collect();
    let points = thinned(points);
    html.raw("<svg class=\"chart\" viewBox=\"0 0 960 150\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"data that would have been lost\">");
    html.raw("<rect class=\"beyond\" x=\"0\" y=\"0\" width=\"960\" height=\"")
        .number(height(target))
        .raw("\"/>");
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        html.raw("<polygon class=\"area\" points=\"")
            .number(first.0)
            .raw(",150 ");
        for (x, y) in &points {
            html.number(*x).raw(",").number(*y).raw(" ");
        }
        html.number(last.0).raw(",150\"/><polyline class=\"line\" points=\"");
        for (x, y) in &points {
            html.number(*x).raw(",").number(*y).raw(" ");
        }
        html.raw("\"/>");
    }
    html.raw("<line class=\"target\" x1=\"0\" x2=\"960\" y1=\"")
        .number(height(target))
        .raw("\" y2=\"")
        .number(height(target))
        .raw("\"/></svg>");
    top
}

/// How a backup stands on the time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Good,
    Proven,
    Bad,
}

/// A stroke for each backup; of those that fall together, the one that says most.
pub fn timeline(html: &mut Html, backups: &[(Timestamp, Mark)], from: Timestamp, now: Timestamp) {
    #[expect(clippy::cast_possible_truncation, reason = "a column of a picture")]
    let column = |at: Timestamp| (across(at, from, now) / 2.0) as i64;
    let mut columns: BTreeMap<i64, Mark> = BTreeMap::new();
    for (at, mark) in backups.iter().filter(|(at, _)| (from..=now).contains(at)) {
        let seen = columns.entry(column(*at)).or_insert(*mark);
        *seen = (*seen).max(*mark);
    }
    html.raw("<svg class=\"low\" viewBox=\"0 0 960 36\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"backups over time\">");
    html.raw("<line class=\"axis\" x1=\"0\" x2=\"960\" y1=\"35\" y2=\"35\"/>");
    for (column, mark) in columns {
        let (class, top) = match mark {
            Mark::Good => ("<line class=\"good\" x1=\"", 16.0),
            Mark::Proven => ("<line class=\"proven\" x1=\"", 2.0),
            Mark::Bad => ("<line class=\"bad\" x1=\"", 2.0),
        };
        #[expect(clippy::cast_precision_loss, reason = "a column of a picture")]
        let x = column as f64 * 2.0 + 1.0;
        html.raw(class)
            .number(x)
            .raw("\" x2=\"")
            .number(x)
            .raw("\" y1=\"")
            .number(top);
        html.raw("\" y2=\"").number(LOW - 2.0).raw("\"/>");
    }
    html.raw("</svg>");
}

/// A bar for each value, oldest first. Says the highest.
pub fn bars(html: &mut Html, values: &[f64], label: &'static str) -> f64 {
    let top = values.iter().copied().fold(0.0, f64::max);
    html.raw("<svg class=\"bars\" viewBox=\"0 0 960 72\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"")
        .raw(label)
        .raw("\">");
    html.raw("<line class=\"axis\" x1=\"0\" x2=\"960\" y1=\"72\" y2=\"72\"/>");
    #[expect(clippy::cast_precision_loss, reason = "some dozens")]
    let step = WIDTH / values.len().max(12) as f64;
    let mut x = WIDTH - step * f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    for value in values {
        let height = if top > 0.0 {
            (value / top * (BARS - 2.0)).max(1.0)
        } else {
            1.0
        };
        html.raw("<rect x=\"")
            .number(x + step * 0.12)
            .raw("\" y=\"")
            .number(BARS - height)
            .raw("\" width=\"");
        html.number(step * 0.76).raw("\" height=\"").number(height).raw("\"/>");
        x += step;
    }
    html.raw("</svg>");
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a date")
    }

    #[test]
    fn loss_grows_with_time_and_falls_with_a_commit_to_the_age_of_its_data() {
        let commits = BTreeMap::from([(at(-10), at(-30)), (at(100), at(80)), (at(200), at(190))]);
        let line = losses(&commits, at(0), at(250));
        assert_eq!(
            line,
            [
                (at(0), 30.0),
                (at(100), 130.0),
                (at(100), 20.0),
                (at(200), 120.0),
                (at(200), 10.0),
                (at(250), 60.0)
            ]
        );
        // Older data committed later makes nothing worse.
        let late = BTreeMap::from([(at(10), at(5)), (at(20), at(-100))]);
        assert_eq!(
            losses(&late, at(0), at(30)),
            [(at(10), 5.0), (at(20), 15.0), (at(20), 15.0), (at(30), 25.0)]
        );
        assert!(losses(&BTreeMap::new(), at(0), at(30)).is_empty());
    }

    #[test]
    fn a_day_of_a_backup_each_two_seconds_is_no_larger_than_a_picture() {
        let commits = (0..43_200).map(|n| (at(2 * n + 1), at(2 * n))).collect();
        let line = losses(&commits, at(0), at(86_400));
        let mut html = Html::default();
        let _ = loss(&mut html, &line, 300.0, at(0), at(86_400));
        let marks: Vec<_> = commits.keys().map(|at| (*at, Mark::Good)).collect();
        timeline(&mut html, &marks, at(0), at(86_400));
        let page = html.finish();
        assert!(page.len() < 70_000, "{} bytes", page.len());
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn an_outage_is_seen_through_the_thinning() {
        let mut commits: BTreeMap<_, _> = (0..43_200).map(|n| (at(2 * n + 1), at(2 * n))).collect();
        commits.retain(|when, _| !(at(40_000)..at(40_900)).contains(when));
        let line = losses(&commits, at(0), at(86_400));
        let mut html = Html::default();
        let top = loss(&mut html, &line, 300.0, at(0), at(86_400));
        assert!((900.0..1_000.0).contains(&top), "{top}");
        assert!(
            html.finish().matches(",7.").count() >= 1,
            "the peak is drawn near the top"
        );
    }
}
