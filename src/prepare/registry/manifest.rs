//! A manifest, and what has to be there before it. Pure.

use bytes::Bytes;
use serde_json::Value;

use crate::prepare::image::is_digest;

/// A manifest as it was stored, byte for byte.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub media_type: String,
    pub bytes: Bytes,
}

/// What a manifest needs to be there first: blobs, and manifests of which it is the index.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parts {
    pub blobs: Vec<String>,
    pub manifests: Vec<String>,
}

impl Manifest {
    /// None where it is no manifest that this program knows.
    pub fn parts(&self) -> Option<Parts> {
        let read: Value = serde_json::from_slice(&self.bytes).ok()?;
        let digests = |list: &Value| -> Option<Vec<String>> {
            let all = list.as_array()?.iter();
            // A layer that is somebody else's to give out lies elsewhere.
            let ours = all.filter(|one| one["urls"].as_array().is_none_or(Vec::is_empty));
            ours.map(|one| {
                one["digest"]
                    .as_str()
                    .filter(|digest| is_digest(digest))
                    .map(str::to_owned)
            })
            .collect()
        };
        if read["manifests"].is_array() {
            return Some(Parts {
                manifests: digests(&read["manifests"])?,
                ..Parts::default()
            });
        }
        let mut blobs = digests(&read["layers"])?;
        blobs.push(
            read["config"]["digest"]
                .as_str()
                .filter(|digest| is_digest(digest))?
                .to_owned(),
        );
        blobs.sort();
        blobs.dedup();
        Some(Parts {
            blobs,
            ..Parts::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_tells_what_it_needs() {
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let of = |text: String| Manifest {
            media_type: String::new(),
            bytes: text.into(),
        };
        let image = of(format!(
            r#"{{"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}},{{"digest":"{}","urls":["https://x"]}}]}}"#,
            digest("0a"),
            digest("0b"),
            digest("0c")
        ));
        assert_eq!(
            image.parts().map(|parts| parts.blobs),
            Some(vec![digest("0a"), digest("0b")])
        );
        let index = of(format!(r#"{{"manifests":[{{"digest":"{}"}}]}}"#, digest("0d")));
        assert_eq!(index.parts().map(|parts| parts.manifests), Some(vec![digest("0d")]));
        assert_eq!(of("{}".into()).parts(), None);
        assert_eq!(of(r#"{"manifests":[{"digest":"../x"}]}"#.into()).parts(), None);
    }
}
