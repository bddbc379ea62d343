//! `planb restore --accounts`: the application can log in to what was restored, with its own rights and nobody's password
//! told.

mod support;

use support::planb::{PASSWORD, text};
use support::{AZURE_LIKE_ARGS, Flavor, Planb, Server, azure_like_admin, reader, tls_files};

/// Quotes and a backslash: what would end a literal.
const APP_PASSWORD: &str = "s3cret'\\\"; DROP DATABASE pet_clinic; -- ";

const ACCOUNTS: &str = r#"
[[accounts]]
name = "app"
grants = ["SELECT, INSERT, UPDATE, DELETE, EXECUTE ON pet_clinic.*"]
password = "env:APP_PASSWORD"
[[accounts]]
name = "report"
hosts = ["10.9.%"]
grants = ["SELECT ON pet_clinic.names"]
password = ["env:NOT_THERE", "env:REPORT_PASSWORD"]
"#;

/// A schema whose name is a pattern that another one's matches; a view and a procedure of the application's own.
fn source(flavor: Flavor) -> Server {
    let source = Server::start(flavor, &[]);
    source.sql(
        "CREATE USER app@'%' IDENTIFIED BY 'old'; GRANT ALL ON *.* TO app@'%';
         CREATE DATABASE pet_clinic; CREATE TABLE pet_clinic.owners (id INT PRIMARY KEY, name VARCHAR(20));
         INSERT INTO pet_clinic.owners VALUES (1, 'Betty'), (2, 'Eduardo');
         CREATE DATABASE petXclinic; CREATE TABLE petXclinic.secrets (id INT PRIMARY KEY);
         CREATE DEFINER = app@'%' SQL SECURITY DEFINER VIEW pet_clinic.names AS SELECT name FROM pet_clinic.owners;
         CREATE DEFINER = app@'%' PROCEDURE pet_clinic.counted() SELECT COUNT(*) FROM pet_clinic.owners;",
    );
    source
}

fn planb(source: &Server) -> Planb {
    let mut planb = Planb::new(source, &reader(source, &["EXECUTE"]));
    if source.flavor == Flavor::MySql {
        source.sql("GRANT SHOW_ROUTINE ON *.* TO reader@'%'");
    }
    planb.env.push(("APP_PASSWORD".into(), APP_PASSWORD.into()));
    planb.env.push(("REPORT_PASSWORD".into(), "r3port".into()));
    planb.backup(&[]);
    planb.configure(ACCOUNTS);
    planb
}

fn standby(planb: &Planb, target: &Server, more: &str) {
    planb.configure(&format!(
        "[standby]\nhost = \"127.0.0.1\"\nport = {}\n{more}",
        target.port
    ));
}

