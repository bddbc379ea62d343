//! A conversation with MySQL or MariaDB. The only module that names the database driver.
//!
//! Rows travel in the text protocol and reach the caller as the server's own bytes, without a copy:
//! a dump wants exactly the text, and parsing it into values would only lose bits.

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::mysql::{MySqlConnectOptions, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySqlConnection, Row as _};

use crate::config::Tls;
use crate::secret::Secret;

pub mod dialect;
pub mod error;
pub mod grants;

pub use error::DbError;

/// Where and how to log in. `Debug` prints no secret.
#[derive(Debug, Clone)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
    /// The password is a token that travels as it is (RDS IAM), which only TLS makes safe.
    pub token_login: bool,
    pub tls: Tls,
    /// Authority that signed the server's certificate, PEM. Required where TLS is: a system's own roots
    /// sign neither RDS nor Azure Database for MySQL certificates.
    pub tls_ca: Option<Vec<u8>>,
}

/// A server that does not answer at all must not hold a run for the kernel's two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One logged-in connection.
pub struct Session {
    connection: MySqlConnection,
    /// The server's number of this connection, for `KILL QUERY`.
    pub id: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Address {
    fn options(&self) -> MySqlConnectOptions {
        let options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(self.password.expose())
            // sqlx would otherwise force its own ideas of sql_mode on every session.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(Some("+00:00".to_owned()))
            .enable_cleartext_plugin(self.token_login && self.tls == Tls::Required)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        match (self.tls, &self.tls_ca) {
            (Tls::Off, _) => options.ssl_mode(MySqlSslMode::Disabled),
            (Tls::Required, Some(pem)) => options
                .ssl_mode(MySqlSslMode::VerifyIdentity)
                .ssl_ca_from_pem(pem.clone()),
            (Tls::Required, None) => options.ssl_mode(MySqlSslMode::VerifyIdentity),
        }
    }

    /// Logs in and prepares the session for reading bytes as they are stored.
    ///
    /// # Errors
    /// [`DbError::Denied`] for a wrong account, [`DbError::Unreachable`] when nothing answers within 10 s.
    pub async fn connect(&self) -> Result<Session, DbError> {
        let place = format!("{}:{}", self.host, self.port);
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.options().connect()).await;
        let connection = match opened {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(DbError::at_connect(&place, &self.user, error)),
            Err(_) => {
                return Err(DbError::Unreachable {
                    place,
                    detail: format!("no answer within {CONNECT_TIMEOUT:?}"),
                });
            }
        };
        let mut session = Session { connection, id: 0 };
        session.id = session.number("SELECT CONNECTION_ID()").await?;
        Ok(session)
    }
}

impl Session {
    /// Runs statements that return nothing of interest.
    pub async fn execute(&mut self, sql: &str) -> Result<(), DbError> {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut self.connection)
            .await
            .map(drop)
            .map_err(|error| DbError::at_statement(sql, error))
    }

    /// Starts a query whose rows are read one by one.
    pub fn query<'a>(&'a mut self, sql: &'a str) -> Rows<'a> {
        let stream = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch(&mut self.connection);
        Rows { stream, sql }
    }

    /// All rows of a small result; `None` is SQL NULL.
    pub async fn table(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>, DbError> {
        let mut rows = self.query(sql);
        let mut table = Vec::new();
        while let Some(row) = rows.next().await? {
            table.push((0..row.width()).map(|i| row.get(i).map(<[u8]>::to_vec)).collect());
        }
        Ok(table)
    }

    /// All rows of a small result as text: NULL becomes the empty string, bytes that are no UTF-8 are replaced.
    pub async fn text(&mut self, sql: &str) -> Result<Vec<Vec<String>>, DbError> {
        let table = self.table(sql).await?;
        let cell = |cell: Option<Vec<u8>>| {
            cell.map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default()
        };
        Ok(table
            .into_iter()
            .map(|row| row.into_iter().map(cell).collect())
            .collect())
    }

    /// The first row of a small result as text, with the names of its columns (lower case).
    pub async fn named(&mut self, sql: &str) -> Result<Vec<std::collections::HashMap<String, String>>, DbError> {
        let mut rows = self.query(sql);
        let mut named = Vec::new();
        while let Some(row) = rows.next().await? {
            named.push(
                (0..row.width())
                    .map(|i| (row.name(i).to_lowercase(), row.text(i)))
                    .collect(),
            );
        }
        Ok(named)
    }

    /// The first column of the first row as text; empty when there is no row.
    pub async fn scalar(&mut self, sql: &str) -> Result<String, DbError> {
        Ok(self
            .text(sql)
            .await?
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
            .unwrap_or_default())
    }

    /// The first column of the first row as a number.
    pub async fn number(&mut self, sql: &str) -> Result<u64, DbError> {
        let text = self.scalar(sql).await?;
        text.parse().map_err(|_| DbError::Odd {
            sql: error::shortened(sql),
            detail: format!("not a number: {text:?}"),
        })
    }

    /// Ends the conversation politely; a dead connection is no error here.
    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.connection.close()).await;
    }
}

/// Rows of a running query. Dropping it early leaves the rest to be read before the next statement.
pub struct Rows<'a> {
    stream: BoxStream<'a, Result<MySqlRow, sqlx::Error>>,
    sql: &'a str,
}

impl Rows<'_> {
    pub async fn next(&mut self) -> Result<Option<Row>, DbError> {
        self.stream
            .try_next()
            .await
            .map(|row| row.map(Row))
            .map_err(|error| DbError::at_statement(self.sql, error))
    }
}

/// One row, as the server sent it.
pub struct Row(MySqlRow);

impl Row {
    pub fn width(&self) -> usize {
        self.0.columns().len()
    }

    /// A column's bytes; `None` is SQL NULL.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.0.try_get_unchecked::<Option<&[u8]>, _>(index).ok().flatten()
    }

    pub fn text(&self, index: usize) -> String {
        self.get(index)
            .map(|b| String::from_utf8_lossy(b).into_owned())
            .unwrap_or_default()
    }

    pub fn name(&self, index: usize) -> &str {
        use sqlx::Column as _;
        self.0.columns().get(index).map_or("", |column| column.name())
    }
}
