//! People are told by mail: a real SMTP server that takes it, hangs, refuses, and recovers; and nothing is said where nobody checked
//! who listens.

mod daemon;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemon::Daemon;
use jiff::Timestamp;
use planb::clock::{Clock, SystemClock};
use planb::config::Config;
use planb::notify::channel::{self, Taken};
use planb::notify::desk::{Item, Refusal};
use planb::notify::notice::{Notice, Verdict, What};
use planb::notify::words::Turn;
use support::mail::MailServer;
use support::receiver::{Manner, Receiver};
use support::{PASSWORD, Planb};

const SOON: Duration = Duration::from_secs(90);
const MAIL_PASSWORD: &str = "M4il-geheim-2";

/// Lines of a channel to this server.
fn channel_lines(server: &MailServer, tls: &str, to: &str) -> String {
    let authority = match tls {
        "off" => String::new(),
        _ => format!("tls_ca = \"{}\"\n", server.tls.ca.display()),
    };
    format!(
        "[[notify.channels]]\nname = \"mail\"\nkind = \"email\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"{tls}\"\n{authority}\
         from = \"planb@bank.example\"\nto = [{to}]\nuser = \"planb\"\npassword = \"env:MAIL_PASSWORD\"\n",
        server.port
    )
}

/// PlanB whose source's password is nowhere, so that there never is a backup; and how it is reached by mail.
fn without_source(server: &MailServer) -> Planb {
    let mut planb = Planb::empty();
    let state = planb.path().join("state");
    std::fs::create_dir(&state).expect("a directory");
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n\
         [source]\nhost = \"127.0.0.1\"\nuser = \"reader\"\npassword = \"env:NOBODY_SET_THIS\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{}\"\n\
         [notify]\nstate = \"{}\"\nlanguage = \"ko\"\ncontact = \"DR 당직 010-0000-0000\"\n{}",
        planb.store().display(),
        state.display(),
        channel_lines(server, "starttls", "\"oncall@bank.example\", \"lead@bank.example\""),
    ));
    planb.env.push(("MAIL_PASSWORD".to_owned(), MAIL_PASSWORD.to_owned()));
    planb
}

fn assert_no_secret(text: &str) {
    assert!(
        !text.contains(MAIL_PASSWORD) && !text.contains(PASSWORD),
        "a secret is told: {text}"
    );
}

/// One message, straight through the channel of a configuration.
async fn send(lines: &str, password: &Path, turn: Turn, at: Timestamp) -> Result<Taken, Refusal> {
    let lines = lines.replace("env:MAIL_PASSWORD", &format!("file:{}", password.display()));
    let config = Config::parse(&format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword = \"env:U\"\n\
         [store]\nurl = \"file:///tmp/store\"\n[notify]\nlanguage = \"ko\"\n{lines}"
    ))
    .expect("a configuration");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let line = channel::lines(&config, &clock).remove(0);
    let since: Timestamp = "2026-03-01T03:00:00Z".parse().expect("a time");
    let what = What::VerdictChanged {
        verdict: Verdict::Down,
        why: "seoul: http unhealthy".to_owned(),
    };
    let item = Item {
        id: 7,
        notice: Notice::new(what, since),
        turn,
        since,
        at,
        episodes: 1,
        tries: 0,
        retry_at: None,
        error: None,
    };
    line.channel.send(&channel::sender(&config), &[item]).await
}

/// The right password in a file; and a wrong one.
fn passwords(dir: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (right, wrong) = (dir.join("right"), dir.join("wrong"));
    std::fs::write(&right, MAIL_PASSWORD).expect("a file");
    std::fs::write(&wrong, format!("{MAIL_PASSWORD}-old")).expect("a file");
    (right, wrong)
}

