//! What is allowed, but not what a bank would want: told by `planb config check` and at the agent's start.

use std::time::Duration;

use super::cadence::{largest_gap, parse_cron};
use super::notify::CRITICAL;
use super::units::format_duration;
use super::{AzureAuth, Config, Endpoint, Lock, Place, Schedule, Tls, VerifySource};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Dotted, e.g. `backup.schedule`.
    pub key: &'static str,
    pub text: String,
}

/// Everything that can be said without having run.
pub fn warnings(config: &Config) -> Vec<Warning> {
    let mut found = Vec::new();
    found.extend(schedule_cannot_meet_rpo(config, Duration::ZERO));
    found.extend(store_needs_aws(config));
    found.extend(store_is_no_second_site(config));
    found.extend(source(config));
    found.extend(standby_needs_aws(config));
    found.extend(accounts_need_aws(config));
    found.extend(backup(config));
    found.extend(retention(config));
    found.extend(proofs(config));
    found.extend(notify(config));
    found
}

/// Whether the worst case, the largest gap between starts plus `run_time` from snapshot to commit, is over the target.
/// The agent asks again with the time that runs really take.
pub fn schedule_cannot_meet_rpo(config: &Config, run_time: Duration) -> Option<Warning> {
    let rpo = config.targets.rpo;
    let told = format_duration;
    match &config.backup.schedule {
        Schedule::Cron(text) => {
            let gap = largest_gap(&parse_cron(text).ok()?)?;
            let worst = gap.saturating_add(run_time);
            // With no time measured yet, a gap as long as the target leaves a run no time at all.
            let broken = if run_time.is_zero() { gap >= rpo } else { worst > rpo };
            broken.then(|| {
                let run = if run_time.is_zero() {
                    "the time a run takes".into()
                } else {
                    told(run_time)
                };
                let sum = if run_time.is_zero() { "more".into() } else { told(worst) };
                Warning {
                    key: "backup.schedule",
                    text: format!(
                        "runs start up to {} apart; with {run} from snapshot to commit, the worst case is {sum}, over \
                         targets.rpo = {}: start more often, write \"keep-rpo\", or raise the target",
                        told(gap),
                        told(rpo)
                    ),
                }
            })
        }
        Schedule::KeepRpo => (run_time * 2 > rpo || rpo < Duration::from_secs(60)).then(|| Warning {
            key: "backup.schedule",
            text: format!(
                "back to back, runs of {} give a worst case of {}; targets.rpo = {} can hardly be kept by whole dumps",
                told(run_time),
                told(run_time * 2),
                told(rpo)
            ),
        }),
    }
}

/// Whoever must get up has to hear of it, also when a cloud is down.
fn notify(config: &Config) -> Vec<Warning> {
    let channels = &config.notify.channels;
    let mut found = Vec::new();
    let is_taken = |event: &&str| channels.iter().any(|channel| channel.takes_critical(event));
    let untold: Vec<&str> = CRITICAL.into_iter().filter(|event| !is_taken(event)).collect();
    if channels.is_empty() {
        let text = "nobody is told when a backup fails or the RPO is breached: name a channel in [[notify.channels]]";
        found.push(Warning {
            key: "notify.channels",
            text: text.into(),
        });
    } else if !untold.is_empty() {
        found.push(Warning {
            key: "notify.channels",
            text: format!(
                "no channel takes {}, for which somebody has to get up: add them to the events of one, or leave its events out",
                untold.join(", ")
            ),
        });
    }
    for channel in channels {
        let secrets = channel.to.secrets();
        let aws_alone: Vec<&str> = secrets
            .iter()
            .filter(|(_, secret)| secret.needs_aws())
            .map(|(key, _)| *key)
            .collect();
        if !aws_alone.is_empty() {
            found.push(Warning {
                key: "notify.channels",
                text: format!(
                    "{} of the channel {} can be had from AWS alone: when AWS is down, nobody hears of it there. Add a reference that \
                     does not need it, e.g. credential:NAME, in front",
                    aws_alone.join(" and "),
                    channel.name
                ),
            });
        }
    }
    found
}

fn store_needs_aws(config: &Config) -> Option<Warning> {
    let Place::Azure { auth, .. } = &config.store.place else {
        return None;
    };
    let (key, secret) = match auth {
        AzureAuth::ClientSecret { secret, .. } => ("store.client_secret", secret),
        AzureAuth::Sas(secret) => ("store.sas", secret),
        AzureAuth::AccountKey(secret) => ("store.account_key", secret),
        AzureAuth::WorkloadIdentity { .. } | AzureAuth::ManagedIdentity { .. } | AzureAuth::AzLogin => return None,
    };
    secret.needs_aws().then(|| Warning {
        key,
        text:
            "can be had from AWS alone: when AWS is down, so are the backups. Add a reference that does not need it, \
               e.g. azure-keyvault:VAULT/NAME, in front"
                .into(),
    })
}

