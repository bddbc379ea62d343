//! English.

use super::{Language, duration, line, time};
use crate::notify::notice::{Outcome, Verdict, What};

fn told(seconds: u64) -> String {
    duration(seconds, Language::En)
}

fn loss(seconds: Option<u64>) -> String {
    seconds.map_or_else(
        || "everything: there is no good backup".to_owned(),
        |seconds| format!("the last {}", told(seconds)),
    )
}

/// Title, what it means, what to do.
pub(super) fn words(what: &What) -> (String, String, String) {
    let (title, means, todo): (String, String, &str) = match what {
        What::BackupFailed { error } => (
            "Backup failed".into(),
            format!(
                "The last run left no backup; those before it are untouched, and the agent tries again by itself. It says: {}",
                line(error)
            ),
            "If it goes on failing, the RPO is breached: see what stands in the way.",
        ),
        What::BackupDamaged { id, place } => (
            format!("A backup is damaged: {id}"),
            format!(
                "It was read back and is not what was written ({}). It counts as unusable; the RPO counts from the one before.",
                line(place)
            ),
            "Look after the store: one damaged backup may not be the only one. Check it again, then those beside it.",
        ),
        What::RpoAtRisk {
            loss_seconds,
            target_seconds,
        } => (
            "RPO at risk".into(),
            format!(
                "The next backup is not expected to land before more than {} would be lost. If the source vanished now, this would be lost: {}.",
                told(*target_seconds),
                loss(*loss_seconds)
            ),
            "Nothing yet, if it passes. If it comes again, backups are too slow or too rare for the target.",
        ),
        What::RpoBreached {
            loss_seconds,
            target_seconds,
        } => (
            "RPO BREACHED".into(),
            format!(
                "If the source vanished now, this would be lost: {}. The target allows {}. Nothing is pruned meanwhile.",
                loss(*loss_seconds),
                told(*target_seconds)
            ),
            "Find out why no backup lands: is the agent running, the source reachable, the store reachable?",
        ),
        What::ProofTooOld {
            age_seconds,
            allowed_seconds,
        } => (
            "No backup was proven lately".into(),
            format!(
                "A backup was last restored and checked {} ago; {} is allowed. Backups are made, and nobody knows whether they restore.",
                told(*age_seconds),
                told(*allowed_seconds)
            ),
            "Restore one and compare it, today.",
        ),
        What::ProofFailed { error } => (
            "A backup could not be proven".into(),
            format!(
                "The restore that was to prove the newest backup failed or came out different. Until it is understood, do not count on restoring. It says: {}",
                line(error)
            ),
            "Repeat it by hand and read what differs.",
        ),
        What::StoreUnreachable { error } => (
            "The store does not answer".into(),
            format!(
                "Backups cannot be written or listed, and the RPO grows; the agent goes on trying. It says: {}",
                line(error)
            ),
            "Check the network to the second cloud, the storage account and the agent's right to it.",
        ),
        What::VerdictChanged { verdict, why } => match verdict {
            Verdict::Down => (
                "The primary is DOWN".into(),
                format!(
                    "A majority of the watchers agrees that users are not served. {}",
                    line(why)
                ),
                "Decide whether to wait or to move. Look at the plan first: it says what would be lost, and touches nothing.",
            ),
            Verdict::ControlDown => (
                "The primary's cloud does not answer; users are still served".into(),
                format!("The data path works, the cloud's own API does not. {}", line(why)),
                "Do not move the service for this alone. Be ready: what can be had from that cloud only cannot be had now.",
            ),
            Verdict::Unknown => (
                "Nobody can tell how the primary is".into(),
                format!(
                    "Too few of the configured watchers say anything. That never starts a failover. {}",
                    line(why)
                ),
                "Look whether the watchers run and reach the store.",
            ),
            Verdict::Healthy => ("The primary is well".into(), line(why), "Nothing."),
        },
        What::FailoverWithheld { why } => (
            "NO failover begins by itself".into(),
            format!(
                "The primary is down, and the automation may not act: {}. Everybody waits for a person now.",
                line(why)
            ),
            "Decide whether to wait or to move. Look at the plan first: it says what would be lost, and touches nothing.",
        ),
        What::OperationBegun {
            operation,
            command,
            who,
            facts,
        } => (
            format!("{command} was begun by {who}"),
            format!("Operation {operation}. {}", line(&facts.join("; "))),
            "Do not begin another one. Follow it:",
        ),
        What::CommitPoint {
            operation,
            command,
            epoch,
        } => (
            format!("{command}: the commit point is passed"),
            format!(
                "Operation {operation}: from here on nothing is taken back, only gone on with. The epoch is {epoch}; backups of the other site made from now on are orphans."
            ),
            "If it stops, it must be gone on with. Follow it:",
        ),
        What::OperationStopped {
            operation,
            command,
            why,
        } => (
            format!("{command} STOPPED part-way"),
            format!(
                "Operation {operation} waits for a person; nothing is lost by waiting but time. It says: {}",
                line(why)
            ),
            "Settle what stands in the way, then go on, from any machine:",
        ),
        What::OperationEnded {
            operation,
            command,
            how,
            standing,
        } => (
            match how {
                Outcome::Done => format!("{command} is done"),
                Outcome::Abandoned => format!("{command} was abandoned and taken back"),
                Outcome::GivenUp => format!("{command} was given up: NOBODY SERVES"),
            },
            format!("Operation {operation} has ended; {}.", line(standing)),
            match how {
                Outcome::Done | Outcome::Abandoned => "Look whether users are served. Who did what and when:",
                Outcome::GivenUp => {
                    "Let the primary serve again by a stand-down: planb failback. Who did what and when:"
                }
            },
        ),
        What::StepBegan { operation, step } => (
            format!("Step {step} began"),
            format!("Operation {operation}."),
            "Nothing. Follow it:",
        ),
        What::StepEnded { operation, step, note } => (
            format!("Step {step} is done"),
            format!("Operation {operation}. {}", line(note)),
            "Nothing. Follow it:",
        ),
        What::StepFailed { operation, step, error } => (
            format!("Step {step} failed"),
            format!(
                "Operation {operation}. If tries are left, it is tried again by itself. It says: {}",
                line(error)
            ),
            "Nothing before the operation says that it stopped. Follow it:",
        ),
        What::RuleAccepted {
            operation,
            rule,
            reason,
            who,
        } => (
            format!("{who} answered for the safety rule {rule}"),
            format!(
                "Operation {operation} goes on although the rule {rule} stands against it. The reason given: {}",
                line(reason)
            ),
            "If you know better, speak up now. Who did what and when:",
        ),
        What::PendingFence { site, why } => (
            format!("The fence of the {site} is not proven"),
            format!(
                "The service moved, and nobody could prove that the {site} takes no more writes. If it comes back, it may. It is tried again by itself. {}",
                line(why)
            ),
            "Make sure by hand that the application cannot write there, and do not start it there.",
        ),
        What::DrillResult { passed: true, summary } => {
            ("The drill passed".into(), line(summary), "Nothing. Keep the report.")
        }
        What::DrillResult { passed: false, summary } => (
            "The drill FAILED".into(),
            format!(
                "What was rehearsed would not have worked, or not in time. It says: {}",
                line(summary)
            ),
            "Read the report, mend it, and rehearse again before the night it is needed.",
        ),
        What::DrillLeft { begun, who, host } => (
            "A rehearsal was left standing".into(),
            format!(
                "{who} began it {begun} on {host}, and its process is gone. Servers and machines that it made still stand, and cost. What is \
                 real is not touched by it. It is taken back by itself where [drill] is kept; it is told as long as that does not succeed."
            ),
            "If it does not go by itself, take it back, and read what stands against that:",
        ),
        What::DarkCheck { findings } => (
            "A recovery still needs the cloud that may be down".into(),
            format!("Found with its addresses out of reach: {}", line(&findings.join("; "))),
            "Give each of these a second way, then check again:",
        ),
        What::CertificateExpiring { name, expires_at } => (
            format!("The certificate of {name} expires"),
            format!(
                "It is good until {}. After that, connections that check it are refused, and they all do.",
                time(*expires_at)
            ),
            "Renew it. Then check:",
        ),
        What::ChannelFailing { channel, error } => (
            format!("The channel {channel} takes no messages"),
            format!(
                "Whoever counts on it is not told. Messages are kept, and sent when it takes them again. It says: {}",
                line(error)
            ),
            "Mend it, then try it:",
        ),
        What::Test { who } => (
            "Test: this channel works".into(),
            format!("{who} tried it with planb notify --test. Nothing is wrong."),
            "Nothing.",
        ),
    };
    (title, means, todo.to_owned())
}
