//! The layers hold: who may import whom, where an outside system may be named, what stays pure, and how big a file
//! may grow. Read from the source text, so that a shortcut taken at three in the morning shows in the next test run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every module at the top of `src`, and which others its files may name. What is not listed is not allowed: `agent`
/// and `cli` stand above everything, so nobody below can come to depend on being run by them.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("agent", &["backup", "clock", "config", "notify", "serve"]),
    ("aws", &[]),
    (
        "backup",
        &[
            "clock", "config", "dump", "format", "mysql", "recovery", "source", "span", "store",
        ],
    ),
    (
        "cli",
        &[
            "agent",
            "aws",
            "backup",
            "clock",
            "config",
            "cost",
            "doctor",
            "drill",
            "dump",
            "format",
            "mysql",
            "notify",
            "recovery",
            "restore",
            "secret",
            "serve",
            "source",
            "steps",
            "store",
            "watch",
            "agent",
            "aws",
            "backup",
            "clock",
            "config",
            "cost",
            "doctor",
            "dump",
            "format",
            "kubernetes",
            "mysql",
            "notify",
            "prepare",
            "proxy",
            "recovery",
            "restore",
            "runbook",
            "secret",
            "serve",
            "source",
            "span",
            "steps",
            "store",
            "telemetry",
            "terraform",
            "watch",
        ],
    ),
    ("clock", &[]),
    ("config", &["secret"]),
    ("cost", &["backup", "config", "dump", "secret", "store"]),
    ("doctor", &["backup", "dump", "format", "mysql", "prepare", "restore"]),
    ("dump", &["clock", "config", "format", "mysql", "store"]),
    ("drill", &["backup", "config", "recovery", "store"]),
    ("edge", &["aws"]),
    ("fence", &["dump", "mysql", "secret"]),
    ("format", &[]),
    ("http", &[]),
    ("kubernetes", &["secret"]),
    ("mysql", &["config", "secret"]),
    ("prepare", &["config", "secret", "store"]),
    ("proxy", &["secret"]),
    ("notify", &["clock", "config", "secret"]),
    ("recovery", &["span", "store"]),
    (
        "restore",
        &["backup", "config", "dump", "format", "mysql", "secret", "span", "store"],
    ),
    ("runbook", &["config", "steps"]),
    ("secret", &["aws", "config"]),
    (
        "serve",
        &[
            "backup", "clock", "config", "doctor", "drill", "dump", "recovery", "secret", "store", "watch",
        ],
    ),
    ("source", &["aws", "config", "mysql", "secret"]),
    (
        "steps",
        &[
            "backup",
            "config",
            "dump",
            "edge",
            "fence",
            "format",
            "http",
            "kubernetes",
            "mysql",
            "recovery",
            "restore",
            "secret",
            "source",
            "store",
            "terraform",
        ],
    ),
    ("span", &[]),
    ("store", &["clock", "secret", "span"]),
    ("telemetry", &["config", "http", "secret"]),
    ("terraform", &["secret"]),
    (
        "watch",
        &[
            "config", "http", "mysql", "notify", "recovery", "secret", "source", "store",
        ],
    ),
];

/// The only places that may name this crate, or one whose name begins like this.
const AT_HOME: &[(&str, &[&str])] = &[
    (
        "azure_",
        &[
            "src/store/azure.rs",
            "src/store/azure/",
            "src/secret/azure.rs",
            "src/secret/azure_tests.rs",
        ],
    ),
    (
        "aws_",
        &[
            "src/secret/aws.rs",
            "src/source/rds.rs",
            "src/aws.rs",
            "src/source/ready.rs",
            "src/source/ready_tests.rs",
            "src/edge/cloudfront.rs",
        ],
    ),
    ("kube", &["src/kubernetes/"]),
    ("lettre", &["src/notify/smtp.rs"]),
    ("mysql_async", &["src/mysql/"]),
    ("sd_notify", &["src/agent/notify.rs"]),
    ("prometheus_client", &["src/serve/metrics.rs", "src/serve/metrics/"]),
    ("httparse", &["src/serve/http.rs"]),
    ("opentelemetry", &["src/telemetry.rs"]),
    ("opentelemetry_", &["src/telemetry.rs"]),
    ("tracing_opentelemetry", &["src/telemetry.rs"]),
];

