//! What RDS knows about a database instance, and tokens to log in to it without a password.

use std::fmt;

use aws_config::{Region, SdkConfig};
use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config as TokenConfig};
use aws_sdk_rds::types::{DbInstance, DbSnapshot};

use crate::aws::{Access, Failure, bounded, failure};
use crate::secret::Secret;

/// What `DescribeDBInstances` tells about one instance. What RDS left out is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdsInstance {
    pub id: String,
    pub host: String,
    pub port: u16,
    /// `mysql` or `mariadb`; anything else is refused.
    pub engine: String,
    pub version: Option<String>,
    pub status: Status,
    pub multi_az: Option<bool>,
    /// Which certificate authority signed the server's certificate, e.g. `rds-ca-rsa2048-g1`.
    pub ca_certificate: Option<String>,
    /// RDS's own backups. At 0 days the binary log is off too.
    pub backup_retention_days: Option<u32>,
    /// Whether accounts may log in with tokens instead of passwords.
    pub iam_login: Option<bool>,
    /// Whose replica this is, if it is one in the same region or named by ARN in another.
    pub replica_of: Option<String>,
}

/// RDS's word for the instance's state. `available` is the one in which everything works; several others (backing-up,
/// modifying, storage-optimization, …) still serve, so only a connection proves that it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status(pub String);

impl Status {
    pub fn is_available(&self) -> bool {
        self.0 == "available"
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    Available,
    /// In RDS's words.
    Underway(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RdsError {
    #[error(
        "RDS instance {id} is not in {region}: check source.rds_instance and source.region (a cluster's name is not an \
         instance's)"
    )]
    NoSuchInstance { id: String, region: String },
    #[error("RDS instance {id} cannot be used as a source: {detail}")]
    Unusable { id: String, detail: String },
    #[error("RDS instance {id} has no address yet (status {status}): wait until it is available")]
    NoAddress { id: String, status: Status },
    #[error(
        "AWS refused to describe RDS instance {id} ({detail}): allow rds:DescribeDBInstances, see config/aws-iam-policy.json"
    )]
    Denied { id: String, detail: String },
    #[error("AWS refused a snapshot of RDS instance {id} ({detail}): allow {action}")]
    SnapshotDenied {
        id: String,
        detail: String,
        action: &'static str,
    },
    #[error("RDS does not answer about {id} ({detail})")]
    Unavailable { id: String, detail: String },
    #[error("no login token for {host} could be made: {detail}")]
    Token { host: String, detail: String },
    #[error("no login token can be made for this host or account: {detail}")]
    BadTokenRequest { detail: &'static str },
}

impl RdsError {
    /// Whether trying again without a change by a person cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoSuchInstance { .. }
            | Self::Unusable { .. }
            | Self::Denied { .. }
            | Self::SnapshotDenied { .. }
            | Self::BadTokenRequest { .. } => true,
            Self::NoAddress { .. } | Self::Unavailable { .. } | Self::Token { .. } => false,
        }
    }
}

/// Asks RDS. Each question takes at most [`crate::aws::PATIENCE`].
#[derive(Debug, Default)]
pub struct Rds {
    access: Access,
}

impl Rds {
    /// The instance `id`. `region`: where it is; without one, this machine's.
    pub async fn describe(&self, id: &str, region: Option<&str>) -> Result<RdsInstance, RdsError> {
        let (instance, region) = bounded(self.ask(id, region))
            .await
            .map_err(|failure| sort(id, failure))?;
        match instance {
            Some(instance) => facts(id, &instance),
            None => Err(RdsError::NoSuchInstance {
                id: id.to_owned(),
                region,
            }),
        }
    }

    /// Begins a snapshot of `id` under this name, or says how far the one is that has it.
    pub async fn snapshot(&self, id: &str, name: &str, region: Option<&str>) -> Result<Snapshot, RdsError> {
        let (found, region) = bounded(self.look_or_begin(id, name, region)).await.map_err(|failure| {
            let action = "rds:CreateDBSnapshot and rds:DescribeDBSnapshots, see config/aws-iam-operator.json";
            match sort(id, failure) {
                RdsError::Denied { id, detail } => RdsError::SnapshotDenied { id, detail, action },
                other => other,
            }
        })?;
        let found = found.ok_or_else(|| RdsError::NoSuchInstance {
            id: id.to_owned(),
            region,
        })?;
        let status = found.status().unwrap_or("unknown");
        match (found.db_instance_identifier(), status) {
            (Some(of), _) if of != id => Err(RdsError::Unusable {
                id: id.to_owned(),
                detail: format!("snapshot {name} is of instance {of}; remove or rename it"),
            }),
            (_, "available") => Ok(Snapshot::Available),
            (_, "failed") => Err(RdsError::Unusable {
                id: id.to_owned(),
                detail: format!("snapshot {name} failed; remove it, and the same step makes another"),
            }),
            (_, status) => Ok(Snapshot::Underway(match found.percent_progress() {
                Some(percent) => format!("{status}, {percent} %"),
                None => status.to_owned(),
            })),
        }
    }

