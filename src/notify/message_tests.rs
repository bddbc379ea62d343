use jiff::Timestamp;

use super::*;
use crate::notify::notice::Notice;
use crate::notify::notice::tests::one_of_each;

fn item(what: What, turn: Turn) -> Item {
    let at: Timestamp = "2026-11-21T03:12:00Z".parse().expect("a time");
    Item {
        id: 1,
        notice: Notice::new(what, at),
        turn,
        since: at,
        at: at.saturating_add(std::time::Duration::from_secs(1500)).expect("a time"),
        episodes: 1,
        tries: 0,
        retry_at: None,
        error: None,
    }
}

fn sender(language: Language) -> Sender {
    Sender {
        service: "pocketbank".to_owned(),
        site: "aws-seoul".to_owned(),
        language,
        contact: Some("on-call 010-0000-0000".to_owned()),
    }
}

fn breached() -> What {
    What::RpoBreached {
        loss_seconds: Some(412),
        target_seconds: 300,
    }
}

#[test]
fn a_mail_says_all_that_is_needed_at_three_in_the_morning() {
    let sender = sender(Language::En);
    let raised = [item(breached(), Turn::Raised)];
    assert_eq!(subject(&sender, &raised), "[pocketbank] CRITICAL: RPO BREACHED");
    assert_eq!(
        text(&sender, &raised),
        "CRITICAL: RPO BREACHED\n\
         If the source vanished now, this would be lost: the last 6 min 52 s. The target allows 5 min. Nothing is pruned meanwhile.\n\
         What to do: Find out why no backup lands: is the agent running, the source reachable, the store reachable?\n\
         Type: planb status\n\
         Noticed: 2026-11-21 03:12:00 UTC\n\n\
         Contact: on-call 010-0000-0000\n\n\
         PlanB, pocketbank (aws-seoul)\n"
    );
    let over = [item(breached(), Turn::Resolved)];
    assert_eq!(
        subject(&sender, &over),
        "[pocketbank] Over: RPO BREACHED (it lasted 25 min)"
    );
}

#[test]
fn korean_is_korean_throughout() {
    let sender = sender(Language::Ko);
    assert_eq!(
        subject(&sender, &[item(breached(), Turn::Raised)]),
        "[pocketbank] 심각: RPO 위반"
    );
    assert_eq!(
        subject(&sender, &[item(breached(), Turn::Resolved)]),
        "[pocketbank] 해소됨: RPO 위반 (25분 동안 지속)"
    );
    let two = [item(breached(), Turn::Raised), item(breached(), Turn::Reminder)];
    assert_eq!(
        subject(&sender, &two),
        "[pocketbank] 알림 2건 묶음 (심각한 순): 심각: RPO 위반"
    );
}

#[test]
fn nothing_that_came_from_outside_is_markup_to_slack() {
    let evil = "<!channel> & <https://evil.example|click> *bold* `code`".to_owned();
    let what = What::BackupFailed { error: evil };
    let message = slack(&sender(Language::En), &[item(what, Turn::Raised)]).to_string();
    assert!(
        !message.contains("<!channel>") && !message.contains("<https"),
        "{message}"
    );
    assert!(message.contains("&lt;!channel&gt; &amp; &lt;https"), "{message}");
}

#[test]
fn slack_gets_no_more_than_it_takes() {
    let items: Vec<Item> = one_of_each().into_iter().map(|what| item(what, Turn::Raised)).collect();
    for language in [Language::En, Language::Ko] {
        let message = slack(&sender(language), &items[..20]);
        let blocks = message["blocks"].as_array().expect("blocks");
        assert!(blocks.len() <= 50);
        for block in blocks {
            assert!(block["text"]["text"].as_str().expect("text").chars().count() <= 3000);
        }
    }
}

#[test]
fn pagerduty_resolves_by_the_key_that_it_was_triggered_with() {
    let sender = sender(Language::En);
    let raised = pagerduty(&sender, &item(breached(), Turn::Raised), "R0");
    assert_eq!(raised["event_action"], "trigger");
    assert_eq!(raised["payload"]["severity"], "critical");
    assert_eq!(raised["payload"]["timestamp"], "2026-11-21T03:12:00Z");
    let over = pagerduty(&sender, &item(breached(), Turn::Resolved), "R0");
    assert_eq!(over["event_action"], "resolve");
    assert_eq!(raised["dedup_key"], over["dedup_key"]);
    let stopped = What::OperationStopped {
        operation: 7,
        command: "planb failover".to_owned(),
        why: "x".to_owned(),
    };
    let ended = What::OperationEnded {
        operation: 7,
        command: "planb failover".to_owned(),
        how: crate::notify::notice::Outcome::Done,
        standing: "x".to_owned(),
    };
    let stopped = pagerduty(&sender, &item(stopped, Turn::Raised), "R0");
    let ended = pagerduty(&sender, &item(ended, Turn::Raised), "R0");
    assert_eq!(
        (stopped["event_action"].as_str(), ended["event_action"].as_str()),
        (Some("trigger"), Some("resolve"))
    );
    assert_eq!(stopped["dedup_key"], ended["dedup_key"]);
}

#[test]
fn a_program_reads_what_it_needs_without_reading_prose() {
    let message = json(&sender(Language::Ko), &item(breached(), Turn::Reminder));
    assert_eq!(message["v"], 1);
    assert_eq!(
        (message["event"].as_str(), message["turn"].as_str()),
        (Some("rpo-breached"), Some("reminder"))
    );
    assert_eq!(message["details"]["loss_seconds"], 412);
}
