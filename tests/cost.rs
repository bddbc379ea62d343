//! What `planb cost` says: by hand for three sizes, the calls counted on a real run, the README's table, a table of one's own.

#[path = "support/hcl.rs"]
mod hcl;
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use planb::clock::SystemClock;
use planb::cost::bill::RUN;
use planb::cost::prices::Prices;
use planb::store::faulty::{Call, Faulty};
use planb::store::memory::MemoryStore;
use serde_json::Value;
use support::runner::{Told, runner, wanted};
use support::{Flavor, Planb, Server, reader};
use tokio_util::sync::CancellationToken;

const AZURE: &str = "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"planb\"\npassword = \"env:P\"\n\
                     [store]\nurl = \"azblob://account/backups\"\nauth = \"managed-identity\"\n[backup]\nschedule = \"*/5 * * * *\"\n\
                     [cost]\nundelete_days = 0\n";

fn costs(config: &str, args: &[&str]) -> Value {
    let planb = Planb::empty();
    planb.write_config(config);
    planb.json(&[&["--json", "cost"], args].concat())
}

fn of(bill: &Value, name: &str) -> f64 {
    let lines = bill["month"]["lines"].as_array().expect("lines");
    let line = lines
        .iter()
        .find(|line| line["name"].as_str().is_some_and(|full| full.starts_with(name)));
    line.unwrap_or_else(|| panic!("{name}: {bill}"))["cost"]
        .as_f64()
        .expect("a cost")
}

/// Within a hundredth: the edges of retention's periods are a backup or two.
fn close(told: f64, by_hand: f64, what: &str) {
    assert!(
        (told - by_hand).abs() <= by_hand * 0.01 + 0.005,
        "{what}: told {told}, by hand {by_hand}"
    );
}

/// Every five minutes, everything for 48 h, hourly for 7 days, daily for 30; four times smaller when stored, 100 MiB of SQL a second.
/// A month has 730 hours, a GB 1024 MiB.
#[test]
fn it_agrees_with_a_hand_calculation_for_1_10_and_100_gb() {
    let told = costs(
        AZURE,
        &["--size", "1GB", "--size", "10GB", "--size", "100GB", "--ratio", "4"],
    );
    let [one, ten, hundred] = [0, 1, 2].map(|at| told["sizes"][at].clone());

    // 1 GB: 0.25 GB stored. 12 an hour × 730 = 8,760 backups, 2,190 GB out of AWS, all at $0.126.
    close(
        one["backups_a_month"].as_f64().expect("a count"),
        8_760.0,
        "backups of 1 GB",
    );
    close(of(&one, "out of"), 275.94, "egress of 1 GB");
    // 48 h × 12 = 576, hours 49 to 168 = 120, days 8 to 30 = 23: 719 backups of 0.25 GB, 179.75 GB at $0.02.
    close(of(&one, "kept"), 3.595, "capacity of 1 GB");
    // 256 members of 4 MiB, each 1 MiB stored and so a block; 3 around them, 3 calls: 8,760 × 262 = 2,295,120 writes at $0.055 per 10,000.
    close(of(&one, "writes"), 12.62, "writes of 1 GB");
    // Private DNS zone 0.50, disk 1.54, 0.1 GB of page and states 0.002.
    close(
        of(&one, "private") + of(&one, "runner") + of(&one, "storage account"),
        2.042,
        "what stands",
    );
    // Beside these a dollar of other calls at most.
    let total = one["month"]["total"].as_f64().expect("a total");
    assert!((294.2..295.4).contains(&total), "{total}");

    // 10 GB: a run takes 102.4 s, so the same 8,760; 2.5 GB each, 21,900 GB: 10,240 × 0.126 + 11,660 × 0.122.
    close(of(&ten, "out of"), 1_290.24 + 1_422.52, "egress of 10 GB");
    close(of(&ten, "kept"), 35.95, "capacity of 10 GB");
    // 2,560 blocks and 3, 3 calls, 5 renewals of the lease: 8,760 × 2,571.
    close(of(&ten, "writes"), 123.87, "writes of 10 GB");

    // 100 GB: a run takes 1,024 s, so every fourth tick starts one: 3 an hour, 2,190 of 25 GB, 54,750 GB:
    // 10,240 × 0.126 + 40,960 × 0.122 + 3,550 × 0.117.
    close(
        hundred["backups_a_month"].as_f64().expect("a count"),
        2_190.0,
        "backups of 100 GB",
    );
    close(of(&hundred, "out of"), 1_290.24 + 4_997.12 + 415.35, "egress of 100 GB");
    // 48 × 3 = 144, 120 and 23: 287 × 25 GB = 7,175 GB.
    close(of(&hundred, "kept"), 143.5, "capacity of 100 GB");
    // Blocks grow: 3,125 (3 of them around the data) with 1 MiB, 3,125 with 2, 3,125 with 4, and what is left of the 25,600 MiB
    // (25,600 - 3,122 - 6,250 - 12,500 = 3,728) by 8: 466. 9,841, and 3 and 51 renewals: 2,190 × 9,895.
    close(of(&hundred, "writes"), 119.19, "writes of 100 GB");
    let warned = hundred["warnings"].to_string();
    assert!(warned.contains("does not fit the schedule"), "{warned}");

    // An hour of stage 2 is 0.07 + 64 GB × 0.13 / 730 + 0.043; at 100 GB of SQL the server's storage is 300 GB.
    close(
        one["stage_2_hour"]["total"].as_f64().expect("a total"),
        0.124_4,
        "an hour of stage 2",
    );
    close(
        hundred["stage_2_hour"]["total"].as_f64().expect("a total"),
        0.166_4,
        "an hour of stage 2 with 100 GB",
    );
    // 2 × 0.212 + 2 × 0.106 + 4 × 19.71 / 730 + 0.10 + 0.025 + 0.443 + 10 × 0.0144 + 0.006.
    close(
        one["stage_3_hour_beside_stage_2"]["total"].as_f64().expect("a total"),
        1.462,
        "an hour of stage 3",
    );
}

