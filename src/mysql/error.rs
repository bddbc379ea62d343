//! What a server refused, named for what the caller does next.

use mysql_async::{DriverError, Error, IoError, ServerError};

/// Never holds a password: the driver's messages carry the server's text only.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DbError {
    #[error(
        "cannot reach the database at {place} ({detail}); check host, port, security group and that the server runs"
    )]
    Unreachable { place: String, detail: String },
    #[error("the database at {place} refused account {user} ({detail}); check user and password")]
    Login {
        place: String,
        user: String,
        detail: String,
    },
    /// Name and password are right; servers look at the lock last.
    #[error("{place} refused account {user}: it is locked ({detail})")]
    Locked {
        place: String,
        user: String,
        detail: String,
    },
    #[error(
        "TLS with the database at {place} failed ({detail}); check tls_ca, or that the host is the certificate's name"
    )]
    Tls { place: String, detail: String },
    /// The connection broke, the session was killed, or the server is shutting down.
    #[error("the database connection was lost ({detail})")]
    Lost { detail: String },
    /// `KILL QUERY`, or a statement timeout.
    #[error("a statement was interrupted ({detail})")]
    Interrupted { detail: String },
    #[error("a lock was not had in time ({detail})")]
    LockWait { detail: String },
    /// A table was altered, dropped or truncated after the snapshot was taken.
    #[error("a table's definition changed during the dump ({detail})")]
    DefinitionChanged { detail: String },
    #[error("the account lacks a privilege for: {sql} ({detail}); see config/grants-*.sql")]
    Denied { sql: String, detail: String },
    /// `read_only` or its like is on, and the account is not exempt.
    #[error("the server takes no such change now: {sql} ({detail})")]
    ReadOnly { sql: String, detail: String },
    #[error("the server refused: {sql} ({detail})")]
    Refused { sql: String, detail: String },
    #[error("the server's answer to {sql} makes no sense: {detail}")]
    Odd { sql: String, detail: String },
}

impl DbError {
    /// Whether trying again, with a fresh connection and snapshot, cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Interrupted { .. }
            | Self::LockWait { .. }
            | Self::DefinitionChanged { .. } => false,
            Self::Login { .. }
            | Self::Locked { .. }
            | Self::Tls { .. }
            | Self::Denied { .. }
            | Self::ReadOnly { .. }
            | Self::Refused { .. }
            | Self::Odd { .. } => true,
        }
    }

    /// Whether a server is there all the same: it said no to something.
    pub fn is_an_answer(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::Lost { .. })
    }

    /// A conversation that was ended on this side.
    pub(super) fn closed() -> Self {
        Self::Lost {
            detail: "the session is closed".to_owned(),
        }
    }

    pub(super) fn at_connect(place: &str, user: &str, error: Error) -> Self {
        let place = place.to_owned();
        match error {
            Error::Server(ServerError { code, message, .. }) => match code {
                // ER_ACCOUNT_HAS_BEEN_LOCKED, MySQL's number and MariaDB's.
                3118 | 4151 => Self::Locked {
                    place,
                    user: user.to_owned(),
                    detail: message,
                },
                // ER_ACCESS_DENIED_ERROR, ER_DBACCESS_DENIED, ER_HOST_NOT_PRIVILEGED, ER_MUST_CHANGE_PASSWORD_LOGIN, ER_SECURE_TRANSPORT_REQUIRED, ER_NOT_SUPPORTED_AUTH_MODE
                1045 | 1044 | 1130 | 1698 | 1862 | 3159 | 1251 => Self::Login {
                    place,
                    user: user.to_owned(),
                    detail: message,
                },
                _ => Self::Unreachable { place, detail: message },
            },
            Error::Io(IoError::Tls(error)) => Self::Tls {
                place,
                detail: chain(&error),
            },
            Error::Driver(error @ DriverError::NoClientSslFlagFromServer) => Self::Tls {
                place,
                detail: error.to_string(),
            },
            Error::Io(IoError::Io(io)) => match io.get_ref().map(|inner| chain(inner)) {
                // The handshake's own errors arrive inside one of reading.
                Some(detail) if io.kind() == std::io::ErrorKind::InvalidData => Self::Tls { place, detail },
                Some(detail) => Self::Unreachable { place, detail },
                None => Self::Unreachable {
                    place,
                    detail: io.to_string(),
                },
            },
            Error::Driver(DriverError::ConnectionClosed) => Self::Unreachable {
                place,
                detail: "it closed the connection".to_owned(),
            },
            // As in a conversation: it will go no better next time. (An authentication plugin that nobody knows, say.)
            Error::Driver(error) => Self::Odd {
                sql: "the login".to_owned(),
                detail: told(&error),
            },
            Error::Other(error) => Self::Odd {
                sql: "the login".to_owned(),
                detail: chain(error.as_ref()),
            },
            Error::Url(error) => Self::Odd {
                sql: "the login".to_owned(),
                detail: error.to_string(),
            },
        }
    }

    /// `shown` stands for the statement, which nobody may see.
    pub(super) fn at_secret_statement(shown: &str, error: Error) -> Self {
        // Their words name accounts and privileges only. A syntax error's, say, quote the statement.
        const QUOTE_NOTHING: [u16; 8] = [1044, 1045, 1142, 1227, 1290, 1396, 1410, 1819];
        let error = match error {
            Error::Server(server) if !QUOTE_NOTHING.contains(&server.code) => Error::Server(ServerError {
                message: "its words are not shown, since they may quote a password".to_owned(),
                ..server
            }),
            other => other,
        };
        Self::at_statement(shown.as_bytes(), error)
    }

    pub(super) fn at_statement(sql: &[u8], error: Error) -> Self {
        let ServerError { code, message, .. } = match error {
            Error::Server(server) => server,
            Error::Io(error) => {
                return Self::Lost {
                    detail: error.to_string(),
                };
            }
            Error::Driver(error @ (DriverError::ConnectionClosed | DriverError::PacketOutOfOrder)) => {
                return Self::Lost {
                    detail: error.to_string(),
                };
            }
            // An answer that the driver cannot read will read no better next time.
            Error::Driver(error) => {
                return Self::Odd {
                    sql: shortened_bytes(sql),
                    detail: told(&error),
                };
            }
            Error::Other(error) => {
                return Self::Odd {
                    sql: shortened_bytes(sql),
                    detail: chain(error.as_ref()),
                };
            }
            Error::Url(error) => {
                return Self::Odd {
                    sql: shortened_bytes(sql),
                    detail: error.to_string(),
                };
            }
        };
        // Only what changes rows is answered with values of rows.
        let changes_rows = sql.get(..6).is_some_and(|word| {
            [&b"INSERT"[..], b"UPDATE", b"DELETE", b"REPLAC"]
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known))
        });
        let message = if changes_rows {
            without_values(&message)
        } else {
            message
        };
        let detail = format!("{code}: {message}");
        // Numbers: https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html, MariaDB's are the same
        // below 1900.
        match code {
            1317 | 3024 | 1969 => Self::Interrupted { detail },
            1205 | 1213 | 1099 => Self::LockWait { detail },
            1412 | 1146 | 1054 | 1051 | 1356 | 1305 | 1360 | 1539 | 1049 | 1735 | 4091 => {
                Self::DefinitionChanged { detail }
            }
            1044 | 1045 | 1142 | 1143 | 1227 | 1370 => Self::Denied {
                sql: shortened_bytes(sql),
                detail,
            },
            // ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE
            1290 | 1836 => Self::ReadOnly {
                sql: shortened_bytes(sql),
                detail,
            },
            1053 | 1077 | 1079 | 1158 | 1159 | 1160 | 1161 | 1927 | 2006 | 2013 | 4031 => Self::Lost { detail },
            _ => Self::Refused {
                sql: shortened_bytes(sql),
                detail,
            },
        }
    }
}

