//! `[telemetry]`: where traces of runs, restores and operations go.

use std::path::PathBuf;

use url::Url;

use super::collect::Document;
use super::sections::{absolute_path, is_loopback};
use crate::secret::SecretRef;

/// Traces for an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Where spans are posted, path included. Default path: `/v1/traces`.
    pub otlp: Url,
    /// `name=value`, several separated by commas.
    pub headers: Option<SecretRef>,
    /// Who signed the collector's certificate.
    pub tls_ca: Option<PathBuf>,
    /// Default `planb`.
    pub service_name: String,
    /// Each request to the store too.
    pub store_requests: bool,
}

/// None where the section is left out: then nothing is traced. `is_built_in`: whether this planb can.
pub(super) fn telemetry(document: &mut Document<'_>, is_built_in: bool) -> Option<Telemetry> {
    let is_there = document.has("telemetry");
    let mut section = document.section("telemetry");
    // Read in any case, so that a section with a mistyped name is recognised by what there could be.
    let otlp = section.text("otlp", address);
    let headers = section.secret("headers");
    let tls_ca = section.text("tls_ca", absolute_path);
    let service_name = section.text("service_name", service_name);
    let store_requests = section.flag("store_requests");
    if !is_there {
        return None;
    }
    if !is_built_in {
        section.problem(
            "otlp",
            "this planb was built without OpenTelemetry: build it with cargo build --release --features otlp, or remove \
             [telemetry]",
        );
        return None;
    }
    if let Some(otlp) = &otlp
        && otlp.scheme() == "http"
        && !otlp.host_str().is_some_and(is_loopback)
        && section.has("headers")
    {
        section.problem(
            "headers",
            "hold a key, which must not travel in the clear: write https:// in otlp, or send to a collector on this machine",
        );
    }
    if !section.has("otlp") {
        section.problem("otlp", "is missing: write e.g. otlp = \"http://127.0.0.1:4318\"");
    }
    Some(Telemetry {
        otlp: otlp?,
        headers,
        tls_ca,
        service_name: service_name.unwrap_or_else(|| "planb".to_owned()),
        store_requests: store_requests.unwrap_or(false),
    })
}

fn address(text: &str) -> Result<Url, String> {
    let wrong = || "must be a collector's address for OTLP over HTTP, e.g. \"http://127.0.0.1:4318\"".to_owned();
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("holds what may be a key: name that in headers".to_owned());
    }
    // Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
    if url.path() == "/" {
        url.set_path("/v1/traces");
    }
    Ok(url)
}

fn service_name(text: &str) -> Result<String, String> {
    if (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("must be one line of 1 to 100 letters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str, is_built_in: bool) -> (Option<Telemetry>, Vec<String>) {
        let text = format!("[telemetry]\n{lines}");
        let mut document = Document::parse(&text).expect("TOML");
        let telemetry = telemetry(&mut document, is_built_in);
        (telemetry, document.finish().iter().map(ToString::to_string).collect())
    }

    fn refused(lines: &str, is_built_in: bool) -> String {
        let (_, problems) = read(lines, is_built_in);
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    #[test]
    fn a_collector_is_its_address_and_the_rest_has_defaults() {
        let (telemetry, problems) = read("otlp = \"http://127.0.0.1:4318\"", true);
        assert!(problems.is_empty(), "{problems:?}");
        let telemetry = telemetry.expect("there");
        assert_eq!(telemetry.otlp.as_str(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(
            (
                telemetry.service_name.as_str(),
                telemetry.store_requests,
                telemetry.headers
            ),
            ("planb", false, None)
        );
        let (telemetry, _) = read("otlp = \"https://otel.example/gate/v1/traces\"", true);
        assert_eq!(
            telemetry.map(|telemetry| telemetry.otlp.path().to_owned()).as_deref(),
            Some("/gate/v1/traces")
        );
    }

    #[test]
    fn whoever_cannot_trace_says_so_and_what_to_do() {
        let told = refused("otlp = \"http://127.0.0.1:4318\"", false);
        assert!(
            told.contains("telemetry.otlp") && told.contains("--features otlp"),
            "{told}"
        );
    }

    #[test]
    fn a_key_does_not_travel_in_the_clear_nor_stand_in_the_address() {
        let told = refused("otlp = \"http://otel.example:4318\"\nheaders = \"env:OTEL_KEY\"", true);
        assert!(told.contains("telemetry.headers"), "{told}");
        for wrong in [
            "https://ana:S3CRET@otel.example",
            "https://otel.example/?key=S3CRET",
            "otel.example:4318",
            "grpc://x",
        ] {
            let told = refused(&format!("otlp = \"{wrong}\""), true);
            assert!(told.contains("telemetry.otlp") && !told.contains("S3CRET"), "{told}");
        }
        assert!(refused("service_name = \"planb\"", true).contains("otlp: is missing"));
    }
}
