//! `[verify]`: how backups are checked after they were made, and where one is restored as a matter of routine.

use std::path::PathBuf;

use super::cadence::parse_cron;
use super::collect::{Document, Section};
use super::sections::{HOUR, MINUTE, YEAR, absolute_path, is_loopback};
use super::server::{self, Server};
use super::{Place, Proving, Standby, Tls, Verify};
use crate::secret::SecretRef;

/// What `restore_to` calls the configured standby.
const STANDBY: &str = "standby";
/// Nobody works then, and the proof is fresh in the morning.
const DAILY: &str = "0 3 * * *";

#[derive(Debug)]
enum To {
    Standby,
    Named(Server),
}

pub(super) fn verify(document: &mut Document<'_>, place: &Place, standby: Option<&Standby>) -> Verify {
    let mut section = document.section("verify");
    Verify {
        // Reading every backup back out of a cloud costs more than keeping it there.
        structure: section
            .flag("structure")
            .unwrap_or(matches!(place, Place::Directory(_))),
        // A day, and two hours for a drill that took its time.
        proof_max_age: section.duration("proof_max_age", MINUTE..=YEAR).unwrap_or(26 * HOUR),
        restore: proving(&mut section, standby),
    }
}

/// Read as a whole, so that a mistyped key is recognised by what there could be.
fn proving(section: &mut Section<'_, '_>, standby: Option<&Standby>) -> Option<Proving> {
    let to = section.text("restore_to", |text| match text {
        STANDBY => Ok(To::Standby),
        text => server::parse(text).map(To::Named).map_err(|why| {
            format!(
                "{why}: write \"standby\" for [standby], or an address such as \"mysql://user@scratch.internal:3306\""
            )
        }),
    });
    let schedule = section.text("restore_schedule", |text| {
        parse_cron(text).map(|_| text.trim().to_owned())
    });
    let password = section.secret("password");
    let tls = section.choice("tls", &[("required", Tls::Required), ("off", Tls::Off)]);
    let tls_ca = section.text("tls_ca", absolute_path);
    if !section.has("restore_to") {
        for key in ["restore_schedule", "password", "tls", "tls_ca"] {
            if section.has(key) {
                section.problem(key, "has a meaning only with restore_to: add that, or remove it");
            }
        }
        return None;
    }
    let to = match to? {
        To::Standby => {
            for key in ["password", "tls", "tls_ca"] {
                if section.has(key) {
                    section.problem(key, "comes from [standby] with restore_to = \"standby\": remove it");
                }
            }
            if standby.is_none() {
                section.problem(
                    "restore_to",
                    "names the standby, and there is no [standby]: add it, or write an address",
                );
            }
            standby?.clone()
        }
        To::Named(server) => named(section, server, password, tls.unwrap_or(Tls::Required), tls_ca),
    };
    Some(Proving {
        to,
        schedule: schedule.unwrap_or_else(|| DAILY.to_owned()),
    })
}

fn named(
    section: &mut Section<'_, '_>,
    server: Server,
    password: Option<SecretRef>,
    tls: Tls,
    tls_ca: Option<PathBuf>,
) -> Standby {
    if tls == Tls::Off {
        if !is_loopback(&server.host) {
            section.problem(
                "tls",
                "may be off only for a loopback host such as 127.0.0.1: write \"required\"",
            );
        }
        if tls_ca.is_some() {
            section.problem("tls_ca", "has no meaning with tls = \"off\": remove one of them");
        }
    }
    let write = "where that of restore_to is, e.g. password = \"azure-keyvault:kv-dr/scratch-password\"";
    let password = password.map(|reference| reference.0);
    Standby {
        host: server.host,
        port: server.port,
        user: server.user,
        password: SecretRef(section.need("password", password, write)),
        tls,
        tls_ca,
    }
}
