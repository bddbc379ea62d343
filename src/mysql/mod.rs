//! A conversation with MySQL or MariaDB. The only module that names the database driver.
//!
//! Rows travel in the text protocol and reach the caller as the server's own bytes: a dump wants exactly the text, and
//! parsing it into values would only lose bits. Statements are bytes too, since a dump's need not be UTF-8.

use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, OptsBuilder, QueryResult, SslOpts, TextProtocol, Value};

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

/// Without TLS a password travels encrypted by the server's RSA key of 2048 bits with OAEP padding (RFC 8017: 256 - 42 bytes,
/// and a zero at the end). The driver would panic.
const LONGEST_PLAIN_PASSWORD_BYTES: usize = 213;

/// No packet is refused on this side: what is too large is the server's to say. (The protocol's own limit.)
const LARGEST_PACKET_BYTES: usize = 1 << 30;

/// One logged-in connection.
pub struct Session {
    /// None only once it is closed.
    connection: Option<Conn>,
    /// A query's rows were not read to their end.
    is_busy: bool,
    /// The server's number of this connection, for `KILL QUERY`.
    pub id: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Address {
    fn options(&self) -> OptsBuilder {
        let tls = match self.tls {
            Tls::Off => None,
            Tls::Required => Some(match &self.tls_ca {
                Some(pem) => SslOpts::default()
                    .with_root_certs(vec![pem.clone().into()])
                    .with_disable_built_in_roots(true),
                None => SslOpts::default(),
            }),
        };
        OptsBuilder::default()
            .ip_or_hostname(&self.host)
            .tcp_port(self.port)
            .user(Some(&self.user))
            .pass(Some(self.password.expose()))
            .enable_cleartext_plugin(self.token_login && self.tls == Tls::Required)
            .ssl_opts(tls)
            // Never around TLS by way of a socket that the server names.
            .prefer_socket(false)
            .stmt_cache_size(0)
            .max_allowed_packet(Some(LARGEST_PACKET_BYTES))
            // What keeps no connection alive on the way must not cut one that waits for a long statement.
            .tcp_keepalive(Some(Duration::from_secs(30)))
            // Not asked for: nobody waits for it here.
            .wait_timeout(Some(28_800))
            .setup(vec!["SET time_zone = '+00:00'"])
    }

    /// Logs in and prepares the session for reading bytes as they are stored.
    ///
    /// # Errors
    /// [`DbError::Denied`] for a wrong account, [`DbError::Unreachable`] when nothing answers within 10 s.
    pub async fn connect(&self) -> Result<Session, DbError> {
        let place = format!("{}:{}", self.host, self.port);
        if self.tls == Tls::Off && self.password.expose().len() > LONGEST_PLAIN_PASSWORD_BYTES {
            return Err(DbError::Odd {
                sql: "the login".to_owned(),
                detail:
                    "message too long: without TLS a password of more than 213 bytes does not fit the server's RSA key"
                        .to_owned(),
            });
        }
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(self.options())).await;
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
        Ok(Session {
            id: u64::from(connection.id()),
            connection: Some(connection),
            is_busy: false,
        })
    }
}

impl Session {
    /// Runs statements that return nothing of interest.
    pub async fn execute(&mut self, sql: impl AsRef<[u8]> + Send) -> Result<(), DbError> {
        let sql = sql.as_ref();
        let Some(connection) = &mut self.connection else {
            return Err(DbError::closed());
        };
        self.is_busy = true;
        let done = connection.query_drop(sql).await;
        self.is_busy = false;
        done.map_err(|error| DbError::at_statement(sql, error))
    }

    /// Runs a statement that holds a secret. An error calls it `shown`, and gives the server's own words only where they
    /// cannot quote it.
    pub async fn execute_secret(&mut self, sql: &Secret, shown: &str) -> Result<(), DbError> {
        let Some(connection) = &mut self.connection else {
            return Err(DbError::closed());
        };
        self.is_busy = true;
        let done = connection.query_drop(sql.expose()).await;
        self.is_busy = false;
        done.map_err(|error| DbError::at_secret_statement(shown, error))
    }

