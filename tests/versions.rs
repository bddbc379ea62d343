//! Versions that cannot be run here, by an altered version in a real backup's index and in what a real server says of itself:
//! a target as new or newer is taken, an older one and one of the other family are refused with the reason.

#[path = "damage/mod.rs"]
mod made;
mod support;

use made::{Made, of_file};
use planb::config::Tls;
use planb::mysql::Address;
use planb::mysql::dialect::Version;
use planb::restore::plan::{Backup, Wish, judge};
use planb::restore::schema::Schema;
use planb::restore::target::survey;
use planb::secret::Secret;
use support::restores::arguments;
use support::{Flavor, PASSWORD, Planb, Server, reader, restorer};

fn small(flavor: Flavor) -> (Planb, Made) {
    let source = Server::start(flavor, &[]);
    source.sql(
        "CREATE DATABASE bank; USE bank; CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9)); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE VIEW w AS SELECT v FROM t; CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1;",
    );
    let planb = Planb::new(&source, &reader(&source, &[]));
    let made = of_file(flavor, &planb.backup(&[]));
    (planb, made)
}

/// Oldest first.
const MYSQL: [&str; 6] = ["8.0.23", "8.0.40", "8.4.3", "9.0.1", "9.7.0", "10.0.0"];
const MARIADB: [&str; 6] = ["10.6.18", "10.11.6", "11.0.2", "11.4.4", "11.8.1", "12.0.1"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_new_or_newer_is_taken_and_everything_else_refused_with_the_reason() {
    for flavor in Flavor::ALL {
        let (made, server) = tokio::task::spawn_blocking(move || {
            let server = Server::start(flavor, &[]);
            restorer(&server);
            (small(flavor).1, server)
        })
        .await
        .expect("made");
        let address = Address {
            host: "127.0.0.1".to_owned(),
            port: server.port,
            user: "restorer".to_owned(),
            password: Secret::new(PASSWORD),
            token_login: false,
            tls: Tls::Off,
            tls_ca: None,
        };
        let mut session = address.connect().await.expect("a session");
        let mut target = survey(&mut session).await.expect("a target");
        session.close().await;
        let (own, other, own_name, other_name, suffix) = match flavor {
            Flavor::MySql => (MYSQL, MARIADB, "MySQL", "MariaDB", ""),
            Flavor::MariaDb => (MARIADB, MYSQL, "MariaDB", "MySQL", "-MariaDB"),
        };
        let number =
            |text: &str| -> Vec<u16> { text.split('.').take(2).map(|n| n.parse().expect("a number")).collect() };
        for at in own {
            target.version = Version::parse(&format!("{at}{suffix}"), "").expect("a version");
            let against = |server: String| {
                let mut summary = made.index.summary.clone();
                summary.server = server;
                let backup = Backup {
                    summary: &summary,
                    members: &[],
                    schema: &Schema::default(),
                    programs: &[],
                };
                judge(backup, &target, &Wish::default()).1.join("\n")
            };
            for of in own {
                let said = against(format!("{own_name} {of}"));
                if number(at) >= number(of) {
                    assert_eq!(said, "", "{own_name} {of} to {at}");
                } else {
                    assert!(
                        said.contains("older than the source") && said.contains(at),
                        "{of} to {at}: {said}"
                    );
                }
            }
            for of in other {
                let said = against(format!("{other_name} {of}"));
                assert!(
                    said.contains(&format!("restore to {other_name}")),
                    "{other_name} {of} to {at}: {said}"
                );
            }
            assert!(against("Oracle 23".to_owned()).contains("nobody knows"));
        }
    }
}

/// The same by the program itself, against the server that there is (MySQL 9.7, MariaDB 10.11).
#[test]
fn an_index_of_another_version_is_restored_or_refused_by_the_program() {
    for (flavor, older, newer, other) in [
        (
            Flavor::MySql,
            ["MySQL 8.0.36", "MySQL 8.4.3"],
            "MySQL 10.0.0",
            "MariaDB 10.11.6",
        ),
        (
            Flavor::MariaDb,
            ["MariaDB 10.6.18", "MariaDB 10.6.18"],
            "MariaDB 11.4.4",
            "MySQL 8.4.3",
        ),
    ] {
        let (planb, made) = small(flavor);
        let target = Server::start(flavor, &[]);
        let to = restorer(&target);
        let path = planb.path().join("given.sql.gz");
        let file = path.display().to_string();
        let mut args = arguments(&to);
        args.insert(1, &file);
        let give = |server: &str| {
            let bytes = made.forged(|_, index| index.summary.server = server.to_owned());
            std::fs::write(&path, bytes).expect("written");
        };
        for (server, reason) in [(newer, "older than the source"), (other, "restore to M")] {
            give(server);
            let said = planb.fails(3, &args);
            assert!(said.contains(reason), "{server}: {said}");
            assert!(
                target.try_sql("SELECT 1 FROM planb.restores").is_err(),
                "nothing is written"
            );
        }
        for server in older {
            give(server);
            let json = planb.json(&[&["--json"], args.as_slice(), &["--verify"]].concat());
            assert_eq!(
                (
                    &json["rows"],
                    &json["verified"]["definitions"],
                    &json["verified"]["objects"]
                ),
                (&2.into(), &"names".into(), &2.into()),
                "{server}: {json}"
            );
            target.sql("DROP DATABASE bank; DROP DATABASE planb");
        }
    }
}
