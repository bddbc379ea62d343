//! The second site as code, as far as it can be proven without a cloud: every type, attribute and block of `config/azure` and
//! `config/aws` is in the providers' schema, every reference leads somewhere, the plan feeds what is wanted and names only what is given;
//! nothing is open that should be shut, nothing that holds backups can be destroyed; the manifests are what Kubernetes' API takes.

#[path = "support/hcl.rs"]
mod hcl;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hcl::{Root, label, plain, titled, written};
use hcl_edit::structure::Block;
use planb::config::Config;
use planb::config::steps::{Kind, Manifests, Step, Terraform};
use serde_json::{Value, json};

const ROOTS: [&str; 5] = [
    "azure/1-always-on",
    "azure/2-database",
    "azure/3-full",
    "azure/4-alerts",
    "aws",
];
/// What AKS runs; the source document names it for EKS.
const KUBERNETES: &str = "1.34";

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn root(name: &str) -> Root {
    Root::read(&config(name))
}

fn schema() -> Value {
    let text = std::fs::read_to_string(support::fixture("provider-schema.json")).expect("the schema");
    serde_json::from_str(&text).expect("JSON")
}

fn pocketbank() -> Config {
    Config::load(&config("pocketbank.toml")).expect("the bank's plan")
}

fn steps(config: &Config) -> impl Iterator<Item = &Step> {
    config.failover_steps.iter().chain(&config.failback_steps)
}

/// Each step of Terraform's with its root.
fn terraform(config: &Config) -> Vec<(&Step, &Terraform, Root)> {
    steps(config)
        .filter_map(|step| match &step.kind {
            Kind::Terraform(terraform) => {
                let dir = terraform.dir.strip_prefix("/etc/planb").expect("under /etc/planb");
                Some((step, terraform, root(&dir.to_string_lossy())))
            }
            _ => None,
        })
        .collect()
}

fn manifests(config: &Config) -> &Manifests {
    steps(config)
        .find_map(|step| match &step.kind {
            Kind::Manifests(manifests) => Some(manifests),
            _ => None,
        })
        .expect("a step that applies manifests")
}

/// Terraform, from PATH.
fn run_terraform(dir: &Path, args: &[&str]) -> Output {
    Command::new("terraform")
        .args(args)
        .current_dir(dir)
        .env("CHECKPOINT_DISABLE", "1")
        .env("TF_IN_AUTOMATION", "1")
        .output()
        .expect("terraform is not on PATH: install Terraform 1.11 or newer (or link tofu under that name)")
}

// --- Terraform ---------------------------------------------------------------------------------------------

#[test]
fn every_attribute_exists_and_every_reference_leads_somewhere() {
    let schema = schema();
    let mistakes: Vec<String> = ROOTS
        .iter()
        .flat_map(|name| {
            root(name)
                .mistakes(&schema)
                .into_iter()
                .map(move |one| format!("{name}/{one}"))
        })
        .collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// That the check above finds anything at all.
#[test]
fn what_does_not_fit_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = r#"
        variable "unused" { type = string }
        locals { there = [for one in ["a"] : one] }
        resource "azurerm_subnet" "a" {
          name                 = "${var.nothing}-${local.there[0]}"
          resource_group_name  = azurerm_resource_group.nowhere.name
          adress_prefixes      = local.their
          virtual_network_name = data.azurerm_key_vault.b.vault_url
          delegation {
            service_delegation { actions = [] }
          }
          timeouts { create = "1m" }
          timeouts { create = "2m" }
          dynamic "service_endpoint" {
            for_each = toset(["x"])
            content { name = service_endpoint.value }
          }
        }
        data "azurerm_key_vault" "b" {
          name      = each.vault
          vault_uri = "x"
        }
        resource "azurerm_nonsense" "c" {}
    "#;
    std::fs::write(dir.path().join("a.tf"), text).expect("a file");
    let mistakes = Root::read(dir.path()).mistakes(&schema());
    let expected = [
        "resource azurerm_subnet.a: no such attribute: adress_prefixes",
        "resource azurerm_subnet.a: delegation: name is missing",
        "resource azurerm_subnet.a: delegation: service_delegation: name is missing",
        "resource azurerm_subnet.a: no such block: service_endpoint",
        "resource azurerm_subnet.a: timeouts stands 2 times, and may once",
        "resource azurerm_subnet.a: var.nothing leads nowhere",
        "resource azurerm_subnet.a: azurerm_resource_group.nowhere.name leads nowhere",
        "resource azurerm_subnet.a: local.their leads nowhere",
        "resource azurerm_subnet.a: data.azurerm_key_vault.b.vault_url leads nowhere",
        "data azurerm_key_vault.b: vault_uri is given back, and cannot be set",
        "data azurerm_key_vault.b: resource_group_name is missing",
        "data azurerm_key_vault.b: each.vault leads nowhere",
        "resource azurerm_nonsense.c: no such type",
    ]
    .map(|one| format!("a.tf: {one}"));
    let mut expected: BTreeSet<String> = expected.into();
    expected.insert("variable unused is used nowhere".to_owned());
    assert_eq!(BTreeSet::from_iter(mistakes), expected);
}

#[test]
fn versions_are_pinned_to_those_that_were_checked_and_states_are_kept_elsewhere() {
    let schema = schema();
    for name in ROOTS {
        let root = root(name);
        let terraform = root.all("terraform").next().expect("versions");
        let provider = if name == "aws" { "aws" } else { "azurerm" };
        let block = terraform
            .body
            .get_blocks("required_providers")
            .next()
            .expect("providers");
        let pinned = written(&block.body, provider);
        let checked = schema["providers"][provider]["version"].as_str().expect("a version");
        assert!(
            pinned.contains(&format!("\"{checked}\"")),
            "{name}: {pinned}, and {checked} was checked"
        );
        let backend = terraform.body.get_blocks("backend").next().expect("a backend");
        assert_eq!(label(backend, 0), if name == "aws" { "s3" } else { "azurerm" });
        for (variable, block) in root.variables() {
            assert!(block.body.has_attribute("type"), "{name}: {variable} has no type");
            assert!(
                block.body.has_attribute("description"),
                "{name}: {variable} is not described"
            );
        }
        for (output, block) in root.outputs() {
            assert!(
                block.body.has_attribute("description"),
                "{name}: {output} is not described"
            );
        }
    }
}

