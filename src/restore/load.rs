//! Rows into tables: several sessions, each with one member at a time, each member in one transaction.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use memchr::memmem;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::ledger;
use super::plan::{Plan, PlannedTable};
use super::statements::Splitter;
use crate::backup::archive::{Archive, place};
use crate::dump::literal::qualified;
use crate::mysql::{Address, DbError, Session};

/// How long a target may be away (a restart, a failover of its own) before the restore gives up.
pub const PATIENCE: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Figures for people, read while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    pub stored_bytes: AtomicU64,
    pub rows: AtomicU64,
    pub retries: AtomicU64,
    /// Something is on the target.
    pub is_begun: AtomicBool,
}

/// What sessions share.
pub struct Loading {
    pub address: Address,
    pub archive: Archive,
    pub plan: Arc<Plan>,
    pub progress: Arc<Progress>,
    pub cancel: CancellationToken,
    /// What this run proves itself by; see [`ledger::is_mine`].
    pub run: String,
}

/// What one session does in one go.
#[derive(Debug, Clone)]
pub enum Job {
    /// One member, in a transaction with its line in the ledger.
    Member(usize),
    /// All members of a table whose engine knows no transactions: made anew first, since an interrupted load left rows.
    WholeTable(Box<PlannedTable>),
    /// Keys that waited for the rows.
    Keys(Box<PlannedTable>),
}

impl Loading {
    /// Does all jobs, `sessions` at a time.
    ///
    /// # Errors
    /// The first that a job ended with; the others are stopped where they are.
    pub async fn run(self: &Arc<Self>, jobs: Vec<Job>, sessions: usize) -> Result<(), RestoreError> {
        let workers = sessions.clamp(1, jobs.len().max(1));
        let jobs = Arc::new(Mutex::new(VecDeque::from(jobs)));
        let mut tasks = JoinSet::new();
        for _ in 0..workers {
            let (loading, jobs) = (Arc::clone(self), Arc::clone(&jobs));
            tasks.spawn(async move { loading.work(&jobs).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| Err(RestoreError::Panicked(error.to_string())))?;
        }
        Ok(())
    }

    async fn work(&self, jobs: &Mutex<VecDeque<Job>>) -> Result<(), RestoreError> {
        let mut session = None;
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(job) = next else { break };
            self.patiently(&mut session, &job).await?;
        }
        if let Some(session) = session {
            session.close().await;
        }
        Ok(())
    }