fn standby_needs_aws(config: &Config) -> Option<Warning> {
    let standby = config.standby.as_ref()?;
    standby.password.needs_aws().then(|| Warning {
        key: "standby.password",
        text: "can be had from AWS alone: when AWS is down, nobody can log in to the standby. Add a reference that does not \
               need it, e.g. azure-keyvault:VAULT/NAME, in front"
            .into(),
    })
}

fn accounts_need_aws(config: &Config) -> Option<Warning> {
    let account = config.accounts.iter().find(|account| account.password.needs_aws())?;
    Some(Warning {
        key: "accounts.password",
        text: format!(
            "that of {} can be had from AWS alone: when AWS is down, the application's account cannot be made on the standby. \
             Add a reference that does not need it, e.g. azure-keyvault:VAULT/NAME, in front",
            account.name
        ),
    })
}

fn store_is_no_second_site(config: &Config) -> Option<Warning> {
    let (key, text) = match &config.store.place {
        Place::Directory(_) => ("store.url", "backups stay on this machine: they are lost with it"),
        Place::Azure {
            endpoint: Some(endpoint),
            ..
        } if endpoint.scheme() == "http" => (
            "store.endpoint",
            "an emulator on this machine: backups are lost with it",
        ),
        Place::Azure { .. } => return None,
    };
    Some(Warning { key, text: text.into() })
}

fn source(config: &Config) -> Vec<Warning> {
    let source = &config.source;
    let mut found = Vec::new();
    if source.tls == Tls::Off {
        let text =
            "the connection is not encrypted: right for a database on this machine, wrong for a tunnel's far end";
        found.push(Warning {
            key: "source.tls",
            text: text.into(),
        });
    }
    let at_rds = match &source.endpoint {
        Endpoint::RdsInstance { .. } => true,
        Endpoint::Address { host, .. } => host.ends_with(".rds.amazonaws.com"),
    };
    if at_rds && source.tls_ca.is_none() {
        let text = "RDS's certificates are signed by Amazon's own authority, which no system trusts by default: name its \
                    bundle (global-bundle.pem)";
        found.push(Warning {
            key: "source.tls_ca",
            text: text.into(),
        });
    }
    found
}

fn backup(config: &Config) -> Vec<Warning> {
    let mut found = Vec::new();
    if config.backup.lock == Lock::Tables {
        let text =
            "LOCK TABLES starves under load and can make the application the victim of a deadlock: prefer \"auto\"";
        found.push(Warning {
            key: "backup.lock",
            text: text.into(),
        });
    }
    if config.backup.verify_source == VerifySource::Never {
        let text = "nothing ever compares a backup with its source: \"daily\" costs one more reading a day";
        found.push(Warning {
            key: "backup.verify_source",
            text: text.into(),
        });
    }
    found
}

fn retention(config: &Config) -> Vec<Warning> {
    let retention = &config.retention;
    let mut found = Vec::new();
    if retention.keep_at_least < 3 {
        let text = "if the newest backups are all of bad data, nothing older is certain to be left: keep 12";
        found.push(Warning {
            key: "retention.keep_at_least",
            text: text.into(),
        });
    }
    let generations = &retention.generations;
    let days = [
        retention.keep_days,
        generations.daily,
        generations.weekly.saturating_mul(7),
    ];
    let kept_long = generations.monthly > 0 || generations.yearly > 0 || days.iter().any(|days| *days >= 7);
    if !kept_long {
        let text = "a mistake noticed after a week cannot be taken back: keep at least 7 days";
        found.push(Warning {
            key: "retention.keep_days",
            text: text.into(),
        });
    }
    found
}

fn proofs(config: &Config) -> Vec<Warning> {
    let Some(proving) = &config.verify.restore else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let gap = parse_cron(&proving.schedule).ok().and_then(|cron| largest_gap(&cron));
    if let Some(gap) = gap.filter(|gap| *gap >= config.verify.proof_max_age) {
        found.push(Warning {
            key: "verify.restore_schedule",
            text: format!(
                "a backup is restored up to {} apart, and verify.proof_max_age = {} calls a proof old before: prove more often, \
                 or raise the age",
                format_duration(gap),
                format_duration(config.verify.proof_max_age)
            ),
        });
    }
    // That of [standby] is warned about where it stands.
    if config.standby.as_ref() != Some(&proving.to) && proving.to.password.needs_aws() {
        found.push(Warning {
            key: "verify.password",
            text: "can be had from AWS alone: when AWS is down, no backup is proven. Add a reference that does not need it, e.g. \
                   azure-keyvault:VAULT/NAME, in front"
                .into(),
        });
    }
    found
}