#[test]
fn terraform_s_own_formatter_has_nothing_to_say() {
    let checked = run_terraform(&config(""), &["fmt", "-check", "-recursive", "-diff", "-no-color"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

// --- the plan and what it drives ---------------------------------------------------------------------------

/// `NAME=VALUE` as Terraform gets it.
fn fed(written: &[(String, String)]) -> serde_json::Map<String, Value> {
    let value = |text: &str| match text.starts_with(['[', '{']) {
        true => serde_json::from_str(text).expect("JSON"),
        false => json!(text),
    };
    written.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

#[test]
fn every_variable_is_fed_and_terraform_takes_what_the_plan_feeds() {
    let config = pocketbank();
    let mut seen = BTreeSet::new();
    for (step, terraform, root) in terraform(&config) {
        let variables = root.variables();
        let mut given = fed(&terraform.variables);
        for (name, _) in &terraform.secrets {
            given.insert(name.clone(), json!("a-Long-1-secret-value"));
            let is_sensitive = plain(&variables[name].body, "sensitive") == Some(true.into());
            assert!(is_sensitive, "{}: {name} would be shown", step.name);
        }
        for name in given.keys() {
            assert!(variables.contains_key(name), "{}: no variable {name}", step.name);
        }
        for (name, block) in &variables {
            let has_default = block.body.has_attribute("default");
            assert!(
                has_default || given.contains_key(name),
                "{}: nobody feeds {name}",
                step.name
            );
        }
        for name in terraform
            .environment
            .iter()
            .filter_map(|name| name.strip_prefix("TF_VAR_"))
        {
            assert!(variables.contains_key(name), "{}: no variable {name}", step.name);
            assert!(
                !given.contains_key(name),
                "{}: what the plan says of {name} would go before it",
                step.name
            );
        }
        let backend: BTreeMap<&str, &str> = terraform
            .backend
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let key = format!("{}.tfstate", root.dir.file_name().expect("a name").to_string_lossy());
        assert_eq!(
            backend.get("key"),
            Some(&key.as_str()),
            "{}: a state of its own",
            step.name
        );
        assert!(backend.contains_key("storage_account_name") && backend.contains_key("container_name"));
        assert!(
            terraform.mirror.is_some(),
            "{}: no registry is asked at night",
            step.name
        );
        // What must be equal for the same directory, or a destroy works on something else than the apply.
        if !seen.insert((
            root.dir.clone(),
            format!("{:?}{:?}", terraform.variables, terraform.backend),
        )) {
            continue;
        }
        // Terraform itself, on the variables alone: types, and every validation.
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::copy(root.dir.join("variables.tf"), dir.path().join("variables.tf")).expect("copied");
        let init = run_terraform(dir.path(), &["init", "-input=false", "-no-color"]);
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let planned = |given: &serde_json::Map<String, Value>| {
            let text = serde_json::to_string(given).expect("JSON");
            std::fs::write(dir.path().join("fed.tfvars.json"), text).expect("written");
            run_terraform(
                dir.path(),
                &["plan", "-input=false", "-no-color", "-var-file=fed.tfvars.json"],
            )
        };
        let taken = planned(&given);
        assert!(
            taken.status.success(),
            "{}: {}",
            step.name,
            String::from_utf8_lossy(&taken.stderr)
        );
        for (name, wrong) in [
            ("subscription", json!("pocketbank")),
            ("storage_account", json!("Not-A-Name")),
            ("sku", json!("Nonsense")),
            ("high_availability", json!("ZoneRedundant")),
            ("immutable_days", json!(400)),
            ("nodes", json!({"min": 3, "max": 2})),
            ("dns_zone", json!("elsewhere.example")),
            ("api_addresses", json!([])),
            ("admin_password", json!("short")),
        ] {
            // A zone that is not the host's is stage 3's to refuse.
            if !variables.contains_key(name) || (name == "dns_zone" && !variables.contains_key("hostname")) {
                continue;
            }
            let mut spoiled = given.clone();
            spoiled.insert(name.to_owned(), wrong);
            assert!(
                !planned(&spoiled).status.success(),
                "{}: {name} is taken whatever it is",
                step.name
            );
        }
    }
    assert_eq!(seen.len(), 4, "each directory is always fed the same");
}

#[test]
fn every_output_that_the_plan_names_exists() {
    let config = pocketbank();
    let outputs: BTreeMap<String, BTreeMap<String, bool>> = terraform(&config)
        .iter()
        .filter(|(_, terraform, _)| !terraform.destroys)
        .map(|(step, _, root)| {
            let is_sensitive = |block: &Block| plain(&block.body, "sensitive") == Some(true.into());
            let outputs = root.outputs();
            let outputs = outputs.iter().map(|(name, block)| (name.clone(), is_sensitive(block)));
            (step.name.clone(), outputs.collect())
        })
        .collect();
    let text = std::fs::read_to_string(self::config("pocketbank.toml")).expect("the plan");
    let mut named = 0;
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for reference in line.split("${").skip(1) {
            let (step, output) = reference
                .split_once('}')
                .expect("}")
                .0
                .split_once('.')
                .expect("STEP.OUTPUT");
            let of = outputs
                .get(step)
                .unwrap_or_else(|| panic!("{line}: {step} gives no outputs"));
            let is_sensitive = of
                .get(output)
                .unwrap_or_else(|| panic!("{line}: {step} gives no {output}"));
            assert!(
                !is_sensitive || line.starts_with("kubeconfig"),
                "{line}: {output} is secret, and would be shown"
            );
            named += 1;
        }
    }
    assert!(named > 8, "{named}");
    // The host that the plan gets is the one that the configuration says.
    let server = terraform(&config)
        .into_iter()
        .find(|(step, ..)| step.name == "database")
        .expect("a step");
    let name = server
        .1
        .variables
        .iter()
        .find(|(name, _)| name == "server_name")
        .expect("a name");
    let standby = config.standby.as_ref().expect("a standby");
    assert_eq!(standby.host, format!("{}.mysql.database.azure.com", name.1));
    let admin = server.2.variables();
    assert_eq!(
        plain(&admin["admin_login"].body, "default"),
        Some(standby.user.clone().into())
    );
}

// --- what must be shut, and what must stay -----------------------------------------------------------------

#[test]
fn the_network_is_the_one_of_the_design() {
    let root = root("azure/1-always-on");
    let prefixes: BTreeMap<String, Value> = root
        .resources("azurerm_subnet")
        .map(|block| {
            let text = |name| plain(&block.body, name).unwrap_or_default();
            (
                text("name").as_str().expect("a name").to_owned(),
                text("address_prefixes"),
            )
        })
        .collect();
    let expected = [
        ("snet-appgw", "172.16.1.0/24"),
        ("snet-web", "172.16.11.0/24"),
        ("snet-was", "172.16.21.0/24"),
        ("snet-db", "172.16.31.0/24"),
        ("snet-ops", "172.16.41.0/24"),
    ];
    assert_eq!(
        prefixes,
        expected.map(|(name, prefix)| (name.to_owned(), json!([prefix]))).into()
    );

    // Group, who, ports. Between the cluster's nodes, and from the platform, everything goes.
    let mut open = BTreeSet::new();
    for group in root.resources("azurerm_network_security_group") {
        let name = label(group, 1);
        let rules: Vec<&Block> = group.body.get_blocks("security_rule").collect();
        let last = rules.last().expect("a rule");
        let refuses = [
            "access",
            "source_address_prefix",
            "destination_port_range",
            "protocol",
            "priority",
        ]
        .map(|key| plain(&last.body, key).unwrap_or_default());
        assert_eq!(
            refuses,
            [json!("Deny"), json!("*"), json!("*"), json!("*"), json!(4096)],
            "{name} ends open"
        );
        for rule in &rules[..rules.len() - 1] {
            assert_eq!(plain(&rule.body, "direction"), Some("Inbound".into()));
            let one = plain(&rule.body, "source_address_prefix").and_then(|who| who.as_str().map(str::to_owned));
            let who = one.unwrap_or_else(|| written(&rule.body, "source_address_prefixes"));
            let port = plain(&rule.body, "destination_port_range").map(|port| json!([port]));
            let ports = port
                .or_else(|| plain(&rule.body, "destination_port_ranges"))
                .unwrap_or_default();
            let who = who.replace("azurerm_subnet.", "").replace(".address_prefixes", "");
            open.insert((name.clone(), who, ports.to_string()));
        }
    }
    let expected = [
        ("appgw", "Internet", "[\"80\",\"443\"]"),
        ("appgw", "GatewayManager", "[\"65200-65535\"]"),
        ("appgw", "AzureLoadBalancer", "[\"*\"]"),
        ("web", "appgw", "[\"8080\"]"),
        ("web", "concat(web, was)", "[\"*\"]"),
        ("web", "AzureLoadBalancer", "[\"*\"]"),
        ("was", "concat(web, was)", "[\"*\"]"),
        ("was", "AzureLoadBalancer", "[\"*\"]"),
        ("db", "concat(was, ops)", "[\"3306\"]"),
        ("db", "db", "[\"3306\"]"),
    ];
    let expected = expected.map(|(group, who, ports)| (group.to_owned(), who.to_owned(), ports.to_owned()));
    assert_eq!(open, expected.into());
    let associated: BTreeSet<String> = root
        .resources("azurerm_subnet_network_security_group_association")
        .map(|block| written(&block.body, "network_security_group_id"))
        .collect();
    assert_eq!(
        associated.len(),
        expected_subnets().len(),
        "no subnet without its group"
    );

    // The first site's machine: in nothing, out https and the database.
    let aws = self::root("aws");
    assert!(
        aws.resources("aws_security_group")
            .all(|group| !group.body.has_blocks("ingress"))
    );
    for rule in aws.resources("aws_vpc_security_group_ingress_rule") {
        assert!(
            !rule.body.has_attribute("cidr_ipv4") && !rule.body.has_attribute("cidr_ipv6"),
            "{}",
            titled(rule)
        );
    }
    let out: BTreeSet<String> = aws
        .resources("aws_vpc_security_group_egress_rule")
        .map(|rule| {
            format!(
                "{} to {}",
                written(&rule.body, "from_port"),
                written(&rule.body, "to_port")
            )
        })
        .collect();
    assert_eq!(out, ["443 to 443", "3306 to 3306"].map(str::to_owned).into());
    for (file, block) in ROOTS.iter().flat_map(|name| self::root(name).blocks) {
        let text = block.body.to_string();
        let is_the_way_out = titled(&block) == "resource aws_vpc_security_group_egress_rule.https";
        assert!(
            is_the_way_out || !text.contains("0.0.0.0/0"),
            "{file}: {}",
            titled(&block)
        );
    }
}

fn expected_subnets() -> [&'static str; 5] {
    ["appgw", "web", "was", "db", "ops"]
}

#[test]
fn what_holds_backups_cannot_be_destroyed_and_stands_in_stage_one_alone() {
    let protected = [
        "azurerm_resource_group",
        "azurerm_storage_account",
        "azurerm_storage_container",
        "azurerm_storage_management_policy",
        "azurerm_key_vault",
    ];
    let first = root("azure/1-always-on");
    for kind in protected {
        let mut count = 0;
        for block in first.resources(kind) {
            let lifecycle = block.body.get_blocks("lifecycle").next();
            let stays = lifecycle.and_then(|lifecycle| plain(&lifecycle.body, "prevent_destroy"));
            assert_eq!(stays, Some(true.into()), "{}", titled(block));
            count += 1;
        }
        assert!(count > 0, "no {kind}");
    }
    let locked: BTreeSet<String> = first
        .resources("azurerm_management_lock")
        .map(|block| written(&block.body, "scope"))
        .collect();
    assert_eq!(
        locked,
        ["azurerm_storage_account.backups.id", "azurerm_key_vault.dr.id"]
            .map(str::to_owned)
            .into()
    );
    for stage in ["azure/2-database", "azure/3-full", "azure/4-alerts"] {
        let root = root(stage);
        for kind in protected
            .iter()
            .chain(&["azurerm_role_assignment", "azurerm_role_definition"])
        {
            let found: Vec<String> = root.resources(kind).map(titled).collect();
            assert!(
                found.is_empty(),
                "{stage}: {found:?}: a right takes minutes to spread, and an owner to give"
            );
        }
        let provider = root.all("provider").next().expect("a provider");
        assert_eq!(
            plain(&provider.body, "resource_provider_registrations"),
            Some("none".into())
        );
    }
    let account = first.resources("azurerm_storage_account").next().expect("one");
    for (key, value) in [
        ("shared_access_key_enabled", false),
        ("allow_nested_items_to_be_public", false),
        ("https_traffic_only_enabled", true),
    ] {
        assert_eq!(plain(&account.body, key), Some(value.into()), "{key}");
    }
    for container in first.resources("azurerm_storage_container") {
        assert_eq!(
            plain(&container.body, "container_access_type"),
            Some("private".into()),
            "{}",
            titled(container)
        );
    }
    let vault = first.resources("azurerm_key_vault").next().expect("one");
    assert_eq!(plain(&vault.body, "purge_protection_enabled"), Some(true.into()));
    let secret = root("aws");
    let secret = secret.resources("aws_secretsmanager_secret").next().expect("one");
    assert!(secret.body.to_string().contains("prevent_destroy = true"));
}

/// The rule that the account has is the one that `planb prune --policy` prints.
#[test]
fn the_lifecycle_rule_is_the_agent_s() {
    let config = pocketbank();
    let root = root("azure/1-always-on");
    let default = |name: &str| plain(&root.variables()[name].body, "default").unwrap_or_default();
    let (container, prefix) = (default("container"), default("prefix"));
    let told = planb::backup::prune::lifecycle_policy_json(
        container.as_str().expect("a name"),
        prefix.as_str().expect("a prefix"),
        &config.retention,
    );
    let told = &told["rules"][0];
    let policy = root.resources("azurerm_storage_management_policy").next().expect("one");
    let rule = policy.body.get_blocks("rule").next().expect("a rule");
    assert_eq!(plain(&rule.body, "name"), Some(told["name"].clone()));
    let filters = rule.body.get_blocks("filters").next().expect("filters");
    let of = &told["definition"]["filters"];
    assert_eq!(plain(&filters.body, "blob_types"), Some(of["blobTypes"].clone()));
    assert_eq!(of["prefixMatch"], json!(["mysql-backups/backups/"]));
    assert_eq!(
        written(&filters.body, "prefix_match"),
        "[\"${var.container}/${var.prefix}\"]"
    );
    let tag = filters.body.get_blocks("match_blob_index_tag").next().expect("a tag");
    for (ours, theirs) in [("name", "name"), ("operation", "op"), ("value", "value")] {
        assert_eq!(plain(&tag.body, ours), Some(of["blobIndexMatch"][0][theirs].clone()));
    }
    let days = &told["definition"]["actions"]["baseBlob"]["delete"]["daysAfterModificationGreaterThan"];
    assert_eq!(default("expire_after_days"), *days);
    // No other rule removes what is there: only versions that were overwritten or deleted.
    for rule in policy.body.get_blocks("rule").skip(1) {
        let actions = rule.body.get_blocks("actions").next().expect("actions");
        assert!(actions.body.blocks().all(|block| block.ident.as_str() == "version"));
    }
}

#[test]
fn rights_are_those_of_the_files_beside() {
    let roles = std::fs::read_to_string(config("azure-roles.json")).expect("the roles");
    let roles: Value = serde_json::from_str(&roles).expect("JSON");
    let names: BTreeSet<&str> = roles
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|role| role["Name"].as_str())
        .collect();
    let root = root("azure/1-always-on");
    let mut used = BTreeSet::new();
    for block in root.resources("azurerm_role_assignment") {
        let role = written(&block.body, "role_definition_id");
        if let Some((_, rest)) = role.split_once("planb[\"") {
            used.insert(rest.split_once('"').expect("a name").0.to_owned());
        }
        let principal = written(&block.body, "principal_id");
        let is_agent = principal == "var.uploader";
        assert!(!is_agent || role.contains("PlanB uploader"), "the agent gets {role}");
        let name = plain(&block.body, "role_definition_name").unwrap_or_default();
        assert!(
            name != json!("Owner") && name != json!("User Access Administrator"),
            "{}",
            titled(block)
        );
    }
    assert!(used.iter().all(|name| names.contains(name.as_str())), "{used:?}");
    // The watchers' is chosen by the container: who could only read would have no vote.
    let watchers = root
        .resources("azurerm_role_assignment")
        .find(|block| label(block, 1) == "watchers");
    let role = written(&watchers.expect("the watchers'").body, "role_definition_id");
    assert!(
        role.contains("\"control\" ? \"PlanB watcher\" : \"PlanB reader\"") && names.contains("PlanB watcher"),
        "{role}"
    );
    assert!(used.contains("PlanB uploader") && names.contains("PlanB reader"));

    let actions = |text: &str| -> BTreeSet<String> {
        let quoted = text.split('"').skip(1).step_by(2);
        let is_action = |word: &&str| {
            word.split_once(':').is_some_and(|(service, call)| {
                let service = service.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
                service && call.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !call.is_empty()
            })
        };
        quoted.filter(is_action).map(str::to_owned).collect()
    };
    let beside = ["aws-iam-policy.json", "aws-iam-operator.json"]
        .map(|name| std::fs::read_to_string(config(name)).expect("a policy"));
    let mut ours = actions(&std::fs::read_to_string(config("aws/main.tf")).expect("a file"));
    assert!(ours.remove("sts:AssumeRole"));
    assert_eq!(ours, actions(&beside.concat()));
}

/// Names after `scheme` in references to secrets, wherever they stand in the bank's file, in what is commented out for other machines too.
fn named<'a>(text: &'a str, scheme: &str) -> BTreeSet<&'a str> {
    let words = text.lines().flat_map(|line| line.split('"'));
    words.filter_map(|word| word.strip_prefix(scheme)).collect()
}

