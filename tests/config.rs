//! What a configuration may say: every mistake is told with its key, no secret is repeated, and the examples hold.

use std::path::{Path, PathBuf};
use std::time::Duration;

use planb::config::steps::{At, Kind, Means, Site};
use planb::config::warnings::schedule_cannot_meet_rpo;
use planb::config::{
    AzureAuth, Config, ConfigError, Endpoint, Lock, Login, Place, Problem, Removal, Schedule, Tls, VerifySource,
    warnings,
};
use planb::secret::{Reference, SecretRef};
use proptest::prelude::*;

const SMALLEST: &str = r#"
[service]
name = "petclinic"
[source]
host = "127.0.0.1"
user = "planb"
password = "env:PLANB_SOURCE_PASSWORD"
[store]
url = "azblob://bloberry01/mysql-backups"
auth = "az-login"
"#;

fn problems(text: &str) -> Vec<Problem> {
    match Config::parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().to_vec(),
    }
}

/// `SMALLEST` with lines of one section added to it, or its own lines of these keys replaced by them.
fn with(section: &str, lines: &str) -> String {
    let replaced: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key.trim())
        .collect();
    let mut text = String::new();
    let mut current = "";
    let mut placed = false;
    for line in SMALLEST.lines() {
        current = if line.starts_with('[') { line } else { current };
        let ours = current == format!("[{section}]");
        if !(ours
            && line
                .split_once('=')
                .is_some_and(|(key, _)| replaced.contains(&key.trim())))
        {
            text += &format!("{line}\n");
        }
        if ours && line.starts_with('[') {
            text += &format!("{lines}\n");
            placed = true;
        }
    }
    if placed {
        text
    } else {
        format!("{text}[{section}]\n{lines}\n")
    }
}

#[track_caller]
fn accepted(section: &str, lines: &str) -> Config {
    Config::parse(&with(section, lines)).unwrap_or_else(|error| panic!("{lines}: {error}"))
}

/// The one problem that `lines` cause, and that it is at `key`.
#[track_caller]
fn refused(section: &str, lines: &str, key: &str) -> String {
    let found = problems(&with(section, lines));
    let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, [format!("{section}.{key}")], "{lines}: {found:?}");
    found[0].message.clone()
}

#[test]
fn the_smallest_configuration_has_the_promised_defaults() {
    let config = Config::parse(SMALLEST).unwrap();
    assert_eq!(config.service.site, "primary");
    assert_eq!((config.targets.rpo.as_secs(), config.targets.rto.as_secs()), (300, 900));
    assert_eq!(
        config.source.endpoint,
        Endpoint::Address {
            host: "127.0.0.1".into(),
            port: 3306
        }
    );
    assert_eq!(config.source.tls, Tls::Required);
    assert_eq!(config.store.prefix, "backups/");
    let Place::Azure { control_container, .. } = &config.store.place else {
        panic!("not Azure")
    };
    assert_eq!(control_container, "mysql-backups-control");
    assert_eq!(config.backup.schedule, Schedule::KeepRpo);
    assert_eq!(
        (config.backup.sessions, config.backup.level, config.backup.lock),
        (4, 3, Lock::Auto)
    );
    assert_eq!(config.backup.lock_wait, Duration::from_secs(1));
    assert_eq!(config.backup.verify_source, VerifySource::Daily);
    assert_eq!(
        (config.backup.stall.as_secs(), config.backup.timeout.as_secs()),
        (60, 6 * 3600)
    );
    assert_eq!(
        (
            config.retention.keep_all.as_secs(),
            config.retention.keep_hourly.as_secs()
        ),
        (48 * 3600, 7 * 86_400)
    );
    assert_eq!((config.retention.keep_days, config.retention.keep_at_least), (30, 12));
    assert_eq!(config.retention.removal, Removal::Delete);
    assert_eq!(
        (config.verify.structure, config.verify.proof_max_age.as_secs()),
        (false, 26 * 3600)
    );
    assert_eq!(config.verify.restore, None);
}

