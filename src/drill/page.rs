//! A report for people: one HTML page that needs nothing else, and the same in Markdown. Pure.

use jiff::Timestamp;

use super::figure::{escaped, history, timeline};
use super::report::{Measure, Report, StepReport, Verdict};

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--good:#1a7f37;--bad:#cf222e;--back:#8c959f;--edge:#d0d7de}\
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#8d96a0;--good:#3fb950;--bad:#f85149;--back:#6e7681;--edge:#30363d}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:48rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%;font-size:.92rem}\
td,th{border-bottom:1px solid var(--edge);padding:.3rem .6rem .3rem 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
.steps td:nth-child(-n+4),.steps th{white-space:nowrap;overflow-wrap:normal}.verdict{font-size:1.25rem;font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}code{font-size:.85em;overflow-wrap:anywhere}\
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg .label{text-anchor:end;fill:var(--fg)}svg .value{fill:var(--soft)}\
svg rect.done,svg circle.done{fill:var(--good)}svg rect.back{fill:var(--back)}svg rect.bad,svg circle.bad{fill:var(--bad)}\
svg .target{stroke:var(--bad);stroke-dasharray:4 3}svg .line{fill:none;stroke:var(--soft)}footer{color:var(--soft);font-size:.85rem;margin-top:2rem}";

/// Title and cells of everything that is told as a table of facts.
fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("service", report.service.clone()),
        ("rehearsed", format!("stage {}", report.stage)),
        ("begun", time(report.begun_at)),
        ("healthy or ended", time(report.ended_at)),
        (
            "cleaned up",
            report
                .cleaned_at
                .map_or_else(|| "NO: planb drill --clean".to_owned(), time),
        ),
        (
            "by",
            format!("{} on {}, planb {}", report.who, report.host, report.planb),
        ),
        (
            "moment of loss",
            report.lost_at.map_or_else(String::new, |at| {
                format!("{}, drawn at random (seed {})", time(at), report.seed)
            }),
        ),
        ("backup", report.backup.id.clone()),
        ("its digest (SHA-256)", report.backup.digest.clone()),
        (
            "its data is of",
            report.backup.consistent_at.map_or_else(String::new, time),
        ),
        (
            "its size",
            format!(
                "{} bytes of SQL, {} stored, {} rows",
                report.backup.raw_bytes, report.backup.stored_bytes, report.backup.rows
            ),
        ),
    ];
    if let Some(worst) = report.worst_loss_seconds {
        facts.push(("worst loss of the day before", format!("{worst:.1} s")));
    }
    facts.push((
        "journal",
        format!(
            "{} entries, digest of the last: {}",
            report.journal_entries, report.journal_digest
        ),
    ));
    if !report.configuration.is_empty() {
        facts.push(("configuration (SHA-256)", report.configuration.clone()));
    }
    facts
}

fn verdict(report: &Report) -> String {
    match report.result {
        Verdict::Met => "Both targets were met".to_owned(),
        Verdict::Missed => format!("A target was missed: {}", report.why),
        Verdict::Failed => format!("It failed: {}", report.why),
        Verdict::Interrupted => format!("It was interrupted: {}", report.why),
    }
}

/// The forecast in a sentence; none where there is none.
pub fn foretold(report: &Report) -> Option<String> {
    let told = report.forecast.as_ref()?;
    let breaks = match told.breaks_at_bytes {
        Some(_) if told.seconds > told.target_seconds => ": the target WILL BREAK".to_owned(),
        Some(bytes) => format!("; the target breaks at about {} of SQL", size(bytes)),
        None => String::new(),
    };
    let rests = match (told.proofs, told.sizes) {
        (0, 0 | 1) => " It rests on one size only, and takes everything that handles data to grow with it.".to_owned(),
        (0, _) => String::new(),
        (proofs, _) => format!(" How it grows is taken from {proofs} proofs, which restored backups of other sizes."),
    };
    Some(format!(
        "With today's {} of SQL a disaster would take {:.0} s (target {:.0} s){breaks}. From {} rehearsals.{rests}",
        size(told.raw_bytes),
        told.seconds,
        told.target_seconds,
        told.rehearsals
    ))
}

