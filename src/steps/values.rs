//! `${STEP.OUTPUT}` in a configured text becomes what that step gave.

use serde_json::Value;

use crate::recovery::engine::{StepError, Task};
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
