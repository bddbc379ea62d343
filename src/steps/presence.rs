//! Whether a database is there. That nobody could look is never taken for its being gone.

use std::time::Duration;

use crate::mysql::{Address, DbError};
use crate::recovery::rules::Answer;
use crate::source::login::Finder;

/// A database that does not answer within this is taken for gone.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// To find address and password: a vault, RDS and a login at the cloud are asked, each with tries of its own.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// Whether the source is, as the account that takes backups.
pub async fn of_source(finder: &Finder) -> Answer {
    of(async { finder.address().await.map_err(|error| error.to_string()) }).await
}

/// A login and a query. Who refuses either is there.
pub async fn of(address: impl Future<Output = Result<Address, String>>) -> Answer {
    let address = match tokio::time::timeout(FOUND_WITHIN, address).await {
        Ok(Ok(address)) => address,
        Ok(Err(why)) => return Answer::Unasked(why),
        Err(_) => {
            let why = format!(
                "address and password were not found within {} s",
                FOUND_WITHIN.as_secs()
            );
            return Answer::Unasked(why);
        }
    };
    let asked = async {
        let mut session = address.connect().await?;
        let version = session.scalar("SELECT VERSION()").await?;
        session.close().await;
        Ok::<String, DbError>(format!("{}:{}, {version}", address.host, address.port))
    };
    match tokio::time::timeout(ANSWERS_WITHIN, asked).await {
        Ok(Ok(what)) => Answer::Healthy(what),
        Ok(Err(error)) if error.is_an_answer() => Answer::Healthy(error.to_string()),
        Ok(Err(error)) => Answer::Gone(error.to_string()),
        Err(_) => Answer::Gone(format!("no answer within {} s", ANSWERS_WITHIN.as_secs())),
    }
}
