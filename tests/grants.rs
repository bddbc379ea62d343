//! The accounts of config/grants-*.sql see all that a backup needs, on real servers, and each grant is needed: without
//! it something is missing. They write nothing and lock nothing. Servers come from `scripts/lab run`.

use planb::config::Tls;
use planb::mysql::{Address, DbError, Session};
use planb::secret::Secret;

const SCHEMA: &str = "
    CREATE DATABASE grants_test;
    CREATE TABLE grants_test.t (id INT PRIMARY KEY);
    INSERT INTO grants_test.t VALUES (1);
    CREATE VIEW grants_test.v AS SELECT id FROM grants_test.t;
    CREATE TRIGGER grants_test.tr BEFORE INSERT ON grants_test.t FOR EACH ROW SET @x = 1;
    CREATE EVENT grants_test.e ON SCHEDULE EVERY 1 DAY DO SET @x = 1;
    CREATE PROCEDURE grants_test.p() SET @x = 1";

/// What a backup asks, and the grants without which the answer is empty or refused. On RDS, SELECT alone shows bodies.
struct Probe {
    query: &'static str,
    column: usize,
    needs: &'static [&'static str],
}

const COMMON: &[Probe] = &[
    Probe {
        query: "SELECT id FROM grants_test.t",
        column: 0,
        needs: &["SELECT"],
    },
    Probe {
        query: "SELECT NULLIF(view_definition, '') FROM information_schema.views WHERE table_schema = 'grants_test'",
        column: 0,
        needs: &["SHOW VIEW"],
    },
    Probe {
        query: "SHOW CREATE VIEW grants_test.v",
        column: 1,
        needs: &["SHOW VIEW"],
    },
    Probe {
        query: "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = 'grants_test'",
        column: 0,
        needs: &["TRIGGER"],
    },
    Probe {
        query: "SELECT event_name FROM information_schema.events WHERE event_schema = 'grants_test'",
        column: 0,
        needs: &["EVENT"],
    },
    Probe {
        query: "SELECT user FROM information_schema.processlist WHERE user = 'root'",
        column: 0,
        needs: &["PROCESS"],
    },
];

async fn connect(port: u16, user: &str, password: &str) -> Session {
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port,
        user: user.to_owned(),
        password: Secret::new(password.to_owned()),
        token_login: false,
        tls: Tls::Off,
        tls_ca: None,
    };
    address.connect().await.unwrap()
}

#[track_caller]
fn port(variable: &str) -> u16 {
    let port = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run scripts/test"));
    port.parse().unwrap()
}

