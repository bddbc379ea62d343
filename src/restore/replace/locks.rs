//! Statements that need a table to themselves: repeated for a while where somebody uses it, with a bound, and who it is told.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::judge::LOCK_WAIT_SECONDS;
use crate::dump::literal::string;
use crate::mysql::{DbError, Session};
use crate::restore::error::RestoreError;
use crate::restore::ledger;

/// Waits of `LOCK_WAIT_SECONDS` each. Whoever comes while one waits queues behind it, so there is a pause after each.
const TRIES: u32 = 24;
const PAUSE: Duration = Duration::from_secs(2);

/// The session of a swap or of its taking back.
pub struct Careful<'a> {
    pub session: Session,
    /// The restore, and what this run of it proves itself by.
    pub digest: &'a str,
    pub run: &'a str,
    pub cancel: &'a CancellationToken,
}

impl Careful<'_> {
    /// Runs one statement, if the restore still is this run's.
    ///
    /// # Errors
    /// [`RestoreError::InUse`] where the locks were not to be had for minutes.
    pub async fn run(&mut self, sql: impl AsRef<[u8]> + Send) -> Result<(), RestoreError> {
        let sql = sql.as_ref();
        for number in 1..=TRIES {
            self.prove().await?;
            match self.session.execute(sql).await {
                Err(DbError::LockWait { .. }) => {}
                done => return Ok(done?),
            }
            let who = users(&mut self.session).await;
            if number == TRIES {
                return Err(RestoreError::InUse(who));
            }
            tracing::warn!("the tables that are to change places are in use{who}; trying again");
            tokio::select! {
                () = self.cancel.cancelled() => return Err(RestoreError::Cancelled),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        Ok(())
    }

    async fn prove(&mut self) -> Result<(), RestoreError> {
        if self.cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if ledger::is_mine(&mut self.session, self.digest, self.run).await? {
            Ok(())
        } else {
            Err(RestoreError::TakenOver)
        }
    }
}

/// Makes a session one that does not wait for a lock forever, and can be found and ended.
pub async fn bound(session: &mut Session) -> Result<(), DbError> {
    session
        .execute(format!(
            "SET SESSION lock_wait_timeout = {LOCK_WAIT_SECONDS}, foreign_key_checks = 0, wait_timeout = 86400"
        ))
        .await
}

/// Who holds open transactions: ` (by app@10.0.0.7:4711, session 12)`; empty where nobody may know.
async fn users(session: &mut Session) -> String {
    let sql = format!(
        "SELECT CONCAT(p.USER, '@', p.HOST, ', session ', p.ID) FROM information_schema.INNODB_TRX t JOIN \
         information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id WHERE p.ID <> CONNECTION_ID() AND p.USER <> {} \
         ORDER BY t.trx_started LIMIT 5",
        string("system user")
    );
    let rows = session.text(&sql).await.unwrap_or_default();
    let who: Vec<String> = rows.into_iter().flatten().collect();
    if who.is_empty() {
        String::new()
    } else {
        format!(" (open transactions: {})", who.join("; "))
    }
}
