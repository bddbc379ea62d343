//! Traces as a collector gets them: a real one's endpoint on loopback, which takes, hangs, goes and comes back.

#![cfg(feature = "otlp")]

mod daemon;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use daemon::Daemon;
use support::planb::text;
use support::receiver::{Manner, Message, Receiver};
use support::{Flavor, PASSWORD, Planb, Server, reader, unique_schema};

/// Other tests share these two cores.
const SOON: Duration = Duration::from_secs(60);
const KEY: &str = "K3y-of-the-c0llector";

fn planb(collector: &Receiver, more: &str) -> Planb {
    let server = Server::shared(Flavor::MySql);
    let schema = unique_schema("traces");
    server.sql(&format!(
        "CREATE DATABASE {schema}; CREATE TABLE {schema}.t (id INT PRIMARY KEY); INSERT INTO {schema}.t VALUES (1), (2);"
    ));
    let mut planb = Planb::new(&server, &reader(&server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    let otlp = collector.url("");
    planb.configure(&format!(
        "[targets]\nrpo = \"1d\"\n[backup]\nschedule = \"*/2 * * * * *\"\nverify_source = \"never\"\n\
         [telemetry]\notlp = \"{otlp}\"\nheaders = \"env:PLANB_TEST_COLLECTOR\"\nservice_name = \"planb-test\"\n{more}"
    ));
    planb
        .env
        .push(("PLANB_TEST_COLLECTOR".into(), format!("x-api-key={KEY}")));
    planb
}

/// A span as the collector reads it.
#[derive(Debug, Clone)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    /// As text; numbers are left out.
    attributes: BTreeMap<String, String>,
    /// 2 is an error.
    status: u64,
    why: String,
}

/// Fields of a protobuf message: bytes where the field holds some, else its number.
/// Source: <https://protobuf.dev/programming-guides/encoding/>
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8], u64)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => {
                found.push((tag >> 3, &bytes[..0], varint(&mut bytes)));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).expect("a length"),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, &bytes[..length], 0));
        bytes = &bytes[length..];
    }
    found
}

fn all(bytes: &[u8], field: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes)
        .into_iter()
        .filter_map(move |(number, bytes, _)| (number == field).then_some(bytes))
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// `KeyValue`s under `field`, those that are text.
fn attributes(bytes: &[u8], field: u64) -> BTreeMap<String, String> {
    let pairs = all(bytes, field).map(|pair| {
        let key = all(pair, 1).next().map(string).unwrap_or_default();
        let value = all(pair, 2).next().and_then(|value| all(value, 1).next().map(string));
        (key, value.unwrap_or_default())
    });
    pairs.collect()
}