fn works(flavor: Flavor) {
    let source = source(flavor);
    let mut planb = planb(&source);
    // Whatever anybody logs.
    planb.env.push(("RUST_LOG".into(), "trace".into()));
    let target = Server::start(flavor, &[]);
    target.sql(&format!(
        "CREATE USER restorer@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO restorer@'%' WITH GRANT OPTION;
         CREATE USER report@'10.9.%' IDENTIFIED BY 'older'"
    ));
    standby(
        &planb,
        &target,
        "user = \"restorer\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"",
    );

    let plan = planb.ok(&["restore", "--plan", "--accounts"]);
    for line in [
        "app@% is made; SELECT, INSERT",
        "report@10.9.% is there, and gets the configured password",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    assert_eq!(
        target.sql("SELECT COUNT(*) FROM mysql.user WHERE User = 'app'").trim(),
        "0"
    );

    let output = planb.run(&["--json", "restore", "--accounts", "--verify"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("s3cret") && !text(&output).contains("r3port"));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(json["accounts"][0]["login"], "works", "{json}");
    assert_eq!(json["accounts"][1]["login"], "untested", "{json}");
    assert!(
        json["accounts"][1]["why"]
            .as_str()
            .is_some_and(|why| why.contains("hosts leave out")),
        "{json}"
    );

    // With its rights, and no others: the name of its schema is no pattern.
    let app = |sql: &str| target.sql_as("app", APP_PASSWORD, sql);
    assert_eq!(
        app("CALL pet_clinic.counted(); SELECT name FROM pet_clinic.names").map(|said| said.lines().count()),
        Ok(3)
    );
    assert!(app("SELECT * FROM petXclinic.secrets").is_err());
    assert!(app("CREATE TABLE pet_clinic.more (id INT)").is_err());
    // It exists before the objects that are its own, so they stay its own, and nothing is said of it.
    assert!(
        target
            .sql("SHOW CREATE VIEW pet_clinic.names")
            .contains("DEFINER=`app`@`%`")
    );
    assert!(!json["repairs"].to_string().contains("app@%"), "{json}");
    // The other, on its one view.
    let grants = target.sql("SHOW GRANTS FOR report@'10.9.%'");
    assert!(grants.contains("GRANT SELECT ON `pet_clinic`.`names`"), "{grants}");
    target.sql("RENAME USER report@'10.9.%' TO report@'%'");
    let report = |password: &str| target.sql_as("report", password, "SELECT * FROM pet_clinic.names");
    assert!(
        report("r3port").is_ok() && report("older").is_err(),
        "the password is the configured one"
    );
}

#[test]
fn a_mysql_gets_the_applications_accounts() {
    works(Flavor::MySql);
}

#[test]
fn a_mariadb_gets_the_applications_accounts() {
    works(Flavor::MariaDb);
}

/// Where the restorer may do no more than Azure's administrator, over TLS: an account is made, and may come only so.
#[test]
fn an_azure_like_standby_gets_them_with_tls() {
    let source = source(Flavor::MySql);
    let mut planb = planb(&source);
    let dir = tempfile::tempdir().expect("a directory");
    let files = tls_files(dir.path());
    let mut args = files.server_args();
    args.extend(AZURE_LIKE_ARGS.iter().map(|&arg| arg.to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let target = Server::start(Flavor::MySql, &args);
    let (admin, password) = azure_like_admin(&target);
    planb.env.push(("STANDBY".into(), password));
    standby(
        &planb,
        &target,
        &format!(
            "user = \"{admin}\"\npassword = \"env:STANDBY\"\ntls_ca = \"{}\"",
            files.ca.display()
        ),
    );
    let json = planb.json(&["--json", "restore", "--accounts"]);
    assert_eq!(json["accounts"][0]["login"], "works", "{json}");
    assert_eq!(
        target.sql("SELECT ssl_type FROM mysql.user WHERE User = 'app'").trim(),
        "ANY",
        "without TLS it may not come"
    );
    // With partial_revokes on, a schema's name is no pattern; escaped as one, it would name no schema at all.
    let rows = target.sql_as("app", APP_PASSWORD, "SELECT name FROM pet_clinic.owners");
    assert_eq!(rows.map(|rows| rows.lines().count()), Ok(2));
}

#[test]
fn what_stands_against_accounts_is_told_before_the_first_row() {
    let source = source(Flavor::MySql);
    let planb = planb(&source);
    let target = Server::start(Flavor::MySql, &[]);
    target.sql(&format!(
        "CREATE USER restorer@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO restorer@'%';
         REVOKE CREATE USER ON *.* FROM restorer@'%'"
    ));
    standby(
        &planb,
        &target,
        "user = \"restorer\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"",
    );
    planb.reconfigure(
        "SELECT ON pet_clinic.names",
        "SELECT ON pet_clinic.nmaes\", \"SELECT ON petclinic.*",
    );
    let said = planb.fails(3, &["restore", "--accounts"]);
    for problem in [
        "may not make accounts",
        "no table pet_clinic.nmaes",
        "no schema petclinic",
        "may not give rights on pet_clinic",
    ] {
        assert!(said.contains(problem), "{problem}: {said}");
    }
    assert!(!said.contains("s3cret"), "{said}");
    assert_eq!(target.sql("SHOW DATABASES LIKE 'pet%'").trim(), "");

    // A password that is not there is told before anything is written; and so is a configuration without accounts.
    planb.reconfigure("env:APP_PASSWORD", "env:NOT_THERE_EITHER");
    let said = planb.fails(1, &["restore", "--accounts"]);
    assert!(
        said.contains("[[accounts]] app") && said.contains("NOT_THERE_EITHER"),
        "{said}"
    );
    planb.fails(2, &["restore", "--enable-events", "--accounts"]);
    // A dump that is not PlanB's is not planned, so its accounts are not either.
    let dump = planb.path().join("dump.sql");
    std::fs::write(&dump, "CREATE DATABASE x;\n-- Dump completed\n").expect("a dump");
    let dump = dump.display().to_string();
    planb.reconfigure("env:NOT_THERE_EITHER", "env:APP_PASSWORD");
    let said = planb.fails(2, &["restore", &dump, "--accounts"]);
    assert!(said.contains("--accounts: made with a backup of PlanB only"), "{said}");
}

/// An account that somebody locked is made, and does not work: that is no success.
#[test]
fn a_login_that_does_not_work_is_told() {
    let source = source(Flavor::MySql);
    let planb = planb(&source);
    let target = Server::start(Flavor::MySql, &[]);
    target.sql(&format!(
        "CREATE USER restorer@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO restorer@'%' WITH GRANT OPTION;
         CREATE USER app@'%' IDENTIFIED BY 'x' ACCOUNT LOCK"
    ));
    standby(
        &planb,
        &target,
        "user = \"restorer\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"",
    );
    let said = planb.fails(1, &["restore", "--accounts"]);
    assert!(
        said.contains("login FAILS") && said.contains("everything is restored"),
        "{said}"
    );
    assert_eq!(target.sql("SELECT COUNT(*) FROM pet_clinic.owners").trim(), "2");
}
