//! `[standby]`: the server that backups are restored to when the source is gone; and `[primary]`, the protected one with an
//! account that may write.

use super::collect::Document;
use super::sections::{absolute_path, account, host_name, is_loopback};
use super::{Standby, Tls};
use crate::secret::SecretRef;

/// None where the section is left out.
pub(super) fn server(document: &mut Document<'_>, name: &'static str) -> Option<Standby> {
    let is_there = document.has(name);
    let mut section = document.section(name);
    // Read in any case, so that a section with a mistyped name is recognised by what there could be.
    let host = section.text("host", host_name);
    let port = section
        .whole("port", 1..=65_535)
        .and_then(|port| u16::try_from(port).ok());
    let user = section.text("user", account);
    let password = section.secret("password");
    let tls = section
        .choice("tls", &[("required", Tls::Required), ("off", Tls::Off)])
        .unwrap_or(Tls::Required);
    let tls_ca = section.text("tls_ca", absolute_path);
    if !is_there {
        return None;
    }
    if tls == Tls::Off {
        if host.as_deref().is_some_and(|host| !is_loopback(host)) {
            section.problem(
                "tls",
                "may be off only for a loopback host such as 127.0.0.1: write \"required\"",
            );
        }
        if tls_ca.is_some() {
            section.problem("tls_ca", "has no meaning with tls = \"off\": remove one of them");
        }
    }
    let password = password.map(|reference| reference.0);
    Some(Standby {
        host: section.need(
            "host",
            host,
            "the standby's address, e.g. host = \"bank-dr.mysql.database.azure.com\"",
        ),
        port: port.unwrap_or(3306),
        user: section.need("user", user, "the account that restores, e.g. user = \"planb_restore\""),
        password: SecretRef(section.need(
            "password",
            password,
            "where it is, e.g. password = \"azure-keyvault:kv-dr/standby-password\"",
        )),
        tls,
        tls_ca,
    })
}
