//! Names that what one plan makes would have in common with what another one has: a rehearsal's must be others than the real ones. Pure.
//!
//! Judged are resources of one type, by every key that names them or what they belong to (`name`, `server_name`, `resource_group_name`,
//! `vnet_id`, …) and that their configuration sets. All of them equal is the same thing in the cloud; one that is not known before the apply
//! belongs to something that is yet to be made, and so is not the real one's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A resource, as a plan or a state shows it.
struct Resource<'a> {
    address: &'a str,
    kind: &'a str,
    name: &'a str,
    values: &'a Value,
}

/// What `own` (`terraform show -json` of a plan) would make that is called like something of `real` (the same of a plan, or of a state);
/// in words.
pub fn in_common(own: &Value, real: &Value) -> Vec<String> {
    let mut set = BTreeMap::new();
    configured(&own["configuration"]["root_module"], &mut set);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    resources(&own["planned_values"]["root_module"], &mut ours);
    let of_real = ["planned_values", "values"].map(|key| &real[key]["root_module"]);
    of_real.into_iter().for_each(|module| resources(module, &mut theirs));
    let mut found = Vec::new();
    for one in &ours {
        let Some(identity) = set.get(&(one.kind, one.name)).and_then(|set| identity(one, set)) else {
            continue;
        };
        let same = |other: &&Resource<'_>| {
            other.kind == one.kind && identity.iter().all(|(path, text)| at(other.values, path) == Some(text))
        };
        if let Some(other) = theirs.iter().find(same) {
            let names: Vec<&str> = identity
                .iter()
                .filter(|(path, _)| path.last().is_some_and(|key| names(key)))
                .map(|(_, text)| *text)
                .collect();
            found.push(format!(
                "{} ({}), like the real {}",
                one.address,
                names.join(", "),
                other.address
            ));
        }
    }
    found
}

/// Whether a key gives the thing its own name.
fn names(key: &str) -> bool {
    ["name", "bucket", "identifier"].contains(&key) || key.ends_with("_name") || key.ends_with("_identifier")
}

/// Or says what it belongs to.
fn identifies(key: &str) -> bool {
    names(key) || key.ends_with("_id") || ["scope", "namespace"].contains(&key)
}

type Identity<'a> = BTreeMap<Vec<&'a str>, &'a str>;

/// None where there is no name, or not everything is known yet.
fn identity<'a>(of: &Resource<'a>, set: &BTreeSet<&'a str>) -> Option<Identity<'a>> {
    let mut found = Identity::new();
    for key in set {
        match &of.values[*key] {
            Value::String(text) if identifies(key) => {
                found.insert(vec![*key], text);
            }
            Value::Null if identifies(key) => return None,
            inner @ (Value::Object(_) | Value::Array(_)) => nested(inner, &mut vec![*key], &mut found),
            _ => {}
        }
    }
    let is_named = found.keys().any(|path| path.last().is_some_and(|key| names(key)));
    is_named.then_some(found)
}

/// Names in blocks and objects, such as `metadata`; of several blocks the first.
fn nested<'a>(value: &'a Value, path: &mut Vec<&'a str>, found: &mut Identity<'a>) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                path.push(key);
                match inner {
                    Value::String(text) if identifies(key) => {
                        found.insert(path.clone(), text);
                    }
                    inner => nested(inner, path, found),
                }
                path.pop();
            }
        }
        Value::Array(list) => {
            if let Some(first) = list.first().filter(|first| first.is_object()) {
                nested(first, path, found);
            }
        }
        _ => {}
    }
}

fn at<'a>(values: &'a Value, path: &[&str]) -> Option<&'a str> {
    let mut value = values;
    for key in path {
        value = match value {
            Value::Array(list) => list.first()?,
            value => value,
        }
        .get(key)?;
    }
    value.as_str()
}

fn resources<'a>(module: &'a Value, found: &mut Vec<Resource<'a>>) {
    for resource in module["resources"].as_array().into_iter().flatten() {
        let text = |key: &str| resource[key].as_str().unwrap_or_default();
        if text("mode") == "managed" {
            found.push(Resource {
                address: text("address"),
                kind: text("type"),
                name: text("name"),
                values: &resource["values"],
            });
        }
    }
    for child in module["child_modules"].as_array().into_iter().flatten() {
        resources(child, found);
    }
}