#[test]
fn the_routine_proof_is_made_on_the_standby_or_on_a_server_of_its_own() {
    let base = "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n[store]\nurl = \"file:///s\"\n";
    let standby = "[standby]\nhost = \"dr\"\nuser = \"r\"\npassword = \"env:S\"\n";
    let config = Config::parse(&format!("{base}{standby}[verify]\nrestore_to = \"standby\"\n")).unwrap();
    let proving = config.verify.restore.as_ref().unwrap();
    assert_eq!(
        (Some(&proving.to), proving.schedule.as_str()),
        (config.standby.as_ref(), "0 3 * * *")
    );
    let named = "[verify]\nrestore_to = \"mysql://r@scratch:3307\"\npassword = \"env:S\"\nrestore_schedule = \"30 2 * * SUN\"\n";
    let config = Config::parse(&format!("{base}{named}")).unwrap();
    let proving = config.verify.restore.as_ref().unwrap();
    assert_eq!(
        (
            proving.to.host.as_str(),
            proving.to.port,
            proving.to.user.as_str(),
            proving.schedule.as_str()
        ),
        ("scratch", 3307, "r", "30 2 * * SUN")
    );
    assert!(
        warned(&config).contains(&"verify.restore_schedule"),
        "{:?}",
        warned(&config)
    );
    for (verify, key) in [
        ("restore_to = \"standby\"", "verify.restore_to"),
        (
            "restore_to = \"mysql://r:hunter2@scratch\"\npassword = \"env:S\"",
            "verify.restore_to",
        ),
        ("restore_to = \"scratch\"\npassword = \"env:S\"", "verify.restore_to"),
        ("restore_to = \"mysql://r@scratch\"", "verify.password"),
        (
            "restore_to = \"mysql://r@scratch\"\npassword = \"env:S\"\ntls = \"off\"",
            "verify.tls",
        ),
        (
            "restore_to = \"mysql://r@scratch\"\npassword = \"env:S\"\nrestore_schedule = \"daily\"",
            "verify.restore_schedule",
        ),
        ("password = \"env:S\"", "verify.password"),
        ("restore_schedule = \"0 3 * * *\"", "verify.restore_schedule"),
    ] {
        let error = Config::parse(&format!("{base}[verify]\n{verify}\n")).expect_err(verify);
        let keys: Vec<&str> = error.problems().iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, [key], "{verify}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let both = "[verify]\nrestore_to = \"standby\"\npassword = \"env:S\"\n";
    assert!(Config::parse(&format!("{base}{standby}{both}")).is_err());
}

#[test]
fn whoever_can_be_reached_from_elsewhere_wants_a_token() {
    assert_eq!(Config::parse(SMALLEST).unwrap().serve, None);
    let default = accepted("serve", "listen = \"127.0.0.1:9105\"").serve.unwrap();
    assert_eq!((default.listen.port(), default.token), (9105, None));
    assert_eq!(accepted("serve", "").serve.unwrap().listen, default.listen);
    for anywhere in ["0.0.0.0:9105", "[::]:9105", "10.1.2.3:9105"] {
        let message = refused("serve", &format!("listen = \"{anywhere}\""), "token");
        assert!(message.contains("127.0.0.1"), "{message}");
        accepted("serve", &format!("listen = \"{anywhere}\"\ntoken = \"env:T\""));
    }
    for wrong in [
        "localhost:9105",
        "127.0.0.1",
        ":9105",
        "127.0.0.1:0",
        "https://127.0.0.1:9105",
    ] {
        refused("serve", &format!("listen = \"{wrong}\""), "listen");
    }
}

#[test]
fn every_mistake_of_a_file_is_told_at_once_and_none_repeats_a_secret() {
    const SECRET: &str = "hunter2-Tr0ub4dor";
    let text = format!(
        r#"
sessions = 8
[servise]
name = "petclinic"
[service]
nmae = "petclinic"
site = "AWS Seoul {SECRET}"
[targets]
rpo = "5 minutes {SECRET}"
[source]
host = "db.bank.internal"
port = 70000
user = "planb"
password = "{SECRET}"
tls = "of"
databases = "{SECRET}"
[store]
url = "azblob://bloberry01/mysql-backups?sig={SECRET}"
auth = "account-key"
account_key = ["env:GOOD", "{SECRET}"]
endpoint = "http://storage.bank.internal/{SECRET}"
sas = "env:{SECRET} "
[backup]
sesions = 4
level = "3"
lock_wait = "90s"
schedule = "*/5 {SECRET}"
max_bytes_per_second = "20"
stall = true
[retention]
keep_at_least = 0
removal = "{SECRET}"
[recovery]
password = "{SECRET}"
"#
    );
    let error = Config::parse(&text).unwrap_err();
    let found = error.problems();
    let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "service.name",
        "sessions",
        "servise",
        "service.nmae",
        "service.site",
        "targets.rpo",
        "source.port",
        "source.password",
        "source.tls",
        "source.databases",
        "store.url",
        "store.account_key",
        "store.endpoint",
        "store.sas",
        "backup.sesions",
        "backup.level",
        "backup.lock_wait",
        "backup.schedule",
        "backup.max_bytes_per_second",
        "backup.stall",
        "retention.keep_at_least",
        "retention.removal",
        "recovery",
    ];
    assert_eq!(keys, expected, "{error}");
    let message = |key: &str| found.iter().find(|problem| problem.key == key).unwrap();
    assert!(message("sessions").message.contains("belongs under [backup]"));
    assert!(message("servise").message.contains("did you mean [service]"));
    assert!(message("service.nmae").message.contains("did you mean name"));
    assert!(message("source.tls").message.contains("did you mean \"off\""));
    assert!(message("source.password").message.contains("env:NAME"));
    assert!(message("backup.sesions").message.contains("did you mean sessions"));
    assert_eq!(message("source.port").line, Some(12), "{error}");
    let told = format!("{error} {error:?}");
    assert!(told.contains("23 problems"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn text_that_is_no_toml_is_told_by_line_without_quoting_it() {
    for text in [
        "[source]\npassword = hunter2\nhost = \"x\n",
        "[source]\npassword = \"hunter2",
        "hunter2",
        "a = 1\na = 'hunter2'",
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(
            error
                .problems()
                .iter()
                .all(|problem| problem.key == "syntax" && problem.line.is_some()),
            "{error}"
        );
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn a_section_that_is_no_section_is_told() {
    for text in ["service = 3", "[[service]]\nname = \"a\""] {
        let found = problems(text);
        assert!(
            found
                .iter()
                .any(|problem| problem.key == "service" && problem.message.contains("[service]")),
            "{found:?}"
        );
    }
}

#[test]
fn an_empty_file_is_told_what_it_lacks() {
    let keys: Vec<String> = problems("").into_iter().map(|problem| problem.key).collect();
    assert_eq!(
        keys,
        [
            "service.name",
            "source.host",
            "source.user",
            "source.password",
            "store.url"
        ]
    );
}

#[test]
fn tls_is_off_only_on_this_machine() {
    for host in ["127.0.0.1", "localhost", "::1", "127.9.9.9"] {
        accepted("source", &format!("host = \"{host}\"\ntls = \"off\""));
    }
    for host in [
        "10.0.0.1",
        "db.internal",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "::2",
    ] {
        refused("source", &format!("host = \"{host}\"\ntls = \"off\""), "tls");
    }
    refused("source", "tls = \"off\"\ntls_ca = \"/etc/ca.pem\"", "tls_ca");
    refused("source", "tls_ca = \"ca.pem\"", "tls_ca");
}

const STANDBY: &str = "host = \"127.0.0.1\"\nuser = \"restorer\"\npassword = \"env:STANDBY\"";

#[test]
fn a_standby_may_be_left_out_and_is_checked_like_a_source() {
    assert_eq!(Config::parse(SMALLEST).unwrap().standby, None);
    let standby = accepted("standby", STANDBY).standby.unwrap();
    assert_eq!(
        (standby.host.as_str(), standby.port, standby.user.as_str(), standby.tls),
        ("127.0.0.1", 3306, "restorer", Tls::Required)
    );
    assert_eq!(standby.password, SecretRef(vec![Reference::Env("STANDBY".into())]));
    accepted("standby", &format!("{STANDBY}\ntls = \"off\"\nport = 3307"));

    for (more, key) in [
        ("tls = \"no\"", "tls"),
        ("tls_ca = \"ca.pem\"", "tls_ca"),
        ("tls = \"off\"\ntls_ca = \"/etc/ca.pem\"", "tls_ca"),
        ("port = 0", "port"),
        ("login = \"rds-iam\"", "login"),
    ] {
        refused("standby", &format!("{STANDBY}\n{more}"), key);
    }
    let remote = STANDBY.replace("127.0.0.1", "db.internal");
    refused("standby", &format!("{remote}\ntls = \"off\""), "tls");
    let said = refused("standby", &STANDBY.replace("env:STANDBY", "hunter2"), "password");
    assert!(!said.contains("hunter2"), "{said}");
    let missing: Vec<String> = problems(&format!("{SMALLEST}[standby]\n"))
        .into_iter()
        .map(|p| p.key)
        .collect();
    assert_eq!(missing, ["standby.host", "standby.user", "standby.password"]);
    let said = problems(&format!("{SMALLEST}[stanby]\nhost = \"a\"\n"));
    assert!(
        said.iter().any(|p| p.message.contains("did you mean [standby]")),
        "{said:?}"
    );

    let aws_only = STANDBY.replace("env:STANDBY", "aws-secret:planb/standby");
    assert!(warned(&accepted("standby", &aws_only)).contains(&"standby.password"));
    assert!(!warned(&accepted("standby", STANDBY)).contains(&"standby.password"));
}

const ACCOUNT: &str =
    "[[accounts]]\nname = \"app\"\ngrants = [\"SELECT ON petclinic.*\"]\npassword = [\"env:APP\", \"file:/app\"]\n";

/// Keys, lines and messages of what is wrong with these accounts.
fn wrong(accounts: &str) -> Vec<(String, Option<usize>, String)> {
    problems(&format!("{SMALLEST}{accounts}"))
        .into_iter()
        .map(|problem| (problem.key, problem.line, problem.message))
        .collect()
}

#[test]
fn accounts_are_a_list_of_sections() {
    assert!(Config::parse(SMALLEST).unwrap().accounts.is_empty());
    let second = ACCOUNT
        .replace("\"app\"", "\"report\"")
        .replace("password", "hosts = [\"10.1.%\", \"10.2.0.0/16\"]\npassword");
    let accounts = Config::parse(&format!("{SMALLEST}{ACCOUNT}{second}")).unwrap().accounts;
    assert_eq!(accounts.len(), 2);
    assert_eq!(
        (accounts[0].name.as_str(), accounts[0].hosts.as_slice()),
        ("app", &["%".to_owned()][..])
    );
    assert_eq!(accounts[0].password.0.len(), 2);
    assert_eq!(accounts[0].grants[0].privileges, ["SELECT"]);
    assert_eq!(accounts[1].hosts, ["10.1.%", "10.2.0.0/16"]);

    // Each mistake with the number of its section and its own line; nothing of a value.
    let begins = SMALLEST.lines().count() + 1;
    let found = wrong(&format!(
        "{ACCOUNT}[[accounts]]\nnmae = \"x\"\ngrants = [\"hunter2\"]\n"
    ));
    let keys: Vec<(&str, Option<usize>)> = found.iter().map(|(key, line, _)| (key.as_str(), *line)).collect();
    assert_eq!(
        keys,
        [
            ("accounts[2].name", Some(begins + 4)),
            ("accounts[2].password", Some(begins + 4)),
            ("accounts[2].nmae", Some(begins + 5)),
            ("accounts[2].grants", Some(begins + 6)),
        ]
    );
    assert!(found[2].2.contains("did you mean name?"), "{found:?}");
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");

    for no_list in ["[accounts]\nname = \"app\"", "[[accounts.app]]\nname = \"x\""] {
        let found = wrong(no_list);
        assert!(
            found.len() == 1 && found[0].0 == "accounts" && found[0].2.contains("[[accounts]]"),
            "{found:?}"
        );
    }
    let found = wrong("[[acounts]]\nname = \"app\"");
    assert!(found[0].2.contains("did you mean [[accounts]]?"), "{found:?}");
}

#[test]
fn an_account_is_the_applications_and_no_other() {
    let changed = |from: &str, to: &str| {
        let account = ACCOUNT.replace(from, to);
        assert_ne!(account, ACCOUNT);
        wrong(&account).into_iter().map(|(key, _, _)| key).collect::<Vec<_>>()
    };
    for (from, to, key) in [
        ("\"app\"", "\"root\"", "name"),
        ("\"app\"", "\"mysql.sys\"", "name"),
        ("\"app\"", "\"app@%\"", "name"),
        ("\"app\"", "\"\"", "name"),
        ("SELECT ON", "SUPER ON", "grants"),
        ("petclinic.*", "*.*", "grants"),
        ("petclinic.*", "mysql.*", "grants"),
        ("petclinic.*", "petclinic.* WITH GRANT OPTION", "grants"),
        ("petclinic.*", "petclinic.* TO x; DROP DATABASE petclinic", "grants"),
        ("env:APP", "hunter2", "password"),
        ("name =", "hosts = [\"a'b\"]\nname =", "hosts"),
        ("name =", "hosts = []\nname =", "hosts"),
        ("name =", "hosts = [\"%\", \"%\"]\nname =", "hosts"),
    ] {
        assert_eq!(changed(from, to), [format!("accounts[1].{key}")], "{to}");
    }
    assert_eq!(wrong(&format!("{ACCOUNT}{ACCOUNT}")).len(), 1, "one name, one password");
    let restorer = format!("[standby]\n{}\n", STANDBY.replace("restorer", "app"));
    assert_eq!(wrong(&format!("{restorer}{ACCOUNT}"))[0].0, "accounts[1].name");

    let aws_only = ACCOUNT.replace("[\"env:APP\", \"file:/app\"]", "\"aws-secret:planb/app\"");
    let config = Config::parse(&format!("{SMALLEST}{aws_only}")).unwrap();
    assert!(warned(&config).contains(&"accounts.password"));
}

#[test]
fn a_source_is_one_place_and_one_login() {
    let rds = SMALLEST.replace(
        "host = \"127.0.0.1\"",
        "rds_instance = \"prod\"\nregion = \"ap-northeast-2\"",
    );
    let config = Config::parse(&rds).unwrap();
    assert_eq!(
        config.source.endpoint,
        Endpoint::RdsInstance {
            id: "prod".into(),
            region: Some("ap-northeast-2".into())
        }
    );
    refused("source", "rds_instance = \"prod\"", "host");
    refused("source", "region = \"ap-northeast-2\"", "region");
}

#[test]
fn an_rds_login_needs_rds_and_no_password() {
    let iam = SMALLEST
        .replace("host = \"127.0.0.1\"", "rds_instance = \"prod\"")
        .replace("password = \"env:PLANB_SOURCE_PASSWORD\"", "login = \"rds-iam\"");
    assert_eq!(Config::parse(&iam).unwrap().source.login, Login::RdsIam);
    let keys = |text: &str| {
        problems(text)
            .into_iter()
            .map(|problem| problem.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&iam.replace("rds_instance = \"prod\"", "host = \"db.internal\"")),
        ["source.login"]
    );
    assert_eq!(
        keys(&iam.replace("login =", "password = \"env:A\"\nlogin =")),
        ["source.password"]
    );
    assert_eq!(
        keys(&iam.replace("login =", "tls = \"off\"\nlogin =")),
        ["source.tls", "source.tls"]
    );
}

#[test]
fn databases_are_named_once_and_are_not_the_servers_own() {
    assert_eq!(
        accepted("source", "databases = [\"a\", \"b\"]").source.databases,
        ["a", "b"]
    );
    for list in [
        "[]",
        "[\"mysql\"]",
        "[\"SYS\"]",
        "[\"a\", \"b\", \"a\"]",
        "[\"\"]",
        "[1]",
        "\"a\"",
    ] {
        refused("source", &format!("databases = {list}"), "databases");
    }
}

#[test]
fn numbers_and_times_stay_in_their_ranges() {
    for (section, key, good, bad) in [
        (
            "backup",
            "sessions",
            &["1", "64"][..],
            &["0", "65", "-1", "\"4\"", "1.5", "99999999999999999999"][..],
        ),
        ("backup", "level", &["1", "12"], &["0", "13"]),
        (
            "backup",
            "lock_wait",
            &["\"1s\"", "\"60s\"", "\"1m\""],
            &["\"0s\"", "\"61s\"", "1", "\"500ms\""],
        ),
        ("backup", "stall", &["\"5s\""], &["\"4s\"", "\"2h\""]),
        ("backup", "timeout", &["\"2m\""], &["\"59s\"", "\"8d\""]),
        (
            "backup",
            "max_bytes_per_second",
            &["\"20MiB\""],
            &["\"20MB\"", "\"1KiB\"", "20"],
        ),
        ("backup", "threads_running_limit", &["1"], &["0"]),
        ("source", "port", &["1", "65535", "0xcea"], &["0", "65536"]),
        ("source", "pause_replica", &["true"], &["\"true\"", "1"]),
        ("targets", "rpo", &["\"1s\""], &["\"0s\"", "\"5\"", "300"]),
        ("retention", "keep_at_least", &["1"], &["0"]),
        ("retention", "keep_days", &["0", "3650"], &["-1"]),
        ("retention", "keep_all", &["\"0s\"", "\"48h\""], &["\"48\"", "48"]),
        ("verify", "structure", &["true", "false"], &["\"true\"", "1"]),
        (
            "verify",
            "proof_max_age",
            &["\"26h\"", "\"7d\""],
            &["\"59s\"", "26", "\"2\""],
        ),
        (
            "service",
            "site",
            &["\"aws-seoul\""],
            &[
                "\"\"",
                "\"AWS\"",
                "\"a b\"",
                "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
            ],
        ),
    ] {
        for value in good {
            accepted(section, &format!("{key} = {value}"));
        }
        for value in bad {
            refused(section, &format!("{key} = {value}"), key);
        }
    }
    refused("backup", "stall = \"2m\"\ntimeout = \"2m\"", "stall");
}

#[test]
fn a_schedule_is_cron_or_keep_rpo() {
    for good in ["keep-rpo", "*/5 * * * *", "30 */5 * * * *", "0 18 * * MON-FRI"] {
        accepted("backup", &format!("schedule = \"{good}\""));
    }
    for bad in [
        "keep_rpo",
        "@daily",
        "* * * *",
        "0 0 30 2 *",
        "61 * * * *",
        "* * * * * * 2030",
    ] {
        assert!(refused("backup", &format!("schedule = \"{bad}\""), "schedule").contains("keep-rpo"));
    }
}

#[test]
fn a_store_url_names_a_container_or_an_absolute_directory() {
    for good in ["azblob://abc/backups", "azblob://abc/backups/"] {
        if good.ends_with('/') {
            refused("store", &format!("url = \"{good}\""), "url");
        } else {
            accepted("store", &format!("url = \"{good}\""));
        }
    }
    for bad in [
        "file:///",
        "file:relative",
        "file://host/share",
        "file:",
        "/var/lib",
        "s3://a/b",
        "azblob://abc",
        "azblob://ab/backups",
        "azblob://ABC_/backups",
        "azblob://abc/UPPER",
        "azblob://abc/a/b",
        "azblob://abc/x--y",
        "azblob://abc:1/backups",
        "azblob://u:p@abc/backups",
        "azblob://abc/backups?sv=1",
        "https://abc.blob.core.windows.net/c",
        "",
    ] {
        refused("store", &format!("url = \"{bad}\""), "url");
    }
    let file = SMALLEST
        .replace("azblob://bloberry01/mysql-backups", "file:///srv/store")
        .replace("auth = \"az-login\"", "");
    assert_eq!(
        Config::parse(&file).unwrap().store.place,
        Place::Directory(PathBuf::from("/srv/store"))
    );
    let with_auth = SMALLEST.replace("azblob://bloberry01/mysql-backups", "file:///srv/store");
    assert_eq!(problems(&with_auth)[0].key, "store.auth");
}

#[test]
fn an_endpoint_is_https_unless_it_is_an_emulator_here() {
    let key = "auth = \"account-key\"\naccount_key = \"env:K\"\n";
    for good in [
        "https://a.blob.core.windows.net",
        "http://127.0.0.1:10000/devstoreaccount1",
        "http://[::1]:1/x",
        "http://localhost:1",
    ] {
        accepted("store", &format!("{key}endpoint = \"{good}\""));
    }
    for bad in [
        "http://10.0.0.1",
        "http://example.com",
        "ftp://127.0.0.1",
        "https://a/?sig=x",
        "https://u:p@a/",
        "nonsense",
    ] {
        refused("store", &format!("{key}endpoint = \"{bad}\""), "endpoint");
    }
    let message = refused(
        "store",
        "endpoint = \"http://127.0.0.1:10000/devstoreaccount1\"",
        "endpoint",
    );
    assert!(
        message.contains("account-key"),
        "Entra tokens are not sent over http: {message}"
    );
}

#[test]
fn each_kind_of_auth_takes_its_own_keys_and_no_others() {
    let login = "tenant_id = \"t\"\nclient_id = \"c\"\n";
    accepted("store", &format!("auth = \"workload-identity\"\n{login}"));
    accepted("store", "auth = \"managed-identity\"\nclient_id = \"c\"");
    accepted("store", "auth = \"sas\"\nsas = \"env:SAS\"");
    let secret = accepted(
        "store",
        &format!("auth = \"client-secret\"\n{login}client_secret = \"file:/run/secret\""),
    );
    let Place::Azure { auth, .. } = secret.store.place else {
        panic!("not Azure")
    };
    let reference = SecretRef(vec![Reference::File("/run/secret".into())]);
    assert_eq!(
        auth,
        AzureAuth::ClientSecret {
            tenant_id: "t".into(),
            client_id: "c".into(),
            secret: reference
        }
    );

    refused("store", "auth = \"sas\"", "sas");
    refused("store", "auth = \"account-key\"", "account_key");
    refused("store", "auth = \"az-login\"\nsas = \"env:SAS\"", "sas");
    refused("store", "auth = \"managed-identity\"\ntenant_id = \"t\"", "tenant_id");
    refused("store", "auth = \"storage-key\"", "auth");
    let vault = format!("auth = \"client-secret\"\n{login}client_secret = \"azure-keyvault:kv-dr/s\"");
    refused("store", &vault, "client_secret");
}

#[test]
fn a_prefix_and_a_control_container_cannot_mix_with_backups() {
    assert_eq!(accepted("store", "prefix = \"a/b\"").store.prefix, "a/b/");
    for bad in [
        "",
        "/",
        "/a/",
        "a//b/",
        "../a/",
        "a/../b/",
        "control/",
        "preserved/x/",
        "a b/",
    ] {
        refused("store", &format!("prefix = \"{bad}\""), "prefix");
    }
    refused("store", "control = \"mysql-backups\"", "control");
    let long = "a".repeat(60);
    refused("store", &format!("url = \"azblob://abc/{long}\""), "control");
    accepted(
        "store",
        &format!("url = \"azblob://abc/{long}\"\ncontrol = \"control\""),
    );
}

#[test]
fn a_file_that_cannot_be_read_comes_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    for (path, hint) in [
        (directory.path().join("none.toml"), "--config"),
        (directory.path().to_owned(), "--config"),
    ] {
        let error = Config::load(&path).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }) && error.is_permanent());
        let told = error.to_string();
        assert!(
            told.contains(hint) && told.contains(&path.display().to_string()),
            "{told}"
        );
    }
    let latin = directory.path().join("latin.toml");
    std::fs::write(&latin, b"name = \"\xe9\"").unwrap();
    assert!(Config::load(&latin).unwrap_err().to_string().contains("UTF-8"));
}

/// That nobody is told of anything is warned about in a test of its own.
fn warned(config: &Config) -> Vec<&'static str> {
    let keys = warnings(config).into_iter().map(|warning| warning.key);
    keys.filter(|key| *key != "notify.channels").collect()
}