async fn run(root: &mut Session, statements: &str) {
    for statement in statements.split(';').filter(|statement| !statement.trim().is_empty()) {
        let done = root.execute(statement).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// The file's statements, and the optional ones that stand behind `-- `, for any host.
fn grants(file: &str) -> (String, Vec<String>) {
    let path = format!("{}/config/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap().replace("10.0.%", "%");
    let active = text
        .lines()
        .filter(|line| !line.starts_with("--"))
        .collect::<Vec<_>>()
        .join("\n");
    let optional = text.lines().filter_map(|line| line.strip_prefix("-- "));
    let optional = optional.filter(|line| line.starts_with("GRANT ") || line.starts_with("REVOKE "));
    (active, optional.map(str::to_owned).collect())
}

/// Whether the probe's answer has what a backup needs.
async fn answered(planb: &mut Session, probe: &Probe) -> bool {
    match planb.table(probe.query).await {
        Ok(rows) if probe.query.starts_with("SHOW REPLICA") || probe.query.starts_with("SHOW SLAVE") => rows.is_empty(),
        Ok(rows) => rows.first().is_some_and(|row| row[probe.column].is_some()),
        Err(_) => false,
    }
}

async fn refused(planb: &mut Session, statement: &'static str) -> bool {
    planb.execute(statement).await.is_err()
}

/// Runs the file as root, and tries everything as planb. Returns root's connection and the optional statements.
async fn account_of(file: &str, port: u16, own: &[Probe]) -> (Session, Vec<String>) {
    let mut root = connect(port, "root", "").await;
    run(
        &mut root,
        "DROP DATABASE IF EXISTS grants_test; DROP USER IF EXISTS 'planb'@'%'",
    )
    .await;
    run(&mut root, SCHEMA).await;
    let (active, optional) = grants(file);
    run(&mut root, &active).await;
    // The lab's MariaDB has no certificate; what REQUIRE SSL does is the server's business.
    run(
        &mut root,
        "ALTER USER 'planb'@'%' IDENTIFIED BY 'x' REQUIRE NONE ACCOUNT UNLOCK",
    )
    .await;

    let probes: Vec<&Probe> = COMMON.iter().chain(own).collect();
    let mut planb = connect(port, "planb", "x").await;
    for probe in &probes {
        assert!(answered(&mut planb, probe).await, "{file}: {}", probe.query);
    }
    for statement in [
        "INSERT INTO grants_test.t VALUES (2)",
        "DELETE FROM grants_test.t",
        "DROP TABLE grants_test.t",
        "CREATE TABLE grants_test.u (id INT)",
        "CALL grants_test.p()",
        "FLUSH TABLES WITH READ LOCK",
        "LOCK TABLES grants_test.t READ",
        "SET GLOBAL max_connections = 10",
    ] {
        assert!(refused(&mut planb, statement).await, "{file} allows {statement}");
    }
    // Each grant is needed: taken away, its probe has no answer. What the file grants and no probe needs is too much.
    let granted: Vec<&str> = active
        .lines()
        .filter_map(|line| line.strip_prefix("GRANT ")?.split(" ON ").next())
        .collect();
    for grant in granted {
        let needing: Vec<&&Probe> = probes.iter().filter(|probe| probe.needs.contains(&grant)).collect();
        assert!(!needing.is_empty(), "{file}: nothing needs {grant}");
        for probe in needing {
            let (taken, back) = probe
                .needs
                .iter()
                .fold((String::new(), String::new()), |(taken, back), grant| {
                    (
                        format!("{taken}REVOKE {grant} ON *.* FROM 'planb'@'%';"),
                        format!("{back}GRANT {grant} ON *.* TO 'planb'@'%';"),
                    )
                });
            run(&mut root, &taken).await;
            let mut planb = connect(port, "planb", "x").await;
            assert!(
                !answered(&mut planb, probe).await,
                "{file}: {} answers without {:?}",
                probe.query,
                probe.needs
            );
            planb.close().await;
            run(&mut root, &back).await;
        }
    }
    planb.close().await;
    (root, optional)
}

async fn allowed_after(root: &mut Session, port: u16, optional: &[String], grant: &str, statement: &'static str) {
    let wanted = optional
        .iter()
        .find(|line| line.contains(grant))
        .unwrap_or_else(|| panic!("no line for {grant}"));
    assert!(
        refused(&mut connect(port, "planb", "x").await, statement).await,
        "{statement} needs no {grant}"
    );
    run(root, wanted).await;
    let mut planb = connect(port, "planb", "x").await;
    planb
        .execute(statement)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
    planb.close().await;
}

#[tokio::test]
async fn grants_are_enough_and_none_is_too_many() {
    // One after the other: they make the same account on the same server.
    mysql().await;
    rds().await;
    mariadb().await;
}

async fn mysql() {
    let port = port("PLANB_LAB_MYSQL_PORT");
    let own = [
        Probe {
            query: "SHOW BINARY LOG STATUS",
            column: 0,
            needs: &["REPLICATION CLIENT"],
        },
        Probe {
            query: "SHOW REPLICA STATUS",
            column: 0,
            needs: &["REPLICATION CLIENT"],
        },
        Probe {
            query: "SHOW CREATE PROCEDURE grants_test.p",
            column: 2,
            needs: &["SHOW_ROUTINE", "SELECT"],
        },
    ];
    let (mut root, optional) = account_of("grants-mysql.sql", port, &own).await;
    let optional = &optional;
    allowed_after(&mut root, port, optional, "FLUSH_TABLES", "FLUSH TABLES WITH READ LOCK").await;
    allowed_after(
        &mut root,
        port,
        optional,
        "REPLICATION_SLAVE_ADMIN",
        "STOP REPLICA SQL_THREAD",
    )
    .await;
    allowed_after(
        &mut root,
        port,
        optional,
        "LOCK TABLES",
        "LOCK TABLES grants_test.t READ",
    )
    .await;

    run(&mut root, "SET GLOBAL partial_revokes = ON").await;
    let narrowed = optional.iter().find(|line| line.starts_with("REVOKE")).unwrap();
    run(&mut root, narrowed).await;
    let mut planb = connect(port, "planb", "x").await;
    assert!(refused(&mut planb, "SELECT authentication_string FROM mysql.user").await);
    for probe in COMMON.iter().chain(&own) {
        assert!(answered(&mut planb, probe).await, "narrowed: {}", probe.query);
    }
    planb.close().await;
    run(
        &mut root,
        "DROP USER 'planb'@'%'; DROP DATABASE grants_test; SET GLOBAL partial_revokes = OFF",
    )
    .await;
}

async fn rds() {
    let port = port("PLANB_LAB_MYSQL_PORT");
    let own = [
        Probe {
            query: "SHOW BINARY LOG STATUS",
            column: 0,
            needs: &["REPLICATION CLIENT"],
        },
        Probe {
            query: "SHOW CREATE PROCEDURE grants_test.p",
            column: 2,
            needs: &["SELECT"],
        },
    ];
    let (mut root, optional) = account_of("grants-rds.sql", port, &own).await;
    assert!(optional.is_empty(), "{optional:?}");
    run(&mut root, "DROP USER 'planb'@'%'; DROP DATABASE grants_test").await;
}

async fn mariadb() {
    let port = port("PLANB_LAB_MARIADB_PORT");
    let own = [
        Probe {
            query: "SHOW MASTER STATUS",
            column: 0,
            needs: &["BINLOG MONITOR"],
        },
        Probe {
            query: "SHOW SLAVE STATUS",
            column: 0,
            needs: &["SLAVE MONITOR"],
        },
        Probe {
            query: "SHOW CREATE PROCEDURE grants_test.p",
            column: 2,
            needs: &["SELECT"],
        },
    ];
    let (mut root, optional) = account_of("grants-mariadb.sql", port, &own).await;
    let mut planb = connect(port, "planb", "x").await;
    run(&mut planb, "START TRANSACTION WITH CONSISTENT SNAPSHOT").await;
    let position = planb.table("SHOW STATUS LIKE 'binlog_snapshot_%'").await.unwrap();
    assert!(position.len() >= 2, "the exact snapshot needs no further grant");
    planb.close().await;
    // This lab's server has no replication to stop: it says so (1200, 1198), instead of that it may not (1227).
    allowed_after(
        &mut root,
        port,
        &optional,
        "LOCK TABLES",
        "LOCK TABLES grants_test.t READ",
    )
    .await;
    let wanted = optional
        .iter()
        .find(|line| line.contains("REPLICATION SLAVE ADMIN"))
        .unwrap();
    assert!(refused(&mut connect(port, "planb", "x").await, "STOP SLAVE SQL_THREAD").await);
    run(&mut root, wanted).await;
    let mut planb = connect(port, "planb", "x").await;
    let stopped = planb.execute("STOP SLAVE SQL_THREAD").await;
    let denied = matches!(stopped, Err(DbError::Denied { .. }));
    assert!(!denied, "{stopped:?}");
    planb.close().await;
    run(&mut root, "DROP USER 'planb'@'%'; DROP DATABASE grants_test").await;
}
