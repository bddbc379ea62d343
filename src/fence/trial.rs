//! Tries to write as the application.

use super::Credentials;
use super::ladder::Try;
use crate::dump::literal::qualified;
use crate::mysql::{Address, DbError, Session};

/// Tables that are tried before it is given up: one refused for want of a right says nothing.
const TABLES: u32 = 20;

/// Logs in anew, and tries a write that would change nothing.
pub async fn attempt(server: &Address, credentials: &Credentials) -> Try {
    let address = Address {
        user: credentials.user.clone(),
        password: credentials.password.clone(),
        token_login: credentials.token_login,
        ..server.clone()
    };
    let mut session = match address.connect().await {
        Ok(session) => session,
        Err(DbError::Locked { .. }) => return Try::Locked,
        Err(error) => return Try::Unknown(error.to_string()),
    };
    let tried = match write(&mut session).await {
        Ok(tried) => tried,
        // Ended by the fence itself, say: it had logged in all the same.
        Err(error) => Try::Unknown(format!("it logged in, and then: {error}")),
    };
    session.close().await;
    tried
}

async fn write(session: &mut Session) -> Result<Try, DbError> {
    let account = session.scalar("SELECT CURRENT_USER()").await?;
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN \
         ('mysql', 'sys', 'information_schema', 'performance_schema', 'planb') ORDER BY 1, 2 LIMIT {TABLES}"
    );
    for (schema, table) in session.pairs(&sql).await? {
        // Refused on a read-only server although no row is concerned.
        match session
            .execute(format!("DELETE FROM {} WHERE FALSE", qualified(&schema, &table)))
            .await
        {
            Err(DbError::ReadOnly { .. }) => return Ok(Try::ReadOnly(account)),
            Err(error @ (DbError::Lost { .. } | DbError::Unreachable { .. })) => return Err(error),
            // Not this one; and what may log in and is not refused for that reason counts as open.
            Ok(()) => return Ok(Try::Open(account)),
            Err(_) => {}
        }
    }
    Ok(Try::Open(account))
}