    /// Does a job, again and again while the target or the store is away.
    async fn patiently(&self, session: &mut Option<Session>, job: &Job) -> Result<(), RestoreError> {
        let until = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            let done = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(RestoreError::Cancelled),
                done = self.once(session, job) => done,
            };
            match done {
                Ok(()) => return Ok(()),
                Err(error) if error.is_passing() && Instant::now() + pause < until => {
                    tracing::info!(%error, "a part of the restore is repeated");
                    self.progress.retries.fetch_add(1, Relaxed);
                    *session = None;
                    tokio::select! {
                        () = self.cancel.cancelled() => return Err(RestoreError::Cancelled),
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn once(&self, session: &mut Option<Session>, job: &Job) -> Result<(), RestoreError> {
        let session = match session {
            Some(session) => session,
            None => session.insert(connect(&self.address, &self.plan).await?),
        };
        match job {
            Job::Member(number) => self.member(session, *number).await,
            Job::WholeTable(table) => self.whole_table(session, table).await,
            Job::Keys(table) => {
                self.prove(session).await?;
                keys(session, table).await
            }
        }
    }

    async fn member(&self, session: &mut Session, number: usize) -> Result<(), RestoreError> {
        let line = ledger::loaded_statement(&self.archive.digest, number);
        let text = self.archive.member(number).await?;
        session.execute("START TRANSACTION").await?;
        self.prove(session).await?;
        match session.execute(&line).await {
            Ok(()) => {}
            // Loaded before, and only the answer was lost.
            Err(error) if is_duplicate(&error) => {
                session.execute("ROLLBACK").await?;
                self.count(number);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.rows(session, number, &text).await?;
        session.execute("COMMIT").await?;
        self.count(number);
        Ok(())
    }

    /// Somebody else may have taken the restore over while this session was away.
    async fn prove(&self, session: &mut Session) -> Result<(), RestoreError> {
        if ledger::is_mine(session, &self.archive.digest, &self.run).await? {
            Ok(())
        } else {
            Err(RestoreError::TakenOver)
        }
    }

    async fn whole_table(&self, session: &mut Session, table: &PlannedTable) -> Result<(), RestoreError> {
        self.prove(session).await?;
        // Not TRUNCATE, which ARCHIVE does not know.
        let name = qualified(&table.schema, &table.name);
        session.execute(format!("DROP TABLE IF EXISTS {name}")).await?;
        session
            .execute(format!("USE {}", crate::dump::literal::identifier(&table.schema)))
            .await?;
        session.execute(&table.deferred.create).await?;
        for &number in &table.members {
            let text = self.archive.member(number).await?;
            self.prove(session).await?;
            self.rows(session, number, &text).await?;
        }
        for &number in &table.members {
            match session
                .execute(ledger::loaded_statement(&self.archive.digest, number))
                .await
            {
                // From before an interruption, after which the table was made anew.
                Err(error) if is_duplicate(&error) => {}
                done => done?,
            }
            self.count(number);
        }
        Ok(())
    }

    /// Sends a member's statements and checks that the server took as many rows as it holds.
    async fn rows(&self, session: &mut Session, number: usize, text: &[u8]) -> Result<(), RestoreError> {
        let record = &self.archive.index.members[number];
        let mut rows = 0;
        for statement in statements(text)? {
            let statement = self.plan.naming.insert(statement.as_ref(), &record.schema)?;
            for part in parts(statement.as_ref(), self.plan.longest_statement_bytes) {
                rows += session.change(part).await?;
            }
        }
        if rows == record.rows {
            return Ok(());
        }
        Err(RestoreError::Rows {
            place: place(record, number),
            detail: format!("{rows} rows arrived of {}", record.rows),
        })
    }

    fn count(&self, number: usize) {
        let record = &self.archive.index.members[number];
        self.progress.stored_bytes.fetch_add(record.stored_bytes, Relaxed);
        self.progress.rows.fetch_add(record.rows, Relaxed);
    }
}

/// A session with the backup's settings, marked as one that loads.
pub async fn connect(address: &Address, plan: &Plan) -> Result<Session, DbError> {
    let mut session = address.connect().await?;
    ledger::enlist(&mut session).await?;
    for setting in &plan.settings {
        session.execute(setting).await?;
    }
    Ok(session)
}

/// Builds a table's keys; those that are there already, from before an interruption, stay.
async fn keys(session: &mut Session, table: &PlannedTable) -> Result<(), RestoreError> {
    let there = format!(
        "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        crate::dump::literal::string(&table.schema),
        crate::dump::literal::string(&table.name)
    );
    let there: Vec<String> = session.text(&there).await?.into_iter().flatten().collect();
    let is_missing = |key: &&Vec<u8>| {
        let at = key.iter().position(|&b| b == b'`').unwrap_or(0);
        super::schema::identifier(&key[at..])
            .is_none_or(|(name, _)| !there.iter().any(|known| known.eq_ignore_ascii_case(&name)))
    };
    let name = qualified(&table.schema, &table.name);
    let missing: Vec<&Vec<u8>> = table.deferred.keys.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        build(session, alter(&name, &missing)).await?;
    }
    for key in table.deferred.fulltext_keys.iter().filter(is_missing) {
        build(session, alter(&name, &[key])).await?;
    }
    Ok(())
}

/// A key that is there all of a sudden was built by a session whose connection was lost: looked at again.
async fn build(session: &mut Session, sql: Vec<u8>) -> Result<(), RestoreError> {
    match session.execute(sql).await {
        Err(DbError::Refused { detail, .. }) if detail.starts_with("1061:") => {
            Err(RestoreError::Target(DbError::Interrupted { detail }))
        }
        done => Ok(done?),
    }
}

/// `ALTER TABLE … ADD …, ADD …`
pub fn alter(table: &str, clauses: &[&Vec<u8>]) -> Vec<u8> {
    let mut sql = format!("ALTER TABLE {table}").into_bytes();
    for (number, clause) in clauses.iter().enumerate() {
        sql.extend_from_slice(if number == 0 { b" ADD " } else { b", ADD " });
        sql.extend_from_slice(clause);
    }
    sql
}

/// ER_DUP_ENTRY
fn is_duplicate(error: &DbError) -> bool {
    match error {
        DbError::Refused { detail, .. } => detail.starts_with("1062:"),
        _ => false,
    }
}

/// Where the rows of an `INSERT` begin: after ` VALUES` and its line break, which a name may hold, too.
fn rows_at(statement: &[u8]) -> Option<usize> {
    const VALUES: &[u8] = b" VALUES\n";
    let mut in_name = false;
    for (at, &byte) in statement.iter().enumerate() {
        if byte == b'`' {
            in_name = !in_name;
        } else if byte == b' ' && !in_name && statement[at..].starts_with(VALUES) {
            return Some(at + VALUES.len());
        }
    }
    None
}

/// A data member's statements. Values hold no line break, so that `;` before one ends a statement; only names may
/// hold one, and then the text is split the slow way.
fn statements(text: &[u8]) -> Result<Vec<std::borrow::Cow<'_, [u8]>>, RestoreError> {
    use std::borrow::Cow;
    let Some(head) = rows_at(text) else {
        return Ok(Vec::new());
    };
    if text[..head - 1].contains(&b'\n') {
        return Ok(Splitter::all(text)?.into_iter().map(Cow::Owned).collect());
    }
    let mut statements = Vec::new();
    let mut start = 0;
    for end in memmem::find_iter(text, b";\n") {
        statements.push(Cow::Borrowed(&text[start..end]));
        start = end + 2;
    }
    Ok(statements)
}

/// A statement in parts of at most `longest` bytes, cut between rows. One row alone may be longer; then the server says
/// so.
fn parts(statement: &[u8], longest: usize) -> Vec<std::borrow::Cow<'_, [u8]>> {
    use std::borrow::Cow;
    if statement.len() <= longest {
        return vec![Cow::Borrowed(statement)];
    }
    let Some(head) = rows_at(statement) else {
        return vec![Cow::Borrowed(statement)];
    };
    let rows = &statement[head..];
    let mut parts: Vec<Cow<'_, [u8]>> = Vec::new();
    let mut start = 0;
    let mut end = 0;
    let ends = memmem::find_iter(rows, b",\n(").chain([rows.len()]);
    let mut cut = |start: usize, end: usize| {
        let mut part = statement[..head].to_vec();
        part.extend_from_slice(&rows[start..end]);
        parts.push(Cow::Owned(part));
    };
    for next in ends {
        if end > start && head + (next - start) > longest {
            cut(start, end);
            start = end + 2;
        }
        end = next;
    }
    cut(start, end);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_split_where_its_statements_end() {
        let text = b"INSERT INTO `s`.`t` (`a`) VALUES\n('x;\\n'),\n(';');\nINSERT INTO `s`.`t` (`a`) VALUES\n(1);\n";
        let found = statements(text).expect("complete");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].as_ref(), b"INSERT INTO `s`.`t` (`a`) VALUES\n(1)");
        let text = b"INSERT INTO `s`.`t;\nu` (`a`) VALUES\n('x');\n";
        let found = statements(text).expect("complete");
        assert_eq!(found.len(), 1, "a line break in a name ends nothing");
        let text = b"INSERT INTO `s`.`t`` VALUES\n;\n` (`a VALUES\n`) VALUES\n('x');\nINSERT INTO `s`.`t` (`a`) VALUES\n('y');\n";
        assert_eq!(
            statements(text).expect("complete").len(),
            2,
            "nor does one after such a word"
        );
    }

    #[test]
    fn a_name_that_says_values_is_no_beginning_of_rows() {
        let cut: Vec<String> = parts(b"INSERT INTO `t VALUES\n(` (`a`) VALUES\n(1),\n(2)", 40)
            .iter()
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect();
        assert_eq!(
            cut,
            [
                "INSERT INTO `t VALUES\n(` (`a`) VALUES\n(1)",
                "INSERT INTO `t VALUES\n(` (`a`) VALUES\n(2)"
            ]
        );
    }

    #[test]
    fn a_statement_too_long_is_cut_between_rows() {
        let statement = b"INSERT INTO `t` (`a`) VALUES\n(1),\n(22),\n(333)";
        assert_eq!(parts(statement, 1_000).len(), 1);
        let cut: Vec<String> = parts(statement, 40)
            .iter()
            .map(|part| String::from_utf8_lossy(part).into_owned())
            .collect();
        assert_eq!(
            cut,
            [
                "INSERT INTO `t` (`a`) VALUES\n(1),\n(22)",
                "INSERT INTO `t` (`a`) VALUES\n(333)"
            ]
        );
        assert_eq!(parts(statement, 5).len(), 3, "a row alone is not cut");
    }
}
