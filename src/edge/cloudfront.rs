//! The only place that names CloudFront's SDK.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_cloudfront::Client;
use aws_sdk_cloudfront::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_cloudfront::config::timeout::TimeoutConfig;
use aws_sdk_cloudfront::config::{Config, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_cloudfront::error::{BoxError, BuildError, ProvideErrorMetadata as _, SdkError};
use aws_sdk_cloudfront::types::{
    CustomHeaders, CustomOriginConfig, DistributionConfig, Origin as CloudFrontOrigin, OriginProtocolPolicy,
    OriginSslProtocols, SslProtocol,
};

use super::routes::{self, Behaviour, Origin, Retarget, Routes, named};
use crate::aws::{Access, Failure, failure};

/// CloudFront is everywhere; this is where its requests are signed for.
const REGION: &str = "us-east-1";
/// Longest that one attempt of an update may take.
const ATTEMPT: Duration = Duration::from_secs(20);

/// A configuration as it was read.
pub struct Answer {
    config: DistributionConfig,
    pub etag: String,
    /// As CloudFront wrote it.
    pub text: String,
    pub routes: Routes,
}

/// Why an update did not happen, or is not known to have.
pub enum Refusal {
    /// The ETag is an old one.
    Raced,
    /// The SDK would have dropped these elements: not sent.
    Lost(Vec<String>),
    /// CloudFront says that the configuration is wrong.
    Invalid(String),
    Failed(Failure),
}

async fn client(access: &Access) -> Result<Client, Failure> {
    Ok(Client::new(&access.config(Some(REGION)).await?))
}

pub async fn read(access: &Access, distribution: &str) -> Result<Answer, Failure> {
    let text = Slot::default();
    let sent = client(access)
        .await?
        .get_distribution_config()
        .id(distribution)
        .customize()
        .interceptor(Reader(text.clone()))
        .send()
        .await;
    let answer = sent.map_err(|error| sorted(&error))?;
    let odd = || Failure::Unavailable("CloudFront answered without a configuration".to_owned());
    let config = answer.distribution_config.ok_or_else(odd)?;
    Ok(Answer {
        etag: answer.e_tag.ok_or_else(odd)?,
        text: text.take().ok_or_else(odd)?,
        routes: routes_of(&config),
        config,
    })
}

pub async fn is_deployed(access: &Access, distribution: &str) -> Result<bool, Failure> {
    let sent = client(access).await?.get_distribution().id(distribution).send().await;
    let answer = sent.map_err(|error| sorted(&error))?;
    Ok(answer
        .distribution
        .is_some_and(|distribution| distribution.status == "Deployed"))
}

impl Answer {
    /// Sends the configuration back with other targets, if it still is the one that was read.
    pub async fn update(
        self,
        access: &Access,
        distribution: &str,
        retargets: &[Retarget],
        added: Option<&Origin>,
    ) -> Result<(), Refusal> {
        let mut config = self.config;
        retarget(&mut config, retargets);
        if let (Some(origin), Some(origins)) = (added, &mut config.origins) {
            let origin = made(origin).map_err(|error| Refusal::Invalid(error.to_string()))?;
            origins.items.push(origin);
            origins.quantity += 1;
        }
        let lost = Slot::default();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(2))
            .operation_attempt_timeout(ATTEMPT)
            .build();
        let sent = client(access)
            .await
            .map_err(Refusal::Failed)?
            .update_distribution()
            .id(distribution)
            .if_match(self.etag)
            .distribution_config(config)
            .customize()
            .config_override(Config::builder().timeout_config(timeouts))
            .interceptor(Guard {
                before: self.text,
                lost: lost.clone(),
            })
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        if let Some(lost) = lost.take() {
            return Err(Refusal::Lost(lost.split(' ').map(str::to_owned).collect()));
        }
        // The second is what an update without an ETag gets; some stale ones do too.
        if matches!(error.code(), Some("PreconditionFailed" | "InvalidIfMatchVersion")) {
            return Err(Refusal::Raced);
        }
        let status = error.raw_response().map(|response| response.status().as_u16());
        if matches!((status, &error), (Some(400 | 409), SdkError::ServiceError(_)))
            && !matches!(
                error.code(),
                Some("Throttling" | "ThrottlingException" | "RequestExpired")
            )
        {
            return Err(Refusal::Invalid(format!(
                "{}: {}",
                error.code().unwrap_or("no code"),
                error.message().unwrap_or_default()
            )));
        }
        Err(Refusal::Failed(sorted(&error)))
    }
}

fn sorted<E: aws_sdk_cloudfront::error::ProvideErrorMetadata>(
    error: &SdkError<E, aws_sdk_cloudfront::config::http::HttpResponse>,
) -> Failure {
    match error.code() {
        Some("NoSuchDistribution") => Failure::Missing("NoSuchDistribution".to_owned()),
        _ => failure(error),
    }
}

