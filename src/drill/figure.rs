//! Charts as SVG text, complete in themselves: no script, nothing from elsewhere, readable in the dark.

use super::report::{Report, StepReport};

const WIDTH: f64 = 720.0;
const LABEL: f64 = 170.0;
const ROW: f64 = 26.0;

/// `<`, `>`, `&` and quotes as what they look like.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

/// Every step as a bar on one axis, the clean-up paler below, the target as a line.
pub fn timeline(report: &Report) -> String {
    let bars: Vec<(&StepReport, bool)> = report
        .steps
        .iter()
        .map(|step| (step, false))
        .chain(report.clean_up.iter().map(|step| (step, true)))
        .filter(|(step, _)| step.begun_after_seconds.is_some())
        .collect();
    let end = |step: &StepReport| step.begun_after_seconds.unwrap_or(0.0) + step.seconds.unwrap_or(0.0);
    let longest = bars.iter().map(|(step, _)| end(step)).fold(1.0, f64::max);
    let target = report.rto.target_seconds;
    // A target far away would press everything into the corner.
    let shows_target = target <= longest * 3.0;
    let axis = if shows_target { longest.max(target) } else { longest } * 1.05;
    let x = |seconds: f64| LABEL + seconds / axis * (WIDTH - LABEL - 70.0);
    let height = ROW * count(bars.len()) + 30.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"how long each step took\" xmlns=\"http://www.w3.org/2000/svg\">"
    );
    for (row, (step, is_back)) in bars.iter().enumerate() {
        let top = ROW * count(row) + 4.0;
        let from = x(step.begun_after_seconds.unwrap_or(0.0));
        let width = (x(end(step)) - from).max(2.0);
        let class = match (step.state.as_str(), is_back) {
            ("done", _) => "done",
            ("taken back", _) => "back",
            _ => "bad",
        };
        let label = if *is_back {
            format!("{} (taken back)", step.name)
        } else {
            step.name.clone()
        };
        let took = step
            .seconds
            .map_or_else(|| step.state.clone(), |seconds| format!("{seconds:.1} s"));
        svg.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.1}\" class=\"label\">{}</text><rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"18\" \
             rx=\"3\" class=\"{class}\"/><text x=\"{:.1}\" y=\"{:.1}\" class=\"value\">{}</text>",
            LABEL - 8.0,
            top + 13.0,
            escaped(&label),
            from + width + 5.0,
            top + 13.0,
            escaped(&took)
        ));
    }
    let bottom = ROW * count(bars.len()) + 4.0;
    if shows_target && target > 0.0 {
        svg.push_str(&format!(
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"0\" y2=\"{bottom:.1}\" class=\"target\"/><text x=\"{0:.1}\" y=\"{1:.1}\" \
             class=\"value\">target {target:.0} s</text>",
            x(target) - 2.0,
            bottom + 16.0
        ));
    }
    svg.push_str(&format!(
        "<text x=\"{LABEL}\" y=\"{:.1}\" class=\"value\">0 s</text></svg>",
        bottom + 16.0
    ));
    svg
}

/// RTO of one rehearsal after the other against the target.
pub fn history(reports: &[Report]) -> String {
    let points: Vec<(&Report, f64)> = reports
        .iter()
        .filter_map(|report| Some((report, report.rto.seconds?)))
        .collect();
    if points.len() < 2 {
        return String::new();
    }
    let target = points.last().map_or(0.0, |(report, _)| report.rto.target_seconds);
    let top = points.iter().map(|(_, seconds)| *seconds).fold(target, f64::max) * 1.1;
    let (width, height) = (WIDTH - 60.0, 160.0);
    let x = |at: usize| 50.0 + width * count(at) / count((points.len() - 1).max(1)) * 0.95;
    let y = |seconds: f64| 10.0 + height * (1.0 - seconds / top);
    let line: Vec<String> = points
        .iter()
        .enumerate()
        .map(|(at, (_, seconds))| format!("{:.1},{:.1}", x(at), y(*seconds)))
        .collect();
    let dots: String = points
        .iter()
        .enumerate()
        .map(|(at, (report, seconds))| {
            let class = if report.rto.is_met() { "done" } else { "bad" };
            format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" class=\"{class}\"><title>{}: {seconds:.1} s</title></circle>",
                x(at),
                y(*seconds),
                escaped(&report.id)
            )
        })
        .collect();
    format!(
        "<svg viewBox=\"0 0 {WIDTH} 200\" role=\"img\" aria-label=\"time to healthy of the last rehearsals\" \
         xmlns=\"http://www.w3.org/2000/svg\"><line x1=\"50\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" class=\"target\"/><text x=\"46\" \
         y=\"{1:.1}\" class=\"label\">{target:.0} s</text><text x=\"46\" y=\"{2:.1}\" class=\"label\">0 s</text><polyline points=\"{3}\" \
         class=\"line\"/>{dots}</svg>",
        y(target),
        y(target) + 4.0,
        y(0.0) + 4.0,
        line.join(" ")
    )
}

#[expect(clippy::cast_precision_loss, reason = "rows of a chart")]
fn count(number: usize) -> f64 {
    number as f64
}