/// Numbers are those of `opentelemetry/proto/trace/v1/trace.proto`.
fn spans(messages: &[Message]) -> Vec<Span> {
    let mut found = Vec::new();
    for message in messages {
        for resource_spans in all(&message.bytes, 1) {
            let resource = all(resource_spans, 1).next().expect("a resource");
            assert_eq!(attributes(resource, 1)["service.name"], "planb-test");
            assert_eq!(attributes(resource, 1)["service.namespace"], "bank");
            for span in all(resource_spans, 2).flat_map(|scope| all(scope, 2)) {
                let bytes = |field| all(span, field).next().unwrap_or_default().to_vec();
                let status = fields(&bytes(15))
                    .into_iter()
                    .map(|(field, bytes, number)| (field, string(bytes), number))
                    .collect::<Vec<_>>();
                let part = |field| status.iter().find(|(number, ..)| *number == field).cloned();
                found.push(Span {
                    trace: bytes(1),
                    id: bytes(2),
                    parent: bytes(4),
                    name: string(&bytes(5)),
                    attributes: attributes(span, 9),
                    status: part(3).map_or(0, |(_, _, code)| code),
                    why: part(2).map_or(String::new(), |(_, why, _)| why),
                });
            }
        }
    }
    found
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

#[test]
fn a_backup_is_one_trace_of_its_attempts_dump_and_commit() {
    let collector = Receiver::start(Manner::Takes);
    let planb = planb(&collector, "");
    planb.backup(&[]);
    let messages = collector.taken();
    assert!(!messages.is_empty(), "nothing came before the process ended");
    for message in &messages {
        assert!(message.head.starts_with("POST /v1/traces "), "{}", message.head);
        assert_eq!(message.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(message.header("x-api-key"), Some(KEY));
        assert!(!message.body.contains(PASSWORD) && !message.body.contains(KEY));
    }
    let spans = spans(&messages);
    let backup = one(&spans, "backup");
    assert!(backup.parent.is_empty(), "{backup:?}");
    assert!(backup.attributes["id"].starts_with("backup-"), "{backup:?}");
    let attempt = one(&spans, "attempt");
    assert_eq!(attempt.parent, backup.id);
    for name in ["dump", "commit"] {
        let span = one(&spans, name);
        assert_eq!((&span.parent, &span.trace), (&attempt.id, &backup.trace), "{span:?}");
    }
    assert!(spans.iter().all(|span| span.status == 0), "{spans:#?}");
    // Only where they were asked for.
    assert!(spans.iter().all(|span| span.name != "store request"), "{spans:#?}");
    planb.reconfigure("service_name", "store_requests = true\nservice_name");
    planb.backup(&[]);
    let requests = spans_of(&collector, "store request");
    let commit = requests.iter().find(|span| span.attributes["operation"] == "commit");
    assert!(commit.is_some(), "{requests:#?}");
}

fn spans_of(collector: &Receiver, name: &str) -> Vec<Span> {
    let found = spans(&collector.taken());
    found.into_iter().filter(|span| span.name == name).collect()
}

#[test]
fn what_failed_says_of_what() {
    let collector = Receiver::start(Manner::Takes);
    let mut planb = planb(&collector, "");
    planb.env.push(("PLANB_SOURCE_PASSWORD".into(), "wr0ng".into()));
    planb.fails(1, &["backup"]);
    let spans = spans(&collector.taken());
    let backup = one(&spans, "backup");
    assert_eq!(backup.status, 2, "{backup:?}");
    assert!(
        backup.why.contains("refused account") && !backup.why.contains("wr0ng"),
        "{backup:?}"
    );
    assert!(collector.got().iter().all(|message| !message.body.contains(PASSWORD)));
}

#[test]
fn a_collector_that_hangs_or_refuses_holds_up_no_backup_and_no_end() {
    let collector = Receiver::start(Manner::Hangs);
    let planb = planb(&collector, "");
    // It ends although nobody answers.
    let output = planb.run(&["backup"]);
    assert!(output.status.success(), "{}", text(&output));
    let mut agent = Daemon::start(&planb);
    agent.wait("backups beside it", SOON, |heard| {
        (heard.committed().len() >= 3).then_some(())
    });
    let failing = "traces are not taken, and are dropped; everything else goes on";
    agent.wait_log(failing, 1, SOON);
    assert!(collector.taken().is_empty());
    collector.set(Manner::Answers(401, None));
    let before = collector.got().len();
    agent.wait("a request that is refused", SOON, |_| {
        (collector.got().len() > before).then_some(())
    });
    collector.set(Manner::Takes);
    agent.wait_log("traces are taken again", 1, SOON);
    collector.wait_for("a run's trace", |message| {
        message.taken && message.body.contains("commit")
    });
    assert_eq!(agent.heard().logged(failing).len(), 1, "told once");
    collector.set(Manner::Hangs);
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(20));
    assert!(!ended.heard.told().contains(KEY), "the key was told");
}

#[test]
fn each_step_of_an_operation_is_a_span() {
    let collector = Receiver::start(Manner::Takes);
    let planb = planb(&collector, "");
    planb.configure(
        "[[failover_steps]]\nname = \"fine\"\nkind = \"command\"\nstage = 1\nprogram = \"/usr/bin/true\"\n\
         [[failover_steps]]\nname = \"broken\"\nkind = \"command\"\nstage = 1\nneeds = [\"fine\"]\nprogram = \"/usr/bin/false\"\n",
    );
    planb.backup(&[]);
    let output = planb.run(&["failover", "--stage", "1", "--yes", "--accept", "primary-healthy=test"]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    let spans = spans(&collector.taken());
    let operation = one(&spans, "operation");
    assert_eq!(operation.attributes["command"], "planb failover --stage 1");
    let steps: Vec<&Span> = spans.iter().filter(|span| span.name == "step").collect();
    assert!(steps.iter().all(|step| step.parent == operation.id), "{steps:#?}");
    let of = |name: &str| {
        steps
            .iter()
            .find(|step| step.attributes["step"] == name)
            .expect("a span")
    };
    assert_eq!((of("fine").status, of("broken").status), (0, 2));
    assert!(!of("broken").why.is_empty());
}
