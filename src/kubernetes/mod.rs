//! Adapter: applies manifests to a Kubernetes cluster, and waits until what runs there is really the new one.
//!
//! Everything it applies carries the epoch it was applied under. An object that carries a higher one is left alone: whoever
//! lost the lease writes no more. Passing errors are tried again within a limit; every request can be repeated.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::secret::Secret;

mod error;
mod manifest;
mod rollout;
mod tries;

pub use error::Error;
pub use manifest::Manifest;

use manifest::Flaw;
use rollout::Verdict;
use tries::{Answer, Telling};

/// The annotation that holds the epoch.
pub const EPOCH: &str = "planb/epoch";

/// The name under which fields are applied.
pub const FIELD_MANAGER: &str = "planb";

/// A connection to one cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The epoch of the operation; what is applied carries it.
    pub epoch: u64,
    /// Whether fields that others manage are taken over.
    pub force: bool,
    /// How long one object is tried when the cluster does not answer or is busy.
    pub limit: Duration,
    /// How long one request may take.
    pub request_limit: Duration,
    /// How often a rollout is looked at.
    pub look_every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

/// An object as it was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    pub outcome: Outcome,
    /// Of its specification, as the API server counted this apply.
    pub generation: i64,
    uid: String,
}

impl Applied {
    /// `Deployment bank/web`
    pub fn title(&self) -> String {
        title(&self.kind, self.namespace.as_deref(), &self.name)
    }
}