fn loaded(unit: &str) -> BTreeSet<&str> {
    let given = unit
        .lines()
        .filter_map(|line| line.strip_prefix("LoadCredentialEncrypted="));
    given.collect()
}

/// What a loop of a shell's goes through, in the text beside it.
fn looped<'a>(text: &'a str, with: &str) -> BTreeSet<&'a str> {
    let lists = text
        .split("for name in ")
        .skip(1)
        .filter_map(|rest| rest.split_once(" done").or_else(|| rest.split_once("done")));
    let mut found = lists.filter(|(body, _)| body.contains(with)).map(|(body, _)| {
        let list = body.split_once(';').expect("a loop").0;
        list.split_whitespace().collect()
    });
    found.next().expect("a loop")
}

#[test]
fn each_machine_is_given_the_secrets_that_it_reads() {
    let read = |name: &str| std::fs::read_to_string(config(name)).expect("a file");
    let text = read("pocketbank.toml");
    let credentials = named(&text, "credential:");
    assert!(
        credentials.contains("slack-hook") && credentials.len() == 6,
        "{credentials:?}"
    );
    // The agent reads all of them: its unit is given each, and its page has each made.
    assert_eq!(loaded(&read("aws/user-data.sh")), credentials);
    assert_eq!(looped(&read("aws/README.md"), "systemd-creds encrypt"), credentials);
    // A watcher gets to the store and tells people; the primary's probes are not its.
    let watcher = std::fs::read_to_string(config("../systemd/planb-watch@.service")).expect("a unit");
    let wanted: BTreeSet<&str> = ["planb-azure", "slack-hook", "pagerduty-key"].into();
    assert_eq!(loaded(&watcher), wanted);
    assert_eq!(looped(&read("azure/README.md"), "systemd-creds encrypt"), wanted);
    let watch = pocketbank().watch.expect("watchers");
    for probe in &watch.probes {
        let is_everywhere = watch
            .watchers
            .iter()
            .all(|other| watch.probes_of(&other.name).iter().any(|one| one.name == probe.name));
        assert!(
            !is_everywhere || probe.name == "public",
            "{}: a watcher has no password",
            probe.name
        );
    }
    // Operators and the runner have no credentials: what they read is in the vault, and the page has each put there.
    let vault = named(&text, "azure-keyvault:kv-pocketbank-dr/");
    assert_eq!(looped(&read("azure/README.md"), "az keyvault secret set"), vault);
    for line in text
        .lines()
        .filter(|line| line.contains("\"credential:") && !line.starts_with('#'))
    {
        let is_of_the_source = line.contains("credential:planb-source");
        assert!(
            is_of_the_source || line.contains("azure-keyvault:"),
            "nobody but the agent has it: {line}"
        );
    }
}

