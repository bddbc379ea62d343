//! The fence: after it is proven no write of the application succeeds, whoever tries and however it is logged in; lifted, everything is as it
//! was; and killed at any statement, it can be raised or lifted again.

#[path = "support/mysql_cut.rs"]
mod mysql_cut;
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mysql_cut::{Cut, MysqlCut};
use planb::config::Tls;
use planb::fence::{Change, Credentials, Fence, FenceError, Held, Part, Pattern, Raised, Verdict};
use planb::mysql::{Address, DbError};
use planb::secret::Secret;
use support::{Flavor, PASSWORD, Server};
use tokio::task::JoinSet;

const FENCE: &str = "planb_fence";

fn address(server: &Server, user: &str) -> Address {
    Address {
        host: "127.0.0.1".to_owned(),
        port: server.port,
        user: user.to_owned(),
        password: Secret::new(PASSWORD),
        token_login: false,
        tls: Tls::Off,
        tls_ca: None,
    }
}

fn credentials(user: &str) -> Credentials {
    Credentials {
        user: user.to_owned(),
        password: Secret::new(PASSWORD),
        token_login: false,
    }
}

fn fence(server: &Server) -> Fence {
    Fence {
        address: address(server, FENCE),
        accounts: vec![Pattern::parse("app"), Pattern::parse("report@%")],
        spared: vec!["planb".to_owned()],
        try_as: vec![credentials("app")],
        read_only: false,
        patience: Duration::from_secs(30),
    }
}

