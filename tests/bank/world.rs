//! Servers with a bank on them, and the ways in which PlanB reaches one point in time there.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::load::{Acknowledged, create_teller, nothing_yet};
use super::opening;
use crate::support::{Endpoint, Flavor, PASSWORD, Planb, Server, rds_heartbeat, rds_like_account, reader};
use planb::config::{Config, Tls};
use planb::mysql::Address;
use planb::secret::Secret;

/// One source, perhaps with a replica, and nobody else at work meanwhile: figures would mean nothing.
pub struct World {
    pub source: Server,
    pub replica: Option<Server>,
    pub acknowledged: Acknowledged,
    target: OnceLock<Server>,
    _alone: MutexGuard<'static, ()>,
}

/// What must be known about the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Nothing,
    Range,
    Exact,
    /// Exact where the server was quiet for an instant, else a range.
    Either,
}

/// One way, with everything set up for it.
pub struct Way {
    pub name: &'static str,
    pub planb: Planb,
    pub at_replica: bool,
    /// As the index must name it.
    pub way: &'static str,
    /// Or that, where the first was not to be had in time.
    pub else_way: Option<&'static str>,
    pub known: Known,
    /// An attempt may starve: then it must fail, and nothing else.
    pub may_starve: bool,
}

/// Small files: that the log rotates while snapshots are taken is part of the test. And nothing of the filler in them.
const LOG_ARGS: [&str; 2] = ["--max-binlog-size=1M", "--binlog-row-image=MINIMAL"];

const HEARTBEAT: &str = "mysql.rds_heartbeat2";

impl World {
    pub fn new(flavor: Flavor, source_args: &[&str], filler_bytes: usize) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut args = LOG_ARGS.to_vec();
        args.extend(source_args);
        let source = Server::start(flavor, &args);
        source.sql(&opening(filler_bytes));
        create_teller(&source);
        Self {
            source,
            replica: None,
            acknowledged: nothing_yet(),
            target: OnceLock::new(),
            _alone: alone,
        }
    }

    /// A replica that has caught up with what there is.
    pub fn with_replica(mut self, args: &[&str]) -> Self {
        let mut all = vec!["--server-id=2"];
        all.extend(LOG_ARGS);
        all.extend(args);
        let replica = Server::start(self.source.flavor, &all);
        let port = self.source.port;
        self.source.sql(&format!(
            "CREATE USER repl@'%' IDENTIFIED BY '{PASSWORD}'; GRANT REPLICATION SLAVE ON *.* TO repl@'%';"
        ));
        let caught_up = match self.source.flavor {
            Flavor::MySql => {
                replica.sql(&format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', \
                     SOURCE_PASSWORD='{PASSWORD}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1; START REPLICA;"
                ));
                let there = self.source.sql("SELECT @@global.gtid_executed");
                format!(
                    "SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', 60)",
                    there.trim().replace("\\n", "")
                )
            }
            Flavor::MariaDb => {
                replica.sql(&format!(
                    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
                     MASTER_PASSWORD='{PASSWORD}', MASTER_USE_GTID=slave_pos; START SLAVE;"
                ));
                let there = self.source.sql("SELECT @@global.gtid_binlog_pos");
                format!("SELECT MASTER_GTID_WAIT('{}', 60)", there.trim())
            }
        };
        assert_eq!(replica.sql(&caught_up).trim(), "0", "the replica did not catch up");
        self.replica = Some(replica);
        self
    }

    /// An empty server to load dumps into. RDS's own table is on it, as on every RDS, since the log names it.
    pub fn target(&self) -> &Server {
        self.target.get_or_init(|| {
            let target = Server::start(self.source.flavor, &[]);
            target.sql(&format!(
                "CREATE TABLE {HEARTBEAT} (id INT NOT NULL PRIMARY KEY, value BIGINT)"
            ));
            target.sql(&format!("INSERT INTO {HEARTBEAT} VALUES (1, 0)"));
            target
        })
    }

    pub fn server(&self, way: &Way) -> &Server {
        if way.at_replica {
            self.replica.as_ref().expect("a replica")
        } else {
            &self.source
        }
    }
}