/// Facts in, decision out: nothing here waits, reads a file or knows a task.
const PURE: &[&str] = &[
    "src/runbook.rs",
    "src/runbook/",
    "src/prepare/certificate.rs",
    "src/prepare/image.rs",
    "src/prepare/registry/manifest.rs",
    "src/backup/proof.rs",
    "src/backup/retention.rs",
    "src/backup/rpo.rs",
    "src/backup/entry.rs",
    "src/agent/alarm.rs",
    "src/agent/schedule.rs",
    "src/dump/keyset.rs",
    "src/dump/columns.rs",
    "src/dump/literal.rs",
    "src/dump/definition.rs",
    "src/dump/placement.rs",
    "src/dump/script.rs",
    "src/notify/desk.rs",
    "src/notify/desk/",
    "src/notify/message.rs",
    "src/notify/notice.rs",
    "src/notify/words.rs",
    "src/notify/words/",
    "src/steps/plan.rs",
    "src/steps/site.rs",
    "src/fence/ladder.rs",
    "src/recovery/event.rs",
    "src/recovery/next.rs",
    "src/recovery/operation.rs",
    "src/recovery/plan.rs",
    "src/recovery/rules.rs",
    "src/recovery/state.rs",
    "src/recovery/transition.rs",
    "src/restore/accounts.rs",
    "src/restore/divergence/rows.rs",
    "src/restore/divergence/since.rs",
    "src/restore/normal.rs",
    "src/restore/parameters.rs",
    "src/restore/plan.rs",
    "src/restore/programs.rs",
    "src/restore/repair.rs",
    "src/restore/schema.rs",
    "src/restore/statements.rs",
    "src/config/",
    "src/cost/",
    "src/drill/",
    "src/doctor.rs",
    "src/doctor/",
    "src/kubernetes/manifest.rs",
    "src/kubernetes/rollout.rs",
    "src/terraform/events.rs",
    "src/terraform/names.rs",
    "src/restore/replace/judge.rs",
    "src/restore/replace/names.rs",
    "src/restore/replace/sides.rs",
    "src/edge/routes.rs",
    "src/serve/status/charts.rs",
    "src/serve/status/html.rs",
    "src/watch/auto.rs",
    "src/watch/concern.rs",
    "src/watch/quorum.rs",
    "src/watch/verdict.rs",
];

/// The one function among the pure ones that reads: the configuration's file.
const READS_A_FILE: &str = "src/config/parse.rs";

/// Lines of code (no blanks, no comments) before a file's tests.
const MOST_CODE_LINES: usize = 450;

/// Files that are longer, and why they may be.
const LONGER: [(&str, usize, &str); 0] = [];

/// What may stand at the top of the repository. Anything else needs a place below one of these.
const TOP: [&str; 18] = [
    ".ci",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "config",
    "deny.toml",
    "docs",
    "rustfmt.toml",
    "scripts",
    "src",
    "systemd",
    "tests",
];

/// Not part of the repository; see `.gitignore`.
const IGNORED: [&str; 5] = [".git", ".lab", ".env", "planb.toml", "target"];

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// One source file: its path from the top of the repository, and its code without comments.
struct Source {
    path: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&project().join("src"), &mut found);
    assert!(found.len() > 50, "src was not found");
    found.sort();
    let source = |path: PathBuf| Source {
        code: without_comments(&fs::read_to_string(&path).expect("a source file")),
        path: path
            .strip_prefix(project())
            .expect("below the project")
            .to_string_lossy()
            .into_owned(),
    };
    found.into_iter().map(source).collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Line comments go. A `//` inside a string (a URL) takes the rest of its line with it, which hides no import.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Before the file's unit tests.
fn before_tests(code: &str) -> &str {
    code.split("\n#[cfg(test)]").next().unwrap_or_default()
}

/// Identifiers that `code` contains, with the two characters that follow each.
fn words(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = code;
    std::iter::from_fn(move || {
        let start = rest.find(is_part)?;
        let from = &rest[start..];
        let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        rest = after;
        Some((word, after.get(..2).unwrap_or(after)))
    })
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// `src/store/azure.rs` and `src/store/azure/x.rs` are of `store`; `src/lib.rs` and `src/main.rs` of nothing.
fn module(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    let name = rest.split('/').next()?.trim_end_matches(".rs");
    (!["lib", "main"].contains(&name)).then_some(name)
}

/// Modules of the crate that `code` names from its root.
fn named(code: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        // Not `$crate::` of a macro, nor `some_crate::`.
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let after = &code[at + root.len()..];
        assert!(
            !after.starts_with('{') && !after.starts_with('*'),
            "write `use crate::MODULE::…` one module a line: a group hides what is named"
        );
        names.extend(words(after).next().map(|(word, _)| word));
    }
    names
}

