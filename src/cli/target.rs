//! The database that a command writes to, as a person names it on the command line. No password is ever among it.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config::server::{self, Server};
use crate::config::{Config, Standby, Tls};
use crate::mysql::Address;
use crate::secret::resolver::Resolver;
use crate::secret::{Secret, SecretRef};

#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Server to restore to; default: the configuration's [standby]
    #[arg(long, value_name = "mysql://USER@HOST:PORT", requires = "password")]
    to: Option<String>,
    /// Where its password is: env:NAME, file:PATH, credential:NAME, aws-secret:ID#key, azure-keyvault:VAULT/NAME
    #[arg(long, value_name = "REF", requires = "to")]
    password: Option<String>,
    /// With --to: required (encrypted and verified, the default) or off (only to this machine)
    #[arg(long, value_name = "required|off", value_parser = ["required", "off"], requires = "to")]
    tls: Option<String>,
    /// With --to: authority that signed the server's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "to")]
    tls_ca: Option<PathBuf>,
}

/// The server that a command writes to.
#[derive(Debug)]
pub enum Target {
    /// As a person named it.
    Named {
        to: String,
        password: String,
        tls: Tls,
        tls_ca: Option<PathBuf>,
    },
    /// The one that is configured.
    Standby,
}

impl TargetArgs {
    pub fn target(&self) -> Target {
        Target::of(
            self.to.as_ref().zip(self.password.as_ref()),
            self.tls.as_deref(),
            self.tls_ca.as_ref(),
        )
    }
}

impl Target {
    /// `named`: address and where its password is.
    pub fn of(named: Option<(&String, &String)>, tls: Option<&str>, tls_ca: Option<&PathBuf>) -> Self {
        match named {
            Some((to, password)) => Self::Named {
                to: to.clone(),
                password: password.clone(),
                tls: if tls == Some("off") { Tls::Off } else { Tls::Required },
                tls_ca: tls_ca.cloned(),
            },
            None => Self::Standby,
        }
    }

    /// Where to log in, password in hand.
    pub async fn address(&self, config: Option<&Config>, resolver: &Resolver) -> Result<Address, Failure> {
        match self {
            Self::Named {
                to,
                password,
                tls,
                tls_ca,
            } => named(to, password, *tls, tls_ca.as_ref(), resolver).await,
            Self::Standby => match config.and_then(|config| config.standby.as_ref()) {
                Some(configured) => standby(configured, resolver).await,
                None => Err(Failure::Usage(
                    "no server to restore to: name it with --to and --password, or configure it as [standby]"
                        .to_owned(),
                )),
            },
        }
    }
}

/// Where a configured site is, password in hand.
pub async fn standby(standby: &Standby, resolver: &Resolver) -> Result<Address, Failure> {
    let password = resolver
        .resolve(&standby.password)
        .await
        .map_err(|error| Failure::failed(format!("the password of {}: {error}", standby.host)))?;
    Ok(Address {
        host: standby.host.clone(),
        port: standby.port,
        user: standby.user.clone(),
        password,
        token_login: false,
        tls: standby.tls,
        tls_ca: authority("[standby] tls_ca", standby.tls_ca.as_ref()).await?,
    })
}

async fn authority(key: &str, path: Option<&PathBuf>) -> Result<Option<Vec<u8>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    match tokio::fs::read(path).await {
        Ok(pem) => Ok(Some(pem)),
        Err(error) => Err(Failure::Usage(format!("{key} {}: {error}", path.display()))),
    }
}

async fn named(
    to: &str,
    password: &str,
    tls: Tls,
    tls_ca: Option<&PathBuf>,
    resolver: &Resolver,
) -> Result<Address, Failure> {
    let Server { host, port, user } = server::parse(to).map_err(|why| {
        Failure::Usage(format!(
            "--to: {why}; write it as mysql://user@host:3306, with --password REF"
        ))
    })?;
    if tls == Tls::Off && !(host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())) {
        return Err(Failure::Usage(
            "--tls off: only to this machine (127.0.0.1, localhost)".to_owned(),
        ));
    }
    let reference = SecretRef::parse(password).map_err(|error| Failure::Usage(format!("--password: {error}")))?;
    let password: Secret = resolver.resolve(&reference).await?;
    let tls_ca = authority("--tls-ca", tls_ca).await?;
    Ok(Address {
        host,
        port,
        user,
        password,
        token_login: false,
        tls,
        tls_ca,
    })
}