#[test]
fn mail_arrives_encrypted_after_a_login_in_korean_and_what_was_not_taken_waits() {
    let (server, hook) = (
        MailServer::start("starttls", MAIL_PASSWORD),
        Receiver::start(Manner::Takes),
    );
    let mut planb = without_source(&server);
    planb.env.push(("URL".to_owned(), hook.url("x")));
    planb.configure("[[notify.channels]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"env:URL\"\n");

    // A mail server that hangs delays nobody.
    server.set("hang");
    let mut agent = Daemon::start(&planb);
    server.wait_heard("DATA");
    hook.wait(&["\"rpo-breached\""]);
    // It gives up, fails for a while, and is tried again.
    server.set("451 4.3.0 out of space");
    agent.wait_log("not told; it is kept and tried again", 1, SOON);
    let line = "on mail: RPO 위반 (127.0.0.1:";
    let shown = agent.wait("a line", SOON, |_| {
        let shown = planb.ok(&["notify", "--undelivered"]);
        shown.contains(line).then_some(shown)
    });
    assert!(shown.contains("message: 451 4.3.0 out of space"), "{shown}");
    assert!(planb.ok(&["status"]).contains("NOT TOLD"));
    assert!(server.mails().is_empty());
    server.set("take");
    let mail = server.wait(&["RPO 위반"]);
    assert_eq!(mail["subject"], "[bank] 심각: RPO 위반");
    assert_eq!(
        mail["to"],
        serde_json::json!(["oncall@bank.example", "lead@bank.example"])
    );
    assert_eq!((&mail["tls"], &mail["authenticated"]), (&true.into(), &true.into()));
    // Every server on the way carries it as it is.
    assert_eq!((&mail["is_ascii"], &mail["mime"]), (&true.into(), &"1.0".into()));
    assert_eq!(mail["auto"], "auto-generated");
    assert_eq!(mail["header_from"], "PlanB bank <planb@bank.example>");
    let body = mail["body"].as_str().expect("a body");
    for part in ["planb status", "연락처: DR 당직 010-0000-0000", "PlanB, bank"] {
        assert!(body.contains(part), "{body}");
    }
    agent.wait("an empty list", SOON, |_| {
        planb
            .ok(&["notify", "--undelivered"])
            .contains("everything was told")
            .then_some(())
    });
    let kept = std::fs::read_to_string(planb.path().join("state/notify.json")).expect("a state");
    for text in [&kept, &agent.heard().told(), &shown] {
        assert_no_secret(text);
    }
    agent.stop().assert_clean(Duration::from_secs(30));

    let said = planb.ok(&["notify", "--test", "--channel", "mail"]);
    assert!(said.contains("mail") && said.contains("took it"), "{said}");
    server.wait(&["시험: 이 채널은 정상입니다"]);
}

#[tokio::test]
async fn nothing_is_said_where_nobody_checked_who_listens() {
    let dir = tempfile::tempdir().expect("a directory");
    let (right, _) = passwords(dir.path());
    let now = Timestamp::UNIX_EPOCH;
    let (server, stranger) = (
        MailServer::start("starttls", MAIL_PASSWORD),
        MailServer::start("plain", MAIL_PASSWORD),
    );
    let own = channel_lines(&server, "starttls", "\"a@bank.example\"");
    // Signed by an authority that nobody named.
    let other = own.replace(
        &server.tls.ca.display().to_string(),
        &stranger.tls.ca.display().to_string(),
    );
    let refused = send(&other, &right, Turn::Raised, now).await.expect_err("refused");
    assert!(
        refused.error.contains("STARTTLS: ") && refused.error.contains("certificate"),
        "{refused:?}"
    );
    assert!(!refused.is_permanent, "it may be renewed over there");
    // Signed by the right one, for somebody else. 127.0.0.2 is this machine too, and not in the certificate.
    let elsewhere = own.replace("host = \"127.0.0.1\"", "host = \"127.0.0.2\"");
    let refused = send(&elsewhere, &right, Turn::Raised, now).await.expect_err("refused");
    assert!(refused.error.contains("certificate"), "{refused:?}");
    assert!(
        server.heard().iter().all(|command| command == "EHLO"),
        "{:?}",
        server.heard()
    );
    // Somebody in between has struck STARTTLS from the greeting.
    let stripped = channel_lines(&stranger, "starttls", "\"a@bank.example\"");
    let refused = send(&stripped, &right, Turn::Raised, now).await.expect_err("refused");
    assert!(
        refused.is_permanent && refused.error.contains("offers no STARTTLS"),
        "{refused:?}"
    );
    assert_eq!(stranger.heard(), ["EHLO"]);
    assert!(server.mails().is_empty() && stranger.mails().is_empty());
}

