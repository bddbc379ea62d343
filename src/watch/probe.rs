//! Asks one thing of the primary, once, and says what it was told. Nothing here decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::verdict::{Outcome, Plane, Thresholds};
use crate::config::Config;
use crate::config::watch::{HttpProbe, Plane as Configured, Probe as Written, ProbeKind};
use crate::http::{self, Expected};
use crate::mysql::{Address, DbError};
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;
use crate::source::rds::{Rds, RdsError};

/// In these RDS says that the instance does not serve. In others it does, or may.
const RDS_DOWN: [&str; 8] = [
    "stopped",
    "stopping",
    "starting",
    "failed",
    "rebooting",
    "storage-full",
    "incompatible-network",
    "inaccessible-encryption-credentials",
];

/// One question. Whoever asks bounds its time.
#[async_trait]
pub trait Ask: Send + Sync {
    async fn ask(&self) -> Outcome;
}

/// What is asked, how often, and when the answers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub kind: String,
    pub plane: Plane,
    pub interval: Duration,
    pub timeout: Duration,
    pub thresholds: Thresholds,
}

impl Spec {
    pub fn of(written: &Written) -> Self {
        let (interval, timeout) = (written.interval, written.timeout);
        Self {
            name: written.name.clone(),
            kind: written.kind.name().to_owned(),
            plane: match written.plane {
                Configured::Data => Plane::Data,
                Configured::Control => Plane::Control,
            },
            interval,
            timeout,
            thresholds: Thresholds {
                failures: written.failures,
                successes: written.successes,
                within: written.within,
                silence: written.within.max(interval * 2 + timeout),
            },
        }
    }
}

/// What asks as it is configured.
pub fn asker(written: &Written, config: &Config) -> Arc<dyn Ask> {
    match &written.kind {
        ProbeKind::Http(probe) => Arc::new(Http {
            probe: probe.clone(),
            timeout: written.timeout,
        }),
        ProbeKind::Tcp { host, port } => Arc::new(Tcp {
            host: host.clone(),
            port: *port,
        }),
        ProbeKind::Mysql { source, query } => Arc::new(Mysql {
            finder: Finder::new(source.clone(), Resolver::for_config(config)),
            query: query.clone(),
            find_within: written.timeout / 2,
            known: Mutex::default(),
        }),
        ProbeKind::Rds { instance, region } => Arc::new(State {
            rds: Rds::default(),
            instance: instance.clone(),
            region: region.clone(),
        }),
    }
}

struct Http {
    probe: HttpProbe,
    timeout: Duration,
}

#[async_trait]
impl Ask for Http {
    async fn ask(&self) -> Outcome {
        // Each time anew: an authority's file may have been replaced.
        let client = match http::client(self.probe.tls_ca.as_deref(), self.timeout, None) {
            Ok(client) => client,
            Err(why) => return Outcome::Mute(why),
        };
        let expected = Expected {
            statuses: &self.probe.expect,
            contains: self.probe.contains.as_deref(),
        };
        let begun = Instant::now();
        match http::ask(&client, &Method::GET, self.probe.url.as_str(), None, expected).await {
            Ok(status) => {
                let took = begun.elapsed();
                let text = format!("answered {status} in {} ms", took.as_millis());
                match self.probe.latency {
                    Some(most) if took > most => Outcome::Bad(format!("{text}, more than {} s", most.as_secs())),
                    _ => Outcome::Good(text),
                }
            }
            Err(why) => Outcome::Bad(why),
        }
    }
}

struct Tcp {
    host: String,
    port: u16,
}

#[async_trait]
impl Ask for Tcp {
    async fn ask(&self) -> Outcome {
        match TcpStream::connect((self.host.as_str(), self.port)).await {
            Ok(_) => Outcome::Good(format!("{}:{} takes connections", self.host, self.port)),
            Err(error) => Outcome::Bad(format!("{}:{}: {error}", self.host, self.port)),
        }
    }
}

struct Mysql {
    finder: Finder,
    query: String,
    find_within: Duration,
    /// Where it asked last: a database must not seem down because what only operators go through (RDS, a vault) is.
    known: Mutex<Option<Known>>,
}

#[derive(Clone)]
struct Known {
    address: Address,
    /// It went well: it need not be looked for again.
    is_good: bool,
}

impl Mysql {
    fn known(&self) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learn(&self, address: &Address, is_good: bool) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Known {
            address: address.clone(),
            is_good: is_good && !address.token_login,
        });
    }

    async fn address(&self) -> Result<Address, String> {
        let known = self.known();
        if let Some(known) = known.as_ref().filter(|known| known.is_good) {
            return Ok(known.address.clone());
        }
        // It may have moved, or its password changed.
        let why = match timeout(self.find_within, self.finder.address()).await {
            Ok(Ok(address)) => return Ok(address),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", self.find_within.as_secs()),
        };
        known
            .map(|known| known.address)
            .ok_or_else(|| format!("the way to log in is not known: {why}"))
    }
}

#[async_trait]
impl Ask for Mysql {
    async fn ask(&self) -> Outcome {
        let address = match self.address().await {
            Ok(address) => address,
            Err(why) => return Outcome::Mute(why),
        };
        // Remembered before it answers: whoever stops waiting has asked somebody.
        self.learn(&address, false);
        let read = async {
            let mut session = address.connect().await?;
            let rows = session.table(&self.query).await?;
            session.close().await;
            Ok::<_, DbError>(rows.len())
        };
        match read.await {
            Ok(0) => Outcome::Mute(format!("login works; {} gives no row: write one there", self.query)),
            Ok(_) => {
                self.learn(&address, true);
                Outcome::Good(format!("{}:{} takes logins and reads", address.host, address.port))
            }
            // What cannot get better by itself is about this account or this query: the server did answer.
            Err(error) if error.is_permanent() => Outcome::Mute(error.to_string()),
            Err(error) => Outcome::Bad(error.to_string()),
        }
    }
}

/// What RDS says of an instance.
struct State {
    rds: Rds,
    instance: String,
    region: Option<String>,
}

#[async_trait]
impl Ask for State {
    async fn ask(&self) -> Outcome {
        match self.rds.describe(&self.instance, self.region.as_deref()).await {
            Ok(instance) if RDS_DOWN.contains(&instance.status.0.as_str()) => {
                Outcome::Bad(format!("RDS calls {} {}", self.instance, instance.status))
            }
            Ok(instance) => Outcome::Good(format!("RDS calls {} {}", self.instance, instance.status)),
            Err(error @ (RdsError::Unavailable { .. } | RdsError::NoAddress { .. })) => Outcome::Bad(error.to_string()),
            Err(error) => Outcome::Mute(error.to_string()),
        }
    }
}
