//! The runbook: every page in both languages for every plan there is, each command of it one that PlanB takes, and those by hand the very
//! ones that the README has. `tests/night.rs` types them, `tests/by_hand.rs` those by hand.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use planb::cli::Cli;
use planb::config::Config;
use planb::runbook::{Language, PAGES, Printing, print};
use support::Planb;

const BOTH: [Language; 2] = [Language::English, Language::Korean];

fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn printing() -> Printing {
    Printing {
        config: "/etc/planb/planb.toml".to_owned(),
        at: "2026-01-01T00:00:00Z".parse().expect("a time"),
    }
}

/// Every example that has a plan.
fn plans() -> Vec<(String, Config)> {
    let files = std::fs::read_dir(project("config")).expect("the examples");
    let paths = files.flatten().map(|entry| entry.path());
    let examples = paths.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let loaded = examples.filter_map(|path| Some((path.display().to_string(), Config::load(&path).ok()?)));
    let plans: Vec<_> = loaded.filter(|(_, config)| !config.failover_steps.is_empty()).collect();
    assert!(!plans.is_empty());
    plans
}

/// What stands behind `$ ` in blocks of commands, continued lines joined.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in page.lines() {
        if let Some(command) = line.trim_start().strip_prefix("$ ") {
            found.push(command.split("  #").next().unwrap_or_default().trim().to_owned());
        }
    }
    found
}

/// `planb …` inside a sentence.
fn mentioned(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let inside = prose.split('`').skip(1).step_by(2);
    inside
        .filter(|text| text.starts_with("planb "))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn takes(command: &str) {
    let words = command.split_whitespace();
    let parsed = Cli::command().try_get_matches_from(words);
    let is_help = |error: &clap::Error| {
        matches!(
            error.kind(),
            clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
        )
    };
    if let Err(error) = parsed
        && !is_help(&error)
    {
        panic!("`{command}` is no command: {error}");
    }
}

#[test]
fn every_command_of_every_page_is_one_that_planb_takes() {
    let mut met = BTreeSet::new();
    for (name, config) in plans() {
        for language in BOTH {
            for page in PAGES {
                let text =
                    print(&config, language, Some(page), &printing()).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(!text.contains("{{") && !text.contains("}}"), "{name} {page}: {text}");
                for command in commands(&text) {
                    if command.starts_with("planb ") {
                        takes(&command);
                        met.insert(command);
                    } else {
                        assert!(
                            command.starts_with("export PLANB_CONFIG=/etc/planb/planb.toml"),
                            "{command}"
                        );
                    }
                }
                for command in mentioned(&text) {
                    takes(&command);
                    met.insert(command);
                }
            }
        }
    }
    for command in [
        "planb failover --stage 2",
        "planb failover --stage 3",
        "planb failback",
        "planb doctor --dark",
        "planb prepare",
    ] {
        assert!(met.contains(command), "{command} is nowhere: {met:?}");
    }
    assert!(
        std::panic::catch_unwind(|| takes("planb failover --stag 2")).is_err(),
        "what is none is seen"
    );
}

#[test]
fn both_languages_say_the_same_commands_in_the_same_order() {
    for (name, config) in plans() {
        for page in PAGES {
            let [english, korean] = BOTH.map(|language| {
                let text = print(&config, language, Some(page), &printing()).expect("a page");
                commands(&text)
            });
            assert_eq!(english, korean, "{name} {page}");
            // Inside sentences each language has an order of its own, and words of its own for what a person fills in.
            let [english, korean] = BOTH.map(|language| {
                let text = print(&config, language, Some(page), &printing()).expect("a page");
                let plain = |command: String| {
                    let words = command
                        .split_whitespace()
                        .filter(|word| !["--lang", "ko"].contains(word));
                    let words = words.map(|word| word.split('=').next().unwrap_or_default());
                    // Of a rule that names a step, the step's name.
                    let words = words.map(|word| match word.split_once('-') {
                        Some((rule @ ("skip" | "confirm"), _)) => rule,
                        _ => word,
                    });
                    words.collect::<Vec<_>>().join(" ")
                };
                mentioned(&text).into_iter().map(plain).collect::<BTreeSet<_>>()
            });
            assert_eq!(english, korean, "{name} {page}");
        }
    }
}

#[test]
fn what_is_done_by_hand_is_what_the_readme_has_and_a_test_runs() {
    let readme = std::fs::read_to_string(project("README.md")).expect("the README");
    let section = readme.split("\n## Recover by hand\n").nth(1).expect("the section");
    let block = |text: &str| {
        let block = text
            .split("```bash\n")
            .nth(1)
            .expect("a block")
            .split("```")
            .next()
            .unwrap_or_default();
        // Comments are in the page's language.
        let lines = block
            .lines()
            .map(|line| line.split("   #").next().unwrap_or_default().trim_end().to_owned());
        lines.collect::<Vec<_>>()
    };
    let wanted = block(section);
    assert!(wanted.len() > 8);
    let config = Config::load(&project("config/recovery.toml")).expect("an example");
    for language in BOTH {
        let page = print(&config, language, Some("by-hand"), &printing()).expect("a page");
        assert_eq!(block(&page), wanted);
    }
}

#[test]
fn the_page_of_the_night_has_the_plans_own_names() {
    let text = std::fs::read_to_string(project("config/recovery.toml")).expect("an example");
    let config = Config::parse(&text.replace("approvers = 1", "approvers = 2")).expect("valid");
    for language in BOTH {
        let page = print(&config, language, Some("night"), &printing()).expect("a page");
        for step in &config.failover_steps {
            assert!(page.contains(&format!("| `{}` |", step.name)), "{}", step.name);
        }
        for name in [
            "petclinic-dr.mysql.database.azure.com:3306",
            "azblob://bloberry01/mysql-backups",
            "planb failover --approve --as",
            "`petclinic`",
            "Tell the financial supervisor",
            "planb runner",
            "E2EXAMPLE",
        ] {
            assert!(page.contains(name), "{name}: {page}");
        }
        // One page of paper: two columns of a table count less than a paragraph.
        assert!(page.lines().count() < 120, "{} lines", page.lines().count());
    }
    let alone = print(
        &Config::parse(&text).expect("valid"),
        Language::English,
        Some("night"),
        &printing(),
    );
    assert!(!alone.expect("a page").contains("--approve"));
    // Paper is compared with the plan by its fingerprint.
    let changed = Config::parse(&text.replace("timeout = \"20m\"", "timeout = \"21m\"")).expect("valid");
    let fingerprint = |config: &Config| {
        let page = print(config, Language::English, Some("night"), &printing()).expect("a page");
        page.lines()
            .find(|line| line.starts_with("Printed"))
            .expect("a line")
            .to_owned()
    };
    assert_ne!(fingerprint(&config), fingerprint(&changed));
}

#[test]
fn it_is_printed_for_whoever_asks() {
    let planb = Planb::empty();
    planb.write_config(&std::fs::read_to_string(project("config/recovery.toml")).expect("an example"));
    let whole = planb.ok(&["runbook"]);
    assert!(PAGES.len() == whole.lines().filter(|line| line.starts_with("# ")).count());
    assert!(
        planb
            .ok(&["runbook", "--lang", "ko", "--page", "night"])
            .contains("재해 당일")
    );
    assert_eq!(planb.json(&["--json", "runbook"])["v"], 1);
    planb.fails(2, &["runbook", "--page", "morning"]);
    planb.write_config(&std::fs::read_to_string(project("config/smallest.toml")).expect("an example"));
    assert!(planb.fails(2, &["runbook"]).contains("failover_steps"));
}
