//! Where a distribution sends requests, which routes have to change, and which go back. Pure.
//!
//! A group of origins tries its first origin on every request, and passes GET, HEAD and OPTIONS on only. So nothing less than every
//! behaviour, straight to the standby's origin, keeps readers from the old primary and lets writers through.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What decides where a request goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Each origin's id, and its host.
    pub origins: BTreeMap<String, String>,
    /// Each group's id, and the origins that it tries in this order.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// In order of precedence; the default is the last.
    pub behaviours: Vec<Behaviour>,
    /// What may send a request elsewhere all the same, for people.
    #[serde(default)]
    pub doubts: Vec<String>,
}

/// Requests for some paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behaviour {
    /// None is the default. No two have the same.
    pub path: Option<String>,
    /// An origin or a group.
    pub target: String,
}

/// One behaviour that is to go elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retarget {
    pub path: Option<String>,
    pub from: String,
    pub to: String,
}

impl Retarget {
    pub fn told(&self) -> String {
        format!("{}: {} to {}", named(self.path.as_deref()), self.from, self.to)
    }
}

/// A behaviour's name for people.
pub fn named(path: Option<&str>) -> &str {
    path.unwrap_or("default (*)")
}

/// The origin that the standby answers at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub id: String,
    /// Host name; spoken to by HTTPS only.
    pub domain: String,
    /// Put before every path; empty, or beginning with a slash.
    pub path: String,
}

/// What a distribution was before it was switched, kept in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub v: u32,
    pub distribution: String,
    pub etag: String,
    /// The origin that it was going to be switched to.
    pub to: String,
    pub routes: Routes,
    /// As CloudFront wrote it, values of custom headers left out: they are secrets shared with the origin.
    pub configuration: String,
}

/// Which kept records these are.
pub const KEPT_VERSION: u32 = 1;

/// Why routes cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Another host has the origin's id.
    Taken { id: String, host: String },
    /// What a behaviour went to is not there any more.
    Gone { behaviour: String, target: String },
    /// No record says where the default went.
    Unknown,
}

/// Where the behaviours go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Every one to the origin.
    All,
    None,
    /// These ones elsewhere.
    Part(Vec<String>),
}

/// How the behaviours stand to `origin`.
pub fn standing(routes: &Routes, origin: &Origin) -> Standing {
    let is_it = routes
        .origins
        .get(&origin.id)
        .is_some_and(|host| host.eq_ignore_ascii_case(&origin.domain));
    let elsewhere: Vec<String> = routes
        .behaviours
        .iter()
        .filter(|behaviour| !is_it || behaviour.target != origin.id)
        .map(|behaviour| named(behaviour.path.as_deref()).to_owned())
        .collect();
    match elsewhere.len() {
        0 => Standing::All,
        count if count == routes.behaviours.len() => Standing::None,
        _ => Standing::Part(elsewhere),
    }
}

/// Every behaviour to `origin`.
pub fn towards(routes: &Routes, origin: &Origin) -> Result<Vec<Retarget>, Conflict> {
    match routes.origins.get(&origin.id) {
        Some(host) if !host.eq_ignore_ascii_case(&origin.domain) => {
            return Err(Conflict::Taken {
                id: origin.id.clone(),
                host: host.clone(),
            });
        }
        Some(_) | None => {}
    }
    let retarget = |behaviour: &Behaviour| Retarget {
        path: behaviour.path.clone(),
        from: behaviour.target.clone(),
        to: origin.id.clone(),
    };
    Ok(routes
        .behaviours
        .iter()
        .filter(|behaviour| behaviour.target != origin.id)
        .map(retarget)
        .collect())
}

/// Every behaviour that is at the standby's origin back to where it was. `kept`: oldest first; the first that knows a behaviour elsewhere than at the
/// standby decides. One that nobody knew is new since, and goes where the default goes.
pub fn back(routes: &Routes, kept: &[Kept]) -> Result<Vec<Retarget>, Conflict> {
    let Some(standby) = kept.first().map(|kept| kept.to.as_str()) else {
        return Err(Conflict::Unknown);
    };
    let was = |path: Option<&str>| {
        kept.iter()
            .flat_map(|kept| &kept.routes.behaviours)
            .find(|behaviour| behaviour.path.as_deref() == path && behaviour.target != standby)
            .map(|behaviour| behaviour.target.as_str())
    };
    let mut retargets = Vec::new();
    for behaviour in routes.behaviours.iter().filter(|behaviour| behaviour.target == standby) {
        let path = behaviour.path.as_deref();
        let target = was(path).or_else(|| was(None)).ok_or(Conflict::Unknown)?;
        if !routes.origins.contains_key(target) && !routes.groups.contains_key(target) {
            return Err(Conflict::Gone {
                behaviour: named(path).to_owned(),
                target: target.to_owned(),
            });
        }
        retargets.push(Retarget {
            path: behaviour.path.clone(),
            from: behaviour.target.clone(),
            to: target.to_owned(),
        });
    }
    Ok(retargets)
}

/// What of `before` is not in `after`, both XML: elements that hold text, each as often as it is there. `TargetOriginId` is meant to change, and a
/// `Quantity` follows the items that it counts.
pub fn lost(before: &str, after: &str) -> Vec<String> {
    let mut there: BTreeMap<(String, String), usize> = BTreeMap::new();
    for leaf in leaves(after) {
        *there.entry(leaf).or_default() += 1;
    }
    let mut lost = Vec::new();
    for leaf in leaves(before) {
        if ["TargetOriginId", "Quantity"].contains(&leaf.0.as_str()) {
            continue;
        }
        match there.get_mut(&leaf) {
            Some(count) if *count > 0 => *count -= 1,
            // The name only: a header's value is a secret.
            _ => lost.push(leaf.0),
        }
    }
    lost
}

/// Names and texts of elements that hold text. Enough for what CloudFront writes: no CDATA, no comments.
fn leaves(xml: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut parts = xml.split('<').peekable();
    while let Some(part) = parts.next() {
        let Some((tag, text)) = part.split_once('>') else {
            continue;
        };
        let name = tag.split_whitespace().next().unwrap_or_default();
        let is_leaf = parts.peek().is_some_and(|next| next.starts_with('/'));
        if !text.trim().is_empty() && is_leaf && !name.starts_with(['/', '?', '!']) {
            found.push((name.to_owned(), unescaped(text)));
        }
    }
    found
}

fn unescaped(text: &str) -> String {
    // The ampersand last: it is part of the others.
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&#xD;", "\r"),
        ("&#xA;", "\n"),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Without the values of custom headers.
pub fn without_secrets(xml: &str) -> String {
    const OPEN: &str = "<HeaderValue>";
    let mut parts = xml.split(OPEN);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find("</HeaderValue>").map_or("", |at| &part[at..]);
        out.push_str(OPEN);
        out.push_str("(not kept)");
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
