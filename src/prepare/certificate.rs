//! Until when certificates are valid, read from PEM or DER. Pure.
//!
//! Only owner and validity are read (RFC 5280 §4.1): whether a certificate is trusted is rustls's matter, where it is used.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// What of a certificate decides whether it serves tonight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// Its owner's common name; empty where it has none.
    pub subject: String,
    pub from: Timestamp,
    pub until: Timestamp,
}

/// Every certificate of a PEM file, in its order; others of its blocks, such as keys, are passed over.
///
/// # Errors
/// What is wrong, without any of the text: it may hold a private key.
pub fn of_pem(text: &str) -> Result<Vec<Validity>, &'static str> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|_| "a certificate in it cannot be read (PEM)")?;
        found.push(of_der(&certificate)?);
    }
    if found.is_empty() {
        return Err("no certificate is in it (PEM)");
    }
    Ok(found)
}

/// When each certificate in PEM text ends. What cannot be read is left out: a bundle serves without it.
pub fn ends_of(pem: &[u8]) -> Vec<Timestamp> {
    use base64::Engine;
    let text = String::from_utf8_lossy(pem);
    let bodies = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let decoded = bodies.filter_map(|body| {
        let body: String = body
            .split("-----END")
            .next()?
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect();
        base64::prelude::BASE64_STANDARD.decode(body).ok()
    });
    decoded.filter_map(|der| Some(of_der(&der).ok()?.until)).collect()
}

/// # Errors
/// It is none.
pub fn of_der(bytes: &[u8]) -> Result<Validity, &'static str> {
    validity(bytes).ok_or("a certificate in it cannot be read")
}

/// Whether a text holds certificates at all, as a secret of a key vault may.
pub fn looks_like_one(text: &str) -> bool {
    text.contains("-----BEGIN CERTIFICATE-----")
}

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

fn validity(bytes: &[u8]) -> Option<Validity> {
    let (certificate, _) = value(bytes, SEQUENCE)?;
    let (signed, _) = value(certificate, SEQUENCE)?;
    // Version (not in the first), serial number, algorithm, issuer.
    let rest = value(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_, rest) = value(rest, INTEGER)?;
    let (_, rest) = value(rest, SEQUENCE)?;
    let (_, rest) = value(rest, SEQUENCE)?;
    let (times, rest) = value(rest, SEQUENCE)?;
    let (subject, _) = value(rest, SEQUENCE)?;
    let (from, times) = time(times)?;
    let (until, _) = time(times)?;
    Some(Validity {
        subject: common_name(subject).unwrap_or_default(),
        from,
        until,
    })
}

/// Tag, contents, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes of length; no certificate is larger than three can say.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// Contents of an element of this kind, and what follows.
fn value(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, contents, rest) = element(bytes)?;
    (tag == wanted).then_some((contents, rest))
}

/// `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (tag, contents, rest) = element(bytes)?;
    let digits = std::str::from_utf8(contents).ok()?.strip_suffix('Z')?;
    let written = match tag {
        UTC_TIME => {
            let year: u8 = digits.get(..2)?.parse().ok()?;
            format!("{}{digits}", if year < 50 { "20" } else { "19" })
        }
        GENERALIZED_TIME => digits.to_owned(),
        _ => return None,
    };
    let all = written.len() == 14 && written.bytes().all(|byte| byte.is_ascii_digit());
    let at = all.then(|| {
        format!(
            "{}T{}Z",
            written.get(..8).unwrap_or_default(),
            written.get(8..).unwrap_or_default()
        )
    })?;
    Some((at.parse().ok()?, rest))
}

fn common_name(mut names: &[u8]) -> Option<String> {
    loop {
        let (set, rest) = value(names, SET)?;
        let (pair, _) = value(set, SEQUENCE)?;
        let (kind, text) = value(pair, OBJECT_ID)?;
        if kind == COMMON_NAME {
            let (_, text, _) = element(text)?;
            return Some(format!("CN={}", String::from_utf8_lossy(text)));
        }
        names = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = include_str!("../../tests/fixtures/certificates/valid.pem");
    const EXPIRED: &str = include_str!("../../tests/fixtures/certificates/expired.pem");

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn owner_and_times_are_those_that_openssl_wrote() {
        let both = of_pem(&format!("{EXPIRED}\nsome text\n{VALID}")).expect("two");
        let seen: Vec<_> = both
            .iter()
            .map(|one| (one.subject.as_str(), one.from, one.until))
            .collect();
        assert_eq!(
            seen,
            [
                ("CN=standby", at("2024-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z")),
                // Past 2049 it is written another way.
                ("CN=standby", at("2025-01-01T00:00:00Z"), at("2099-01-01T00:00:00Z")),
            ]
        );
    }

    #[test]
    fn what_is_cut_off_or_none_is_an_error_and_never_a_panic() {
        let whole = CertificateDer::from_pem_slice(VALID.as_bytes()).expect("one");
        let needed = (0..whole.len())
            .filter(|length| of_der(&whole[..*length]).is_ok())
            .count();
        assert_eq!(needed, 0);
        for place in 0..whole.len().min(120) {
            let mut altered = whole.to_vec();
            altered[place] = 0xff;
            let _ = of_der(&altered);
        }
        assert!(of_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
        assert!(of_pem("").is_err());
    }

    #[test]
    fn no_bytes_make_the_reader_of_certificates_panic() {
        assert!(ends_of(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----").is_empty());
        for length in 0..40_usize {
            let der: Vec<u8> = (0..length).map(|n| [0x30, 0x84, 0xff, 0x02, 0xa0][n % 5]).collect();
            assert_eq!(of_der(&der).ok(), None);
        }
    }
}