/// Which keys the configuration sets, by type and name; modules that are called twice are one.
fn configured<'a>(module: &'a Value, set: &mut BTreeMap<(&'a str, &'a str), BTreeSet<&'a str>>) {
    for resource in module["resources"].as_array().into_iter().flatten() {
        if let (Some(kind), Some(name), Some(keys)) = (
            resource["type"].as_str(),
            resource["name"].as_str(),
            resource["expressions"].as_object(),
        ) {
            let of = set.entry((kind, name)).or_default();
            of.extend(keys.keys().map(String::as_str));
        }
    }
    for call in module["module_calls"]
        .as_object()
        .into_iter()
        .flat_map(|calls| calls.values())
    {
        configured(&call["module"], set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(resources: &Value) -> Value {
        let expressions: Vec<Value> = resources
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| {
                let mut keys = one["values"].as_object().expect("values").clone();
                if let Some(unknown) = one["unknown"].as_str() {
                    keys.insert(unknown.to_owned(), json!({}));
                }
                // Computed by the provider, and set by nobody.
                keys.remove("id");
                json!({"type": one["type"], "name": one["name"], "expressions": keys})
            })
            .collect();
        json!({
            "planned_values": {"root_module": {"resources": resources}},
            "configuration": {"root_module": {"resources": expressions}},
        })
    }

    fn server(name: &str, group: &str) -> Value {
        json!({"address": "azurerm_mysql_flexible_server.main", "mode": "managed", "type": "azurerm_mysql_flexible_server", "name": "main",
            "values": {"name": name, "resource_group_name": group, "version": "8.4", "tags": {"owner": "dr"}}})
    }

    #[test]
    fn the_same_name_in_the_same_place_is_found_and_another_one_is_not() {
        let real = plan(&json!([server("bank-dr", "rg")]));
        let same = in_common(&plan(&json!([server("bank-dr", "rg")])), &real);
        assert_eq!(same.len(), 1, "{same:?}");
        assert!(
            same[0].contains("bank-dr") && same[0].contains("azurerm_mysql_flexible_server.main"),
            "{same:?}"
        );
        assert!(in_common(&plan(&json!([server("bank-drill", "rg")])), &real).is_empty());
        assert!(in_common(&plan(&json!([server("bank-dr", "rg-drill")])), &real).is_empty());
        // A state shows more than was set, and elsewhere.
        let mut stands = server("bank-dr", "rg");
        stands["values"]["id"] = json!("/subscriptions/…");
        stands["values"]["fqdn"] = json!("bank-dr.mysql.database.azure.com");
        let state = json!({"values": {"root_module": {"child_modules": [{"resources": [stands]}]}}});
        assert_eq!(in_common(&plan(&json!([server("bank-dr", "rg")])), &state).len(), 1);
    }

    #[test]
    fn what_belongs_to_something_new_is_new() {
        let setting = |server: Option<&str>| {
            let mut one = json!({"address": "azurerm_mysql_flexible_server_configuration.packet", "mode": "managed",
                "type": "azurerm_mysql_flexible_server_configuration", "name": "packet", "values": {"name": "max_allowed_packet"}});
            match server {
                Some(server) => one["values"]["server_name"] = json!(server),
                None => one["unknown"] = json!("server_name"),
            }
            plan(&json!([one]))
        };
        let real = setting(Some("bank-dr"));
        assert_eq!(in_common(&setting(Some("bank-dr")), &real).len(), 1);
        assert!(in_common(&setting(Some("bank-drill")), &real).is_empty());
        assert!(
            in_common(&setting(None), &real).is_empty(),
            "its server is not made yet"
        );
    }

    #[test]
    fn names_in_blocks_count_and_what_has_none_is_not_judged() {
        let of = |name: &str| {
            plan(&json!([
                {"address": "kubernetes_namespace.app", "mode": "managed", "type": "kubernetes_namespace", "name": "app",
                    "values": {"metadata": [{"name": name, "labels": {}}]}},
                {"address": "terraform_data.x", "mode": "managed", "type": "terraform_data", "name": "x", "values": {"input": "same"}},
                {"address": "data.x.y", "mode": "data", "type": "x", "name": "y", "values": {"name": "same"}},
            ]))
        };
        assert_eq!(in_common(&of("app"), &of("app")).len(), 1);
        assert!(in_common(&of("app-drill"), &of("app")).is_empty());
        assert!(in_common(&json!({}), &json!({})).is_empty());
    }
}
