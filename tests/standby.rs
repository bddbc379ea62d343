//! `planb doctor` compares source and standby: silent about twins, and of one mind with `planb restore` about the rest.

mod support;

use serde_json::Value;
use support::{
    AZURE_LIKE_ARGS, Flavor, Planb, Server, azure_like_admin, fixture, rds_like_account, reader, restorer, tls_files,
};

/// What is said of the standby and the accounts, as (severity, what, remedy).
fn findings(planb: &Planb) -> Vec<(String, String, String)> {
    let output = planb.run(&["--json", "doctor"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all: Vec<Value> = json["findings"].as_array().expect("a list").clone();
    all.iter()
        .filter(|finding| ["standby", "accounts"].contains(&text(finding, "about").as_str()))
        .map(|finding| {
            (
                text(finding, "severity"),
                text(finding, "what"),
                text(finding, "remedy"),
            )
        })
        .collect()
}

/// Those that are more than notes.
fn troubles(planb: &Planb) -> Vec<(String, String, String)> {
    findings(planb)
        .into_iter()
        .filter(|(severity, _, _)| severity != "note")
        .collect()
}

fn plain(source: &Server) -> Planb {
    let planb = Planb::new(source, &reader(source, &[]));
    if source.flavor == Flavor::MySql {
        source.sql("GRANT SHOW_ROUTINE ON *.* TO reader@'%'");
    }
    planb
}

fn standby(planb: &Planb, port: u16) {
    planb.configure(&format!(
        "[standby]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"restorer\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n\
         [[accounts]]\nname = \"app\"\ngrants = [\"SELECT ON bank.*\"]\npassword = \"env:PLANB_SOURCE_PASSWORD\""
    ));
}

fn twins(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    source.sql(
        "CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY, v VARCHAR(9)); INSERT INTO bank.t VALUES (1, 'a');
         CREATE USER app@'%'; CREATE DEFINER = app@'%' VIEW bank.w AS SELECT v FROM bank.t;",
    );
    let planb = plain(&source);
    let target = Server::start(flavor, &[]);
    restorer(&target);
    standby(&planb, target.port);
    // Without a backup there is nothing to plan, and that is told.
    let said = troubles(&planb);
    assert!(
        said.len() == 1 && said[0].1.contains("no backup to compare"),
        "{said:?}"
    );
    planb.backup(&[]);
    assert_eq!(troubles(&planb), [], "twins");
    assert!(findings(&planb).iter().all(|(_, _, remedy)| !remedy.is_empty()));

    // Without the account, its view would lose its owner or be of nobody: the plan says so, and so does the doctor.
    planb.reconfigure("name = \"app\"", "name = \"other\"");
    let said = troubles(&planb);
    assert!(
        said.len() == 1 && said[0].0 == "warning" && said[0].1.contains("definer app@%"),
        "{said:?}"
    );
    planb.reconfigure("name = \"other\"", "name = \"app\"");

    // What only the two servers together show.
    target.sql("SET GLOBAL max_allowed_packet = 1048576");
    let said = troubles(&planb);
    assert!(said.len() == 1 && said[0].1.contains("packets of 1048576"), "{said:?}");
    assert!(said[0].2.contains("max_allowed_packet"), "{said:?}");
    target.sql("SET GLOBAL max_allowed_packet = 1073741824; CREATE DATABASE bank; CREATE TABLE bank.other (i INT)");
    let said = troubles(&planb);
    assert!(
        said.len() == 1 && said[0].0 == "error" && said[0].1.contains("already holds bank"),
        "{said:?}"
    );
    target.sql("DROP DATABASE bank");
}

#[test]
fn mysql_twins_have_no_findings() {
    twins(Flavor::MySql);
}

#[test]
fn mariadb_twins_have_no_findings() {
    twins(Flavor::MariaDb);
}

#[test]
fn a_standby_that_cannot_be_looked_at_is_told() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY)");
    let planb = plain(&source);
    planb.backup(&[]);
    // Where the second site is made in a disaster only, nothing answers: no error.
    standby(&planb, 1);
    let said = troubles(&planb);
    assert!(
        said.len() == 1 && said[0].0 == "warning" && said[0].2.contains("in a disaster"),
        "{said:?}"
    );
    planb.ok(&["doctor"]);

    // One that refuses is an error, and so is the source itself, and a password that nobody has.
    planb.reconfigure("port = 1\n", &format!("port = {}\n", source.port));
    source.sql("CREATE USER restorer@'%' IDENTIFIED BY 'another'");
    let said = troubles(&planb);
    assert!(
        said.len() == 1 && said[0].0 == "error" && said[0].1.contains("restorer"),
        "{said:?}"
    );
    planb.fails(1, &["doctor"]);
    source.sql("DROP USER restorer@'%'");
    restorer(&source);
    let said = troubles(&planb);
    assert!(
        said.iter().any(|f| f.0 == "error" && f.1.contains("very server")),
        "{said:?}"
    );
    planb.reconfigure(
        "grants = [\"SELECT ON bank.*\"]\npassword = \"env:PLANB_SOURCE_PASSWORD\"",
        "grants = [\"SELECT ON bank.*\"]\npassword = \"env:NOT_THERE\"",
    );
    let said = troubles(&planb);
    assert!(
        said.iter()
            .any(|f| f.0 == "error" && f.1.contains("password of app") && f.1.contains("NOT_THERE")),
        "{said:?}"
    );
}