#[test]
fn no_module_names_one_above_it() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(module) = module(&source.path) else { continue };
        seen.insert(module.to_owned());
        let Some(may) = allowed.get(module) else {
            wrong.push(format!("{}: module {module} is not in the table", source.path));
            continue;
        };
        for name in named(&source.code) {
            let own = name == module || !allowed.contains_key(name);
            if !own && !may.contains(&name) {
                wrong.push(format!("{}: {module} may not name {name}", source.path));
            }
        }
        // From a file directly below src, `super` is the crate's root too.
        let depth = source.path.matches('/').count() + usize::from(!source.path.ends_with("/mod.rs"));
        if depth == 2 && source.code.contains("super::") && !source.code.contains("#[cfg(test)]") {
            wrong.push(format!("{}: write crate:: instead of super::", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let listed: BTreeSet<String> = allowed.keys().map(ToString::to_string).collect();
    assert_eq!(seen, listed, "the table and src differ");
}

#[test]
fn nobody_below_is_allowed_the_agent_or_the_command_line() {
    for (module, may) in MAY_NAME {
        assert!(!may.contains(&"cli"), "{module} may name cli");
        assert!(
            *module == "cli" || !may.contains(&"agent"),
            "{module} may name agent: only cli may"
        );
    }
}

#[test]
fn an_outside_system_is_named_in_its_adapter_only() {
    let mut wrong = Vec::new();
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources() {
        for (word, after) in words(&source.code) {
            let is_meant = |prefix: &str| word == prefix || (prefix.ends_with('_') && word.starts_with(prefix));
            let Some((prefix, homes)) = AT_HOME.iter().find(|(prefix, _)| is_meant(prefix)) else {
                continue;
            };
            // `azure_core::…`, or `use azure_core;`: a crate; `azure_keys(…)`: a name of ours.
            if !after.starts_with("::") && after != "; " && !after.starts_with(";\n") {
                continue;
            }
            *met.entry(prefix).or_default() += 1;
            if !is_in(&source.path, homes) {
                wrong.push(format!("{} names {word}: only {homes:?} may", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (prefix, _) in AT_HOME {
        assert!(
            met.contains_key(prefix),
            "nobody names {prefix} at all: is the rule stale?"
        );
    }
}

#[test]
fn decisions_are_pure() {
    let mut wrong = Vec::new();
    let mut looked_at = BTreeSet::new();
    for source in sources() {
        let Some(rule) = PURE.iter().find(|place| is_in(&source.path, &[place])) else {
            continue;
        };
        looked_at.insert(*rule);
        let code = before_tests(&source.code);
        let reads = usize::from(source.path == READS_A_FILE) * 2;
        let files = code.matches("std::fs").count() + code.matches("File::open").count();
        if files > reads {
            wrong.push(format!("{} reads files", source.path));
        }
        for (word, _) in words(code) {
            if ["async", "await", "tokio", "tracing", "SystemTime", "Instant"].contains(&word) {
                wrong.push(format!("{} says {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        looked_at.len(),
        PURE.len(),
        "a pure file is gone: only {looked_at:?} are there"
    );
}

#[test]
fn no_file_swallows_everything() {
    let longer: BTreeMap<&str, usize> = LONGER.iter().map(|(path, most, _)| (*path, *most)).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let code = before_tests(&source.code);
        let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
        match longer.get(source.path.as_str()) {
            Some(_) if lines <= MOST_CODE_LINES => {
                wrong.push(format!("{} has {lines} lines: take it off the list", source.path));
            }
            Some(&most) if lines > most => wrong.push(format!("{} grew to {lines} lines", source.path)),
            None if lines > MOST_CODE_LINES => {
                wrong.push(format!("{} has {lines} lines: it is two things by now", source.path));
            }
            Some(_) | None => {}
        }
    }
    for (path, _, _) in LONGER {
        assert!(project().join(path).is_file(), "{path} is gone: take it off the list");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_top_of_the_repository_is_tidy() {
    let mut strangers = Vec::new();
    for entry in fs::read_dir(project()).expect("the project").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let thrown_away = IGNORED.contains(&name.as_str()) || name.ends_with(".log") || name.ends_with(".sql.gz");
        if !thrown_away && !TOP.contains(&name.as_str()) {
            strangers.push(name);
        }
    }
    assert!(strangers.is_empty(), "not expected at the top: {strangers:?}");
}

#[test]
fn the_reader_of_source_text_sees_what_it_should() {
    let code = without_comments("use crate::store::X; // crate::cli\nlet u = my_crate::agent::f();\n");
    assert_eq!(named(&code), BTreeSet::from(["store"]));
    let pairs: Vec<_> = words("azure_core::x(aws_keys)").collect();
    assert_eq!(pairs, [("azure_core", "::"), ("x", "(a"), ("aws_keys", ")")]);
}
