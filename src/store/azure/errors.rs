//! The SDK's errors in our words, and without anything that must not be read.
//!
//! Only the status, the service's error code and the kind of a transport error are repeated: bodies can
//! hold the string to sign, and URLs hold a SAS token's signature.

use std::error::Error as _;

use azure_core::error::ErrorKind;
use azure_core::http::StatusCode;
use azure_storage_blob::models::StorageErrorCode;

use crate::store::StoreError;

/// What a failed call was about; names what goes into the error.
pub(super) struct Subject<'a> {
    pub(super) store: &'a str,
    pub(super) account: &'a str,
    pub(super) container: &'a str,
    pub(super) blob: &'a str,
}

/// The code that the service gave, if the service answered at all.
pub(super) fn error_code(error: &azure_core::Error) -> Option<StorageErrorCode> {
    match error.kind() {
        ErrorKind::HttpResponse {
            error_code: Some(code), ..
        } => code.parse().ok(),
        _ => None,
    }
}

impl Subject<'_> {
    /// `on_precondition` is what a failed If-Match or If-None-Match means for this call.
    pub(super) fn map(&self, error: &azure_core::Error, on_precondition: Precondition) -> StoreError {
        let store = self.store.to_owned();
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code, .. } => {
                self.map_status(*status, error_code.as_deref(), on_precondition)
            }
            ErrorKind::Connection | ErrorKind::Io => StoreError::Unavailable {
                store,
                detail: redacted_chain(error),
            },
            ErrorKind::Credential => self.map_credential(error),
            // An answer that cannot be read is most often one that was cut off or came from a proxy.
            ErrorKind::DataConversion => StoreError::Unavailable {
                store,
                detail: redacted_chain(error),
            },
            ErrorKind::Other => StoreError::Invalid {
                store,
                detail: redacted_chain(error),
            },
        }
    }

    fn map_status(&self, status: StatusCode, code: Option<&str>, on_precondition: Precondition) -> StoreError {
        let (store, name) = (self.store.to_owned(), self.blob.to_owned());
        let shown = code.filter(|code| code.len() <= 80).unwrap_or("no error code");
        let detail = format!("HTTP {} {shown}", u16::from(status));
        let known = code.and_then(|code| code.parse::<StorageErrorCode>().ok());
        match known {
            Some(StorageErrorCode::ContainerNotFound) => return self.no_container(),
            Some(StorageErrorCode::BlobNotFound) => return StoreError::NotFound { store, name },
            Some(StorageErrorCode::BlobAlreadyExists) => return StoreError::AlreadyExists { store, name },
            // Damaged on the way, or a container that is just being deleted: another try may do.
            Some(StorageErrorCode::Md5Mismatch | StorageErrorCode::ContainerBeingDeleted) => {
                return StoreError::Unavailable { store, detail };
            }
            Some(
                StorageErrorCode::BlobImmutableDueToPolicy
                | StorageErrorCode::AccountIsDisabled
                | StorageErrorCode::ContainerDisabled
                | StorageErrorCode::LeaseIdMissing,
            ) => return StoreError::Denied { store, detail },
            Some(_) | None => {}
        }
        match u16::from(status) {
            401 | 403 => StoreError::Denied { store, detail },
            404 => StoreError::NotFound { store, name },
            409 | 412 => match on_precondition {
                Precondition::Taken => StoreError::AlreadyExists { store, name },
                Precondition::Changed => StoreError::Changed { store, name },
                Precondition::None => StoreError::Invalid { store, detail },
            },
            408 | 429 | 500..=599 => StoreError::Unavailable { store, detail },
            _ => StoreError::Invalid { store, detail },
        }
    }

    fn no_container(&self) -> StoreError {
        StoreError::NoContainer {
            store: self.store.to_owned(),
            // Made by the service itself, with the static website.
            hint: match self.container {
                "$web" => format!(
                    "az storage blob service-properties update --account-name {} --static-website --index-document index.html \
                     --404-document index.html --auth-mode login",
                    self.account
                ),
                _ => format!(
                    "az storage container create --account-name {} --name {} --auth-mode login",
                    self.account, self.container
                ),
            },
        }
    }

    /// No token: refused for good if the identity service answered, else worth another try.
    fn map_credential(&self, error: &azure_core::Error) -> StoreError {
        let store = self.store.to_owned();
        let detail = format!("no token: {}", redacted_chain(error));
        let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
        while let Some(cause) = next {
            match cause.downcast_ref::<azure_core::Error>().map(azure_core::Error::kind) {
                Some(ErrorKind::Connection | ErrorKind::Io) => return StoreError::Unavailable { store, detail },
                Some(ErrorKind::HttpResponse { status, .. }) if matches!(u16::from(*status), 408 | 429 | 500..=599) => {
                    return StoreError::Unavailable { store, detail };
                }
                Some(_) | None => next = cause.source(),
            }
        }
        StoreError::Denied { store, detail }
    }
}

