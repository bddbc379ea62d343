//! Adapter: what Azure Resource Manager says of quotas, and of which database servers a region sells. Reads only.
//!
//! Source: `Microsoft.Compute/locations/usages` (2024-07-01), `Microsoft.Network/locations/usages` (2024-05-01),
//! `Microsoft.DBforMySQL/locations/capabilities` (2023-12-30).

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;
use url::Url;

use crate::config::Quota;
use crate::secret::Secret;

const WITHIN: Duration = Duration::from_secs(20);
/// Pages of one answer; there are two or three.
const MOST_PAGES: usize = 20;
/// One page.
const LARGEST_BYTES: usize = 8 << 20;

/// What a region still has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supply {
    /// Name, how much is in use, how much there may be.
    pub compute: Vec<(String, u64, u64)>,
    pub network: Vec<(String, u64, u64)>,
    /// Database servers that may be made there.
    pub database_skus: BTreeSet<String>,
}

/// Why it could not be asked. Holds no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QuotaError {
    #[error("Azure Resource Manager does not answer: {0}")]
    Unreachable(String),
    #[error("Azure Resource Manager refused {what} ({status}): the identity needs \"Reader\" on the subscription")]
    Denied { what: &'static str, status: u16 },
    #[error("Azure Resource Manager answered {status} for {what}: {detail}")]
    Answered {
        what: &'static str,
        status: u16,
        detail: String,
    },
    #[error("what Azure Resource Manager says of {0} makes no sense; has its API changed?")]
    Strange(&'static str),
}

impl QuotaError {
    /// Whether trying again cannot help unless a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreachable(_) => false,
            Self::Denied { .. } | Self::Strange(_) => true,
            Self::Answered { status, .. } => *status < 500 && *status != 429,
        }
    }
}

/// Asks for what `wanted` names, and no more.
///
/// # Errors
/// [`QuotaError`].
pub async fn supply(wanted: &Quota, token: &Secret) -> Result<Supply, QuotaError> {
    let client = Client::builder()
        .timeout(WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| QuotaError::Unreachable(error.to_string()))?;
    let mut found = Supply::default();
    if !wanted.compute.is_empty() {
        let (path, what) = ("usages?api-version=2024-07-01", "compute quotas");
        found.compute = usages(
            &all(&client, wanted, "Microsoft.Compute", path, token, what).await?,
            what,
        )?;
    }
    if !wanted.network.is_empty() {
        let (path, what) = ("usages?api-version=2024-05-01", "network quotas");
        found.network = usages(
            &all(&client, wanted, "Microsoft.Network", path, token, what).await?,
            what,
        )?;
    }
    if !wanted.database_skus.is_empty() {
        let what = "database servers";
        let path = "capabilities?api-version=2023-12-30";
        for zone in all(&client, wanted, "Microsoft.DBforMySQL", path, token, what).await? {
            skus(&zone, &mut found.database_skus);
        }
    }
    Ok(found)
}

fn usages(items: &[Value], what: &'static str) -> Result<Vec<(String, u64, u64)>, QuotaError> {
    let read = |one: &Value| {
        // Where there is no limit, Azure writes -1.
        let limit = match one["limit"].as_i64()? {
            -1 => u64::MAX,
            limit => u64::try_from(limit).ok()?,
        };
        Some((
            one["name"]["value"].as_str()?.to_owned(),
            one["currentValue"].as_u64()?,
            limit,
        ))
    };
    let read = items.iter().map(read).collect::<Option<_>>();
    read.ok_or(QuotaError::Strange(what))
}

async fn all(
    client: &Client,
    wanted: &Quota,
    provider: &str,
    path: &str,
    token: &Secret,
    what: &'static str,
) -> Result<Vec<Value>, QuotaError> {
    let (subscription, location) = (&wanted.subscription, &wanted.location);
    let first = format!("/subscriptions/{subscription}/providers/{provider}/locations/{location}/{path}");
    let mut next = wanted.endpoint.join(&first).ok();
    let mut found = Vec::new();
    for _ in 0..MOST_PAGES {
        let Some(url) = next.take() else { return Ok(found) };
        let page = page(client, url, token, what).await?;
        let items = page["value"].as_array().ok_or(QuotaError::Strange(what))?;
        found.extend(items.iter().cloned());
        next = match page["nextLink"].as_str() {
            None | Some("") => None,
            // The token goes nowhere else.
            Some(link) => Some(
                Url::parse(link)
                    .ok()
                    .filter(|url| url.origin() == wanted.endpoint.origin())
                    .ok_or(QuotaError::Strange(what))?,
            ),
        };
    }
    match next {
        None => Ok(found),
        Some(_) => Err(QuotaError::Strange(what)),
    }
}

async fn page(client: &Client, url: Url, token: &Secret, what: &'static str) -> Result<Value, QuotaError> {
    let mut bearer =
        HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| QuotaError::Strange("the login"))?;
    bearer.set_sensitive(true);
    let unreachable = |error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        QuotaError::Unreachable(cause.to_string())
    };
    let asked = client.get(url).header(AUTHORIZATION, bearer);
    let mut answer = asked.send().await.map_err(unreachable)?;
    let status = answer.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_BYTES {
            return Err(QuotaError::Strange(what));
        }
    }
    let read: Option<Value> = serde_json::from_slice(&bytes).ok();
    match (status.as_u16(), read) {
        (200, Some(page)) => Ok(page),
        (200, None) => Err(QuotaError::Strange(what)),
        (status @ (401 | 403), _) => Err(QuotaError::Denied { what, status }),
        (status, read) => {
            let said = read.and_then(|read| read["error"]["code"].as_str().map(str::to_owned));
            Err(QuotaError::Answered {
                what,
                status,
                detail: said.unwrap_or_else(|| "no reason given".to_owned()),
            })
        }
    }
}

/// Names under any `supportedSkus`: versions of the API nest them differently.
fn skus(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(all) => {
            for (key, value) in all {
                if let (true, Value::Array(list)) = (key.eq_ignore_ascii_case("supportedSkus"), value) {
                    let names = list.iter().filter_map(|sku| sku["name"].as_str());
                    found.extend(names.map(str::to_owned));
                }
                skus(value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|one| skus(one, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What of `wanted` could not be had tonight, in words.
pub fn lacks(wanted: &Quota, supply: &Supply) -> Vec<String> {
    let mut lacks = Vec::new();
    let of = |wanted: &'_ [(String, u64)], known: &'_ [(String, u64, u64)]| {
        let pair = |one: &(String, u64)| {
            let same = known.iter().find(|(known, ..)| known.eq_ignore_ascii_case(&one.0));
            (one.0.clone(), one.1, same.map(|(_, used, limit)| (*used, *limit)))
        };
        wanted.iter().map(pair).collect::<Vec<_>>()
    };
    let compute = of(&wanted.compute, &supply.compute);
    for (name, count, known) in compute.into_iter().chain(of(&wanted.network, &supply.network)) {
        match known {
            Some((used, limit)) if used.saturating_add(count) > limit => lacks.push(format!(
                "{name}: {used} of {limit} are in use in {}, and a recovery takes {count}",
                wanted.location
            )),
            Some(_) => {}
            None => lacks.push(format!("{name}: {} knows no such quota", wanted.location)),
        }
    }
    let has = |sku: &String| supply.database_skus.iter().any(|known| known.eq_ignore_ascii_case(sku));
    if !wanted.database_skus.is_empty() && !wanted.database_skus.iter().any(has) {
        lacks.push(format!(
            "the database: none of {} may be made in {}",
            wanted.database_skus.join(", "),
            wanted.location
        ));
    }
    lacks
}