const CHANNELS: &str = "[notify]\nlanguage = \"ko\"\ncontact = \"on-call 010-0000-0000\"\n\
    [[notify.channels]]\nname = \"oncall\"\nkind = \"slack\"\nurl = \"env:HOOK\"\n\
    [[notify.channels]]\nname = \"pager\"\nkind = \"pagerduty\"\nkey = \"env:KEY\"\n";

#[test]
fn channels_have_the_promised_defaults() {
    use planb::config::notify::{Language, Least, To};
    let none = Config::parse(SMALLEST).unwrap().notify;
    assert_eq!(
        (none.language, none.channels.len(), none.contact),
        (Language::En, 0, None)
    );
    let notify = Config::parse(&format!("{SMALLEST}{CHANNELS}")).unwrap().notify;
    assert_eq!(notify.language, Language::Ko);
    let [oncall, pager] = notify.channels.as_slice() else {
        panic!("two channels")
    };
    assert_eq!((oncall.least, pager.least), (Least::Warning, Least::Critical));
    assert!(oncall.events.is_empty());
    assert!(matches!(&pager.to, To::PagerDuty { endpoint: None, .. }));
}

#[test]
fn every_mistake_in_a_channel_is_told_and_no_value_repeated() {
    let wrong = "[notify]\nlanguage = \"de\"\nstate = \"relative\"\n\
        [[notify.channels]]\nname = \"a\"\nkind = \"slack\"\nurl = \"https://hooks.slack.com/services/T0/B0/hunter2\"\n\
        [[notify.channels]]\nname = \"a\"\nkind = \"pagerduty\"\nurl = \"env:A\"\nendpoint = \"http://far.example/\"\n\
        [[notify.channels]]\nname = \"c d\"\nkind = \"pigeon\"\nseverity = \"loud\"\nevents = [\"rpo\"]\n\
        [[notify.channels]]\nkind = \"webhook\"\nurll = \"env:A\"\n";
    let found = problems(&format!("{SMALLEST}{wrong}"));
    let mut keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "notify.channels[1].url",
            "notify.channels[2].endpoint",
            "notify.channels[2].key",
            "notify.channels[2].name",
            "notify.channels[2].url",
            "notify.channels[3].events",
            "notify.channels[3].kind",
            "notify.channels[3].name",
            "notify.channels[3].severity",
            "notify.channels[4].name",
            "notify.channels[4].url",
            "notify.channels[4].urll",
            "notify.language",
            "notify.state",
        ]
    );
    let told: String = found.iter().map(ToString::to_string).collect();
    assert!(!told.contains("hunter2"), "{told}");
    assert!(told.contains("did you mean url?"), "{told}");
}

