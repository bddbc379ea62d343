//! Traces for an OpenTelemetry collector (OTLP over HTTP), and nothing ever waits for one: spans go into a bounded queue, what does
//! not fit is dropped, and a collector that hangs costs two seconds at the end of the process and none before.
//!
//! The SDK's processor exports on a thread of its own, where no runtime is; so the request itself is made by a task on ours.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::config::Config;
use crate::config::telemetry::Telemetry;
use crate::secret::{Resolver, Secret, SecretError, SecretRef};

/// Spans that wait, some 1 KiB each. A run of the agent is a handful.
const QUEUE: usize = 2048;
const BATCH: usize = 256;
/// A span is at the collector this long after its end.
const SEND_EVERY: Duration = Duration::from_secs(2);
/// One request, its answer included.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// One batch, all its tries included; then it is thrown away.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// What is left at the end of the process has this long.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What brings spans to the collector.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    store_requests: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("telemetry.{0}")]
    Client(String),
    #[error("no traces can be sent: {0}; look at [telemetry] and the environment's OTEL_ variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl Exporter {
    /// To be called on the runtime that shall make the requests. Nothing is asked or sent yet.
    ///
    /// # Errors
    /// A `tls_ca` that cannot be read.
    pub fn start(config: &Config, telemetry: &Telemetry, host: String) -> Result<Self, TelemetryError> {
        let http =
            crate::http::client(telemetry.tls_ca.as_deref(), ANSWER_WITHIN, None).map_err(TelemetryError::Client)?;
        let courier = Courier(Arc::new(Inner {
            http,
            headers: telemetry.headers.clone(),
            resolver: Resolver::for_config(config),
            known: Mutex::default(),
            is_failing: AtomicBool::new(false),
            place: telemetry.otlp.to_string(),
            runtime: Handle::current(),
        }));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(courier)
            .with_endpoint(telemetry.otlp.as_str())
            .with_timeout(GIVE_UP_AFTER)
            .build()?;
        let bounds = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(SEND_EVERY)
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(bounds).build();
        let resource = Resource::builder()
            .with_service_name(telemetry.service_name.clone())
            .with_attributes([
                // Source: https://opentelemetry.io/docs/specs/semconv/resource/#service
                KeyValue::new("service.namespace", config.service.name.clone()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("host.name", host),
                KeyValue::new("planb.site", config.service.site.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches)
            .with_resource(resource)
            .build();
        Ok(Self {
            tracer: provider.tracer("planb"),
            provider,
            store_requests: telemetry.store_requests,
        })
    }

    /// Takes PlanB's own spans, and what is logged within them.
    pub fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        traces(self.tracer.clone()).with_filter(self.taken()).boxed()
    }

    /// Nothing of the libraries', whose spans may hold what nobody has looked at.
    fn taken(&self) -> Targets {
        let taken = Targets::new().with_target("planb", LevelFilter::INFO);
        if self.store_requests {
            taken.with_target("planb::store::retrying", LevelFilter::DEBUG)
        } else {
            taken
        }
    }

    /// Sends what is left, for a bounded time. What is traced from then on is dropped.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(STOP_WITHIN) {
            tracing::debug!(%error, "the last traces were not taken");
        }
    }
}

fn traces<S>(tracer: SdkTracer) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    // Where in the source, on which thread and how long idle: three attributes more on each span, for nobody.
    tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_target(false)
        .with_tracer(tracer)
}

/// Carries requests to the collector, as a task of our runtime.
#[derive(Clone)]
struct Courier(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    headers: Option<SecretRef>,
    resolver: Resolver,
    /// The headers, once they could be had; not after they were refused.
    known: Mutex<Option<HeaderMap>>,
    is_failing: AtomicBool,
    place: String,
    runtime: Handle,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Courier").field(&self.0.place).finish()
    }
}

/// Why a batch did not reach the collector; holds no header and no answer's text.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error("{0}")]
    NoAnswer(String),
    #[error("it answered {0}")]
    Answered(u16),
    #[error("telemetry.headers cannot be had: {0}")]
    Headers(#[from] SecretError),
    #[error("telemetry.headers: the secret is not name=value, several separated by commas")]
    NotHeaders,
    #[error("the process ends")]
    Ending,
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let inner = Arc::clone(&self.0);
        // Bounded by the client's own time and by the runtime's end.
        let sent = self.0.runtime.spawn(async move { inner.send(request).await });
        let result = match sent.await {
            Ok(result) => result,
            Err(_) => Err(Untaken::Ending),
        };
        self.0.tell(&result);
        Ok(result?)
    }
}

impl Inner {
    async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, Untaken> {
        if let Some(secret) = &self.headers {
            let known = self.known().clone();
            let headers = match known {
                Some(headers) => headers,
                None => {
                    let headers = headers(&self.resolver.resolve(secret).await?).ok_or(Untaken::NotHeaders)?;
                    *self.known() = Some(headers.clone());
                    headers
                }
            };
            request.headers_mut().extend(headers);
        }
        let response = self
            .http
            .send_bytes(request)
            .await
            .map_err(|error| Untaken::NoAnswer(told(error.as_ref())))?;
        if [401, 403].contains(&response.status().as_u16()) {
            // A key that was changed is read again.
            *self.known() = None;
        }
        Ok(response)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<HeaderMap>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Once when it begins to fail, and once when it is well again.
    fn tell(&self, result: &Result<Response<Bytes>, Untaken>) {
        let failure = match result {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(Untaken::Answered(response.status().as_u16()).to_string()),
            // No news to anybody.
            Err(Untaken::Ending) => return,
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => tracing::warn!(
                collector = self.place,
                error,
                "traces are not taken, and are dropped; everything else goes on"
            ),
            None if was_failing => tracing::info!(collector = self.place, "traces are taken again"),
            Some(_) | None => {}
        }
    }
}

/// The innermost cause says what happened.
fn told(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// As in `OTEL_EXPORTER_OTLP_HEADERS`.
fn headers(secret: &Secret) -> Option<HeaderMap> {
    let pairs = secret.expose().trim().split(',');
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_and_are_never_shown() {
        let pairs = headers(&Secret::new("x-api-key=S3CRET==, Authorization=Basic abc=\n")).expect("two pairs");
        assert_eq!(
            pairs.get("x-api-key").map(HeaderValue::as_bytes),
            Some(b"S3CRET==".as_slice())
        );
        assert_eq!(
            pairs.get("authorization").map(HeaderValue::as_bytes),
            Some(b"Basic abc=".as_slice())
        );
        assert!(!format!("{pairs:?}").contains("S3CRET"));
        for wrong in ["S3CRET", "a b=c", "=c", ""] {
            assert!(headers(&Secret::new(wrong)).is_none(), "{wrong}");
        }
    }
}