#[test]
fn each_watcher_has_a_machine() {
    let watch = pocketbank().watch.expect("watchers");
    let readme = std::fs::read_to_string(config("azure/README.md")).expect("a page");
    let (_, section) = readme.split_once("## Watchers").expect("a section");
    let rows: BTreeMap<&str, &str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .collect();
    let names: BTreeSet<&str> = watch.watchers.iter().map(|watcher| watcher.name.as_str()).collect();
    assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), names);
    for (name, row) in rows {
        let by_itself = row.contains(&format!("`planb-watch@{name}`"));
        let by_the_agent = watch.name.as_deref() == Some(name);
        assert!(by_itself != by_the_agent, "{name}: {row}");
    }
}

/// Whoever types `planb drill` can: each step is done by a machine that has what it needs, and nothing is called like the real thing.
#[test]
fn the_bank_s_rehearsal_can_be_carried_out() {
    let config = pocketbank();
    // Neither the agent nor the runner may make anything in Azure, so neither keeps a schedule.
    assert_eq!(config.drill.schedule, None);
    let variant = planb::drill::variant::variant(&config, config.drill.stage).expect("isolated");
    let plan = planb::steps::plan::rehearsal(&variant.config.failover_steps);
    let mut roots = BTreeSet::new();
    for step in &plan.steps {
        let written = variant
            .config
            .failover_steps
            .iter()
            .find(|one| one.name == step.name)
            .expect("written");
        let at = step.at.name();
        match &written.kind {
            Kind::Terraform(terraform) => {
                assert_eq!(
                    at, "operator",
                    "{}: the runner has no Terraform, and no right",
                    step.name
                );
                roots.insert(
                    terraform
                        .dir
                        .file_name()
                        .expect("a name")
                        .to_string_lossy()
                        .into_owned(),
                );
            }
            Kind::Restore(_) | Kind::Verify(_) | Kind::Accounts(_) => {
                assert_eq!(at, "runner", "{}: nothing else reaches the database", step.name);
                assert!(!step.takes_back, "{}: it goes with its server", step.name);
            }
            Kind::Command(command) => {
                assert_eq!(
                    (at, command.args[0].as_str(), command.undo[0].as_str()),
                    ("operator", "start", "stop")
                );
                assert!(
                    plan.before("restore").contains(step.name.as_str()),
                    "it runs before it is needed"
                );
            }
            kind => panic!("{}: {kind:?} is rehearsed?", step.name),
        }
    }
    assert!(
        plan.steps.iter().any(|step| step.kind == "command"),
        "the runner rests by day: something starts it"
    );
    // Each thing in those roots has another name than the real one, or is not there.
    assert_eq!(roots, BTreeSet::from(["2-database".to_owned()]));
    let root = root("azure/2-database");
    let apart: BTreeSet<&str> = config.drill.variables.iter().map(|(name, _)| name.as_str()).collect();
    for block in root.all("resource") {
        let texts = ["name", "server_name", "for_each"].map(|key| match block.body.has_attribute(key) {
            true => written(&block.body, key),
            false => String::new(),
        });
        let is_apart = texts.iter().any(|text| {
            text.contains("terraform.workspace == \"default\"")
                || text.contains("azurerm_mysql_flexible_server.db.name")
                || apart.iter().any(|name| text.trim() == format!("var.{name}"))
        });
        assert!(is_apart, "{}: called like the real one", titled(block));
    }
}

