//! Every reference of the plan, resolved without AWS. Values are looked at for certificates and nothing else.

use super::outside::read;
use crate::config::steps::{At, Kind};
use crate::config::{AzureAuth, Config, Place, RegistryLogin};
use crate::doctor::dark::{Certificate, Secret, Unresolved};
use crate::prepare::certificate;
use crate::secret::resolver::Resolver;
use crate::secret::{SecretError, SecretRef};

/// What the references gave.
pub struct Looked {
    pub seen: Vec<Secret>,
    /// Those whose value holds one.
    pub certificates: Vec<Certificate>,
}

/// What `place` needs on the night; what only the agent beside the source needs is not among it.
pub async fn look(config: &Config, resolver: &Resolver, place: At) -> Looked {
    let mut looked = Looked {
        seen: Vec::new(),
        certificates: Vec::new(),
    };
    for (of, reference) in references(config, place) {
        let went = match resolver.resolve_without_aws(reference).await {
            Ok(secret) => {
                if certificate::looks_like_one(secret.expose()) {
                    looked.certificates.push(Certificate {
                        at: format!("secret {of}"),
                        read: read(secret.expose()),
                    });
                }
                Ok(())
            }
            Err(error) => Err(Unresolved {
                why: error.to_string(),
                is_refused: is_refused(&error),
            }),
        };
        looked.seen.push(Secret { of, went });
    }
    looked
}

/// Whether it may well be there: of a list, one place says "not for you". A systemd credential is for the service that it was given to.
fn is_refused(error: &SecretError) -> bool {
    match error {
        SecretError::Denied { .. } => true,
        SecretError::Missing { .. } | SecretError::Unavailable { .. } => false,
        SecretError::AllFailed(all) => all.iter().any(is_refused),
    }
}

fn references(config: &Config, place: At) -> Vec<(String, &SecretRef)> {
    let mut all: Vec<(String, &SecretRef)> = Vec::new();
    if let Place::Azure { auth, .. } = &config.store.place {
        match auth {
            AzureAuth::ClientSecret { secret, .. } => all.push(("[store] client_secret".to_owned(), secret)),
            AzureAuth::Sas(secret) => all.push(("[store] sas".to_owned(), secret)),
            AzureAuth::AccountKey(secret) => all.push(("[store] account_key".to_owned(), secret)),
            AzureAuth::WorkloadIdentity { .. } | AzureAuth::ManagedIdentity { .. } | AzureAuth::AzLogin => {}
        }
    }
    let mut works_on = (false, false);
    for step in super::steps_of(config, place) {
        let of = |name: &str| format!("step {}: {name}", step.name);
        match &step.kind {
            Kind::Terraform(one) => all.extend(one.secrets.iter().map(|(name, secret)| (of(name), secret))),
            Kind::Manifests(one) => all.extend(one.secrets.iter().map(|(name, secret)| (of(name), secret))),
            Kind::Command(one) => all.extend(one.secrets.iter().map(|(name, secret)| (of(name), secret))),
            kind => {
                let site = super::outside::site_of(kind);
                works_on.0 |= site == Some(crate::config::steps::Site::Standby);
                works_on.1 |= site == Some(crate::config::steps::Site::Primary);
            }
        }
    }
    let (standby, primary) = works_on;
    if let Some(server) = config.standby.as_ref().filter(|_| standby) {
        all.push(("[standby] password".to_owned(), &server.password));
    }
    if let Some(server) = config.primary.as_ref().filter(|_| primary) {
        all.push(("[primary] password".to_owned(), &server.password));
    }
    if standby || primary {
        for account in &config.accounts {
            all.push((format!("[[accounts]] {}", account.name), &account.password));
        }
    }
    if let RegistryLogin::Password { password, .. } = &config.prepare.registry_login {
        all.push(("[prepare] registry_password".to_owned(), password));
    }
    all
}
