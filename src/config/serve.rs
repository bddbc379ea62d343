//! `[serve]`: where the agent shows its measurements and its status page.

use std::net::SocketAddr;

use super::Serve;
use super::collect::Document;

/// None where the section is left out: then nothing listens.
pub(super) fn serve(document: &mut Document<'_>) -> Option<Serve> {
    let is_there = document.has("serve");
    let mut section = document.section("serve");
    // Read in any case, so that a section with a mistyped name is recognised by what there could be.
    let listen = section.text("listen", address);
    let token = section.secret("token");
    if !is_there {
        return None;
    }
    let is_wrong = section.has("listen") && listen.is_none();
    let listen = listen.unwrap_or(DEFAULT);
    if !is_wrong && !listen.ip().is_loopback() && !section.has("token") {
        section.problem(
            "token",
            "is missing: whoever reaches this address would see what there is to restore and how far a failover is. Add e.g. \
             token = \"credential:planb-status\", or listen on 127.0.0.1",
        );
    }
    Some(Serve { listen, token })
}

/// Not registered for anything else that a database's machine runs.
const DEFAULT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9105));

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "must be an address with its port, e.g. \"127.0.0.1:9105\" or \"[::1]:9105\"".to_owned())?;
    if address.port() == 0 {
        return Err("needs a port that others can know, e.g. 9105".to_owned());
    }
    Ok(address)
}