/// A dump a day into a tier that wants its 30 days.
#[test]
fn a_colder_tier_is_paid_for_to_its_end() {
    let daily = AZURE.replace("*/5 * * * *", "0 3 * * *")
        + "tier = \"cool\"\n[retention]\nkeep_all = \"24h\"\nkeep_hourly = \"24h\"\nkeep_days = 10\nkeep_at_least = 1\n";
    let told = costs(&daily, &["--size", "4GB", "--ratio", "4"]);
    // Each of 30.4 backups of 1 GB goes after 10 to 11 days, and is paid for 19 to 20 more: 30.4 × 19.1 / 30.4 GB-months at $0.011.
    let early = of(&told["sizes"][0], "removed before their time");
    assert!((0.19..0.23).contains(&early), "{early}");
    close(of(&told["sizes"][0], "kept"), 10.5 * 0.011, "capacity");
}

/// What is removed is paid for until it cannot be had back; zones cost a quarter more.
#[test]
fn what_can_be_undeleted_is_counted_and_so_are_zones() {
    let config = AZURE.replace("undelete_days = 0", "undelete_days = 9\nredundancy = \"zrs\"");
    let told = costs(&config, &["--size", "1GB", "--ratio", "4"]);
    let one = &told["sizes"][0];
    close(of(one, "kept"), 3.595 * 1.25, "capacity in zones");
    // As many go as come, 288 a day: 2,592 of 0.25 GB are there at any time, 648 GB.
    close(of(one, "removed"), 648.0 * 0.02 * 1.25, "what can be undeleted");
    close(of(one, "writes"), 12.62 * 1.25, "writes in zones");
    let warned = one["warnings"].to_string();
    assert!(
        warned.contains("what is removed costs more than what is kept"),
        "{warned}"
    );
    // A directory brings nothing back.
    let directory = config
        .replace("azblob://account/backups", "file:///backups")
        .replace("auth = \"managed-identity\"\n", "");
    let told = costs(&directory, &["--size", "1GB"]);
    assert!(
        !told["sizes"][0]["month"]["lines"].to_string().contains("undeletion"),
        "{told}"
    );
}

