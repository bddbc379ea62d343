//! A small Kubernetes API server that misbehaves on purpose: discovery, GET, LIST, DELETE and server-side apply with
//! field managers, roughly. Controllers are played by the test.
//!
//! One request for each connection. Include with `#[path = "support/fake_kubernetes.rs"] mod fake_kubernetes;`.

#![allow(dead_code, reason = "shared by several test files; none uses all of it")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use planb::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to a request instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// This status; a 429 asks to come again after a second.
    Status(u16),
    /// Nothing, ever.
    Hang,
    /// It is done, but the answer breaks off.
    CutAnswer,
    /// Somebody else writes the object just before this request is done.
    Overtaken,
}

/// The kinds it knows: API path, kind, plural, namespaced.
const KINDS: [(&str, &str, &str, bool); 13] = [
    ("/api/v1", "Namespace", "namespaces", false),
    ("/api/v1", "ConfigMap", "configmaps", true),
    ("/api/v1", "Secret", "secrets", true),
    ("/api/v1", "Service", "services", true),
    ("/api/v1", "Pod", "pods", true),
    ("/api/v1", "ServiceAccount", "serviceaccounts", true),
    ("/apis/networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("/apis/policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("/apis/apps/v1", "Deployment", "deployments", true),
    ("/apis/apps/v1", "StatefulSet", "statefulsets", true),
    ("/apis/apps/v1", "DaemonSet", "daemonsets", true),
    ("/apis/apps/v1", "ReplicaSet", "replicasets", true),
    (
        "/apis/apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
];

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Who manages which field (a JSON pointer) of an object.
    managers: BTreeMap<(String, String), String>,
    /// What a controller makes of an object's status before each GET, one after the other; the last stays.
    scripts: BTreeMap<String, VecDeque<Value>>,
    faults: Vec<(String, Fault, usize)>,
    log: Vec<String>,
    counter: u64,
}

/// Runs until dropped.
pub struct FakeKubernetes {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl FakeKubernetes {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub fn kubeconfig(&self) -> Secret {
        Secret::new(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {{server: 'http://{}'}}\n\
             contexts:\n- name: c\n  context: {{cluster: c, user: u, namespace: bank}}\nusers:\n- name: u\n  user: {{token: t0ken}}\n",
            self.address
        ))
    }

    /// The next `times` requests whose line (`PATCH /api/v1/…`) contains `text` meet `fault`.
    pub fn fail(&self, text: &str, fault: Fault, times: usize) {
        self.state().faults.push((text.into(), fault, times));
    }

    /// Statuses that GETs of `path` will find, one after the other.
    pub fn script(&self, path: &str, statuses: impl IntoIterator<Item = Value>) {
        self.state().scripts.insert(path.into(), statuses.into_iter().collect());
    }

    /// Puts an object there, all of it.
    pub fn put(&self, path: &str, object: Value) {
        self.state().objects.insert(path.into(), object);
    }

    /// From now on `manager` manages that field.
    pub fn manage(&self, path: &str, pointer: &str, manager: &str) {
        let key = (path.to_owned(), pointer.to_owned());
        self.state().managers.insert(key, manager.into());
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Request lines so far that begin with `text`, without their queries.
    pub fn requests(&self, text: &str) -> Vec<String> {
        let state = self.state();
        state
            .log
            .iter()
            .filter(|line| line.starts_with(text))
            .cloned()
            .collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                connections.spawn(serve(stream, Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some((method, target, body)) = request(&mut stream).await else {
        return;
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let line = format!("{method} {path}");
    let fault = {
        let mut state = state.lock().expect("the state");
        state.log.push(line.clone());
        let met = state
            .faults
            .iter_mut()
            .find(|(text, _, times)| *times > 0 && line.contains(text.as_str()));
        met.map(|(_, fault, times)| {
            *times -= 1;
            fault.clone()
        })
    };
    let (code, answer) = match &fault {
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Status(code)) => refuse(
            *code,
            "Fault",
            "the test wants it so",
            json!({"retryAfterSeconds": u8::from(*code == 429)}),
        ),
        _ => {
            let mut state = state.lock().expect("the state");
            if fault == Some(Fault::Overtaken) {
                state.touch(path);
            }
            state.answer(&method, path, query, &body)
        }
    };
    let text = answer.to_string();
    let mut bytes = format!(
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes();
    if fault == Some(Fault::CutAnswer) {
        bytes.truncate(bytes.len() - 5);
    }
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

async fn request(stream: &mut TcpStream) -> Option<(String, String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                let mut words = head.split(' ');
                let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
                return Some((method, target, bytes.split_off(end + 4)));
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn refuse(code: u16, reason: &str, message: &str, details: Value) -> (u16, Value) {
    let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": message, "details": details});
    (code, status)
}

/// Every leaf of `value`, by its JSON pointer.
fn leaves(value: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(all) => all.iter().for_each(|(key, one)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            leaves(one, &format!("{at}/{key}"), found);
        }),
        leaf => found.push((at.to_owned(), leaf.clone())),
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => from.clone_into(into),
    }
}

impl State {
    fn next(&mut self) -> String {
        self.counter += 1;
        self.counter.to_string()
    }

    fn touch(&mut self, path: &str) {
        let version = self.next();
        if let Some(object) = self.objects.get_mut(path) {
            object["metadata"]["resourceVersion"] = version.into();
        }
    }

    fn answer(&mut self, method: &str, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
        if let Some(kinds) = self.discovery(path) {
            return (200, kinds);
        }
        let (parent, name) = path.rsplit_once('/').expect("a path");
        let listed = KINDS.iter().find(|(_, _, plural, _)| *plural == name);
        match (method, listed) {
            ("GET", Some((_, kind, ..))) => (200, self.list(path, kind, query)),
            ("GET", None) => {
                if let Some(script) = self.scripts.get_mut(path) {
                    let status = if script.len() > 1 {
                        script.pop_front()
                    } else {
                        script.front().cloned()
                    };
                    if let (Some(status), Some(object)) = (status, self.objects.get_mut(path)) {
                        object["status"] = status;
                    }
                }
                match self.objects.get(path) {
                    Some(object) => (200, object.clone()),
                    None => refuse(404, "NotFound", &format!("{path} not found"), json!({})),
                }
            }
            ("DELETE", None) => match self.objects.remove(path) {
                Some(object) => (200, object),
                None => refuse(404, "NotFound", &format!("{path} not found"), json!({})),
            },
            ("PATCH", None) => self.apply(parent, path, query, body),
            _ => refuse(405, "MethodNotAllowed", method, json!({})),
        }
    }

    fn discovery(&self, path: &str) -> Option<Value> {
        let mut resources: Vec<Value> = KINDS
            .iter()
            .filter(|(api, ..)| *api == path)
            .map(|(_, kind, plural, namespaced)| resource(kind, plural, *namespaced))
            .collect();
        let definitions = self
            .objects
            .values()
            .filter(|o| o["kind"] == "CustomResourceDefinition");
        resources.extend(definitions.filter_map(|definition| {
            let spec = &definition["spec"];
            let api = format!("/apis/{}/v1", spec["group"].as_str()?);
            let names = &spec["names"];
            (api == path).then(|| {
                resource(
                    names["kind"].as_str().unwrap_or(""),
                    names["plural"].as_str().unwrap_or(""),
                    true,
                )
            })
        }));
        let version = path.trim_start_matches("/apis/").trim_start_matches("/api/");
        (!resources.is_empty()).then(
            || json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
        )
    }

    fn list(&self, path: &str, kind: &str, query: &str) -> Value {
        let selector = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("labelSelector="))
            .unwrap_or("");
        let selector = selector.replace("%3D", "=").replace("%2C", ",");
        let fits = |object: &Value| {
            let mut pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
            pairs.all(|(key, value)| object["metadata"]["labels"][key] == value)
        };
        // Of one namespace, or of all.
        let below = format!("{path}/");
        let (api, plural) = path.rsplit_once('/').expect("a path");
        let (all, each) = (format!("{api}/namespaces/"), format!("/{plural}/"));
        let is_all = !path.contains("/namespaces/");
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(at, object)| {
                let is_here = at.starts_with(&below) || (is_all && at.starts_with(&all) && at.contains(&each));
                is_here && fits(object)
            })
            .map(|(_, object)| object)
            .collect();
        json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": {}, "items": items})
    }

    fn apply(&mut self, parent: &str, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
        let Ok(mut body) = serde_json::from_slice::<Value>(body) else {
            return refuse(400, "BadRequest", "no JSON", json!({}));
        };
        let namespace = parent
            .split_once("/namespaces/")
            .and_then(|(_, rest)| rest.split('/').next());
        if let Some(namespace) = namespace {
            if !self.objects.contains_key(&format!("/api/v1/namespaces/{namespace}")) {
                return refuse(
                    404,
                    "NotFound",
                    &format!("namespaces \"{namespace}\" not found"),
                    json!({}),
                );
            }
            body["metadata"]["namespace"] = namespace.into();
        }
        let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager="));
        let Some(manager) = manager.map(str::to_owned) else {
            return refuse(400, "BadRequest", "fieldManager is required for apply patch", json!({}));
        };
        let before = self.objects.get(path).cloned();
        let version = body["metadata"]
            .as_object_mut()
            .and_then(|metadata| metadata.remove("resourceVersion"));
        let there = before
            .as_ref()
            .map(|object| object["metadata"]["resourceVersion"].clone());
        if version.is_some() && version != there {
            return refuse(409, "Conflict", "the object has been modified", json!({}));
        }
        let mut fields = Vec::new();
        leaves(&body, "", &mut fields);
        if let (Some(before), false) = (&before, query.contains("force=true")) {
            let taken = fields.iter().find_map(|(pointer, value)| {
                let other = self.managers.get(&(path.to_owned(), pointer.clone()))?;
                (*other != manager && before.pointer(pointer) != Some(value)).then(|| (pointer.clone(), other.clone()))
            });
            if let Some((pointer, other)) = taken {
                let message = format!("conflict with \"{other}\": {pointer}");
                let causes =
                    json!({"causes": [{"reason": "FieldManagerConflict", "message": message, "field": pointer}]});
                return refuse(409, "Conflict", &message, causes);
            }
        }
        for (pointer, _) in fields {
            self.managers.insert((path.to_owned(), pointer), manager.clone());
        }
        let mut after = before.clone().unwrap_or_else(|| json!({}));
        merge(&mut after, &body);
        let code = if before.is_none() { 201 } else { 200 };
        let before = before.unwrap_or_default();
        if after != before {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
            after["metadata"]["generation"] = (generation + i64::from(after["spec"] != before["spec"])).into();
            after["metadata"]["resourceVersion"] = self.next().into();
            if before.is_null() {
                after["metadata"]["uid"] = format!("uid-{}", self.counter).into();
            }
        }
        self.objects.insert(path.to_owned(), after.clone());
        (code, after)
    }
}

fn resource(kind: &str, plural: &str, namespaced: bool) -> Value {
    json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind,
        "verbs": ["get", "list", "patch", "delete"]})
}
