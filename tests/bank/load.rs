//! Writers at work: one thread, a few sessions, each as fast as the server answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use jiff::Timestamp;
use planb::clock::{Clock, SystemClock};
use planb::config::Tls;
use planb::mysql::{Address, DbError};
use planb::secret::Secret;

use super::{ACCOUNTS, Dice, KEPT, TABLES, WRITERS, account};
use crate::support::{Endpoint, PASSWORD};

/// When each writer's transfers were acknowledged: element `n - 1` is of transfer `n`.
pub type Acknowledged = Arc<Vec<Mutex<Vec<Timestamp>>>>;

pub fn nothing_yet() -> Acknowledged {
    Arc::new((0..WRITERS).map(|_| Mutex::default()).collect())
}

/// The number of the newest acknowledged transfer of each writer.
pub fn newest(acknowledged: &Acknowledged) -> Vec<i64> {
    let length = |times: &Mutex<Vec<Timestamp>>| times.lock().unwrap_or_else(PoisonError::into_inner).len();
    acknowledged
        .iter()
        .map(|times| i64::try_from(length(times)).expect("few"))
        .collect()
}

/// The number of each writer's newest transfer acknowledged before `at`.
pub fn newest_at(acknowledged: &Acknowledged, at: Timestamp) -> Vec<i64> {
    let before = |times: &Mutex<Vec<Timestamp>>| {
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        i64::try_from(times.partition_point(|time| *time < at)).expect("few")
    };
    acknowledged.iter().map(before).collect()
}

/// An account that writes; the same on replicas.
pub fn create_teller(server: &Endpoint) {
    server.sql(&format!(
        "CREATE USER teller@'%' IDENTIFIED BY '{PASSWORD}';
         GRANT ALL ON bank.* TO teller@'%'; GRANT ALL ON bank2.* TO teller@'%';"
    ));
}

pub fn teller(server: &Endpoint) -> Address {
    Address {
        host: "127.0.0.1".into(),
        port: server.port,
        user: "teller".into(),
        password: Secret::new(PASSWORD),
        token_login: false,
        tls: Tls::Off,
        tls_ca: None,
    }
}

/// Writers that run until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Acknowledged,
    begun: Instant,
    begun_with: i64,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Goes on where `acknowledged` ends, which must be where the bank stands.
    pub fn start(server: &Endpoint, acknowledged: &Acknowledged, dice: &mut Dice) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, halt, told) = (teller(server), Arc::clone(&stop), Arc::clone(acknowledged));
        let writers: Vec<(u64, Dice)> = (0..WRITERS).map(|w| (w, dice.split())).collect();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let all = writers
                .into_iter()
                .map(|(w, dice)| writer(&address, w, dice, &told, &halt));
            runtime.block_on(futures_util::future::join_all(all));
        });
        let begun_with = newest(acknowledged).iter().sum();
        Self {
            stop,
            acknowledged: Arc::clone(acknowledged),
            begun: Instant::now(),
            begun_with,
            thread: Some(thread),
        }
    }

    /// Transfers a second so far.
    pub fn per_second(&self) -> f64 {
        let done = newest(&self.acknowledged).iter().sum::<i64>() - self.begun_with;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let done = done as f64;
        done / self.begun.elapsed().as_secs_f64()
    }

    /// Returns when every writer has its last answer.
    pub fn stop(mut self) -> f64 {
        let rate = self.per_second();
        self.end();
        rate
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a writer failed");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn writer(address: &Address, w: u64, mut dice: Dice, acknowledged: &Acknowledged, stop: &AtomicBool) {
    let mut session = address.connect().await.expect("the bank is open");
    let times = &acknowledged[usize::try_from(w).expect("few")];
    let mut n = i64::try_from(times.lock().unwrap_or_else(PoisonError::into_inner).len()).expect("few");
    while !stop.load(Ordering::Relaxed) {
        let sql = transfer(&mut dice, w, n + 1);
        match session.execute(&sql).await {
            Ok(()) => {
                n += 1;
                times
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(SystemClock.now());
            }
            // The victim of a deadlock, or of somebody's table lock: what an application would repeat.
            Err(DbError::LockWait { .. }) => session.execute("ROLLBACK").await.expect("a rollback"),
            Err(error) => panic!("writer {w}: {error}"),
        }
    }
    session.close().await;
}

/// Two or three accounts of different tables, always asked for in the same order so that transfers do not deadlock.
fn transfer(dice: &mut Dice, w: u64, n: i64) -> String {
    let left_out = dice.below_usize(TABLES.len());
    let mut tables: Vec<usize> = (0..TABLES.len()).filter(|table| *table != left_out).collect();
    if dice.below(2) == 0 {
        tables.remove(dice.below_usize(tables.len()));
    }
    let amount = i64::try_from(dice.below(100)).expect("small") + 1;
    let mut sql = String::from("BEGIN;");
    let last = tables.len() - 1;
    for (i, table) in tables.iter().enumerate() {
        // +amount for each but the last, which gives all of it.
        let change = if i == last {
            -amount * i64::try_from(last).expect("small")
        } else {
            amount
        };
        let place = account(*table, dice.below(ACCOUNTS));
        sql.push_str(&format!(
            "UPDATE {} SET balance = balance + ({change}) WHERE {place};",
            TABLES[*table]
        ));
    }
    sql.push_str(&format!(
        "UPDATE bank.writers SET n = {n} WHERE w = {w};INSERT INTO bank.ledger (w, n) VALUES ({w}, {n});\
         DELETE FROM bank.ledger WHERE w = {w} AND n = {};COMMIT",
        n - KEPT
    ));
    sql
}
