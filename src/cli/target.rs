//! The database that a command writes to, as a person names it on the command line. No password is ever among it.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use super::failure::Failure;
use crate::config::Tls;
use crate::mysql::Address;
use crate::secret::resolver::Resolver;
use crate::secret::{Secret, SecretRef};

#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Server to restore to
    #[arg(long, value_name = "mysql://USER@HOST:PORT")]
    to: String,
    /// Where its password is: env:NAME, file:PATH, credential:NAME, aws-secret:ID#key, azure-keyvault:VAULT/NAME
    #[arg(long, value_name = "REF")]
    password: String,
    /// required: encrypted and verified; off: only to this machine
    #[arg(long, value_name = "required|off", default_value = "required", value_parser = ["required", "off"])]
    tls: String,
    /// Authority that signed the server's certificate, PEM
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

impl TargetArgs {
    pub fn new(to: &str, password: &str, tls: &str, tls_ca: Option<PathBuf>) -> Self {
        Self {
            to: to.to_owned(),
            password: password.to_owned(),
            tls: tls.to_owned(),
            tls_ca,
        }
    }

    /// Where to log in, password in hand.
    pub async fn address(&self, resolver: &Resolver) -> Result<Address, Failure> {
        address(self, resolver).await
    }
}

async fn address(args: &TargetArgs, resolver: &Resolver) -> Result<Address, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("--to {}: {why}; write it as mysql://user@host:3306", args.to));
    let url = Url::parse(&args.to).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != "mysql" {
        return Err(wrong("that is not a mysql:// address"));
    }
    if url.password().is_some() {
        return Err(Failure::Usage(
            "--to must not hold a password: everybody on this machine can read it; name where it is with --password"
                .to_owned(),
        ));
    }
    if !url.path().trim_matches('/').is_empty() {
        return Err(wrong("it names a database, and a backup brings its own"));
    }
    let host = url.host_str().ok_or_else(|| wrong("it has no host"))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let user = percent_decoded(url.username()).ok_or_else(|| wrong("its user is not text"))?;
    if user.is_empty() {
        return Err(wrong("it has no user"));
    }
    let tls = if args.tls == "off" { Tls::Off } else { Tls::Required };
    if tls == Tls::Off && !(host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())) {
        return Err(Failure::Usage(
            "--tls off: only to this machine (127.0.0.1, localhost)".to_owned(),
        ));
    }
    let reference = SecretRef::parse(&args.password).map_err(|error| Failure::Usage(format!("--password: {error}")))?;
    let password: Secret = resolver.resolve(&reference).await?;
    let tls_ca = match &args.tls_ca {
        Some(path) => Some(
            tokio::fs::read(path)
                .await
                .map_err(|error| Failure::Usage(format!("--tls-ca {}: {error}", path.display())))?,
        ),
        None => None,
    };
    Ok(Address {
        host,
        port: url.port().unwrap_or(3306),
        user,
        password,
        token_login: false,
        tls,
        tls_ca,
    })
}

/// `a%40b` is `a@b`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}
