//! The name of a container image, read as container runtimes read it. Pure.

use std::fmt;

use serde_json::Value;

/// Where names without a registry lead.
const USUAL: &str = "docker.io";

/// `REGISTRY/REPOSITORY:TAG@DIGEST`, tag and digest each perhaps missing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<String>,
}

impl Image {
    /// None where it is no name of an image.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        if digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return None;
        }
        // A colon behind the last slash begins a tag; one before it, a port.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
            Some(_) => (USUAL, name.to_owned()),
            None => (USUAL, format!("library/{name}")),
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        let fits = !repository.is_empty() && repository.bytes().all(plain) && !repository.split('/').any(str::is_empty);
        (fits && !repository.contains("..")).then(|| Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// `sha256:` and 64 hexadecimal digits; no other is taken.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// Every image that an object of Kubernetes' would run, at whatever depth its pods are described.
pub fn named_in(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(object, &mut found);
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(all) => {
            for (key, value) in all {
                let is_list = ["containers", "initContainers", "ephemeralContainers"].contains(&key.as_str());
                if let (true, Value::Array(containers)) = (is_list, value) {
                    let images = containers.iter().filter_map(|one| one["image"].as_str());
                    found.extend(images.map(str::to_owned));
                }
                collect(value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| collect(one, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_read_as_runtimes_read_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let told = |text: &str| Image::parse(text).map(|image| image.to_string());
        for (written, meant) in [
            ("nginx", "docker.io/library/nginx"),
            ("team/app:1.2", "docker.io/team/app:1.2"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("dr.example:443/a/b:c", "dr.example:443/a/b:c"),
        ] {
            assert_eq!(told(written).as_deref(), Some(meant));
        }
        let pinned = format!("dr.example/app:1@{digest}");
        assert_eq!(told(&pinned), Some(pinned.clone()));
        for wrong in [
            "",
            "App",
            "a//b",
            "dr.example/",
            "a/../b",
            "app@sha256:12",
            "app@md5:00",
        ] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_container_counts() {
        let deployment = json!({"spec": {"template": {"spec": {
            "initContainers": [{"image": "a"}], "containers": [{"image": "b"}, {"name": "none"}]}}}});
        let mut found = named_in(&deployment);
        found.sort();
        assert_eq!(found, ["a", "b"]);
        let cron = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "c"}]}}}}}});
        assert_eq!(named_in(&cron), ["c"]);
    }
}
