//! Puts the parts together as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::failure::Failure;
use crate::backup::entry::Entry;
use crate::backup::ledger::Ledger;
use crate::backup::proof::By;
use crate::backup::run::Runner;
use crate::backup::{claim, lease, shelf};
use crate::clock::{Clock, SystemClock};
use crate::config::{AzureAuth, Config, Place};
use crate::recovery::journal::{Journal, Known};
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;
use crate::store::azure::{AzureCredentialInput, AzureStore};
use crate::store::directory::DirectoryStore;
use crate::store::reopening::{Opener, Reopening};
use crate::store::retrying::{Meter, RetryPolicy, Retrying};
use crate::store::{BlobStore, StoreError};

/// A person at a prompt is told after this long that the store does not answer.
const PATIENCE_OF_A_PERSON: Duration = Duration::from_secs(20);

/// Where backups are, and where control data is.
pub struct Stores {
    pub backups: Arc<dyn BlobStore>,
    pub control: Arc<dyn BlobStore>,
}

pub fn config(common: &Common) -> Result<Config, Failure> {
    Ok(Config::load(&common.config)?)
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// The stores, for something that runs unattended.
pub async fn stores(config: &Config, cancel: &CancellationToken) -> Result<Stores, StoreError> {
    open(config, RetryPolicy::DEFAULT, cancel, None).await
}

/// The same, with every request to them measured.
pub async fn metered_stores(
    config: &Config,
    cancel: &CancellationToken,
    meter: Arc<dyn Meter>,
) -> Result<Stores, StoreError> {
    open(config, RetryPolicy::DEFAULT, cancel, Some(meter)).await
}

/// The stores, for a person who waits.
pub async fn stores_for_a_person(config: &Config) -> Result<Stores, StoreError> {
    let policy = RetryPolicy {
        give_up_after: PATIENCE_OF_A_PERSON,
        ..RetryPolicy::DEFAULT
    };
    open(config, policy, &CancellationToken::new(), None).await
}

/// Every backup of this service with what was found out about it, newest first, for a person: where proofs may not be
/// read, the backups are shown without, and that is told.
pub async fn listing(config: &Config, stores: &Stores) -> Result<Vec<Entry>, StoreError> {
    let known = journal(config, stores).known().await?;
    listing_by(config, stores, &known).await
}

/// The same, where the journal was read already.
pub async fn listing_by(config: &Config, stores: &Stores, known: &Known) -> Result<Vec<Entry>, StoreError> {
    Ok(listing_and_ledger(config, stores, known).await?.0)
}

/// The same, with the proofs themselves.
pub async fn listing_and_ledger(
    config: &Config,
    stores: &Stores,
    known: &Known,
) -> Result<(Vec<Entry>, Ledger), StoreError> {
    let ledger = Ledger::default();
    let prefix = &config.store.prefix;
    let mut entries = shelf::list(stores.backups.as_ref(), prefix, &config.service.name, &known.standing).await?;
    match ledger.join(stores.control.as_ref(), prefix, &mut entries).await {
        Err(error) if error.is_permanent() => {
            eprintln!("planb: warning: proofs cannot be read, so none are shown: {error}");
        }
        result => result?,
    }
    Ok((entries, ledger))
}

/// The journal of this service's failovers.
pub fn journal(config: &Config, stores: &Stores) -> Journal {
    Journal::new(Arc::clone(&stores.control), &claim::key(&config.store.prefix))
}

/// The journal of its rehearsals.
pub fn drill_journal(config: &Config, stores: &Stores) -> Journal {
    Journal::of_drills(Arc::clone(&stores.control), &claim::key(&config.store.prefix))
}

/// Who this process is, for what it finds out.
pub fn by(config: &Config) -> By {
    By {
        host: lease::host_name(),
        site: config.service.site.clone(),
        planb: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

async fn open(
    config: &Config,
    policy: RetryPolicy,
    cancel: &CancellationToken,
    meter: Option<Arc<dyn Meter>>,
) -> Result<Stores, StoreError> {
    // Whoever is cancelled still gives its lease back, so control data stays in reach; those calls have bounds of
    // their own.
    let never = CancellationToken::new();
    match &config.store.place {
        Place::Directory(root) => {
            let backups = DirectoryStore::open(root, clock()).await?;
            let control = DirectoryStore::open_or_create(root.join("control"), clock()).await?;
            Ok(Stores {
                backups: retrying(backups, policy, cancel, meter.clone()),
                control: retrying(control, policy, &never, meter),
            })
        }
        Place::Azure {
            container,
            control_container,
            ..
        } => {
            let backups = azure(config, container).await?;
            let control = azure(config, control_container).await?;
            Ok(Stores {
                backups: retrying(backups, policy, cancel, meter.clone()),
                control: retrying(control, policy, &never, meter),
            })
        }
    }
}

/// Where pages for browsers are published: another container of the same account, or a directory beside the backups.
pub fn pages<'a>(config: &'a Config, container: &'a str) -> BoxFuture<'a, Result<Arc<dyn BlobStore>, StoreError>> {
    let never = CancellationToken::new();
    Box::pin(async move {
        Ok(match &config.store.place {
            Place::Directory(root) => {
                let dir = root.join(container.trim_start_matches('$'));
                let pages = DirectoryStore::open_or_create(dir, clock()).await?;
                retrying(pages, RetryPolicy::DEFAULT, &never, None)
            }
            Place::Azure { .. } => retrying(azure(config, container).await?, RetryPolicy::DEFAULT, &never, None),
        })
    })
}

fn retrying<S: BlobStore + 'static>(
    store: S,
    policy: RetryPolicy,
    cancel: &CancellationToken,
    meter: Option<Arc<dyn Meter>>,
) -> Arc<dyn BlobStore> {
    Arc::new(Retrying::new(store, policy, rand::random(), cancel.clone()).metered(meter))
}

async fn azure(config: &Config, container: &str) -> Result<Reopening<AzureOpener>, StoreError> {
    let opener = AzureOpener {
        config: config.clone(),
        container: container.to_owned(),
        resolver: Resolver::for_config(config),
    };
    Reopening::open(opener).await
}

/// Opens an Azure container with its secrets as they are now.
#[derive(Debug)]
struct AzureOpener {
    config: Config,
    container: String,
    resolver: Resolver,
}

#[async_trait]
impl Opener for AzureOpener {
    async fn open(&self) -> Result<Arc<dyn BlobStore>, StoreError> {
        let Place::Azure {
            account,
            endpoint,
            auth,
            ..
        } = &self.config.store.place
        else {
            return Err(StoreError::Invalid {
                store: self.container.clone(),
                detail: "not an Azure store".to_owned(),
            });
        };
        let input = self.credential(auth).await?;
        let store = AzureStore::open(account, &self.container, endpoint.as_ref(), &input, clock())?;
        Ok(Arc::new(store))
    }
}

impl AzureOpener {
    async fn credential(&self, auth: &AzureAuth) -> Result<AzureCredentialInput, StoreError> {
        let store = || format!("azblob container {}", self.container);
        let secret = async |reference| {
            self.resolver.resolve(reference).await.map_err(|error| {
                if error.is_permanent() {
                    StoreError::Denied {
                        store: store(),
                        detail: error.to_string(),
                    }
                } else {
                    StoreError::Unavailable {
                        store: store(),
                        detail: error.to_string(),
                    }
                }
            })
        };
        Ok(match auth {
            AzureAuth::WorkloadIdentity { tenant_id, client_id } => AzureCredentialInput::WorkloadIdentity {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
            },
            AzureAuth::ManagedIdentity { client_id } => AzureCredentialInput::ManagedIdentity {
                client_id: client_id.clone(),
            },
            AzureAuth::ClientSecret {
                tenant_id,
                client_id,
                secret: reference,
            } => AzureCredentialInput::ClientSecret {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
                secret: secret(reference).await?,
            },
            AzureAuth::AzLogin => AzureCredentialInput::AzLogin,
            AzureAuth::Sas(reference) => AzureCredentialInput::Sas(secret(reference).await?),
            AzureAuth::AccountKey(reference) => AzureCredentialInput::AccountKey(secret(reference).await?),
        })
    }
}

/// Everything a backup needs.
pub fn runner(config: &Config, stores: &Stores) -> Runner {
    runner_of(config, &stores.backups, &stores.control)
}

pub fn runner_of(config: &Config, backups: &Arc<dyn BlobStore>, control: &Arc<dyn BlobStore>) -> Runner {
    Runner {
        finder: Finder::new(config.source.clone(), Resolver::for_config(config)),
        config: config.clone(),
        store: Arc::clone(backups),
        control: Arc::clone(control),
        clock: clock(),
        run_ids: || format!("{:016x}", rand::random::<u64>()),
    }
}
