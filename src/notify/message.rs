//! What a channel is sent: the same words as a mail, as Slack's blocks, as PagerDuty's event, as JSON for programs. Pure.

use serde_json::{Value, json};

use super::desk::Item;
use super::notice::{Severity, What, keys};
use super::words::{self, Language, Turn, labels, words};

/// Slack takes 3000 letters a block, and 50 blocks.
const MOST_IN_BLOCK: usize = 2900;
/// PagerDuty takes 1024 letters of a summary, and 255 of a key.
const MOST_IN_SUMMARY: usize = 1000;

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    pub service: String,
    pub site: String,
    pub language: Language,
    /// Whom to call.
    pub contact: Option<String>,
}

fn severity(severity: Severity, language: Language) -> &'static str {
    match (severity, language) {
        (Severity::Info, Language::En) => "info",
        (Severity::Warning, Language::En) => "warning",
        (Severity::Critical, Language::En) => "CRITICAL",
        (Severity::Info, Language::Ko) => "정보",
        (Severity::Warning, Language::Ko) => "경고",
        (Severity::Critical, Language::Ko) => "심각",
    }
}

/// `CRITICAL: RPO BREACHED`
fn headline(item: &Item, language: Language) -> String {
    let title = words(&item.notice, language).title;
    let said = words::turn(item.turn, language, &title, item.since, item.at);
    match item.turn {
        Turn::Resolved => said,
        Turn::Raised | Turn::Reminder => format!("{}: {said}", severity(item.notice.severity, language)),
    }
}

/// For a mail, and for whatever shows one line.
pub fn subject(sender: &Sender, items: &[Item]) -> String {
    let said = match items {
        [only] => headline(only, sender.language),
        several => {
            let first = several.first().map(|item| headline(item, sender.language));
            let count = words::digest(several.len(), sender.language);
            format!("{count}: {}", first.unwrap_or_default())
        }
    };
    format!("[{}] {said}", sender.service)
}

/// One after the other, each in a paragraph of its own.
pub fn text(sender: &Sender, items: &[Item]) -> String {
    let parts: Vec<String> = items.iter().map(|item| part(item, sender.language)).collect();
    let mut text = parts.join("\n\n");
    if let Some(contact) = &sender.contact {
        text.push_str(&format!("\n\n{}: {contact}", labels(sender.language).contact));
    }
    text.push_str(&format!("\n\nPlanB, {} ({})\n", sender.service, sender.site));
    text
}

fn part(item: &Item, language: Language) -> String {
    let (said, labels) = (words(&item.notice, language), labels(language));
    let noticed = format!("{}: {}", labels.noticed, words::time(item.since));
    let headline = headline(item, language);
    if item.turn == Turn::Resolved {
        return format!("{headline}\n{noticed}");
    }
    let mut lines = vec![headline, said.means];
    if item.episodes > 2 {
        lines.push(words::flapping(item.episodes, language));
    }
    lines.push(format!("{}: {}", labels.todo, said.todo));
    if let Some(command) = said.command {
        lines.push(format!("{}: {command}", labels.command));
    }
    lines.push(noticed);
    lines.join("\n")
}

/// <https://api.slack.com/reference/surfaces/formatting#escaping>
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// For an incoming webhook.
pub fn slack(sender: &Sender, items: &[Item]) -> Value {
    let mut blocks: Vec<Value> = items
        .iter()
        .map(|item| section(&slack_part(item, sender.language)))
        .collect();
    if let Some(contact) = &sender.contact {
        let contact = format!("{}: {}", labels(sender.language).contact, escaped(contact));
        blocks.push(section(&contact));
    }
    // Shown in notifications, and where blocks cannot be.
    json!({"text": escaped(&subject(sender, items)), "blocks": blocks})
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(text, MOST_IN_BLOCK)}})
}

fn slack_part(item: &Item, language: Language) -> String {
    let (said, labels) = (words(&item.notice, language), labels(language));
    let sign = match (item.turn, item.notice.severity) {
        (Turn::Resolved, _) => ":large_green_circle:",
        (_, Severity::Critical) => ":red_circle:",
        (_, Severity::Warning) => ":large_yellow_circle:",
        (_, Severity::Info) => ":white_circle:",
    };
    let mut lines = vec![format!("{sign} *{}*", bold(&headline(item, language)))];
    if item.turn != Turn::Resolved {
        lines.push(escaped(&said.means));
        if item.episodes > 2 {
            lines.push(words::flapping(item.episodes, language));
        }
        lines.push(format!("*{}*: {}", labels.todo, escaped(&said.todo)));
        if let Some(command) = said.command {
            lines.push(format!("`{}`", escaped(&command).replace('`', "'")));
        }
    }
    lines.push(format!("_{}: {}_", labels.noticed, words::time(item.since)));
    lines.join("\n")
}

/// A star inside would end it.
fn bold(text: &str) -> String {
    escaped(text).replace('*', "∗")
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// PagerDuty's Events v2. What happens to an operation speaks for what is open there: whoever begins one has seen that the primary
/// is down, and its end ends what its stop raised.
pub fn pagerduty(sender: &Sender, item: &Item, routing_key: &str) -> Value {
    let key = |key: &str| cut(&format!("planb/{}/{key}", sender.service), 250);
    let (action, dedup_key) = match (&item.notice.what, item.turn) {
        (What::OperationBegun { .. }, _) => ("acknowledge", key(keys::PRIMARY)),
        (What::OperationEnded { operation, .. }, _) => ("resolve", key(&keys::operation(*operation))),
        (_, Turn::Resolved) => ("resolve", key(&item.notice.key)),
        (_, Turn::Raised | Turn::Reminder) => ("trigger", key(&item.notice.key)),
    };
    let mut event = json!({"routing_key": routing_key, "event_action": action, "dedup_key": dedup_key});
    if action == "trigger" {
        let said = words(&item.notice, sender.language);
        let summary = format!("[{}] {}", sender.service, headline(item, sender.language));
        event["payload"] = json!({
            "summary": cut(&summary, MOST_IN_SUMMARY),
            "source": format!("{} ({})", sender.service, sender.site),
            "severity": item.notice.severity.name(),
            "timestamp": item.since.to_string(),
            "component": "planb",
            "class": item.notice.what.event(),
            "custom_details": {
                "means": said.means, "todo": said.todo, "command": said.command, "contact": sender.contact,
            },
        });
    }
    event
}

/// For programs: one object, whose `details` are the event's own.
pub fn json(sender: &Sender, item: &Item) -> Value {
    let said = words(&item.notice, sender.language);
    json!({
        "v": 1,
        "id": item.id,
        "service": sender.service,
        "site": sender.site,
        "event": item.notice.what.event(),
        "key": item.notice.key,
        "severity": item.notice.severity.name(),
        "turn": item.turn.name(),
        "lasts": item.notice.what.lasts(),
        "since": item.since.to_string(),
        "at": item.at.to_string(),
        "title": said.title,
        "means": said.means,
        "todo": said.todo,
        "command": said.command,
        "contact": sender.contact,
        "details": item.notice.what,
    })
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