/// Until something was done once, `--plan` says what the plan says.
#[test]
fn each_step_says_how_long_it_takes_and_stage_two_keeps_the_target() {
    let config = pocketbank();
    for step in steps(&config) {
        let is_a_person_s = matches!(step.kind, Kind::Manual { .. });
        assert_eq!(step.usually.is_some(), !is_a_person_s, "{}", step.name);
        assert!(
            step.usually.is_none_or(|usually| usually < step.timeout),
            "{}: given up before it is done",
            step.name
        );
    }
    let plan = planb::steps::plan::plan(&config.failover_steps);
    let longest = |name: &str| {
        let seconds = |name: &str| {
            let step = config.failover_steps.iter().find(|step| step.name == name);
            step.and_then(|step| step.usually).unwrap_or_default()
        };
        fn along(
            plan: &planb::recovery::plan::Plan,
            name: &str,
            of: &dyn Fn(&str) -> std::time::Duration,
        ) -> std::time::Duration {
            let needs = &plan.step(name).expect("a step").needs;
            of(name) + needs.iter().map(|need| along(plan, need, of)).max().unwrap_or_default()
        }
        along(&plan, name, &seconds)
    };
    assert!(longest("accounts") <= config.targets.rto, "{:?}", longest("accounts"));
}

// --- alerts ------------------------------------------------------------------------------------------------