#[tokio::test]
async fn every_way_of_encryption_works_and_one_matter_is_one_conversation() {
    let dir = tempfile::tempdir().expect("a directory");
    let (right, _) = passwords(dir.path());
    let now: Timestamp = "2026-03-01T03:20:00Z".parse().expect("a time");
    let implicit = MailServer::start("implicit", MAIL_PASSWORD);
    let lines = channel_lines(&implicit, "implicit", "\"a@bank.example\"");
    // The answer to the first was lost, and it is sent again.
    for turn in [Turn::Raised, Turn::Raised, Turn::Resolved] {
        send(&lines, &right, turn, now).await.expect("taken");
    }
    let mails = implicit.mails();
    assert_eq!(mails[0]["id"], mails[1]["id"]);
    assert_ne!(mails[0]["id"], mails[2]["id"]);
    assert!(mails[0]["references"].is_string());
    assert_eq!(mails[0]["references"], mails[2]["references"]);
    assert_eq!(mails[0]["authenticated"], true);
    // A relay on this machine.
    let relay = MailServer::start("plain", MAIL_PASSWORD);
    let lines = channel_lines(&relay, "off", "\"a@bank.example\"");
    let lines = lines.replace("user = \"planb\"\npassword = \"env:MAIL_PASSWORD\"\n", "");
    assert_eq!(send(&lines, &right, Turn::Raised, now).await, Ok(Taken::default()));
    assert_eq!(relay.heard(), ["EHLO", "MAIL", "RCPT", "DATA"]);
}

#[tokio::test]
async fn what_a_person_must_mend_is_told_apart_and_no_password_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (right, wrong) = passwords(dir.path());
    let now = Timestamp::UNIX_EPOCH;
    let mut server = MailServer::start("starttls", MAIL_PASSWORD);
    let lines = channel_lines(&server, "starttls", "\"a@bank.example\"");

    for manner in ["take", "repeat"] {
        server.set(manner);
        let refused = send(&lines, &wrong, Turn::Raised, now).await.expect_err("refused");
        assert!(refused.is_permanent && refused.error.contains("login: "), "{refused:?}");
        assert_no_secret(&refused.error);
    }
    server.set("554 5.7.1 not from you");
    let refused = send(&lines, &right, Turn::Raised, now).await.expect_err("refused");
    assert!(
        refused.is_permanent && refused.error.contains("message: 554 5.7.1 not from you"),
        "{refused:?}"
    );
    server.set("take");
    let unknown = lines.replace("a@bank.example", "gone@bank.example");
    let gone = send(&unknown, &right, Turn::Raised, now);
    let gone = gone.await.expect_err("refused");
    assert!(
        gone.is_permanent && gone.error.contains("recipient gone@bank.example: 550"),
        "{gone:?}"
    );
    // Somebody who left keeps the mail from nobody else; whoever tries the channel hears of it.
    let both = lines.replace(
        "\"a@bank.example\"",
        "\"gone@bank.example\", \"a@bank.example\", \"busy@bank.example\"",
    );
    let taken = send(&both, &right, Turn::Raised, now).await.expect("taken");
    let except = taken.except.expect("somebody");
    assert!(
        except.contains("gone@bank.example: 550") && except.contains("busy@bank.example: 451"),
        "{except}"
    );
    let mails = server.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0]["to"], serde_json::json!(["a@bank.example"]));
    // All of them may take it later.
    let busy = lines.replace("a@bank.example", "busy@bank.example");
    let busy = send(&busy, &right, Turn::Raised, now).await.expect_err("refused");
    assert!(!busy.is_permanent, "{busy:?}");
    // One that never answers is given up, and nothing listens at all is told too.
    server.set("hang");
    let hung = send(&lines, &right, Turn::Raised, now).await.expect_err("given up");
    assert!(
        !hung.is_permanent && hung.error.contains("no answer within 25 s"),
        "{hung:?}"
    );
    let port = server.port;
    server.end();
    let away = send(&lines, &right, Turn::Raised, now).await.expect_err("away");
    assert!(
        !away.is_permanent && away.error.contains(&format!("127.0.0.1:{port}: connect: ")),
        "{away:?}"
    );
}