    async fn look_or_begin(
        &self,
        id: &str,
        name: &str,
        region: Option<&str>,
    ) -> Result<(Option<DbSnapshot>, String), Failure> {
        let config = self.access.config(region).await?;
        let region = region_name(&config);
        let client = aws_sdk_rds::Client::new(&config);
        match client.describe_db_snapshots().db_snapshot_identifier(name).send().await {
            Ok(answer) => {
                if let Some(found) = answer.db_snapshots.unwrap_or_default().into_iter().next() {
                    return Ok((Some(found), region));
                }
            }
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_db_snapshot_not_found_fault()) => {}
            Err(error) => return Err(failure(&error)),
        }
        let begun = client
            .create_db_snapshot()
            .db_instance_identifier(id)
            .db_snapshot_identifier(name)
            .send()
            .await;
        match begun {
            Ok(answer) => Ok((answer.db_snapshot, region)),
            Err(error) => match error.as_service_error() {
                Some(refused) if refused.is_db_instance_not_found_fault() => Ok((None, region)),
                // Our own, where only the answer was lost: found when it is looked at again.
                Some(refused) if refused.is_db_snapshot_already_exists_fault() => {
                    Err(Failure::Unavailable("the snapshot has just been begun".into()))
                }
                // A reboot, a backup, a change of its own: that passes.
                Some(refused) if refused.is_invalid_db_instance_state_fault() => {
                    Err(Failure::Unavailable("the instance is not available just now".into()))
                }
                _ => Err(failure(&error)),
            },
        }
    }

    async fn ask(&self, id: &str, region: Option<&str>) -> Result<(Option<DbInstance>, String), Failure> {
        let config = self.access.config(region).await?;
        let region = region_name(&config);
        let client = aws_sdk_rds::Client::new(&config);
        match client.describe_db_instances().db_instance_identifier(id).send().await {
            Ok(answer) => Ok((answer.db_instances.unwrap_or_default().into_iter().next(), region)),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_db_instance_not_found_fault()) =>
            {
                Ok((None, region))
            }
            Err(error) => Err(failure(&error)),
        }
    }

    /// A password for one login as `user`, valid for 15 minutes: make one for each connect. Nothing is sent; only
    /// getting this machine's credentials may need the network. The account must be `IDENTIFIED WITH
    /// AWSAuthenticationPlugin AS 'RDS'`, and the connection must be TLS.
    pub async fn auth_token(
        &self,
        host: &str,
        port: u16,
        user: &str,
        region: Option<&str>,
    ) -> Result<Secret, RdsError> {
        // The SDK builds a URL of these as they are, and panics on some that are no URL.
        if host.is_empty()
            || !host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        {
            return Err(RdsError::BadTokenRequest {
                detail: "the host is not a host name",
            });
        }
        if user.is_empty()
            || !user
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            return Err(RdsError::BadTokenRequest {
                detail: "the account's name must be letters, digits, '.', '_', '-'",
            });
        }
        bounded(self.sign(host, port, user, region)).await.map_err(|failure| {
            let (Failure::Missing(detail) | Failure::Denied(detail) | Failure::Unavailable(detail)) = failure;
            RdsError::Token {
                host: host.to_owned(),
                detail,
            }
        })
    }

    async fn sign(&self, host: &str, port: u16, user: &str, region: Option<&str>) -> Result<Secret, Failure> {
        let config = self.access.config(region).await?;
        // Given always: without one the SDK would sign for us-east-1, and RDS refuse it without saying why.
        let region = Region::new(region_name(&config));
        let wanted = TokenConfig::builder()
            .hostname(host)
            .port(port.into())
            .username(user)
            .region(region)
            .build();
        let wanted = wanted.map_err(|_| Failure::Missing("the request is incomplete".into()))?;
        // The error's text is dropped: it may quote what was signed.
        let token = AuthTokenGenerator::new(wanted).auth_token(&config).await.map_err(|_| {
            Failure::Unavailable("no usable AWS credentials: give this machine a role with rds-db:connect".into())
        })?;
        Ok(Secret::new(token.as_str()))
    }
}

fn region_name(config: &SdkConfig) -> String {
    config.region().map(ToString::to_string).unwrap_or_default()
}

fn facts(id: &str, instance: &DbInstance) -> Result<RdsInstance, RdsError> {
    let unusable = |detail: &str| RdsError::Unusable {
        id: id.to_owned(),
        detail: detail.to_owned(),
    };
    let engine = instance.engine().unwrap_or_default();
    match engine {
        "mysql" | "mariadb" => {}
        "aurora-mysql" => {
            return Err(unusable(
                "Aurora instances are not supported yet: only mysql and mariadb",
            ));
        }
        _ => return Err(unusable("its engine is neither mysql nor mariadb")),
    }
    let status = Status(instance.db_instance_status().unwrap_or("unknown").to_owned());
    let address = instance
        .endpoint()
        .and_then(|endpoint| endpoint.address().zip(endpoint.port()));
    let Some((host, port)) = address else {
        return Err(RdsError::NoAddress {
            id: id.to_owned(),
            status,
        });
    };
    let port = u16::try_from(port).map_err(|_| unusable("RDS names a port that is none"))?;
    Ok(RdsInstance {
        id: id.to_owned(),
        host: host.to_owned(),
        port,
        engine: engine.to_owned(),
        version: instance.engine_version().map(str::to_owned),
        status,
        multi_az: instance.multi_az(),
        ca_certificate: instance.ca_certificate_identifier().map(str::to_owned),
        backup_retention_days: instance
            .backup_retention_period()
            .and_then(|days| u32::try_from(days).ok()),
        iam_login: instance.iam_database_authentication_enabled(),
        replica_of: instance.read_replica_source_db_instance_identifier().map(str::to_owned),
    })
}

fn sort(id: &str, failure: Failure) -> RdsError {
    let id = id.to_owned();
    match failure {
        Failure::Missing(detail) => RdsError::Unusable { id, detail },
        Failure::Denied(detail) => RdsError::Denied { id, detail },
        Failure::Unavailable(detail) => RdsError::Unavailable { id, detail },
    }
}