/// The locals of a root's alerts, as Terraform reckons them with what the plan leaves to defaults.
fn alerts(root: &str, names: &[&str], with: &str) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::copy(config(root).join("variables.tf"), dir.path().join("variables.tf")).expect("copied");
    let text = std::fs::read_to_string(config(root).join("alerts.tf")).expect("alerts");
    let (_, rest) = text.split_once("locals {").expect("locals");
    let (locals, _) = rest.split_once("\n}\n").expect("the end of the locals");
    let outputs: String = names
        .iter()
        .map(|name| format!("output \"{name}\" {{ value = local.{name} }}\n"))
        .collect();
    std::fs::write(dir.path().join("main.tf"), format!("locals {{{locals}\n}}\n{outputs}")).expect("written");
    std::fs::write(dir.path().join("fed.auto.tfvars"), with).expect("written");
    for args in [
        &["init", "-input=false"][..],
        &["apply", "-input=false", "-auto-approve"],
    ] {
        let done = run_terraform(dir.path(), args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let told = run_terraform(dir.path(), &["output", "-json"]);
    serde_json::from_slice(&told.stdout).expect("JSON")
}

const SUBSCRIPTION: &str = "subscription = \"00000000-0000-0000-0000-000000000000\"\n";

/// The 13 alerts of the source document's section 7.2, with its thresholds or what Azure has in their place.
#[test]
fn the_alerts_are_the_first_site_s() {
    let pods = alerts(
        "azure/4-alerts",
        &["cluster_alerts", "gateway_alerts", "pod_alerts", "limits"],
        SUBSCRIPTION,
    );
    let database = alerts(
        "azure/2-database",
        &["alerts"],
        &format!("{SUBSCRIPTION}server_name = \"s-1\"\nadmin_password = \"a-Long-1-secret-value\"\n"),
    );
    let limits = &pods["limits"]["value"];
    let mut found: BTreeMap<String, (String, f64)> = BTreeMap::new();
    for given in [&pods["cluster_alerts"], &pods["gateway_alerts"], &database["alerts"]] {
        for (name, alert) in given["value"].as_object().expect("alerts") {
            let metric = alert["metric"].as_str().expect("a metric").to_owned();
            found.insert(name.clone(), (metric, alert["above"].as_f64().expect("a number")));
        }
    }
    let root = root("azure/4-alerts");
    let errors = root
        .resources("azurerm_monitor_metric_alert")
        .find(|block| label(block, 1) == "gateway_errors")
        .expect("5xx");
    let criteria = errors.body.get_blocks("criteria").next().expect("criteria");
    assert_eq!(plain(&errors.body, "window_size"), Some("PT5M".into()));
    assert_eq!(written(&criteria.body, "threshold"), "local.limits.gateway_errors");
    assert_eq!(plain(&criteria.body, "aggregation"), Some("Total".into()));
    let name = plain(&errors.body, "name").expect("a name");
    let metric = plain(&criteria.body, "metric_name").expect("a metric");
    found.insert(
        name.as_str().expect("text").to_owned(),
        (
            metric.as_str().expect("text").to_owned(),
            limits["gateway_errors"].as_f64().expect("a number"),
        ),
    );
    let expected = [
        ("node-cpu-high", "node_cpu_usage_percentage", 80.0),
        ("node-memory-high", "node_memory_working_set_percentage", 85.0),
        ("node-disk-high", "node_disk_usage_percentage", 80.0),
        ("alb-5xx-errors-high", "ResponseStatus", 10.0),
        // The mean, in milliseconds: there is no percentile.
        ("alb-latency-high", "BackendFirstByteResponseTime", 2_000.0),
        ("unhealthy-hosts", "UnhealthyHostCount", 0.0),
        ("rds-cpu-high", "cpu_percent", 80.0),
        // 10 of 64 GB free.
        ("rds-storage-low", "storage_percent", 84.0),
        // 800 is more than the smallest server takes at all: four fifths of that.
        ("rds-connections-high", "active_connections", 272.0),
    ];
    let expected: BTreeMap<String, (String, f64)> = expected
        .map(|(name, metric, above)| (name.to_owned(), (metric.to_owned(), above)))
        .into();
    assert_eq!(found, expected);

    // The other four are Prometheus' own: it is asked itself when they fire.
    let rules: Vec<Value> = pods["pod_alerts"]["value"]
        .as_object()
        .expect("rules")
        .iter()
        .map(|(name, rule)| {
            let minutes = rule["during"]
                .as_str()
                .and_then(|text| text.strip_prefix("PT"))
                .expect("minutes");
            json!({"alert": name, "expr": rule["expression"], "for": minutes.to_lowercase()})
        })
        .collect();
    let names: Vec<&str> = rules.iter().filter_map(|rule| rule["alert"].as_str()).collect();
    assert_eq!(
        names,
        ["node-count-low", "pod-cpu-high", "pod-memory-high", "pod-restart-high"]
    );
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, what: &Value| std::fs::write(dir.path().join(name), what.to_string()).expect("written");
    write("rules.yml", &json!({"groups": [{"name": "pods", "rules": rules}]}));
    let ready = |node: &str, values: &str| json!({"series": format!("kube_node_status_condition{{condition=\"Ready\",status=\"true\",node=\"{node}\"}}"), "values": values});
    let full = |pool: &str| {
        [0, 1]
            .map(|number| ready(&format!("aks-{pool}-1-vmss00000{number}"), "1x30"))
            .to_vec()
    };
    let of = |metric: &str, more: &str, values: &str| json!({"series": format!("{metric}{{namespace=\"was\",pod=\"p\",{more}}}"), "values": values});
    let case = |alert: &str, mut series: Vec<Value>, fires: Value| {
        if alert != "node-count-low" {
            series.extend([full("web"), full("was")].concat());
        }
        json!({"interval": "1m", "input_series": series, "alert_rule_test": [{"eval_time": "20m", "alertname": alert, "exp_alerts": fires}]})
    };
    let fires = |labels: Value| json!([{"exp_labels": labels}]);
    let pod = || fires(json!({"namespace": "was", "pod": "p"}));
    let restarts = |values: &str| {
        vec![of(
            "kube_pod_container_status_restarts_total",
            "container=\"c\"",
            values,
        )]
    };
    let used = |resource: &str, metric: &str, values: &str, limit: &str| {
        let limit = of(
            "kube_pod_container_resource_limits",
            &format!("resource=\"{resource}\""),
            limit,
        );
        vec![of(metric, "container=\"c\"", values), limit]
    };
    let few = |pool: &str| fires(json!({"pool": pool}));
    let cpu = |values: &str| used("cpu", "container_cpu_usage_seconds_total", values, "1x30");
    let memory = |values: &str| used("memory", "container_memory_working_set_bytes", values, "100x30");
    let tests = json!([
        case("node-count-low", [full("web"), full("was")].concat(), json!([])),
        // A pool of four makes up for no empty one.
        case(
            "node-count-low",
            [full("was"), full("was")].concat()[..2].to_vec(),
            few("web")
        ),
        case(
            "node-count-low",
            [
                full("web"),
                vec![
                    ready("aks-was-1-vmss000000", "1x30"),
                    ready("aks-was-1-vmss000001", "1x10 0x20")
                ]
            ]
            .concat(),
            few("was")
        ),
        // Five times in five minutes, and four.
        case(
            "pod-restart-high",
            restarts("0x14 1 2 3 4 5 5x10"),
            fires(json!({"namespace": "was", "pod": "p", "container": "c"}))
        ),
        case("pod-restart-high", restarts("0x14 1 2 3 4 4 4x10"), json!([])),
        case("pod-cpu-high", cpu("0+54x30"), pod()),
        case("pod-cpu-high", cpu("0+48x30"), json!([])),
        case("pod-memory-high", memory("90x30"), pod()),
        case("pod-memory-high", memory("80x30"), json!([])),
    ]);
    write(
        "tests.yml",
        &json!({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}),
    );
    let promtool = support::lab_dir()
        .canonicalize()
        .expect("a lab")
        .join("prometheus/bin/promtool");
    let judged = Command::new(promtool)
        .args(["test", "rules", "tests.yml"])
        .current_dir(dir.path())
        .output()
        .expect("promtool");
    let told = [judged.stdout, judged.stderr].concat();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn templates_are_filled_and_programs_are_whole() {
    for (root, file, template) in [
        ("azure/1-always-on", "runner.tf", "runner.yaml"),
        ("aws", "main.tf", "user-data.sh"),
    ] {
        let text = std::fs::read_to_string(config(root).join(template)).expect("a template");
        let wanted: BTreeSet<&str> = text
            .split("${")
            .skip(1)
            .map(|rest| rest.split_once('}').expect("}").0)
            .collect();
        assert!(!text.contains("%{"), "{template}: a directive of templates");
        let caller = std::fs::read_to_string(config(root).join(file)).expect("a file");
        let (_, call) = caller.split_once(&format!("{template}\", {{")).expect("the call");
        let given: BTreeSet<&str> = call
            .split_once('}')
            .expect("}")
            .0
            .lines()
            .filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()))
            .collect();
        assert_eq!(given, wanted, "{template}");
        let filled = wanted
            .iter()
            .fold(text.clone(), |text, name| text.replace(&format!("${{{name}}}"), "x"));
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        if template.ends_with(".sh") {
            std::fs::write(&path, filled).expect("written");
            let read = Command::new("sh").arg("-n").arg(&path).output().expect("sh");
            assert!(
                read.status.success(),
                "{template}: {}",
                String::from_utf8_lossy(&read.stderr)
            );
            continue;
        }
        let machine: Vec<Value> = serde_saphyr::from_multiple(&filled).expect("YAML");
        let files = machine[0]["write_files"].as_array().expect("files");
        let fetch = files
            .iter()
            .find(|file| file["path"] == "/usr/local/sbin/fetch-planb")
            .expect("a program");
        std::fs::write(&path, fetch["content"].as_str().expect("text")).expect("written");
        let check = "import ast, sys; ast.parse(open(sys.argv[1]).read())";
        let python = support::lab_dir().join("moto/bin/python");
        let read = Command::new(python)
            .args(["-c", check])
            .arg(&path)
            .output()
            .expect("python");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}

/// A cloud's command line that writes down what it is asked, and answers what the test says.
#[test]
fn the_programs_of_the_plan_say_what_stands() {
    let dir = tempfile::tempdir().expect("a directory");
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).expect("a directory");
    let az = "#!/bin/sh\necho \"$*\" >>\"$LOG\"\ncase \"$*\" in *get-instance-view*) echo \"PowerState/$POWER\" ;; *'cname show'*) echo \"$CNAME\" ;; *set-record*) [ \"$REFUSE\" = no ] ;;\n\
              'vm start'*) case \"$REFUSE\" in no) ;; forbidden) echo AuthorizationFailed >&2; exit 1 ;; *) grep -q -- \"--size $REFUSE\" \"$LOG\" || { echo ZonalAllocationFailed >&2; exit 1; } ;; esac ;;\n\
              'vm resize'*nowhere*) echo not here >&2; exit 1 ;; 'resource list'*) echo \"$CNAME\" ;; *run-command*) echo \"$REFUSE\" ;; esac\n";
    std::fs::write(bin.join("az"), az).expect("written");
    std::fs::set_permissions(bin.join("az"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("may be run");
    let run = |program: &str, args: &[&str], answers: [(&str, &str); 3]| {
        let output = Command::new(config("azure").join(program))
            .args(args)
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("LOG", dir.path().join("log"))
            .envs(answers)
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let answers = |power, cname, refuse| [("POWER", power), ("CNAME", cname), ("REFUSE", refuse)];
    let machine = ["rg", "vm"];
    for (command, power, code) in [
        ("is-running", "running", 0),
        ("is-running", "deallocated", 1),
        ("start", "running", 0),
        ("start", "stopped", 1),
        ("stop", "deallocated", 0),
        ("stop", "stopped", 1),
    ] {
        let (ended, text) = run(
            "runner-power",
            &[&[command], &machine[..]].concat(),
            answers(power, "", "no"),
        );
        assert_eq!(ended, Some(code), "{command} {power}: {text}");
        assert!(command == "is-running" || text.contains("vm"), "{text}");
    }
    // Short of machines: the next size, and only then, and only those that were named.
    for (sizes, refuse, code, said) in [
        (&["nowhere", "size-b", "size-c"][..], "size-b", 0, "trying size-b"),
        (&["size-b"], "forbidden", 1, "AuthorizationFailed"),
        (&["size-b"], "size-z", 1, "ZonalAllocationFailed"),
        (&[], "size-b", 1, "ZonalAllocationFailed"),
    ] {
        std::fs::write(dir.path().join("log"), "").expect("written");
        let (ended, text) = run(
            "runner-power",
            &[&["start"], &machine[..], sizes].concat(),
            answers("running", "", refuse),
        );
        assert_eq!(ended, Some(code), "{sizes:?} {refuse}: {text}");
        assert!(text.contains(said), "{sizes:?} {refuse}: {text}");
        let asked = std::fs::read_to_string(dir.path().join("log")).expect("a log");
        assert!(!asked.contains("size-c"), "{asked}");
        assert!(refuse != "forbidden" || !asked.contains("resize"), "{asked}");
    }
    // Off only where it was seen to be well, and where no database needs it.
    for (well, power, servers, code, rests) in [
        ("the-runner-is-well", "running", "0", 1, true),
        ("the-runner-is-well", "running", "1", 0, false),
        ("", "running", "0", 1, false),
        ("", "deallocated", "0", 0, false),
    ] {
        std::fs::write(dir.path().join("log"), "").expect("written");
        let (ended, text) = run(
            "runner-power",
            &[&["rest"], &machine[..]].concat(),
            answers(power, servers, well),
        );
        let asked = std::fs::read_to_string(dir.path().join("log")).expect("a log");
        // The test's machine goes on running, and is said to be paid for.
        assert_eq!((ended, asked.contains("deallocate")), (Some(code), rests), "{text}");
    }
    std::fs::write(dir.path().join("log"), "").expect("written");
    assert_eq!(
        run(
            "runner-power",
            &[&["stop"], &machine[..]].concat(),
            answers("deallocated", "", "no")
        )
        .0,
        Some(0)
    );
    let name = ["rg", "pocketbank.example", "www", "gateway.example"];
    for (command, cname, refuse, code) in [
        ("is", "gateway.example", "no", 0),
        ("is", "cloudfront.example", "no", 1),
        ("set", "gateway.example", "no", 0),
        ("set", "cloudfront.example", "no", 1),
        ("set", "gateway.example", "yes", 1),
    ] {
        let (ended, text) = run(
            "traffic-dns",
            &[&[command], &name[..]].concat(),
            answers("", cname, refuse),
        );
        assert_eq!(ended, Some(code), "{command} {cname} {refuse}: {text}");
    }
    let asked = std::fs::read_to_string(dir.path().join("log")).expect("a log");
    for wanted in [
        "vm deallocate --resource-group rg --name vm",
        "--record-set-name www --cname gateway.example",
    ] {
        assert!(asked.contains(wanted), "{asked}");
    }
    for program in ["runner-power", "traffic-dns", "make-state-account"] {
        assert_eq!(
            run(program, &["start"], answers("", "", "")).0,
            Some(2),
            "{program} says how it is used"
        );
    }
}

// --- Kubernetes --------------------------------------------------------------------------------------------

fn yaml_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(config("kubernetes"))
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    files
}

fn objects() -> Vec<Value> {
    let read = |path: PathBuf| -> Vec<Value> {
        serde_saphyr::from_multiple(&std::fs::read_to_string(path).expect("a file")).expect("YAML")
    };
    yaml_files()
        .into_iter()
        .flat_map(read)
        .filter(|object| !object.is_null())
        .collect()
}

fn of<'a>(objects: &'a [Value], kind: &str, namespace: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["namespace"] == namespace)
        .collect()
}