/// A driver's error in words. Some of its variants would print rows or packets, which are people's data.
fn told(error: &DriverError) -> String {
    match error {
        DriverError::UnexpectedPacket { .. } => "a packet that does not belong here".to_owned(),
        DriverError::FromValue { .. } | DriverError::FromRow { .. } => "a value that makes no sense".to_owned(),
        other => chain(other),
    }
}

fn shortened_bytes(sql: &[u8]) -> String {
    // The beginning is enough; the rest may be megabytes of data.
    shortened(&String::from_utf8_lossy(&sql[..sql.len().min(1_000)]))
}

/// A server's message without values: what it quotes is shown only where it is a name.
fn without_values(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut parts = message.split('\'');
    out.push_str(parts.next().unwrap_or_default());
    let is_name = |before: &str| {
        let before = before.trim_end().to_lowercase();
        [
            "key",
            "column",
            "table",
            "database",
            "user",
            "view",
            "trigger",
            "event",
            "function",
            "procedure",
            "variable",
            "engine",
            "collation",
            "constraint",
            "option",
            "privilege",
            "account",
            "index",
            "near",
            "zone:",
            "set:",
            "tablespace",
            "@",
            "for",
            "unknown",
        ]
        .iter()
        .any(|word| before.ends_with(word))
            && !before.ends_with("value:")
            && !before.ends_with("entry")
    };
    while let Some(quoted) = parts.next() {
        out.push('\'');
        out.push_str(if is_name(out.trim_end_matches('\'')) {
            quoted
        } else {
            "…"
        });
        out.push('\'');
        out.push_str(parts.next().unwrap_or_default());
    }
    out
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// The beginning of a statement, for messages: never its data.
pub(super) fn shortened(sql: &str) -> String {
    const LONGEST: usize = 120;
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    // What follows may be keys, which are people's data.
    let line = line.split(" WHERE ").next().unwrap_or_default();
    let line = line.split(" VALUES").next().unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_quote_a_password_is_not_told() {
        let server = |code, message: &str| {
            Error::Server(ServerError {
                code,
                message: message.to_owned(),
                state: "42000".to_owned(),
            })
        };
        let quoting = server(
            1064,
            "You have an error in your SQL syntax … near ''hunter2' REQUIRE SSL'",
        );
        let said = DbError::at_secret_statement("making account app@%", quoting).to_string();
        assert!(
            said.contains("1064") && said.contains("app@%") && !said.contains("hunter2"),
            "{said}"
        );
        let policy = server(1819, "Your password does not satisfy the current policy requirements");
        let said = DbError::at_secret_statement("making account app@%", policy).to_string();
        assert!(said.contains("policy requirements"), "{said}");
    }
}