/// The grants of config/grants-fence.sql that are for this flavour, and the optional ones that contain one of `more`.
fn grant(server: &Server, more: &[&str]) {
    server.sql(&format!("CREATE USER {FENCE}@'%' IDENTIFIED BY '{PASSWORD}'"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grants-fence.sql");
    let text = std::fs::read_to_string(path)
        .expect("the grants")
        .replace("10.0.%", "%");
    let mut given = 0;
    for line in text.lines() {
        let optional = line.strip_prefix("-- ").filter(|line| line.starts_with("GRANT"));
        let wanted = match (server.flavor, optional) {
            (Flavor::MariaDb, None) => !line.contains("mysql.user"),
            (Flavor::MariaDb, Some(line)) => {
                line.contains("global_priv") || more.iter().any(|more| line.contains(more))
            }
            (Flavor::MySql, None) => true,
            (Flavor::MySql, Some(line)) => more.iter().any(|more| line.contains(more)),
        };
        let statement = optional.unwrap_or(line);
        if wanted && statement.starts_with("GRANT") {
            server.sql(statement);
            given += usize::from(optional.is_some());
        }
    }
    let expected = more.len() + usize::from(server.flavor == Flavor::MariaDb);
    assert_eq!(
        given, expected,
        "config/grants-fence.sql has no line for one of {more:?}"
    );
}

/// A bank, an application with two accounts, a report that somebody locked, and PlanB's own.
fn bank(flavor: Flavor, more: &[&str]) -> Server {
    let server = Server::start(flavor, &["--event-scheduler=OFF"]);
    server.sql(&format!(
        "CREATE DATABASE bank; CREATE TABLE bank.moved (id BIGINT AUTO_INCREMENT PRIMARY KEY, who INT);
         CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON bank.* TO app@'%';
         CREATE USER app@'10.9.%' IDENTIFIED BY '{PASSWORD}';
         CREATE USER report@'%' IDENTIFIED BY '{PASSWORD}' ACCOUNT LOCK; GRANT ALL ON bank.* TO report@'%';
         CREATE USER planb@'%' IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON *.* TO planb@'%';"
    ));
    grant(&server, more);
    server
}

/// What a server that the account runs itself allows.
fn own(flavor: Flavor) -> &'static [&'static str] {
    match flavor {
        Flavor::MySql => &["GRANT CONNECTION_ADMIN"],
        Flavor::MariaDb => &["GRANT CONNECTION ADMIN"],
    }
}

/// Locks and switches of the server, as text.
fn state(server: &Server) -> String {
    let accounts = match server.flavor {
        Flavor::MySql => "SELECT User, Host, account_locked FROM mysql.user",
        Flavor::MariaDb => {
            "SELECT User, Host, COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) FROM mysql.global_priv"
        }
    };
    server.sql(&format!(
        "{accounts} ORDER BY 1, 2; SELECT @@global.read_only, @@global.event_scheduler"
    ))
}

fn quiet(_: &str) {}

async fn raise(fence: &Fence, mark: u64) -> Raised {
    fence
        .raise(mark, &BTreeSet::new(), &quiet)
        .await
        .expect("no newer fence")
}

async fn lift(fence: &Fence, mark: u64) -> BTreeSet<Change> {
    fence.lift(mark, &BTreeSet::new(), &quiet).await.expect("lifted")
}

fn held(raised: &Raised, part: Part) -> Option<&Held> {
    raised
        .rungs
        .iter()
        .find(|rung| rung.part == part)
        .map(|rung| &rung.held)
}

fn locked(user: &str, host: &str) -> Change {
    Change::Locked {
        user: user.to_owned(),
        host: host.to_owned(),
    }
}

// --- the application -------------------------------------------------------------------------------------

#[derive(Default)]
struct Ledger {
    written: AtomicU64,
    refused: AtomicU64,
    last: Mutex<Option<Instant>>,
    stop: AtomicBool,
    news: tokio::sync::Notify,
}

impl Ledger {
    /// Waits until `count` has grown by `more`.
    async fn grown(&self, count: &AtomicU64, more: u64) {
        let wanted = count.load(Ordering::SeqCst) + more;
        let reached = async {
            while count.load(Ordering::SeqCst) < wanted {
                self.news.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("the application did not go on");
    }
}

/// Writers as a connection pool has them: logged in for as long as it goes, and again at once.
fn application(server: &Server, user: &str, writers: u32) -> (Arc<Ledger>, JoinSet<()>) {
    let ledger = Arc::new(Ledger::default());
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let (ledger, address) = (Arc::clone(&ledger), address(server, user));
        tasks.spawn(async move {
            while !ledger.stop.load(Ordering::SeqCst) {
                if let Ok(mut session) = address.connect().await {
                    let sql = format!("INSERT INTO bank.moved (who) VALUES ({writer})");
                    while !ledger.stop.load(Ordering::SeqCst) && session.execute(&sql).await.is_ok() {
                        *ledger.last.lock().expect("last") = Some(Instant::now());
                        ledger.written.fetch_add(1, Ordering::SeqCst);
                        ledger.news.notify_waiters();
                        ledger.news.notify_one();
                    }
                }
                ledger.refused.fetch_add(1, Ordering::SeqCst);
                ledger.news.notify_one();
            }
        });
    }
    (ledger, tasks)
}

async fn under_load(server: &Server, fence: &Fence) {
    let before = state(server);
    let (ledger, mut tasks) = application(server, "app", 16);
    ledger.grown(&ledger.written, 50).await;
    // One that a killed session must roll back, and that holds what others wait for.
    let mut long = address(server, "app").connect().await.expect("a session");
    long.execute("START TRANSACTION").await.expect("begun");
    long.execute("INSERT INTO bank.moved (id, who) VALUES (900000000, 77)")
        .await
        .expect("written");

    let raised = raise(fence, 3).await;
    let proven_at = Instant::now();
    let count = server.sql("SELECT COUNT(*) FROM bank.moved");
    assert_eq!(raised.verdict(), Verdict::Proven, "{raised:#?}");
    assert!(raised.is_kept);
    assert_eq!(
        raised.changes,
        BTreeSet::from([locked("app", "%"), locked("app", "10.9.%")]),
        "the report was locked before"
    );
    assert!(
        long.execute("COMMIT").await.is_err(),
        "a transaction from before the fence"
    );
    // It goes on trying.
    ledger.grown(&ledger.refused, 200).await;
    let last = ledger.last.lock().expect("last").expect("it wrote");
    assert!(last <= proven_at, "a write {:?} after the proof", last - proven_at);
    assert_eq!(server.sql("SELECT COUNT(*) FROM bank.moved"), count);
    assert_eq!(server.sql("SELECT COUNT(*) FROM bank.moved WHERE who = 77").trim(), "0");
    // The last backup can still be taken.
    assert!(
        server
            .sql_as("planb", PASSWORD, "SELECT COUNT(*) FROM bank.moved")
            .is_ok()
    );

    // Again: nothing left to change, and proven anew. (A login that is just being refused may be listed.)
    let mut look = fence.look(&BTreeSet::new()).await.expect("a look");
    for _ in 0..20 {
        if !look.is_up() {
            look = fence.look(&BTreeSet::new()).await.expect("a look");
        }
    }
    assert!(look.is_up() && look.mark == 3, "{look:#?}");
    for _ in 0..5 {
        assert_eq!(raise_quietly(fence, 3).await, Verdict::Proven);
    }

    assert_eq!(lift(fence, 4).await, raised.changes);
    assert_eq!(state(server), before);
    ledger.grown(&ledger.written, 20).await;
    assert!(lift(fence, 4).await.is_empty(), "nothing is left to take back");
    ledger.stop.store(true, Ordering::SeqCst);
    while tasks.join_next().await.is_some() {}
}

async fn raise_quietly(fence: &Fence, mark: u64) -> Verdict {
    raise(fence, mark).await.verdict()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_succeeds_at_mysql_after_the_proof() {
    let server = bank(Flavor::MySql, own(Flavor::MySql));
    under_load(&server, &fence(&server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_succeeds_at_mariadb_after_the_proof() {
    let server = bank(Flavor::MariaDb, own(Flavor::MariaDb));
    under_load(&server, &fence(&server)).await;
}

/// Where KILL of another's session is refused, the platform's procedure does it.
async fn managed(flavor: Flavor, procedure: &str) {
    let server = bank(flavor, &[]);
    server.sql(&format!(
        "DELIMITER //
         CREATE DEFINER = root@localhost PROCEDURE mysql.{procedure}(IN thread BIGINT) SQL SECURITY DEFINER BEGIN KILL thread; END//
         DELIMITER ;
         GRANT EXECUTE ON PROCEDURE mysql.{procedure} TO {FENCE}@'%';"
    ));
    let app = address(&server, "app").connect().await.expect("a session");
    let mut plain = address(&server, FENCE).connect().await.expect("a session");
    let refused = plain.execute(format!("KILL {}", app.id)).await;
    assert!(
        matches!(&refused, Err(DbError::Refused { detail, .. }) if detail.starts_with("1095") || detail.starts_with("1094")),
        "this server lets the account kill: {refused:?}"
    );
    app.close().await;
    under_load(&server, &fence(&server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_at_rds_end_by_its_own_procedure() {
    managed(Flavor::MySql, "rds_kill").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_at_rds_for_mariadb_end_by_its_own_procedure() {
    managed(Flavor::MariaDb, "rds_kill").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_at_azure_end_by_its_own_procedure() {
    managed(Flavor::MySql, "az_kill").await;
}

// --- killed anywhere -------------------------------------------------------------------------------------

/// Broken off before and after each statement; then raised again, or lifted at once.
async fn killed_anywhere(flavor: Flavor) {
    let more: &[&str] = match flavor {
        Flavor::MySql => &["GRANT CONNECTION_ADMIN", "GRANT SYSTEM_VARIABLES_ADMIN"],
        Flavor::MariaDb => &["GRANT CONNECTION ADMIN", "GRANT READ_ONLY ADMIN", "GRANT SUPER"],
    };
    let server = bank(flavor, more);
    server.sql("CREATE EVENT bank.tick ON SCHEDULE EVERY 1 DAY DO SET @x = 1; SET GLOBAL event_scheduler = ON");
    let before = state(&server);
    let direct = Fence {
        read_only: true,
        ..fence(&server)
    };
    let through = |cut: &MysqlCut| Fence {
        address: Address {
            port: cut.port,
            ..direct.address.clone()
        },
        ..direct.clone()
    };
    let mut mark = 0;
    let mut broken = [0_u32; 4];
    for number in 0.. {
        let mut went_through = 0;
        for (way, cut) in [
            Cut::Before(number),
            Cut::After(number),
            Cut::Before(number),
            Cut::After(number),
        ]
        .into_iter()
        .enumerate()
        {
            mark += 1;
            // One session of the application, to be ended.
            let app = address(&server, "app").connect().await.expect("a session");
            let proxy = MysqlCut::start(server.port, cut).await;
            let fence = through(&proxy);
            if way < 2 {
                let raised = raise(&fence, mark).await;
                assert_eq!(
                    proxy.is_broken(),
                    raised.verdict() != Verdict::Proven,
                    "{cut:?}: {raised:#?}"
                );
                if way == 0 {
                    let raised = raise(&direct, mark).await;
                    assert_eq!(raised.verdict(), Verdict::Proven, "{cut:?}: {raised:#?}");
                }
            } else {
                let raised = raise(&direct, mark).await;
                assert_eq!(raised.verdict(), Verdict::Proven, "{cut:?}: {raised:#?}");
                let lifted = fence.lift(mark, &BTreeSet::new(), &quiet).await;
                assert_eq!(proxy.is_broken(), lifted.is_err(), "{cut:?}: {lifted:?}");
            }
            lift(&direct, mark).await;
            assert_eq!(state(&server), before, "{cut:?}, way {way}");
            went_through += u32::from(!proxy.is_broken());
            broken[way] += u32::from(proxy.is_broken());
            drop(app);
        }
        if went_through == 4 {
            break;
        }
    }
    println!("broken off at {broken:?} statements");
    assert!(
        broken[..2].iter().all(|count| *count > 20) && broken[2..].iter().all(|count| *count > 10),
        "{broken:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_off_at_any_statement_of_mysql_it_is_raised_or_lifted_again() {
    killed_anywhere(Flavor::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_off_at_any_statement_of_mariadb_it_is_raised_or_lifted_again() {
    killed_anywhere(Flavor::MariaDb).await;
}

// --- what it cannot do -----------------------------------------------------------------------------------

#[tokio::test]
async fn an_account_that_cannot_be_locked_stops_everything() {
    let server = bank(Flavor::MySql, own(Flavor::MySql));
    server.sql("GRANT SYSTEM_USER ON *.* TO app@'10.9.%'");
    let raised = raise(&fence(&server), 1).await;
    assert!(
        matches!(raised.verdict(), Verdict::Failed(why) if why.contains("app@10.9.%") && why.contains("SYSTEM_USER")),
        "{raised:#?}"
    );
    // What it did all the same is remembered.
    lift(&fence(&server), 1).await;
    assert!(server.sql_as("app", PASSWORD, "SELECT 1").is_ok());
}

#[tokio::test]
async fn a_session_that_may_not_be_ended_stops_everything() {
    let server = bank(Flavor::MySql, &[]);
    let app = address(&server, "app").connect().await.expect("a session");
    let raised = raise(&fence(&server), 1).await;
    assert!(
        matches!(raised.verdict(), Verdict::Failed(why) if why.contains(&format!("session {} of app", app.id)) && why.contains("rds_kill")),
        "{raised:#?}"
    );
    // It goes by itself: then all is well.
    app.close().await;
    assert_eq!(raise_quietly(&fence(&server), 1).await, Verdict::Proven);
}

#[tokio::test]
async fn a_server_that_is_down_is_unprovable() {
    let mut server = bank(Flavor::MySql, own(Flavor::MySql));
    let fence = fence(&server);
    server.kill();
    let raised = raise(&fence, 1).await;
    assert!(
        matches!(raised.verdict(), Verdict::Unprovable(why) if why.contains("nobody could try")),
        "{raised:#?}"
    );
    assert!(fence.look(&BTreeSet::new()).await.is_err());
}

#[tokio::test]
async fn without_the_applications_password_or_with_a_wrong_one_nothing_is_proven() {
    for flavor in Flavor::ALL {
        let server = bank(flavor, own(flavor));
        let none = Fence {
            try_as: Vec::new(),
            ..fence(&server)
        };
        let raised = raise(&none, 1).await;
        assert!(
            matches!(raised.verdict(), Verdict::Unprovable(why) if why.contains("nobody tried")),
            "{raised:#?}"
        );
        let mut wrong = fence(&server);
        wrong.try_as[0].password = Secret::new("another");
        let raised = raise(&wrong, 1).await;
        assert!(
            matches!(raised.verdict(), Verdict::Unprovable(why) if why.contains("app is refused")),
            "{raised:#?}"
        );
        assert!(!format!("{raised:?}").contains(PASSWORD));
        assert_eq!(raise_quietly(&fence(&server), 1).await, Verdict::Proven);
    }
}

#[tokio::test]
async fn another_account_that_still_lets_the_application_in_stops_everything() {
    let server = bank(Flavor::MySql, own(Flavor::MySql));
    // Closer to this machine's address than app@%.
    server.sql(&format!(
        "CREATE USER app@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON bank.* TO app@localhost"
    ));
    let narrow = Fence {
        accounts: vec![Pattern::parse("app@10.%"), Pattern::parse("report")],
        ..fence(&server)
    };
    let raised = raise(&narrow, 1).await;
    assert!(
        matches!(raised.verdict(), Verdict::Failed(why) if why.contains("app@localhost")),
        "{raised:#?}"
    );
    assert!(
        raised.others.contains(&"app@localhost".to_owned()),
        "{:?}",
        raised.others
    );
    assert_eq!(raise_quietly(&fence(&server), 1).await, Verdict::Proven);
}

#[tokio::test]
async fn a_process_that_was_overtaken_changes_nothing() {
    let server = bank(Flavor::MySql, own(Flavor::MySql));
    let fence = fence(&server);
    raise(&fence, 7).await;
    let before = state(&server);
    let newer = |result: Result<(), FenceError>| {
        assert!(
            matches!(result, Err(FenceError::Newer { held: 7, asked: 6 })),
            "{result:?}"
        );
    };
    newer(fence.lift(6, &BTreeSet::new(), &quiet).await.map(|_| ()));
    assert_eq!(state(&server), before);
    lift(&fence, 7).await;
    let before = state(&server);
    newer(fence.raise(6, &BTreeSet::new(), &quiet).await.map(|_| ()));
    assert_eq!(state(&server), before);
    // A session that still has the claim is ended.
    let mut stuck = address(&server, FENCE).connect().await.expect("a session");
    stuck.execute("DO GET_LOCK('planb_fence', 0)").await.expect("the claim");
    assert_eq!(raise_quietly(&fence, 8).await, Verdict::Proven);
    assert!(stuck.execute("DO 1").await.is_err());
}

/// Without a schema to write in, the caller keeps the list, and gives it back.
#[tokio::test]
async fn where_no_record_can_be_kept_the_caller_has_it() {
    for flavor in Flavor::ALL {
        let server = bank(flavor, own(flavor));
        server.sql(&format!(
            "REVOKE CREATE, SELECT, INSERT, UPDATE, DELETE ON planb.* FROM {FENCE}@'%'"
        ));
        let before = state(&server);
        let fence = fence(&server);
        let planned = fence.look(&BTreeSet::new()).await.expect("a look").would_change;
        let raised = raise(&fence, 1).await;
        assert_eq!(raised.verdict(), Verdict::Proven, "{raised:#?}");
        assert!(!raised.is_kept && raised.changes == planned, "{raised:#?}");
        assert!(
            fence
                .lift(1, &BTreeSet::new(), &quiet)
                .await
                .expect("lifted")
                .is_empty()
        );
        assert_ne!(state(&server), before);
        fence.lift(1, &planned, &quiet).await.expect("lifted");
        assert_eq!(state(&server), before);
    }
}

// --- read-only, events, logins under way ----------------------------------------------------------------

/// An account that may not lock others, and may make the server read-only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_read_only_is_fenced_without_locks() {
    for flavor in Flavor::ALL {
        let more: &[&str] = match flavor {
            Flavor::MySql => &["GRANT CONNECTION_ADMIN", "GRANT SYSTEM_VARIABLES_ADMIN"],
            Flavor::MariaDb => &["GRANT CONNECTION ADMIN", "GRANT READ_ONLY ADMIN"],
        };
        let server = bank(flavor, more);
        server.sql(&format!("REVOKE CREATE USER ON *.* FROM {FENCE}@'%'"));
        let before = state(&server);
        let (ledger, mut tasks) = application(&server, "app", 3);
        ledger.grown(&ledger.written, 20).await;
        let fence = Fence {
            accounts: vec![Pattern::parse("app")],
            read_only: true,
            ..fence(&server)
        };
        let raised = raise(&fence, 1).await;
        let proven_at = Instant::now();
        assert_eq!(raised.verdict(), Verdict::Proven, "{raised:#?}");
        assert!(
            matches!(held(&raised, Part::Accounts), Some(Held::NotAllowed(_))),
            "{raised:#?}"
        );
        ledger.grown(&ledger.refused, 30).await;
        assert!(ledger.last.lock().expect("last").expect("it wrote") <= proven_at);
        assert_eq!(raise_quietly(&fence, 2).await, Verdict::Proven, "with a newer mark");
        lift(&fence, 3).await;
        assert_eq!(state(&server), before);
        ledger.grown(&ledger.written, 10).await;
        ledger.stop.store(true, Ordering::SeqCst);
        while tasks.join_next().await.is_some() {}
    }
}

/// Locks and `read_only` that somebody else set stay as they are.
#[tokio::test]
async fn a_server_that_was_read_only_before_stays_so() {
    let server = bank(
        Flavor::MySql,
        &["GRANT CONNECTION_ADMIN", "GRANT SYSTEM_VARIABLES_ADMIN"],
    );
    server.sql("SET GLOBAL super_read_only = ON");
    let before = state(&server);
    let raised = raise(&fence(&server), 1).await;
    assert_eq!(raised.verdict(), Verdict::Proven, "{raised:#?}");
    assert!(raised.changes.is_empty(), "{raised:#?}");
    lift(&fence(&server), 1).await;
    assert_eq!(state(&server), before);
}

/// An event runs under a locked account.
#[tokio::test]
async fn an_event_that_goes_on_is_stopped_or_told() {
    for flavor in Flavor::ALL {
        let server = bank(flavor, own(flavor));
        server.sql(
            "SET GLOBAL event_scheduler = ON;
             CREATE DEFINER = app@'%' EVENT bank.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO bank.moved (who) VALUES (99)",
        );
        let before = state(&server);
        let raised = raise(&fence(&server), 1).await;
        assert!(
            matches!(raised.verdict(), Verdict::Unprovable(why) if why.contains("bank.tick")),
            "{raised:#?}"
        );
        // And it does go on: the lock alone would have been a lie.
        let count = || {
            server
                .sql("SELECT COUNT(*) FROM bank.moved WHERE who = 99")
                .trim()
                .to_owned()
        };
        let (began, was) = (Instant::now(), count());
        while count() == was {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "the event does not run under a locked account"
            );
        }
        let more = match flavor {
            Flavor::MySql => "SYSTEM_VARIABLES_ADMIN",
            Flavor::MariaDb => "SUPER",
        };
        server.sql(&format!("GRANT {more} ON *.* TO {FENCE}@'%'"));
        let raised = raise(&fence(&server), 1).await;
        assert_eq!(raised.verdict(), Verdict::Proven, "{raised:#?}");
        assert!(raised.changes.contains(&Change::EventsStopped));
        lift(&fence(&server), 1).await;
        assert_eq!(state(&server), before);
    }
}

/// Someone who began to log in before the lock is waited for.
#[tokio::test]
async fn a_login_that_began_before_the_lock_is_waited_for() {
    for flavor in Flavor::ALL {
        let server = bank(flavor, own(flavor));
        server.sql("SET GLOBAL connect_timeout = 4");
        let early = std::net::TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
        let listed =
            || server.sql("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'unauthenticated user'");
        while listed().trim() != "1" {
            std::thread::yield_now();
        }
        let began = Instant::now();
        let hasty = Fence {
            patience: Duration::from_millis(500),
            ..fence(&server)
        };
        let raised = raise(&hasty, 1).await;
        assert!(
            matches!(raised.verdict(), Verdict::Failed(why) if why.contains("began before the lock")),
            "{raised:#?}"
        );
        let raised = raise(&fence(&server), 1).await;
        assert_eq!(raised.verdict(), Verdict::Proven, "{raised:#?}");
        assert_eq!(listed().trim(), "0", "after {:?}", began.elapsed());
        drop(early);
    }
}
