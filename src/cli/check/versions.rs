//! The source's server against the standby's, as they are now.

use std::time::Duration;

use crate::cli::target;
use crate::config::Config;
use crate::doctor::check::{self, Line};
use crate::mysql::Address;
use crate::mysql::dialect::Version;
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;

/// Of each server, secret and login included.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A line where there is a `[standby]`. One that does not answer may be made only in a disaster.
pub async fn compared(config: &Config) -> Option<Line> {
    let standby = config.standby.as_ref()?;
    let resolver = Resolver::for_config(config);
    let source = async {
        let finder = Finder::new(config.source.clone(), Resolver::for_config(config));
        version(&finder.address().await.ok()?).await
    };
    let standby = async { version(&target::standby(standby, &resolver).await.ok()?).await };
    let (source, standby) = tokio::join!(
        tokio::time::timeout(ANSWER_WITHIN, source),
        tokio::time::timeout(ANSWER_WITHIN, standby),
    );
    Some(check::versions(
        source.ok().flatten().as_ref(),
        standby.ok().flatten().as_ref(),
    ))
}

async fn version(address: &Address) -> Option<Version> {
    let mut session = address.connect().await.ok()?;
    let told = session.text("SELECT VERSION(), @@version_comment").await;
    session.close().await;
    let row = told.ok()?.into_iter().next()?;
    Version::parse(row.first()?, row.get(1)?)
}