#[test]
fn a_mail_channel_has_the_promised_defaults_and_is_never_in_the_clear() {
    use planb::config::notify::{Email, Least, MailTls, To};
    const MAIL: &str = "[[notify.channels]]\nname = \"mail\"\nkind = \"email\"\nhost = \"smtp.bank.example\"\n\
        from = \"planb@bank.example\"\nto = [\"a@bank.example\"]\n";
    let email = |more: &str| -> Email {
        let config = Config::parse(&format!("{SMALLEST}{MAIL}{more}")).unwrap();
        assert_eq!(config.notify.channels[0].least, Least::Warning);
        match config.notify.channels.into_iter().next().map(|channel| channel.to) {
            Some(To::Email(email)) => email,
            other => panic!("a mail channel: {other:?}"),
        }
    };
    assert_eq!(
        (email("").tls, email("").port, email("").login),
        (MailTls::StartTls, 587, None)
    );
    assert_eq!(email("tls = \"implicit\"\n").port, 465);
    let login = email("user = \"planb\"\npassword = \"env:P\"\n").login;
    assert_eq!(login.map(|(user, _)| user), Some("planb".to_owned()));
    let keys = |text: &str| -> Vec<String> {
        let found = problems(&format!("{SMALLEST}{text}"));
        let mut keys: Vec<String> = found
            .iter()
            .map(|problem| problem.key.replace("notify.channels[1].", ""))
            .collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(&format!("{MAIL}tls = \"off\"\n")), ["tls"]);
    assert_eq!(keys(&format!("{MAIL}user = \"planb\"\n")), ["password"]);
    assert_eq!(keys(&format!("{MAIL}password = \"env:P\"\n")), ["user"]);
    assert_eq!(
        keys(&format!("{MAIL}url = \"env:P\"\nsecret = \"env:P\"\n")),
        ["secret", "url"]
    );
    let own = "[[notify.channels]]\nname = \"mail\"\nkind = \"email\"\n";
    assert_eq!(keys(own), ["from", "host", "to"]);
    for wrong in [
        "planb",
        "@bank.example",
        "a b@bank.example",
        "PlanB <a@b>",
        "a@b@c",
        "a@-b",
        "a@b..c",
        "a\u{e9}@b",
        ".a@b",
    ] {
        assert_eq!(keys(&MAIL.replace("a@bank.example", wrong)), ["to"], "{wrong}");
        assert_eq!(keys(&MAIL.replace("planb@bank.example", wrong)), ["from"], "{wrong}");
    }
    assert_eq!(keys(&MAIL.replace("[\"a@bank.example\"]", "[]")), ["to"]);
    assert_eq!(
        keys(&MAIL.replace(
            "[[notify.channels]]\nname = \"mail\"\nkind = \"email\"",
            "[[notify.channels]]\nname = \"m\"\nkind = \"slack\"\nurl = \"env:U\""
        )),
        ["from", "host", "to"]
    );
}

