//! Secrets in AWS Secrets Manager, in the region the ARN names or the one this machine belongs to.

use serde_json::Value;

use crate::aws::{Access, Failure, bounded, failure};

use super::{Secret, SecretError};

#[derive(Debug, Default)]
pub(super) struct SecretsManager {
    access: Access,
}

impl SecretsManager {
    /// The current version of secret `id`, or the value under `key` in its JSON. `reference` is for messages.
    pub(super) async fn get(&self, reference: &str, id: &str, key: Option<&str>) -> Result<Secret, SecretError> {
        let whole = bounded(self.ask(id))
            .await
            .map_err(|failure| sort(reference, failure))?;
        match key {
            None => not_empty(whole),
            Some(key) => pick(&whole, key),
        }
        .map_err(|detail| SecretError::Missing {
            reference: reference.to_owned(),
            detail: detail.to_owned(),
        })
    }

    async fn ask(&self, id: &str) -> Result<Secret, Failure> {
        let config = self.access.config(region_of(id)).await?;
        let client = aws_sdk_secretsmanager::Client::new(&config);
        let answer = client
            .get_secret_value()
            .secret_id(id)
            .send()
            .await
            .map_err(|error| failure(&error))?;
        if let Some(text) = answer.secret_string {
            return Ok(Secret::new(text));
        }
        // A binary secret is often text that was uploaded from a file.
        let binary = answer
            .secret_binary
            .map(aws_sdk_secretsmanager::primitives::Blob::into_inner);
        match binary.map(String::from_utf8) {
            Some(Ok(text)) => Ok(Secret::new(text)),
            Some(Err(_)) => Err(Failure::Missing("the secret is binary, not text".into())),
            None => Err(Failure::Missing("the secret has no value yet".into())),
        }
    }
}

/// `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`: asked in its own region, wherever this machine is.
fn region_of(id: &str) -> Option<&str> {
    let mut parts = id.strip_prefix("arn:")?.split(':');
    let (_partition, _service) = (parts.next()?, parts.next()?);
    parts.next().filter(|region| !region.is_empty())
}

/// The value of `key`. Its text form must be the one that was stored, so a number is taken only if it is whole:
/// 1.10 would come back as 1.1.
fn pick(whole: &Secret, key: &str) -> Result<Secret, &'static str> {
    // The parser's message is dropped: it may quote the secret.
    let Ok(Value::Object(mut fields)) = serde_json::from_str::<Value>(whole.expose()) else {
        return Err("the secret is not a JSON object: leave out #key to use it whole");
    };
    match fields.remove(key) {
        Some(Value::String(text)) => not_empty(Secret::new(text)),
        Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(Secret::new(number.to_string())),
        Some(Value::Number(_)) => Err("the value under #key is a fraction: store it as a string"),
        Some(Value::Bool(_)) => Err("the value under #key is true or false, not a secret: store it as a string"),
        Some(Value::Null) => Err("the value under #key is null"),
        Some(Value::Array(_) | Value::Object(_)) => Err("the value under #key is not a single value: store a string"),
        None => Err("the secret's JSON has no such #key"),
    }
}

fn not_empty(secret: Secret) -> Result<Secret, &'static str> {
    if secret.expose().is_empty() {
        Err("the value is empty")
    } else {
        Ok(secret)
    }
}

fn sort(reference: &str, failure: Failure) -> SecretError {
    let reference = reference.to_owned();
    match failure {
        Failure::Missing(detail) => SecretError::Missing { reference, detail },
        Failure::Denied(detail) => SecretError::Denied { reference, detail },
        Failure::Unavailable(detail) => SecretError::Unavailable { reference, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_asked_in_its_own_region() {
        assert_eq!(
            region_of("arn:aws:secretsmanager:ap-northeast-2:1:secret:planb/prod-AbCdEf"),
            Some("ap-northeast-2")
        );
        assert_eq!(region_of("planb/prod"), None);
        assert_eq!(region_of("arn:aws:secretsmanager::1:secret:x"), None);
    }

    #[test]
    fn a_key_picks_text_and_whole_numbers_only() {
        let json = r#"{"text":"t0p","port":3306,"big":18446744073709551615,"half":1.10,"yes":true,"no":null,"list":["t0p"],"empty":""}"#;
        let whole = Secret::new(json);
        let value = |key: &str| pick(&whole, key).map(|secret| secret.expose().to_owned());
        assert_eq!(value("text").as_deref(), Ok("t0p"));
        assert_eq!(value("port").as_deref(), Ok("3306"));
        assert_eq!(value("big").as_deref(), Ok("18446744073709551615"));
        for refused in ["half", "yes", "no", "list", "empty", "absent"] {
            assert!(value(refused).is_err(), "{refused} was taken");
        }
    }

    #[test]
    fn a_secret_that_is_not_json_is_not_quoted() {
        for text in ["hunter2", "{\"a\": hunter2}", "\"hunter2\"", "[1]"] {
            let refused = pick(&Secret::new(text), "a").map_err(str::to_owned);
            assert!(refused.is_err_and(|message| !message.contains("hunter2")));
        }
    }
}