#[test]
fn manifests_are_what_the_api_takes() {
    let python = support::lab_dir().join("kubernetes-validate/bin/python");
    assert!(
        python.is_file(),
        "{} is missing: run scripts/lab setup",
        python.display()
    );
    let validate = |files: &[PathBuf]| {
        Command::new(&python)
            .args(["-m", "kubernetes_validate", "-k", KUBERNETES, "--strict"])
            .args(files)
            .output()
            .expect("kubernetes-validate")
    };
    let checked = validate(&yaml_files());
    let told = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{told}");
    assert_eq!(told.matches("passed for resource").count(), objects().len(), "{told}");
    // And that it would have said so.
    let dir = tempfile::tempdir().expect("a directory");
    let text = std::fs::read_to_string(config("kubernetes/3-was.yaml")).expect("a file");
    for (right, wrong) in [
        ("containerPort: 8080", "containerPort: http"),
        ("readinessProbe:", "readynessProbe:"),
    ] {
        assert!(text.contains(right));
        let file = dir.path().join("wrong.yaml");
        std::fs::write(&file, text.replace(right, wrong)).expect("written");
        assert!(!validate(&[file]).status.success(), "{wrong} passed");
    }
}

#[test]
fn pods_have_no_more_than_they_need_and_everything_that_keeps_them_up() {
    let objects = objects();
    for namespace in ["web", "was"] {
        let deployments = of(&objects, "Deployment", namespace);
        assert_eq!(deployments.len(), 1);
        for deployment in deployments {
            let name = &deployment["metadata"]["name"];
            let pod = &deployment["spec"]["template"]["spec"];
            assert_eq!(pod["nodeSelector"], json!({"tier": namespace}));
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            for key in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[key].is_null(), "{name}: {key}");
            }
            assert!(
                pod["volumes"]
                    .as_array()
                    .expect("volumes")
                    .iter()
                    .all(|volume| volume["hostPath"].is_null())
            );
            let spread = pod["topologySpreadConstraints"].as_array().expect("spread");
            assert!(
                spread
                    .iter()
                    .any(|one| one["topologyKey"] == "topology.kubernetes.io/zone"),
                "{name}"
            );
            for container in pod["containers"].as_array().expect("containers") {
                for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                    assert!(container[probe].is_object(), "{name}: no {probe}");
                }
                for kind in ["requests", "limits"] {
                    for what in ["cpu", "memory"] {
                        assert!(
                            container["resources"][kind][what].is_string(),
                            "{name}: no {kind} of {what}"
                        );
                    }
                }
                let context = &container["securityContext"];
                assert_eq!(context["privileged"], false, "{name}");
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{name}");
            }
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
            let budgets = of(&objects, "PodDisruptionBudget", namespace);
            assert!(
                budgets
                    .iter()
                    .any(|one| &one["spec"]["selector"]["matchLabels"] == labels),
                "{name}: no budget"
            );
            let services = of(&objects, "Service", namespace);
            assert!(
                services.iter().any(|one| &one["spec"]["selector"] == labels),
                "{name}: no service"
            );
        }
        let policies = of(&objects, "NetworkPolicy", namespace);
        let nothing = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        assert!(
            policies.iter().any(|policy| policy["spec"] == nothing),
            "{namespace} is open"
        );
        let enforced = objects.iter().any(|object| {
            object["kind"] == "Namespace"
                && object["metadata"]["name"] == namespace
                && object["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        });
        assert!(enforced, "{namespace}");
    }
}

#[test]
fn the_plan_feeds_the_manifests() {
    let config = pocketbank();
    let manifests = manifests(&config);
    let text: String = yaml_files()
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a file"))
        .collect();
    let wanted: BTreeSet<&str> = text
        .split("${")
        .skip(1)
        .map(|rest| rest.split_once('}').expect("}").0)
        .collect();
    let given: BTreeMap<&str, &str> = manifests
        .variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(given.keys().copied().collect::<BTreeSet<_>>(), wanted);
    let registry = terraform(&config)
        .iter()
        .flat_map(|(_, terraform, _)| terraform.variables.clone())
        .find_map(|(name, value)| (name == "registry").then_some(value))
        .expect("a registry");
    for (name, image) in given.iter().filter(|(name, _)| name.ends_with("_IMAGE")) {
        let (place, digest) = image
            .split_once("@sha256:")
            .unwrap_or_else(|| panic!("{name} by digest"));
        assert!(
            place.starts_with(&format!("{registry}.azurecr.io/")),
            "{name} comes from elsewhere"
        );
        assert!(
            digest.len() == 64 && !place.rsplit('/').next().unwrap_or_default().contains(':'),
            "{name}"
        );
    }
    assert!(!text.contains("image: ") || text.matches("image: ${").count() == text.matches("image: ").count());
    assert!(!text.contains(":latest"));

    // Secrets that the pods name come from references, and no others do.
    let objects = objects();
    let mut named = BTreeSet::new();
    for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
        let namespace = deployment["metadata"]["namespace"].as_str().expect("a namespace");
        for container in deployment["spec"]["template"]["spec"]["containers"]
            .as_array()
            .expect("containers")
        {
            for variable in container["env"].as_array().into_iter().flatten() {
                let secret = &variable["valueFrom"]["secretKeyRef"];
                if let (Some(name), Some(key)) = (secret["name"].as_str(), secret["key"].as_str()) {
                    named.insert(format!("{namespace}/{name}/{key}"));
                }
            }
        }
    }
    assert_eq!(
        manifests
            .secrets
            .iter()
            .map(|(place, _)| place.clone())
            .collect::<BTreeSet<_>>(),
        named
    );
    assert!(
        objects.iter().all(|object| object["kind"] != "Secret"),
        "a secret's value stands in a file"
    );

    // Tiers in the cluster meet the tiers of the network.
    let full = root("azure/3-full");
    let address = full
        .all("locals")
        .find_map(|block| plain(&block.body, "web_address"))
        .expect("an address");
    assert!(
        address.as_str().expect("text").starts_with("172.16.11."),
        "not in snet-web"
    );
    let policies = serde_json::to_string(&objects).expect("JSON");
    for (_, prefix) in [("snet-appgw", "172.16.1.0/24"), ("snet-db", "172.16.31.0/24")] {
        assert!(policies.contains(prefix), "no policy names {prefix}");
    }
    let pools: BTreeSet<String> = full
        .blocks
        .iter()
        .flat_map(|(_, block)| {
            [&block.body]
                .into_iter()
                .chain(block.body.blocks().map(|block| &block.body))
        })
        .map(|body| written(body, "node_labels"))
        .filter(|labels| !labels.is_empty())
        .collect();
    assert_eq!(
        pools,
        ["{ tier = \"web\" }", "{ tier = \"was\" }"].map(str::to_owned).into()
    );
}