#[test]
fn a_configuration_that_wakes_nobody_is_told() {
    let told = |text: &str| {
        let warnings = warnings(&Config::parse(&format!("{SMALLEST}{text}")).unwrap());
        let mine = warnings.into_iter().filter(|warning| warning.key == "notify.channels");
        mine.map(|warning| warning.text).collect::<Vec<_>>()
    };
    assert!(told("")[0].contains("nobody is told"));
    assert!(told(CHANNELS).is_empty());
    let few = told(
        "[[notify.channels]]\nname = \"a\"\nkind = \"slack\"\nurl = \"env:H\"\nevents = [\"backup-failed\", \"rpo-breached\"]\n",
    );
    assert!(few[0].contains("no channel takes backup-damaged, "), "{few:?}");
    let aws = told(
        "[[notify.channels]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"env:H\"\nsecret = \"aws-secret:planb#hook\"\n",
    );
    assert!(
        aws[0].contains("secret of the channel a can be had from AWS alone"),
        "{aws:?}"
    );
}

#[test]
fn a_schedule_that_cannot_keep_the_rpo_is_told_with_both_figures() {
    let config = accepted("backup", "schedule = \"*/5 * * * *\"");
    let told = warnings(&config).remove(0);
    assert_eq!(told.key, "backup.schedule");
    assert!(
        told.text.contains("up to 5m apart") && told.text.contains("targets.rpo = 5m"),
        "{}",
        told.text
    );

    let config = accepted("backup", "schedule = \"*/4 * * * *\"");
    assert!(
        warned(&config).is_empty(),
        "nothing measured yet, a minute is left for the run"
    );
    assert_eq!(schedule_cannot_meet_rpo(&config, Duration::from_secs(60)), None);
    let told = schedule_cannot_meet_rpo(&config, Duration::from_secs(61)).unwrap().text;
    assert!(told.contains("4m apart") && told.contains("5m1s"), "{told}");

    let nights = accepted("backup", "schedule = \"* 9-17 * * *\"");
    assert!(warnings(&nights)[0].text.contains("15h1m"), "the night counts");
}