/// What stands in the first root is on the bill, or costs nothing and says why.
#[test]
fn every_resource_of_stage_1_is_counted() {
    let root = hcl::Root::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/azure/1-always-on"));
    let prices = Prices::built_in().expect("prices");
    let counted = [
        ("azurerm_storage_account", "storage account"),
        ("azurerm_private_dns_zone", "private DNS zone"),
        ("azurerm_linux_virtual_machine", "runner's disk"),
        ("azurerm_container_registry", "container registry"),
        ("azurerm_dns_zone", "public DNS zone"),
        ("azurerm_resource_group", "resource group, network, subnets"),
        ("azurerm_virtual_network", "resource group, network, subnets"),
        ("azurerm_subnet", "resource group, network, subnets"),
        (
            "azurerm_network_security_group",
            "resource group, network, subnets, security groups",
        ),
    ];
    // Azure bills none of these; a vault by its calls, which are a line of their own.
    let free = [
        "azurerm_key_vault",
        "azurerm_management_lock",
        "azurerm_monitor_action_group",
        "azurerm_network_interface",
        "azurerm_private_dns_zone_virtual_network_link",
        "azurerm_role_assignment",
        "azurerm_role_definition",
        "azurerm_storage_account_static_website",
        "azurerm_storage_container",
        "azurerm_storage_container_immutability_policy",
        "azurerm_storage_management_policy",
        "azurerm_subnet_network_security_group_association",
        "azurerm_user_assigned_identity",
    ];
    for resource in root.all("resource") {
        let kind = hcl::label(resource, 0);
        let Some((_, name)) = counted.iter().find(|(counted, _)| *counted == kind) else {
            assert!(
                free.contains(&kind.as_str()),
                "{kind} is on no bill: what does it cost?"
            );
            continue;
        };
        let is_there = prices
            .standing
            .iter()
            .any(|item| item.stage == 1 && item.name.starts_with(name));
        assert!(is_there, "{kind}: no line of stage 1 begins with {name}");
    }
    // And the bank's own configuration counts with the account that this root makes.
    let config =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pocketbank.toml")).expect("a plan");
    let variables = root.variables();
    let default = |name: &str| {
        let value = variables[name].body.get_attribute("default").expect("a default");
        value.value.to_string().trim().trim_matches('"').to_owned()
    };
    let replication = default("storage_replication").to_lowercase();
    assert!(
        config.contains(&format!("redundancy = \"{replication}\"")),
        "{replication}"
    );
    // A day as a version, a day until the lifecycle rule comes by.
    let days: u32 = default("undelete_days").parse().expect("days");
    assert!(config.contains(&format!("undelete_days = {}", days + 2)), "{days}");
}

#[test]
fn it_says_what_would_help_and_by_how_much() {
    let told = costs(AZURE, &["--size", "1GB"]);
    let warned: Vec<&str> = told["sizes"][0]["warnings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let slower = warned
        .iter()
        .find(|line| line.starts_with("a slower schedule"))
        .expect("told");
    // A third of a GB by $0.126 is 4 cents a run; $6 beside what stands are some 140 runs a month: one every six hours.
    assert!(
        slower.contains("0 */6 * * *") && slower.contains("6 h 0 min may be lost"),
        "{slower}"
    );
    assert!(
        warned
            .iter()
            .any(|line| line.starts_with("a thinner retention") && line.contains("saves $")),
        "{warned:?}"
    );
    let fits = warned.iter().find(|line| line.contains("protect about")).expect("told");
    assert!(fits.contains("MiB of SQL"), "{fits}");
    let small = costs(AZURE, &["--size", "8MB"]);
    assert_eq!(
        small["sizes"][0]["warnings"],
        serde_json::json!([]),
        "within the budget"
    );
}

#[test]
fn the_readme_shows_what_it_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_planb"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "--config",
            "config/smallest.toml",
            "cost",
            "--size",
            "0.1GB",
            "--size",
            "1GB",
            "--size",
            "10GB",
        ])
        .output()
        .expect("planb runs");
    let printed = String::from_utf8(printed.stdout).expect("text");
    let table: Vec<&str> = printed
        .lines()
        .skip_while(|line| !line.starts_with("A MONTH"))
        .take_while(|line| !line.is_empty())
        .collect();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    assert!(table.len() > 10, "{printed}");
    assert!(
        readme.contains(&table.join("\n")),
        "README.md does not show this table:\n\n{}\n",
        table.join("\n")
    );
}