impl Way {
    fn new(name: &'static str, planb: Planb, way: &'static str, known: Known) -> Self {
        planb.configure("[backup]\nverify_source = \"never\"\ntimeout = \"2m\"");
        Self {
            name,
            planb,
            at_replica: false,
            way,
            else_way: None,
            known,
            may_starve: false,
        }
    }

    pub fn config(&self) -> Config {
        Config::load(&self.planb.config()).expect("a configuration")
    }

    /// What the program under test logs in with.
    pub fn address(&self, server: &Endpoint) -> Address {
        let (_, password) = self.planb.env.first().expect("a password");
        Address {
            host: "127.0.0.1".into(),
            port: server.port,
            user: self.config().source.user,
            password: Secret::new(password.as_str()),
            token_login: false,
            tls: Tls::Off,
            tls_ca: None,
        }
    }

    fn set(self, line: &str) -> Self {
        self.planb.reconfigure("[backup]", &format!("[backup]\n{line}"));
        self
    }

    /// An account that may lock everything.
    pub fn global_lock(server: &Endpoint, known: Known) -> Self {
        let grants = reader(server, &["RELOAD"]);
        let mut way = Self::new("global lock", Planb::new(server, &grants), "global-lock", known);
        // Whoever does not get the lock within `lock_wait` goes on without.
        way.else_way = Some("single-session");
        way
    }

    /// An account that may lock, told not to.
    pub fn one_session(server: &Endpoint, known: Known) -> Self {
        let planb = Planb::new(server, &reader(server, &["RELOAD"]));
        Self::new("one session", planb, "single-session", known).set("lock = \"none\"")
    }

    pub fn table_locks(server: &Endpoint) -> Self {
        let planb = Planb::new(server, &reader(server, &["LOCK TABLES"]));
        let mut way = Self::new("table locks", planb, "table-locks", Known::Range).set("lock = \"tables\"");
        way.may_starve = true;
        way
    }

    /// What RDS gives, with RDS's own writer at work.
    pub fn rds_like(server: &Endpoint, way: &'static str, known: Known) -> Self {
        if server.flavor == Flavor::MySql {
            rds_heartbeat(server);
            server.sql(&format!("INSERT IGNORE INTO {HEARTBEAT} VALUES (1, 0)"));
        }
        let (user, password) = rds_like_account(server);
        let mut planb = Planb::new(server, &user);
        planb.env = vec![("PLANB_SOURCE_PASSWORD".into(), password)];
        Self::new("RDS-like account", planb, way, known)
    }

    pub fn snapshots(server: &Endpoint) -> Self {
        let planb = Planb::new(server, &reader(server, &[]));
        let mut way = Self::new("equal snapshots", planb, "mariadb-snapshot", Known::Exact);
        way.else_way = Some("single-session");
        way
    }

    pub fn paused_replica(world: &World) -> Self {
        let server = world.replica.as_ref().expect("a replica");
        let grant = match server.flavor {
            Flavor::MySql => "REPLICATION_SLAVE_ADMIN",
            Flavor::MariaDb => "REPLICATION SLAVE ADMIN",
        };
        let planb = Planb::new(server, &pauser(server, grant));
        planb.reconfigure("tls = \"off\"", "tls = \"off\"\npause_replica = true");
        let mut way = Self::new("paused replica", planb, "paused-replica", Known::Exact);
        way.at_replica = true;
        way
    }

    /// A replica that is merely read.
    pub fn replica_as_it_runs(world: &World, way: &'static str, known: Known) -> Self {
        let server = world.replica.as_ref().expect("a replica");
        let planb = Planb::new(server, &pauser(server, "RELOAD"));
        let mut way = Self::new("replica as it runs", planb, way, known).set("lock = \"none\"");
        way.at_replica = true;
        way
    }
}

/// `reader` under a name that the source does not know, so that replication has nothing to say about it.
fn pauser(replica: &Endpoint, grant: &str) -> String {
    let more = match replica.flavor {
        Flavor::MySql => "REPLICATION CLIENT",
        Flavor::MariaDb => "BINLOG MONITOR, REPLICA MONITOR",
    };
    replica.sql(&format!(
        "CREATE USER IF NOT EXISTS pauser@'%' IDENTIFIED BY '{PASSWORD}';
         GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, PROCESS, {more}, {grant} ON *.* TO pauser@'%';"
    ));
    "pauser".to_owned()
}