#[test]
fn keep_rpo_is_told_only_when_runs_are_too_long_for_it() {
    let config = Config::parse(SMALLEST).unwrap();
    assert_eq!(schedule_cannot_meet_rpo(&config, Duration::from_secs(150)), None);
    assert!(schedule_cannot_meet_rpo(&config, Duration::from_secs(151)).is_some());
}

#[test]
fn store_credentials_that_only_aws_has_are_told() {
    let key = |references: &str| accepted("store", &format!("auth = \"account-key\"\naccount_key = {references}"));
    assert_eq!(
        warned(&key("[\"aws-secret:planb/prod#a\", \"aws-secret:other\"]")),
        ["store.account_key"]
    );
    assert!(warned(&key("[\"aws-secret:planb/prod#a\", \"file:/etc/planb/key\"]")).is_empty());
    assert!(warned(&key("\"azure-keyvault:kv-dr/storage-key\"")).is_empty());
}

#[test]
fn settings_that_a_bank_would_not_want_are_told() {
    assert_eq!(warned(&accepted("source", "tls = \"off\"")), ["source.tls"]);
    assert_eq!(
        warned(&accepted("source", "host = \"a.b.ap-northeast-2.rds.amazonaws.com\"")),
        ["source.tls_ca"]
    );
    assert_eq!(warned(&accepted("backup", "lock = \"tables\"")), ["backup.lock"]);
    assert_eq!(
        warned(&accepted("backup", "verify_source = \"never\"")),
        ["backup.verify_source"]
    );
    assert_eq!(
        warned(&accepted("retention", "keep_at_least = 1")),
        ["retention.keep_at_least"]
    );
    assert_eq!(warned(&accepted("retention", "keep_days = 3")), ["retention.keep_days"]);
    assert!(warned(&accepted("retention", "keep_days = 0\ndaily = 35")).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Config::parse(&text);
    }

    /// Whatever stands at a key, the parser either takes it or names that key, and the reason never repeats it.
    #[test]
    fn any_value_anywhere_is_taken_or_told(at in 0..SMALLEST_KEYS.len(), value in "[ -~]{12,40}") {
        let (section, key) = SMALLEST_KEYS[at];
        let quoted = format!("{key} = {}", toml::Value::String(value.clone()));
        if let Err(error) = Config::parse(&with(section, &quoted)) {
            let told = error.to_string();
            prop_assert!(told.contains(&format!("{section}.")), "{}", told);
            prop_assert!(!told.contains(&value), "{}", told);
        }
    }
}

