//! Manifests: what is in a file, `${NAME}` filled in, in the order in which a cluster can take it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One object of a manifest. What an API server needs to know of it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub api_version: String,
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    pub body: Value,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// No YAML, or an object without kind or name.
    Text(String),
    /// Nobody gave these a value.
    Missing(Vec<String>),
}

/// Every object of a YAML file. `${NAME}` inside a text is replaced by that variable, `${NAME:int}` alone becomes a number,
/// `$${` stands for `${`. Filled in after parsing: no value can become YAML.
pub fn read(text: &str, variables: &BTreeMap<String, String>) -> Result<Vec<Manifest>, Flaw> {
    // Without the excerpt: it may show a secret.
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| Flaw::Text(format!("no YAML: {}", error.without_snippet())))?;
    let mut missing = BTreeSet::new();
    let mut found = Vec::new();
    for mut document in documents {
        if document.is_null() {
            continue;
        }
        fill(&mut document, variables, &mut missing)?;
        match (document["kind"].as_str(), document["items"].as_array()) {
            (Some("List"), Some(items)) => found.extend(items.clone()),
            _ => found.push(document),
        }
    }
    match missing.is_empty() {
        true => found.into_iter().map(manifest).collect(),
        false => Err(Flaw::Missing(missing.into_iter().collect())),
    }
}

fn manifest(body: Value) -> Result<Manifest, Flaw> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = || {
        Some(Manifest {
            api_version: text(&body["apiVersion"])?,
            kind: text(&body["kind"])?,
            namespace: text(&body["metadata"]["namespace"]),
            name: text(&body["metadata"]["name"])?,
            body: Value::Null,
        })
    };
    let read = read().ok_or_else(|| Flaw::Text("an object without apiVersion, kind or metadata.name".into()))?;
    Ok(Manifest { body, ..read })
}

fn fill(value: &mut Value, variables: &BTreeMap<String, String>, missing: &mut BTreeSet<String>) -> Result<(), Flaw> {
    match value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix(":int}")) {
                match variables.get(name).map(|found| found.parse::<i64>()) {
                    Some(Ok(number)) => *value = number.into(),
                    Some(Err(_)) => return Err(Flaw::Text(format!("the value of {name} is no whole number"))),
                    None => drop(missing.insert(name.to_owned())),
                }
            } else {
                *text = filled(text, variables, missing)?;
            }
        }
        Value::Array(all) => all.iter_mut().try_for_each(|one| fill(one, variables, missing))?,
        Value::Object(all) => all.values_mut().try_for_each(|one| fill(one, variables, missing))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn filled(text: &str, variables: &BTreeMap<String, String>, missing: &mut BTreeSet<String>) -> Result<String, Flaw> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            done.push_str(before);
            done.push_str("${");
            rest = &from[2..];
            continue;
        }
        done.push_str(before);
        let (name, after) = from[2..]
            .split_once('}')
            .ok_or_else(|| Flaw::Text(format!("no }} after ${{ in {text:?}; write $${{ for ${{")))?;
        match variables.get(name) {
            Some(value) => done.push_str(value),
            None => drop(missing.insert(name.to_owned())),
        }
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}

/// Where an object comes in the order of applying: what others need comes first. Taking back goes the other way.
pub fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount"
        | "Secret"
        | "ConfigMap"
        | "StorageClass"
        | "PriorityClass"
        | "PersistentVolume"
        | "Role"
        | "ClusterRole"
        | "RoleBinding"
        | "ClusterRoleBinding"
        | "PersistentVolumeClaim"
        | "ResourceQuota"
        | "LimitRange"
        | "NetworkPolicy" => 2,
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" | "Pod" => 4,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 5,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("HOST", "a: b\n\"c\""), ("PORT", "3306")]
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }

    #[test]
    fn variables_are_filled_in_after_parsing_and_missing_ones_are_all_told() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  h: tcp://${HOST}:${PORT}\n  p: '${PORT:int}'\n  e: $${HOST}\n---\n";
        let found = read(text, &variables()).expect("one object");
        assert_eq!(found[0].body["data"]["h"], "tcp://a: b\n\"c\":3306");
        assert_eq!(found[0].body["data"]["p"], 3306);
        assert_eq!(found[0].body["data"]["e"], "${HOST}");
        let text = text.replace("HOST}", "NOWHERE}").replace("PORT:int", "NOBODY:int");
        let missing = ["NOBODY", "NOWHERE"].map(str::to_owned).to_vec();
        assert_eq!(read(&text, &variables()), Err(Flaw::Missing(missing)));
        assert!(matches!(read("kind: X\n", &variables()), Err(Flaw::Text(_))));
        assert!(matches!(read("a: [", &variables()), Err(Flaw::Text(_))));
    }
}