/// What 409 and 412 mean for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precondition {
    /// It asked for the name to be free.
    Taken,
    /// It asked for one version.
    Changed,
    /// It asked for nothing.
    None,
}

/// The error and its causes, without the query of any URL in them.
fn redacted_chain(error: &azure_core::Error) -> String {
    let mut text = redact(&error.to_string());
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = next {
        let cause_text = redact(&cause.to_string());
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.chars().take(400).collect()
}

/// Drops everything from a `?` to the end of the URL: a SAS token is a query string.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_query = false;
    for c in text.chars() {
        match c {
            '?' if !in_query => {
                in_query = true;
                out.push_str("?…");
            }
            ' ' | '\n' | ')' | '"' | '\'' | '>' => {
                in_query = false;
                out.push(c);
            }
            _ if in_query => {}
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(status: u16, code: &str, on: Precondition) -> StoreError {
        let subject = Subject {
            store: "azblob://a/c",
            account: "a",
            container: "c",
            blob: "b",
        };
        subject.map_status(StatusCode::from(status), Some(code), on)
    }

    #[test]
    fn queries_are_cut_out_of_urls() {
        let text = "error sending request for url (http://h/c/b?comp=block&sig=SECRET%3D) \"x?sig=SECRET\" end?";
        let redacted = redact(text);
        assert!(!redacted.contains("SECRET"), "{redacted}");
        assert!(
            redacted.contains("http://h/c/b?…)") && redacted.contains("end"),
            "{redacted}"
        );
    }

    #[test]
    fn every_status_has_its_meaning() {
        use Precondition::{Changed, None, Taken};
        assert!(
            matches!(map(403, "AuthenticationFailed", None), StoreError::Denied { detail, .. } if detail.contains("AuthenticationFailed"))
        );
        assert!(matches!(
            map(401, "NoAuthenticationInformation", None),
            StoreError::Denied { .. }
        ));
        assert!(
            matches!(map(404, "ContainerNotFound", None), StoreError::NoContainer { hint, .. } if hint.contains("--name c"))
        );
        assert!(matches!(map(404, "BlobNotFound", None), StoreError::NotFound { .. }));
        assert!(matches!(
            map(409, "BlobAlreadyExists", Taken),
            StoreError::AlreadyExists { .. }
        ));
        assert!(matches!(
            map(412, "ConditionNotMet", Taken),
            StoreError::AlreadyExists { .. }
        ));
        assert!(matches!(
            map(412, "ConditionNotMet", Changed),
            StoreError::Changed { .. }
        ));
        assert!(matches!(map(412, "LeaseIdMissing", Changed), StoreError::Denied { .. }));
        assert!(matches!(
            map(409, "BlobImmutableDueToPolicy", Changed),
            StoreError::Denied { .. }
        ));
        assert!(matches!(map(400, "Md5Mismatch", None), StoreError::Unavailable { .. }));
        assert!(matches!(map(400, "InvalidBlockList", None), StoreError::Invalid { .. }));
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(
                matches!(map(status, "ServerBusy", None), StoreError::Unavailable { .. }),
                "{status}"
            );
        }
    }
}