/// Prices of one's own, and mistakes in them.
#[test]
fn another_table_of_prices_is_taken_and_checked() {
    let planb = Planb::empty();
    let path = planb.path().join("prices.toml");
    let own =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prices.toml")).expect("the table");
    std::fs::write(&path, own.replace("per_gb = 0.126", "per_gb = 1.0")).expect("a table");
    planb.write_config(&format!("{AZURE}prices = \"{}\"\n", path.display()));
    let told = planb.json(&["--json", "cost", "--size", "1GB", "--ratio", "4"]);
    close(of(&told["sizes"][0], "out of"), 2_190.0, "a dollar a GB");
    std::fs::write(&path, own.replace("tier", "tear")).expect("a table");
    let wrong = planb.fails(2, &["cost", "--size", "1GB"]);
    assert!(wrong.contains("prices.toml") && wrong.contains("tear"), "{wrong}");
    let nothing = planb.fails(2, &["cost", "--size", "10"]);
    assert!(nothing.contains("500MB"), "{nothing}");
}

/// Without --size it goes by the backups that there are; and the calls that it counts for a run are those that a run makes.
#[test]
fn sizes_are_measured_and_calls_are_real() {
    let server = Server::start(Flavor::MySql, &[]);
    server.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY, x VARCHAR(99)); INSERT INTO bank.t VALUES (1, 'a')");
    let planb = Planb::new(&server, &reader(&server, &[]));
    let nothing = planb.fails(2, &["cost"]);
    assert!(nothing.contains("--size"), "{nothing}");
    let blob = planb.backup(&[]);
    let told = planb.json(&["--json", "cost"]);
    let stored = std::fs::metadata(blob).expect("a backup").len();
    assert_eq!(told["sizes"][0]["stored_bytes"], stored, "{told}");

    let clock = Arc::new(SystemClock);
    let [backups, control] = [(); 2].map(|()| Arc::new(Faulty::scripted(MemoryStore::new(clock.clone()), [])));
    let mut runner = runner(&planb, backups.clone(), clock);
    runner.control = control.clone();
    let calls = || {
        let mut all = backups.calls();
        for (call, count) in control.calls() {
            *all.entry(call).or_default() += count;
        }
        move |call: Call| all.get(&call).copied().unwrap_or(0)
    };
    let backup = || async {
        runner
            .run(&wanted(), &Told::default(), &CancellationToken::new())
            .await
            .expect("a backup");
    };
    let (before, after) = tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        // The first one claims the store.
        backup().await;
        let before = calls();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        backup().await;
        (before, calls())
    });
    let made = |of: &[Call]| of.iter().map(|call| after(*call) - before(*call)).sum::<u64>();
    let blocks = made(&[Call::StageBlock]);
    for (what, made, counted) in [
        ("writes", made(&[Call::Commit, Call::Put]), RUN.writes),
        ("reads", made(&[Call::Read]), RUN.reads),
        ("lists", made(&[Call::List]), RUN.lists),
        (
            "other",
            made(&[Call::Properties, Call::Now, Call::Tags, Call::SetTags]),
            RUN.other,
        ),
    ] {
        println!("{what}: {made} made, {counted} counted, beside {blocks} blocks");
        assert!(
            (made as f64 - counted).abs() <= 1.0,
            "{what}: a run makes {made}, {counted} are counted"
        );
    }
}