fn title(kind: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the kubeconfig's text. Nothing is asked of the cluster yet. A program that the kubeconfig names for logging in
    /// (`exec`) runs with our whole environment.
    ///
    /// # Errors
    /// [`Error::Kubeconfig`].
    pub async fn connect(kubeconfig: &Secret, epoch: u64) -> Result<Self, Error> {
        // The parser's own message may quote a key.
        let wrong = |_| Error::Kubeconfig("it is no kubeconfig in YAML".into());
        let read = Kubeconfig::from_yaml(kubeconfig.expose()).map_err(wrong)?;
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|_| {
            Error::Kubeconfig("its current context, cluster, user or certificates do not fit together".into())
        })?;
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| Error::Kubeconfig(error.to_string()))?;
        Ok(Self {
            client,
            epoch,
            force: false,
            limit: Duration::from_mins(2),
            request_limit: Duration::from_secs(30),
            look_every: Duration::from_secs(2),
        })
    }

    /// Applies every object of a directory's `*.yaml`, `*.yml` and `*.json` files; what others need comes first. Everything
    /// is read, and every `${NAME}` filled in, before the first is applied. Each object is told when it is done.
    ///
    /// # Errors
    /// The first object that was not taken; those before it stay. Applying again goes on.
    pub async fn apply(
        &self,
        dir: &Path,
        variables: &BTreeMap<String, String>,
        told: &(dyn Fn(&Applied) + Send + Sync),
    ) -> Result<Vec<Applied>, Error> {
        let mut all = Vec::new();
        for manifest in read_dir(dir, variables)? {
            let applied = self.apply_one(&manifest, Telling::Answer).await?;
            told(&applied);
            all.push(applied);
        }
        Ok(all)
    }

    /// What every container of every pod runs, as the cluster resolved it: `REPOSITORY@DIGEST`.
    ///
    /// # Errors
    /// As [`Cluster::apply`].
    pub async fn running_images(&self) -> Result<Vec<String>, Error> {
        let pods = self
            .trying("the pods of all namespaces", Telling::Answer, async || {
                let pod = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
                let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &pod);
                Ok(api.list(&ListParams::default()).await?)
            })
            .await?;
        let mut found = Vec::new();
        for pod in pods {
            for of in ["containerStatuses", "initContainerStatuses"] {
                let statuses = pod.data["status"][of].as_array().into_iter().flatten();
                let ids = statuses.filter_map(|status| status["imageID"].as_str());
                // `docker-pullable://` is what Docker put before it.
                found.extend(ids.map(|id| id.rsplit_once("://").map_or(id, |(_, rest)| rest).to_owned()));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Applies a Secret of type Opaque. Its values stand in no message.
    ///
    /// # Errors
    /// As [`Cluster::apply`], without what the cluster said in detail.
    pub async fn apply_secret(
        &self,
        namespace: &str,
        name: &str,
        values: &BTreeMap<String, Secret>,
    ) -> Result<Applied, Error> {
        let values: BTreeMap<&str, &str> = values
            .iter()
            .map(|(key, value)| (key.as_str(), value.expose()))
            .collect();
        let manifest = Manifest {
            api_version: "v1".into(),
            kind: "Secret".into(),
            namespace: Some(namespace.into()),
            name: name.into(),
            body: json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": { "namespace": namespace, "name": name }, "stringData": values,
            }),
        };
        self.apply_one(&manifest, Telling::CodeOnly).await
    }

    /// Deletes every object of a directory, the last applied first, and waits until each is gone. One that is not there is fine.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`] before the object is touched; [`Error::OutOfTime`] and others as for applying.
    pub async fn delete(&self, dir: &Path, variables: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
        let mut gone = Vec::new();
        for manifest in read_dir(dir, variables)?.iter().rev() {
            let what = self.what(manifest);
            self.trying(&what, Telling::Answer, async || {
                let api = match self.api(manifest).await {
                    Ok(api) => api,
                    // Its definition was taken back already, and it with it.
                    Err(Answer::Kube(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
                    Err(other) => return Err(other),
                };
                let Some(there) = api.get_opt(&manifest.name).await? else {
                    return Ok(());
                };
                self.check_epoch(&what, &there)?;
                if there.metadata.deletion_timestamp.is_none() {
                    // This very object, as it was looked at.
                    let mut params = DeleteParams::background();
                    params.preconditions = Some(kube::api::Preconditions {
                        uid: there.metadata.uid.clone(),
                        resource_version: there.metadata.resource_version.clone(),
                    });
                    api.delete(&manifest.name, &params).await?;
                }
                Err(Answer::Later("it is still being deleted".into()))
            })
            .await?;
            gone.push(what);
        }
        Ok(gone)
    }

    /// Waits until all Deployments, StatefulSets and DaemonSets among `applied` run as they were applied: none of the old,
    /// all of the new available. Others are not looked at. What is still to come is told on each look.
    ///
    /// # Errors
    /// [`Error::Rollout`] when the cluster gave up, or the object was deleted or replaced, [`Error::OutOfTime`]; both with
    /// what its newest pods say.
    pub async fn wait_rollout(
        &self,
        applied: &[Applied],
        limit: Duration,
        told: &(dyn Fn(&Applied, &str) + Send + Sync),
    ) -> Result<(), Error> {
        let end = Instant::now() + limit;
        let rolls = |one: &&Applied| ["Deployment", "StatefulSet", "DaemonSet"].contains(&one.kind.as_str());
        for one in applied.iter().filter(rolls) {
            let what = one.title();
            let api = self.dynamic("apps/v1", &one.kind, one.namespace.as_deref());
            loop {
                let there = self
                    .trying(&what, Telling::Answer, async || Ok(api.get_opt(&one.name).await?))
                    .await?;
                let failed = |detail: String| Error::Rollout {
                    what: what.clone(),
                    detail,
                };
                let there = there.ok_or_else(|| failed("it was deleted meanwhile".into()))?;
                if there.metadata.uid.as_deref() != Some(one.uid.as_str()) {
                    return Err(failed("somebody deleted it and made another meanwhile".into()));
                }
                self.check_epoch(&what, &there)
                    .map_err(|answer| self.named(&what, Telling::Answer, answer))?;
                let object = serde_json::to_value(&there).unwrap_or_default();
                let state = rollout::judge(&one.kind, &object, one.generation);
                if state == Verdict::Done {
                    break;
                }
                let mut reasons = self.pod_troubles(one, &object).await;
                match state {
                    Verdict::Done => break,
                    Verdict::Failed(why) => {
                        reasons.insert(0, why);
                        return Err(failed(reasons.join("; ")));
                    }
                    Verdict::Waiting(why) => reasons.insert(0, why),
                }
                let last = reasons.join("; ");
                told(one, &last);
                if Instant::now() + self.look_every > end {
                    return Err(Error::OutOfTime {
                        what: format!("the rollout of {what}"),
                        limit,
                        last,
                    });
                }
                sleep(self.look_every).await;
            }
        }
        Ok(())
    }

    /// What the newest pods of a workload complain about. That they cannot be asked for is told
    /// too, and is no reason to stop waiting.
    async fn pod_troubles(&self, one: &Applied, object: &Value) -> Vec<String> {
        let labels = object["spec"]["selector"]["matchLabels"]
            .as_object()
            .into_iter()
            .flatten();
        let selector: Vec<String> = labels
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        let selector = ListParams::default().labels(&selector.join(","));
        let list = async |api_version: &str, kind: &str| -> Result<Vec<Value>, String> {
            let api = self.dynamic(api_version, kind, one.namespace.as_deref());
            let items = match timeout(self.request_limit, api.list(&selector)).await {
                Ok(Ok(list)) => list.items,
                Ok(Err(error)) => {
                    let error = self.named(&format!("asking for its {kind}s"), Telling::Answer, error.into());
                    return Err(error.to_string());
                }
                Err(_) => return Err(format!("its {kind}s could not be asked for in time")),
            };
            Ok(items
                .iter()
                .filter_map(|item| serde_json::to_value(item).ok())
                .collect())
        };
        let owned = |object: &Value, uid: &str| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.into_iter().flatten().any(|owner| owner["uid"] == uid)
        };
        let mut owner = one.uid.clone();
        if one.kind == "Deployment" {
            let revision = |set: &Value| {
                let text = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
                text.and_then(|text| text.parse::<u64>().ok())
            };
            let sets = match list("apps/v1", "ReplicaSet").await {
                Ok(sets) => sets,
                Err(why) => return vec![why],
            };
            let newest = sets
                .iter()
                .filter(|set| owned(set, &one.uid))
                .max_by_key(|set| revision(set));
            newest
                .and_then(|set| set["metadata"]["uid"].as_str())
                .unwrap_or_default()
                .clone_into(&mut owner);
        }
        let newest = &object["status"]["updateRevision"];
        let is_new = |pod: &&Value| {
            let revision = &pod["metadata"]["labels"]["controller-revision-hash"];
            owned(pod, &owner) && (one.kind != "StatefulSet" || newest.is_null() || revision == newest)
        };
        match list("v1", "Pod").await {
            Ok(pods) => pods.iter().filter(is_new).filter_map(rollout::trouble).collect(),
            Err(why) => vec![why],
        }
    }

    async fn apply_one(&self, manifest: &Manifest, telling: Telling) -> Result<Applied, Error> {
        let what = self.what(manifest);
        let mut params = PatchParams::apply(FIELD_MANAGER);
        params.force = self.force;
        self.trying(&what, telling, async || {
            let api = match self.api(manifest).await {
                Ok(api) => api,
                // A group of somebody's own: its definition may have been applied a moment ago.
                Err(Answer::Kube(kube::Error::Api(status)))
                    if status.code == 404 && manifest.api_version.contains('.') =>
                {
                    return Err(Answer::Later("the cluster does not know its apiVersion".into()));
                }
                Err(other) => return Err(other),
            };
            let before = api.get_opt(&manifest.name).await?;
            let mut body = manifest.body.clone();
            body["metadata"]["annotations"][EPOCH] = self.epoch.to_string().into();
            let mut version = None;
            if let Some(there) = &before {
                self.check_epoch(&what, there)?;
                // If somebody writes between this look and our write, the server refuses ours, and we look again.
                version.clone_from(&there.metadata.resource_version);
                body["metadata"]["resourceVersion"] = json!(version);
            }
            let after = api.patch(&manifest.name, &params, &Patch::Apply(&body)).await?;
            let outcome = match &before {
                None => Outcome::Created,
                Some(_) if after.metadata.resource_version == version => Outcome::Unchanged,
                Some(_) => Outcome::Configured,
            };
            Ok(Applied {
                kind: manifest.kind.clone(),
                namespace: after.metadata.namespace,
                name: manifest.name.clone(),
                outcome,
                generation: after.metadata.generation.unwrap_or(0),
                uid: after.metadata.uid.unwrap_or_default(),
            })
        })
        .await
    }

    fn what(&self, manifest: &Manifest) -> String {
        title(&manifest.kind, manifest.namespace.as_deref(), &manifest.name)
    }

    fn check_epoch(&self, what: &str, there: &DynamicObject) -> Result<(), Answer> {
        let annotations = there.metadata.annotations.as_ref();
        let epoch = annotations
            .and_then(|all| all.get(EPOCH))
            .and_then(|text| text.parse::<u64>().ok());
        match epoch {
            Some(epoch) if epoch > self.epoch => Err(Answer::Final(Error::StaleEpoch {
                what: what.to_owned(),
                there: epoch,
                ours: self.epoch,
            })),
            Some(_) | None => Ok(()),
        }
    }

    /// The kind's place in the API, as the cluster itself tells it.
    async fn api(&self, manifest: &Manifest) -> Result<Api<DynamicObject>, Answer> {
        let kind = group_version_kind(&manifest.api_version, &manifest.kind);
        let (resource, capabilities) = pinned_kind(&self.client, &kind).await.map_err(|error| match error {
            // A definition that was applied a moment ago is served a moment later.
            kube::Error::Discovery(error) => Answer::Later(error.to_string()),
            other => Answer::Kube(other),
        })?;
        let own = manifest.namespace.as_deref();
        Ok(match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = own.unwrap_or(self.client.default_namespace());
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
        })
    }

    /// A kind that every cluster has.
    fn dynamic(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&group_version_kind(api_version, kind));
        let namespace = namespace.unwrap_or(self.client.default_namespace());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

fn group_version_kind(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind::gvk(group, version, kind)
}

/// Every object of a directory's files, in the order of applying.
/// Every object of a directory, filled in, in the order in which a cluster takes it; nothing is asked of one.
///
/// # Errors
/// [`Error::Manifest`], [`Error::MissingVariables`].
pub fn read_dir(dir: &Path, variables: &BTreeMap<String, String>) -> Result<Vec<Manifest>, Error> {
    let unreadable = |file: &Path, error: &std::io::Error| Error::Manifest {
        file: file.to_owned(),
        detail: error.to_string(),
    };
    let entries = fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
    });
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        all.extend(manifest::read(&text, variables).map_err(|flaw| match flaw {
            Flaw::Text(detail) => Error::Manifest { file, detail },
            Flaw::Missing(names) => Error::MissingVariables { file, names },
        })?);
    }
    if all.is_empty() {
        let detail = "no manifest is in it (*.yaml, *.yml, *.json)".into();
        return Err(Error::Manifest {
            file: dir.to_owned(),
            detail,
        });
    }
    all.sort_by_key(|manifest| manifest::rank(&manifest.kind));
    Ok(all)
}
