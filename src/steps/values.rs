//! `${STEP.OUTPUT}` in a configured text becomes what that step gave.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::recovery::engine::{StepError, Task};
use crate::recovery::state::Given;
use crate::secret::Secret;

/// A text with its outputs put in.
#[derive(Debug)]
pub enum Rendered {
    Plain(String),
    /// It holds an output that is sensitive.
    Sensitive(Secret),
}

impl Rendered {
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Sensitive(secret) => secret.expose(),
        }
    }

    /// For places where a secret must not go.
    pub fn plain(self, of: &str) -> Result<String, StepError> {
        match self {
            Self::Plain(text) => Ok(text),
            Self::Sensitive(_) => Err(StepError::permanent(format!(
                "{of} holds an output that is sensitive, and would show it; give it as a secret"
            ))),
        }
    }
}

/// The references in `text`, each `(step, output)`.
pub fn references(text: &str) -> Vec<(&str, &str)> {
    text.split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}')?.0.split_once('.'))
        .collect()
}

/// `text` with the outputs that earlier stages left, or the references that nobody knows yet.
pub fn known(text: &str, outputs: &BTreeMap<String, Given>) -> Result<String, Vec<String>> {
    let mut out = String::new();
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (reference, after) = after.split_once('}').unwrap_or((after, ""));
        let value = reference
            .split_once('.')
            .and_then(|(step, output)| outputs.get(step)?.values.get(output));
        match value {
            Some(value) => out.push_str(&shown(value)),
            None => unknown.push(format!("${{{reference}}}")),
        }
        rest = after;
    }
    out.push_str(rest);
    match unknown.is_empty() {
        true => Ok(out),
        false => Err(unknown),
    }
}

/// Puts outputs in. `sensitive`: those of the steps that this text names, read anew, since no journal holds them.
pub fn render(text: &str, task: &Task, sensitive: &[(String, String, Secret)]) -> Result<Rendered, StepError> {
    let mut out = String::new();
    let mut is_sensitive = false;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (reference, after) = after.split_once('}').unwrap_or((after, ""));
        let (step, output) = reference.split_once('.').unwrap_or((reference, ""));
        let secret = sensitive.iter().find(|(of, name, _)| of == step && name == output);
        let plain = task
            .standing
            .outputs
            .get(step)
            .and_then(|given| given.values.get(output));
        match (plain, secret) {
            (Some(value), _) => out.push_str(&shown(value)),
            (None, Some((_, _, secret))) => {
                is_sensitive = true;
                out.push_str(secret.expose());
            }
            (None, None) => {
                return Err(StepError::permanent(format!(
                    "${{{step}.{output}}}: step {step} gave no output {output}; it gave {}",
                    given(task, step)
                )));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(if is_sensitive {
        Rendered::Sensitive(Secret::new(out))
    } else {
        Rendered::Plain(out)
    })
}

fn given(task: &Task, step: &str) -> String {
    let names: Vec<&str> = task
        .standing
        .outputs
        .get(step)
        .map(|given| given.values.keys().map(String::as_str).collect())
        .unwrap_or_default();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// A text as it is, anything else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_stage_gave_yet_is_named() {
        let given = Given {
            stage: 1,
            values: BTreeMap::from([
                ("subnet".to_owned(), Value::from("db")),
                ("n".to_owned(), Value::from(2)),
            ]),
        };
        let outputs = BTreeMap::from([("always-on".to_owned(), given)]);
        assert_eq!(
            known("a=${always-on.subnet}${always-on.n}", &outputs),
            Ok("a=db2".to_owned())
        );
        assert_eq!(known("plain", &outputs), Ok("plain".to_owned()));
        let unknown = known("${database.host} ${always-on.none}", &outputs);
        assert_eq!(
            unknown,
            Err(vec!["${database.host}".to_owned(), "${always-on.none}".to_owned()])
        );
    }
}