    /// Runs a statement that changes rows; how many it changed.
    pub async fn change(&mut self, sql: impl AsRef<[u8]> + Send) -> Result<u64, DbError> {
        self.execute(sql).await?;
        Ok(self.connection.as_ref().map_or(0, Conn::affected_rows))
    }

    /// Starts a query whose rows are read one by one.
    pub async fn query<'a>(&'a mut self, sql: &'a str) -> Result<Rows<'a>, DbError> {
        let Some(connection) = &mut self.connection else {
            return Err(DbError::closed());
        };
        self.is_busy = true;
        match connection.query_iter(sql).await {
            Ok(result) => Ok(Rows {
                result,
                is_busy: &mut self.is_busy,
                sql: error::shortened(sql),
            }),
            Err(error) => {
                self.is_busy = false;
                Err(DbError::at_statement(sql.as_bytes(), error))
            }
        }
    }

    /// All rows of a small result; `None` is SQL NULL.
    pub async fn table(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>, DbError> {
        let mut rows = self.query(sql).await?;
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

    /// The first two columns of a small result, as text.
    pub async fn pairs(&mut self, sql: &str) -> Result<Vec<(String, String)>, DbError> {
        let pair = |row: Vec<String>| {
            let mut row = row.into_iter();
            Some((row.next()?, row.next()?))
        };
        Ok(self.text(sql).await?.into_iter().filter_map(pair).collect())
    }

    /// The first row of a small result as text, with the names of its columns (lower case).
    pub async fn named(&mut self, sql: &str) -> Result<Vec<std::collections::HashMap<String, String>>, DbError> {
        let mut rows = self.query(sql).await?;
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
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take_if(|_| !self.is_busy) {
            let _ = tokio::time::timeout(Duration::from_secs(1), connection.disconnect()).await;
        }
    }
}

impl Drop for Session {
    /// The driver would spawn a task that reads to the end whatever a query still sends, and the server would go on
    /// holding snapshot and locks for nobody. Dropped where there is no runtime, it just ends the connection.
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            std::thread::scope(|scope| {
                // Where no thread is to be had, the driver's own way must do.
                let _ = std::thread::Builder::new().spawn_scoped(scope, || drop(connection));
            });
        }
    }
}

/// Rows of a running query. Dropping it early leaves the rest to be read before the next statement.
pub struct Rows<'a> {
    result: QueryResult<'a, 'static, TextProtocol>,
    is_busy: &'a mut bool,
    sql: String,
}

impl Rows<'_> {
    #[inline]
    pub async fn next(&mut self) -> Result<Option<Row>, DbError> {
        match self.result.next().await {
            Ok(Some(row)) => Ok(Some(Row(row))),
            Ok(None) => {
                *self.is_busy = false;
                Ok(None)
            }
            Err(error) => Err(DbError::at_statement(self.sql.as_bytes(), error)),
        }
    }
}

/// One row, as the server sent it.
pub struct Row(mysql_async::Row);

impl Row {
    pub fn width(&self) -> usize {
        self.0.len()
    }

    /// A column's bytes; `None` is SQL NULL.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        match self.0.as_ref(index) {
            Some(Value::Bytes(bytes)) => Some(bytes),
            // The text protocol knows nothing but bytes and NULL.
            _ => None,
        }
    }

    pub fn text(&self, index: usize) -> String {
        self.get(index)
            .map(|b| String::from_utf8_lossy(b).into_owned())
            .unwrap_or_default()
    }

    pub fn name(&self, index: usize) -> String {
        let columns = self.0.columns_ref();
        columns
            .get(index)
            .map(|column| column.name_str().into_owned())
            .unwrap_or_default()
    }
}
