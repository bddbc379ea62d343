//! How this program talks to AWS: the SDK's own credential chain, every call bounded, errors sorted by what helps.
//!
//! The chain is the SDK's default (environment, profile files, web identity as on EKS, containers, instance role)
//! without SSO and `credential_process`, which would need programs and browsers that a backup machine has not.
//! `AWS_ENDPOINT_URL` points every call elsewhere, as in all AWS tools.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

/// Longest that one question to a cloud may take, logging in included. An unreachable cloud costs no more than this
/// before the next reference of a list is tried.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Loaded settings and credential providers, one for each region asked for. They renew credentials by themselves.
#[derive(Default)]
pub struct Access(Mutex<HashMap<Option<String>, SdkConfig>>);

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Access")
    }
}

/// Why AWS did not do what was asked, by what the caller does next. Never holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// AWS answered that there is no such thing, or that the question makes no sense.
    Missing(String),
    /// AWS answered that this identity may not.
    Denied(String),
    /// No answer, or one that may be another in a minute.
    Unavailable(String),
}

impl Access {
    /// Settings for `region`; without one, the region of the environment, profile or instance.
    pub async fn config(&self, region: Option<&str>) -> Result<SdkConfig, Failure> {
        let wanted = region.map(str::to_owned);
        if let Some(known) = self.loaded().get(&wanted) {
            return Ok(known.clone());
        }
        let config = load(wanted.clone()).await;
        if config.region().is_none() {
            // Not kept: on an instance the region comes from a metadata service that may answer the next time.
            return Err(Failure::Unavailable("no AWS region is known: set AWS_REGION".into()));
        }
        self.loaded().insert(wanted, config.clone());
        Ok(config)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<Option<String>, SdkConfig>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load(region: Option<String>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(2))
        .operation_attempt_timeout(PATIENCE)
        .build();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(2));
    match region {
        Some(region) => loader.region(Region::new(region)).load().await,
        None => loader.load().await,
    }
}

/// `work`, but no longer than [`PATIENCE`].
pub async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Unavailable(format!(
            "no answer from AWS within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

/// Sorts an SDK error. Of what AWS wrote, only messages that cannot carry parts of a credential are repeated.
pub fn failure<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure {
    match error {
        SdkError::TimeoutError(_) => Failure::Unavailable("no answer from AWS in time".into()),
        SdkError::DispatchFailure(dispatch) if dispatch.is_io() || dispatch.is_timeout() => {
            Failure::Unavailable("AWS cannot be reached: check the network, DNS, proxy and VPC endpoints".into())
        }
        SdkError::DispatchFailure(_) => Failure::Unavailable(
            "no usable AWS credentials: give this machine a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID".into(),
        ),
        SdkError::ServiceError(service) => from_answer(
            service.raw().status().as_u16(),
            service.err().code(),
            service.err().message(),
        ),
        SdkError::ResponseError(response) => Failure::Unavailable(format!(
            "what answered is not AWS (HTTP {}): check AWS_ENDPOINT_URL and the proxy",
            response.raw().status().as_u16()
        )),
        // `SdkError` may grow: what is not known here may pass.
        _ => Failure::Unavailable("the AWS client could not make the request".into()),
    }
}

/// AWS tells errors apart by code; the HTTP status alone does not (a refused JSON call is a 400).
fn from_answer(status: u16, code: Option<&str>, message: Option<&str>) -> Failure {
    let Some(code) = code else {
        return by_status(status, format!("HTTP {status}"));
    };
    let told = || match message {
        Some(message) => format!("{code}: {message}"),
        None => code.to_owned(),
    };
    match code {
        "ResourceNotFoundException"
        | "InvalidRequestException"
        | "InvalidParameterException"
        | "InvalidParameterValue"
        | "ValidationException"
        | "ValidationError"
        | "DBInstanceNotFound"
        | "DBInstanceNotFoundFault" => Failure::Missing(told()),
        "AccessDenied" | "AccessDeniedException" | "DecryptionFailure" => Failure::Denied(told()),
        // Their messages may quote the signed request, session token included.
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired" => Failure::Denied(code.to_owned()),
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Failure::Unavailable(format!(
            "{code}: the credentials ran out, or this machine's clock is wrong"
        )),
        _ => by_status(status, code.to_owned()),
    }
}

fn by_status(status: u16, detail: String) -> Failure {
    match status {
        401 | 403 => Failure::Denied(detail),
        _ => Failure::Unavailable(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_helps() {
        let missing = from_answer(400, Some("ResourceNotFoundException"), Some("no such secret"));
        assert_eq!(
            missing,
            Failure::Missing("ResourceNotFoundException: no such secret".into())
        );
        assert!(matches!(
            from_answer(400, Some("AccessDeniedException"), None),
            Failure::Denied(_)
        ));
        assert!(matches!(
            from_answer(400, Some("ThrottlingException"), None),
            Failure::Unavailable(_)
        ));
        assert!(matches!(
            from_answer(500, Some("InternalServiceError"), None),
            Failure::Unavailable(_)
        ));
        assert!(matches!(from_answer(403, None, None), Failure::Denied(_)));
        assert!(matches!(from_answer(503, None, None), Failure::Unavailable(_)));
    }

    #[test]
    fn a_message_that_may_quote_the_signed_request_is_not_repeated() {
        let quoted = Some("The Canonical String should have been x-amz-security-token:TOKEN");
        assert_eq!(
            from_answer(403, Some("SignatureDoesNotMatch"), quoted),
            Failure::Denied("SignatureDoesNotMatch".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_answers_is_given_up() {
        let never = std::future::pending::<Result<(), Failure>>();
        assert!(matches!(bounded(never).await, Err(Failure::Unavailable(_))));
    }
}