const SMALLEST_KEYS: &[(&str, &str)] = &[
    ("service", "name"),
    ("service", "site"),
    ("targets", "rpo"),
    ("source", "host"),
    ("source", "user"),
    ("source", "password"),
    ("source", "tls"),
    ("source", "tls_ca"),
    ("source", "databases"),
    ("store", "url"),
    ("store", "auth"),
    ("store", "account_key"),
    ("store", "sas"),
    ("store", "client_secret"),
    ("store", "endpoint"),
    ("store", "prefix"),
    ("backup", "schedule"),
    ("backup", "level"),
    ("retention", "removal"),
    ("verify", "structure"),
    ("verify", "proof_max_age"),
    ("verify", "restore_to"),
    ("verify", "restore_schedule"),
];

// --- the examples that come with PlanB ---------------------------------------------------------------

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn examples(extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(example("")).unwrap();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

#[test]
fn every_example_is_accepted_and_only_development_is_warned_about() {
    let found = examples("toml");
    assert!(found.len() >= 5, "{found:?}");
    // A table of prices is no configuration; `planb cost` has tests of its own on it.
    for path in found.into_iter().filter(|path| !path.ends_with("prices.toml")) {
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let warned = warned(&config);
        if path.ends_with("development.toml") {
            assert_eq!(warned, ["store.url", "source.tls"]);
        } else {
            assert!(warned.is_empty(), "{}: {warned:?}", path.display());
        }
    }
}

#[test]
fn the_bank_example_shows_every_key_and_what_it_promises() {
    let text = std::fs::read_to_string(example("planb.toml")).unwrap();
    for key in [
        "name",
        "site",
        "rpo",
        "rto",
        "host",
        "port",
        "rds_instance",
        "region",
        "user",
        "password",
        "login",
        "databases",
        "tls",
        "tls_ca",
        "pause_replica",
        "url",
        "auth",
        "account_key",
        "sas",
        "tenant_id",
        "client_id",
        "client_secret",
        "endpoint",
        "prefix",
        "control",
        "schedule",
        "sessions",
        "lock",
        "lock_wait",
        "max_bytes_per_second",
        "threads_running_limit",
        "level",
        "verify_source",
        "stall",
        "timeout",
        "keep_all",
        "keep_hourly",
        "keep_days",
        "keep_at_least",
        "daily",
        "weekly",
        "monthly",
        "yearly",
        "removal",
        "structure",
        "proof_max_age",
        "restore_to",
        "restore_schedule",
        "listen",
        "token",
        "otlp",
        "headers",
        "service_name",
        "store_requests",
        "hosts",
        "grants",
        "language",
        "contact",
        "state",
        "kind",
        "severity",
        "events",
        "key",
        "secret",
    ] {
        assert!(text.contains(&format!("{key} = ")), "{key} is not shown");
    }
    let config = Config::load(&example("planb.toml")).unwrap();
    assert_eq!((config.targets.rpo.as_secs(), config.targets.rto.as_secs()), (300, 900));
    assert_eq!(config.backup.schedule, Schedule::KeepRpo);
    assert_eq!(
        config.retention.removal,
        Removal::Tag,
        "the agent beside the source cannot delete"
    );
}

#[test]
fn the_other_examples_are_what_they_say() {
    let daily = Config::load(&example("daily.toml")).unwrap();
    assert!(daily.targets.rpo >= Duration::from_secs(24 * 3600) + daily.backup.timeout);
    assert_eq!(daily.retention.keep_days, 30);
    let generations = Config::load(&example("generations.toml"))
        .unwrap()
        .retention
        .generations;
    assert_eq!(
        (
            generations.daily,
            generations.weekly,
            generations.monthly,
            generations.yearly
        ),
        (35, 12, 12, 7)
    );
    let development = Config::load(&example("development.toml")).unwrap();
    assert!(matches!(development.store.place, Place::Directory(_)));
    assert_eq!(development.retention.keep_days, 7);
    assert!(development.standby.is_none() && development.failover_steps.is_empty());
    assert!(development.targets.rpo > Duration::from_secs(24 * 3600), "one a day");
    let ledger = Config::load(&example("two-approvers.toml")).unwrap();
    assert_eq!(ledger.failover.approvers, 2);
    assert_eq!(ledger.retention.generations, generations);
    // An hour's grace: nobody holds the primary for down before.
    let watch = ledger.watch.unwrap();
    for probe in &watch.probes {
        let seconds = probe.interval.as_secs() * u64::from(probe.failures);
        assert_eq!(seconds, 3600, "{}", probe.name);
    }
}

/// Promise 7: what takes the service to the other cloud needs nothing of the one that is down, and what may need it is gone on without.
#[test]
fn the_bank_s_plan_reaches_stage_three_without_aws() {
    let config = Config::load(&example("pocketbank.toml")).unwrap();
    assert_eq!((config.targets.rpo.as_secs(), config.targets.rto.as_secs()), (300, 900));
    assert_eq!(config.retention.removal, Removal::Tag);
    let standby = config.standby.as_ref().unwrap();
    let primary = config.primary.as_ref().unwrap();
    for password in [&standby.password, &primary.password]
        .into_iter()
        .chain(config.accounts.iter().map(|account| &account.password))
    {
        assert!(!password.needs_aws(), "{password:?}");
    }
    let steps = &config.failover_steps;
    let step = |name: &str| steps.iter().find(|step| step.name == name).unwrap();
    for step in steps {
        let secrets = match &step.kind {
            Kind::Terraform(terraform) => &terraform.secrets,
            Kind::Manifests(manifests) => &manifests.secrets,
            Kind::Command(command) => &command.secrets,
            Kind::Traffic(_) => {
                assert!(
                    step.goes_on,
                    "{}: AWS alone can do it, so the rest goes on without",
                    step.name
                );
                assert!(steps.iter().all(|other| !other.needs.contains(&step.name)));
                continue;
            }
            Kind::PrimaryReady(_) => panic!("{} asks AWS", step.name),
            _ => continue,
        };
        assert!(secrets.iter().all(|(_, secret)| !secret.needs_aws()), "{}", step.name);
    }
    // Users get there all the same.
    assert!(
        matches!(&step("dns").kind, Kind::Command(command) if matches!(command.means, Some(Means::Traffic(Site::Standby))))
    );
    // Whatever speaks to the standby's database does so from inside its network.
    for step in steps.iter().chain(&config.failback_steps) {
        let inside = match &step.kind {
            Kind::Restore(server) | Kind::Verify(server) | Kind::Accounts(server) | Kind::Open(server) => server,
            Kind::Fence(server) | Kind::LastBackup(server) => server,
            _ => continue,
        };
        assert_eq!(step.at == At::Runner, inside.site == Site::Standby, "{}", step.name);
    }
    // The cluster is made while the database is.
    assert!(step("cluster").needs.is_empty() && step("database").needs.is_empty());
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(example(name)).unwrap()).unwrap()
}