fn retarget(config: &mut DistributionConfig, retargets: &[Retarget]) {
    let to = |path: Option<&str>| {
        let found = retargets.iter().find(|retarget| retarget.path.as_deref() == path);
        found.map(|retarget| retarget.to.clone())
    };
    if let (Some(default), Some(to)) = (&mut config.default_cache_behavior, to(None)) {
        default.target_origin_id = to;
    }
    let others = config
        .cache_behaviors
        .as_mut()
        .and_then(|behaviours| behaviours.items.as_mut());
    for behaviour in others.into_iter().flatten() {
        if let Some(to) = to(Some(&behaviour.path_pattern)) {
            behaviour.target_origin_id = to;
        }
    }
}

/// HTTPS only, as the whole way is; everything else is CloudFront's default.
fn made(origin: &Origin) -> Result<CloudFrontOrigin, BuildError> {
    let protocols = OriginSslProtocols::builder()
        .quantity(1)
        .items(SslProtocol::TlSv12)
        .build()?;
    let custom = CustomOriginConfig::builder()
        .http_port(80)
        .https_port(443)
        .origin_protocol_policy(OriginProtocolPolicy::HttpsOnly)
        .origin_ssl_protocols(protocols)
        .build()?;
    CloudFrontOrigin::builder()
        .id(&origin.id)
        .domain_name(&origin.domain)
        .origin_path(&origin.path)
        .custom_headers(CustomHeaders::builder().quantity(0).build()?)
        .custom_origin_config(custom)
        .build()
}

fn routes_of(config: &DistributionConfig) -> Routes {
    let origins = config.origins.iter().flat_map(|origins| &origins.items);
    let groups = config
        .origin_groups
        .iter()
        .filter_map(|groups| groups.items.as_ref())
        .flatten();
    let others = config
        .cache_behaviors
        .iter()
        .filter_map(|others| others.items.as_ref())
        .flatten();
    let mut behaviours: Vec<Behaviour> = Vec::new();
    let mut doubts = Vec::new();
    // Whoever chooses an origin by code does it here.
    let mut code = |path: Option<&str>, has_lambda: bool, has_function: bool| {
        if has_lambda || has_function {
            doubts.push(format!("code at {} may choose another origin: look at it", named(path)));
        }
    };
    for behaviour in others {
        let path = Some(behaviour.path_pattern.as_str());
        code(
            path,
            behaviour
                .lambda_function_associations
                .as_ref()
                .is_some_and(|some| some.quantity > 0),
            behaviour
                .function_associations
                .as_ref()
                .is_some_and(|some| some.quantity > 0),
        );
        behaviours.push(Behaviour {
            path: path.map(str::to_owned),
            target: behaviour.target_origin_id.clone(),
        });
    }
    if let Some(default) = &config.default_cache_behavior {
        code(
            None,
            default
                .lambda_function_associations
                .as_ref()
                .is_some_and(|some| some.quantity > 0),
            default
                .function_associations
                .as_ref()
                .is_some_and(|some| some.quantity > 0),
        );
        behaviours.push(Behaviour {
            path: None,
            target: default.target_origin_id.clone(),
        });
    }
    if config
        .continuous_deployment_policy_id
        .as_ref()
        .is_some_and(|id| !id.is_empty())
    {
        doubts.push("a continuous deployment sends some requests through a staging distribution: end it".to_owned());
    }
    if !config.enabled {
        doubts.push("the distribution is disabled: it serves nobody".to_owned());
    }
    Routes {
        origins: origins
            .map(|origin| (origin.id.clone(), origin.domain_name.clone()))
            .collect(),
        groups: groups
            .map(|group| {
                let members = group.members.iter().flat_map(|members| &members.items);
                (
                    group.id.clone(),
                    members.map(|member| member.origin_id.clone()).collect(),
                )
            })
            .collect::<BTreeMap<_, _>>(),
        behaviours,
        doubts,
    }
}

/// Carries a text out of an interceptor.
#[derive(Debug, Clone, Default)]
struct Slot(Arc<Mutex<Option<String>>>);

impl Slot {
    fn put(&self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Keeps the answer as it came.
#[derive(Debug)]
struct Reader(Slot);

impl Intercept for Reader {
    fn name(&self) -> &'static str {
        "planb-reader"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(bytes) = context.response().body().bytes() {
            self.0.put(String::from_utf8_lossy(bytes).into_owned());
        }
        Ok(())
    }
}

/// Lets a request through that holds everything which was read. `before` may hold headers' values.
struct Guard {
    before: String,
    lost: Slot,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "planb-guard"
    }

    fn read_after_serialization(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let after = context.request().body().bytes().unwrap_or_default();
        let lost = routes::lost(&self.before, &String::from_utf8_lossy(after));
        if lost.is_empty() {
            return Ok(());
        }
        self.lost.put(lost.join(" "));
        Err("the request would drop elements".into())
    }
}