/// `reports`: all there are, oldest first, this one among them.
pub fn html(report: &Report, reports: &[Report]) -> String {
    let class = if report.passed() { "good" } else { "bad" };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>{0}</title>\
         <style>{STYLE}</style></head><body><h1>Disaster rehearsal {0}</h1><p class=\"verdict {class}\">{1}</p>",
        escaped(&report.id),
        escaped(&verdict(report))
    );
    page.push_str("<table><tr><th></th><th>measured</th><th>target</th><th></th></tr>");
    for (name, measure) in [
        ("RPO: data lost, as time", report.rpo),
        ("RTO: from the beginning to healthy", report.rto),
    ] {
        let (seconds, met) = measured(measure);
        let class = if measure.is_met() { "good" } else { "bad" };
        page.push_str(&format!(
            "<tr><td>{name}</td><td>{seconds}</td><td>{:.0} s</td><td class=\"{class}\">{met}</td></tr>",
            measure.target_seconds
        ));
    }
    page.push_str("</table>");
    if let Some(text) = foretold(report) {
        page.push_str(&format!("<p>{}</p>", escaped(&text)));
    }
    page.push_str(&format!("<h2>Step by step</h2>{}", timeline(report)));
    page.push_str("<table class=\"steps\"><tr><th>step</th><th>kind</th><th>result</th><th>took</th><th></th></tr>");
    for step in report.steps.iter().chain(&report.clean_up) {
        page.push_str(&format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&step.name),
            escaped(&step.kind),
            escaped(&step.state),
            took(step),
            escaped(&step.note)
        ));
    }
    page.push_str("</table>");
    let past = history(reports);
    if !past.is_empty() {
        page.push_str(&format!("<h2>Time to healthy, rehearsal by rehearsal</h2>{past}"));
    }
    page.push_str("<h2>Evidence</h2><table>");
    for (name, value) in facts(report) {
        page.push_str(&format!("<tr><th>{name}</th><td>{}</td></tr>", escaped(&value)));
    }
    for (name, value) in &report.evidence {
        page.push_str(&format!(
            "<tr><th>{}</th><td>{}</td></tr>",
            escaped(name),
            escaped(value)
        ));
    }
    page.push_str("</table>");
    if !report.skipped.is_empty() {
        page.push_str("<h2>Not rehearsed</h2><table>");
        for (name, why) in &report.skipped {
            page.push_str(&format!("<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(why)));
        }
        page.push_str("</table>");
    }
    page.push_str(&format!(
        "<footer>Told from the journal of the rehearsal, each of whose entries holds the digest of the one before. Nothing real was touched: \
         no fence, no traffic, no event. {}</footer></body></html>\n",
        escaped(&report.id)
    ));
    page
}

/// The same for a terminal or a ticket.
pub fn markdown(report: &Report) -> String {
    let mut page = format!(
        "# Disaster rehearsal {}\n\n**{}**\n\n",
        report.id,
        cell(&verdict(report))
    );
    page.push_str("| | measured | target | |\n|---|---|---|---|\n");
    for (name, measure) in [
        ("RPO: data lost, as time", report.rpo),
        ("RTO: from the beginning to healthy", report.rto),
    ] {
        let (seconds, met) = measured(measure);
        page.push_str(&format!(
            "| {name} | {seconds} | {:.0} s | {met} |\n",
            measure.target_seconds
        ));
    }
    if let Some(text) = foretold(report) {
        page.push_str(&format!("\n{text}\n"));
    }
    page.push_str("\n## Step by step\n\n| step | kind | result | took | |\n|---|---|---|---|---|\n");
    for step in report.steps.iter().chain(&report.clean_up) {
        page.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            step.name,
            step.kind,
            step.state,
            took(step),
            cell(&step.note)
        ));
    }
    page.push_str("\n## Evidence\n\n| | |\n|---|---|\n");
    for (name, value) in facts(report) {
        page.push_str(&format!("| {name} | {} |\n", cell(&value)));
    }
    for (name, value) in &report.evidence {
        page.push_str(&format!("| {name} | {} |\n", cell(value)));
    }
    if !report.skipped.is_empty() {
        page.push_str("\n## Not rehearsed\n\n| step | why |\n|---|---|\n");
        for (name, why) in &report.skipped {
            page.push_str(&format!("| {name} | {} |\n", cell(why)));
        }
    }
    page
}

fn measured(measure: Measure) -> (String, &'static str) {
    match measure.seconds {
        Some(seconds) => (
            format!("{seconds:.1} s"),
            if measure.is_met() { "met" } else { "MISSED" },
        ),
        None => ("not reached".to_owned(), "MISSED"),
    }
}

fn took(step: &StepReport) -> String {
    step.seconds
        .map_or_else(String::new, |seconds| format!("{seconds:.1} s"))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[expect(clippy::cast_precision_loss, reason = "shown to a digit")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{bytes} bytes"),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