#[test]
fn the_aws_policy_allows_three_calls_on_one_thing_each() {
    assert_eq!(examples("json").len(), 3);
    let policy = json("aws-iam-policy.json");
    let statements = policy["Statement"].as_array().unwrap();
    let actions: Vec<&str> = statements
        .iter()
        .map(|statement| statement["Action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "secretsmanager:GetSecretValue",
            "rds:DescribeDBInstances",
            "rds-db:connect"
        ]
    );
    for statement in statements {
        let resource = statement["Resource"].as_str().unwrap();
        assert!(
            resource.starts_with("arn:aws:") && !resource.contains('*'),
            "{resource}"
        );
        assert_eq!(statement["Effect"], "Allow");
    }
}

#[test]
fn of_the_azure_roles_only_the_pruner_deletes_and_only_the_reader_cannot_write() {
    let roles = json("azure-roles.json");
    for role in roles.as_array().unwrap() {
        let name = role["Name"].as_str().unwrap();
        let allowed = format!("{}{}", role["Actions"], role["DataActions"]);
        assert_eq!(allowed.contains("/delete"), name == "PlanB pruner", "{name}");
        assert_eq!(allowed.contains("blobs/write"), name != "PlanB reader", "{name}");
        assert!(!allowed.contains('*') && !allowed.contains("listKeys"), "{name}");
    }
    assert_eq!(roles.as_array().unwrap().len(), 4);
}

#[test]
fn what_is_prepared_and_looked_at_is_read_with_its_mistakes() {
    let base = "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n[store]\nurl = \"file:///s\"\n";
    let plain = Config::parse(base).unwrap();
    assert!(plain.doctor.dark_schedule.is_none(), "there is no plan to look at");
    assert!(plain.quota.is_none() && plain.prepare.registry.is_none());
    let recovery = Config::load(&example("recovery.toml")).unwrap();
    assert_eq!(recovery.doctor.dark_schedule.as_deref(), Some("30 4 * * *"));
    assert_eq!(recovery.quota.unwrap().compute[0], ("cores".to_owned(), 12));
    assert_eq!(recovery.prepare.source_logins[0].1, "AWS");
    for (text, key) in [
        ("[prepare]\nregistry = \"https://x\"\n", "prepare.registry"),
        ("[prepare]\nsources = [\"a=b\"]\n", "prepare.sources"),
        ("[prepare]\nregistry = \"x\"\nsources = [\"a\"]\n", "prepare.sources"),
        (
            "[prepare]\nregistry = \"x\"\nsource_logins = [\"x=u:hunter2\"]\n",
            "prepare.source_logins",
        ),
        (
            "[prepare]\nregistry = \"x\"\nregistry_user = \"u\"\n",
            "prepare.registry_user",
        ),
        (
            "[prepare]\nregistry = \"x\"\nregistry_login = \"password\"\nregistry_user = \"u\"\n",
            "prepare.registry_password",
        ),
        ("[prepare]\nplatforms = [\"linux\"]\n", "prepare.platforms"),
        ("[quota]\nlocation = \"x\"\n", "quota.subscription"),
        (
            "[quota]\nsubscription = \"s\"\nlocation = \"x\"\ncompute = [\"cores\"]\n",
            "quota.compute",
        ),
        (
            "[quota]\nsubscription = \"s\"\nlocation = \"x\"\nnetwork = [\"PublicIPAddresses=two\"]\n",
            "quota.network",
        ),
        (
            "[quota]\nsubscription = \"s\"\nlocation = \"x\"\nendpoint = \"http://x.example\"\n",
            "quota.endpoint",
        ),
        ("[doctor]\ndark_schedule = \"daily\"\n", "doctor.dark_schedule"),
        ("[doctor]\ndark_allow = [\"*.x\"]\n", "doctor.dark_allow"),
        ("[doctor]\nrunner_max_age = \"2\"\n", "doctor.runner_max_age"),
        ("[doctor]\ndark = true\n", "doctor.dark"),
    ] {
        let error = Config::parse(&format!("{base}{text}")).expect_err(key);
        let keys: Vec<&str> = error.problems().iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, [key], "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}
