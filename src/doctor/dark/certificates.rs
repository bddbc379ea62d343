//! Certificates that a recovery relies on: which of them ended, and which end soon.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Certificate, Finding, Seen, Severity};

pub(super) fn judge(certificate: &Certificate, seen: &Seen) -> Vec<Finding> {
    let found = |severity, what: String, remedy: &str| Finding::new(severity, &certificate.at, what, remedy);
    let all = match &certificate.read {
        Ok(all) => all,
        Err(why) => {
            return vec![found(
                Severity::Error,
                why.clone(),
                "put the certificate there, PEM, or correct the path",
            )];
        }
    };
    let told = |subject: &str| {
        if subject.is_empty() {
            "a certificate".to_owned()
        } else {
            subject.to_owned()
        }
    };
    // Of a bundle of authorities, the ones that ran out harm nobody as long as others stand.
    let gone = all.iter().filter(|(_, _, until)| *until <= seen.now).count();
    if all.len() > 1 && gone > 0 && gone < all.len() {
        return vec![found(
            Severity::Note,
            format!("{gone} of its {} certificates ran out", all.len()),
            "take a newer bundle",
        )];
    }
    let soon = |until: Timestamp| seen.now.checked_add(seen.valid_for).is_ok_and(|then| until < then);
    // The one that ends last decides.
    let Some((subject, from, until)) = all.iter().max_by_key(|(_, _, until)| *until) else {
        return Vec::new();
    };
    let (subject, date) = (told(subject), until.strftime("%Y-%m-%d").to_string());
    if *until <= seen.now {
        return vec![found(
            Severity::Error,
            format!("{subject} ran out on {date}"),
            "renew it now: nothing that checks it will connect",
        )];
    }
    if *from > seen.now {
        return vec![found(
            Severity::Error,
            format!("{subject} is not valid before {from}"),
            "look at this machine's clock, or take the right certificate",
        )];
    }
    if soon(*until) {
        return vec![found(
            Severity::Warning,
            format!("{subject} ends on {date}"),
            "renew it before",
        )];
    }
    Vec::new()
}

/// Where certificates are, and when each ends; true where that is soon, or over. Of a bundle of authorities, the one that ends last counts.
pub fn ends(seen: &Seen) -> BTreeMap<String, (Timestamp, bool)> {
    let last = |one: &Certificate| {
        let until = one.read.as_ref().ok()?.iter().map(|(_, _, until)| *until).max()?;
        let is_soon = seen.now.checked_add(seen.valid_for).is_ok_and(|then| until < then);
        Some((one.at.clone(), (until, is_soon)))
    };
    seen.certificates.iter().filter_map(last).collect()
}