/// RDS and Azure: whatever a restore would refuse or change, the doctor has said before, word for word.
#[test]
fn doctor_and_restore_never_disagree() {
    let source = Server::start(Flavor::MySql, &[]);
    source.load_file(&fixture("hard-mysql.sql"));
    source.sql(
        "DELETE FROM hard.json_values WHERE id = 8; DROP VIEW hard.broken_view;
         CREATE DATABASE bank; CREATE TABLE bank.Case_twin (id INT PRIMARY KEY); CREATE TABLE bank.case_twin (id INT PRIMARY KEY)",
    );
    let (user, password) = rds_like_account(&source);
    let mut planb = Planb::new(&source, &user);
    planb.env = vec![("PLANB_SOURCE_PASSWORD".into(), password)];
    planb.backup(&[]);

    let dir = tempfile::tempdir().expect("a directory");
    let files = tls_files(dir.path());
    let mut args = files.server_args();
    args.extend(AZURE_LIKE_ARGS.iter().map(|&arg| arg.to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let target = Server::start(Flavor::MySql, &args);
    let (admin, admin_password) = azure_like_admin(&target);
    planb.env.push(("STANDBY".into(), admin_password));
    planb.configure(&format!(
        "[standby]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{admin}\"\npassword = \"env:STANDBY\"\ntls_ca = \"{}\"",
        target.port,
        files.ca.display()
    ));

    let refused = planb.fails(3, &["restore"]);
    let problems: Vec<&str> = refused.lines().filter_map(|line| line.strip_prefix("  - ")).collect();
    let said = troubles(&planb);
    let errors: Vec<String> = said
        .iter()
        .filter(|(severity, _, _)| severity == "error")
        .map(|(_, what, remedy)| format!("{}; {remedy}", what.trim_start_matches("a restore would be refused: ")))
        .collect();
    assert_eq!(errors, problems);
    for problem in [
        "log_bin_trust_function_creators",
        "AUTO_INCREMENT",
        "differ by case only",
    ] {
        assert!(
            errors.iter().any(|error| error.contains(problem)),
            "{problem}: {errors:?}"
        );
    }

    target.sql("SET GLOBAL log_bin_trust_function_creators = ON");
    source.sql("DROP TABLE bank.case_twin; ALTER TABLE hard.myisam_table DROP PRIMARY KEY, ADD PRIMARY KEY (id, grp)");
    // Backups have the second of their instant for a name.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    planb.ok(&["backup"]);
    let said = troubles(&planb);
    assert!(said.iter().all(|(severity, _, _)| severity == "warning"), "{said:?}");
    let warnings: Vec<&str> = said
        .iter()
        .filter_map(|(_, what, _)| what.strip_prefix("a restore would change: "))
        .collect();
    let json = planb.json(&["--json", "restore"]);
    let repairs: Vec<&str> = json["repairs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(warnings, repairs);
    for repair in [
        "engine myisam",
        "definer ghost@nowhere",
        "invisible_primary_key",
        "in lower case",
    ] {
        assert!(
            repairs.iter().any(|told| told.contains(repair)),
            "{repair}: {repairs:?}"
        );
    }
}
