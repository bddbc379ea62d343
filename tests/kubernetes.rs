//! The adapter to Kubernetes, against an API server that misbehaves on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use planb::kubernetes::{Applied, Cluster, Error, Outcome};
use planb::secret::Secret;
use serde_json::{Value, json};

#[path = "support/fake_kubernetes.rs"]
mod fake_kubernetes;

use fake_kubernetes::{FakeKubernetes, Fault};

const CONFIG: &str = "/api/v1/namespaces/bank/configmaps/db";
const WEB: &str = "/apis/apps/v1/namespaces/bank/deployments/web";

/// On purpose in an order that no cluster takes.
const MANIFESTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: bank}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {spec: {image: '${IMAGE}'}}
---
apiVersion: bank.example/v1
kind: Ledger
metadata: {name: main}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: db}
data: {host: '${HOST}'}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ledgers.bank.example}
spec: {group: bank.example, names: {kind: Ledger, plural: ledgers}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank}
";

struct World {
    api: FakeKubernetes,
    cluster: Cluster,
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl World {
    async fn new() -> Self {
        let api = FakeKubernetes::start().await;
        let mut cluster = Cluster::connect(&api.kubeconfig(), 7).await.expect("a cluster");
        cluster.limit = Duration::from_secs(10);
        cluster.request_limit = Duration::from_secs(5);
        cluster.look_every = Duration::from_millis(10);
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("all.yaml"), MANIFESTS).expect("manifests");
        let variables = [("HOST", "db.example"), ("IMAGE", "web:1")].map(|(name, value)| (name.into(), value.into()));
        Self {
            api,
            cluster,
            dir,
            variables: variables.into(),
        }
    }

    async fn apply(&self) -> Result<Vec<Applied>, Error> {
        self.cluster.apply(self.dir.path(), &self.variables, &|_| {}).await
    }

    /// What came of each, in order.
    async fn outcomes(&self) -> Vec<(String, Outcome)> {
        let applied = self.apply().await.expect("applied");
        applied.iter().map(|one| (one.kind.clone(), one.outcome)).collect()
    }

    /// With the Deployment as it is after its `generation` was rolled out.
    async fn with_statuses(&self, statuses: impl IntoIterator<Item = Value>) -> Result<Vec<String>, Error> {
        let applied = self.apply().await.expect("applied");
        self.api.script(WEB, statuses);
        let heard = Mutex::new(Vec::new());
        let told = |_: &Applied, text: &str| heard.lock().expect("heard").push(text.to_owned());
        self.cluster
            .wait_rollout(&applied, Duration::from_secs(5), &told)
            .await?;
        Ok(heard.into_inner().expect("heard"))
    }
}

fn status(generation: i64, all: i64, updated: i64, available: i64) -> Value {
    json!({"observedGeneration": generation, "replicas": all, "updatedReplicas": updated, "availableReplicas": available,
        "unavailableReplicas": all - available, "conditions": []})
}

/// The status of a rollout that the cluster gave up.
fn given_up(generation: i64) -> Value {
    let mut status = status(generation, 3, 1, 2);
    status["conditions"] = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
        "message": "ReplicaSet has timed out progressing"}]);
    status
}

#[tokio::test]
async fn a_directory_is_applied_in_order_and_again_without_a_change() {
    let mut world = World::new().await;
    let kinds = [
        "Namespace",
        "CustomResourceDefinition",
        "ConfigMap",
        "Ledger",
        "Deployment",
    ];
    let all = |outcome: Outcome| kinds.map(|kind| (kind.to_owned(), outcome));
    assert_eq!(world.outcomes().await, all(Outcome::Created));
    let config = world.api.get(CONFIG).expect("in the kubeconfig's namespace");
    assert_eq!(config["data"]["host"], "db.example");
    assert_eq!(config["metadata"]["annotations"]["planb/epoch"], "7");
    assert_eq!(world.outcomes().await, all(Outcome::Unchanged));

    world.variables.insert("HOST".into(), "other.example".into());
    let outcomes = world.outcomes().await;
    assert_eq!(outcomes[2].1, Outcome::Configured);
    assert_eq!(outcomes[4].1, Outcome::Unchanged);
}

#[tokio::test]
async fn a_missing_variable_is_told_before_anything_is_applied() {
    let mut world = World::new().await;
    world.variables.clear();
    let error = world.apply().await.expect_err("no values");
    assert!(
        matches!(&error, Error::MissingVariables { names, .. } if names == &["HOST", "IMAGE"]),
        "{error:?}"
    );
    assert!(world.api.requests("").is_empty());
}

#[tokio::test]
async fn passing_errors_are_tried_again_and_an_answer_that_got_lost_is_no_harm() {
    let world = World::new().await;
    world.api.fail(&format!("PATCH {CONFIG}"), Fault::Status(500), 1);
    world.api.fail(&format!("PATCH {CONFIG}"), Fault::Status(429), 1);
    world.api.fail(&format!("PATCH {CONFIG}"), Fault::CutAnswer, 1);
    world.api.fail(&format!("GET {WEB}"), Fault::Status(503), 1);
    let begun = std::time::Instant::now();
    world.apply().await.expect("applied");
    assert_eq!(world.api.requests(&format!("PATCH {CONFIG}")).len(), 4);
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "the server's Retry-After is a second"
    );
    assert_eq!(world.api.get(CONFIG).expect("there")["data"]["host"], "db.example");
}

#[tokio::test]
async fn a_cluster_that_hangs_or_is_gone_is_given_up_in_time() {
    let mut world = World::new().await;
    world.cluster.limit = Duration::from_millis(800);
    world.cluster.request_limit = Duration::from_millis(200);
    world.api.fail("", Fault::Hang, 100);
    let error = world.apply().await.expect_err("hangs");
    assert!(
        matches!(error, Error::OutOfTime { .. }) && error.to_string().contains("no answer"),
        "{error}"
    );

    let gone = FakeKubernetes::start().await.kubeconfig();
    let mut cluster = Cluster::connect(&gone, 7).await.expect("read");
    cluster.limit = Duration::from_millis(800);
    let error = cluster
        .apply(world.dir.path(), &world.variables, &|_| {})
        .await
        .expect_err("gone");
    assert!(matches!(error, Error::OutOfTime { .. }), "{error:?}");
}

#[tokio::test]
async fn refusals_say_what_to_do_and_are_not_tried_again() {
    for (code, told) in [(401, "credentials"), (403, "Role"), (404, "namespace"), (422, "422")] {
        let world = World::new().await;
        world
            .api
            .fail("PATCH /api/v1/namespaces/bank", Fault::Status(code), 100);
        let error = world.apply().await.expect_err("refused");
        assert!(error.to_string().contains(told) && error.is_permanent(), "{error}");
        assert_eq!(world.api.requests("PATCH").len(), 1, "{code}");
    }
    let nothing = Cluster::connect(&Secret::new("token: [s3cret"), 7)
        .await
        .expect_err("no kubeconfig");
    assert!(!nothing.to_string().contains("s3cret"), "{nothing}");
}

#[tokio::test]
async fn fields_of_others_are_a_conflict_unless_forced() {
    let mut world = World::new().await;
    world.apply().await.expect("applied");
    world.api.manage(CONFIG, "/data/host", "helm");
    world.variables.insert("HOST".into(), "other.example".into());
    let error = world.apply().await.expect_err("helm's");
    assert!(
        matches!(error, Error::Conflict { .. }) && error.to_string().contains("helm"),
        "{error}"
    );
    assert_eq!(world.api.get(CONFIG).expect("there")["data"]["host"], "db.example");
    world.cluster.force = true;
    world.apply().await.expect("taken over");
    assert_eq!(world.api.get(CONFIG).expect("there")["data"]["host"], "other.example");
}

#[tokio::test]
async fn who_lost_the_lease_neither_applies_nor_deletes() {
    let mut world = World::new().await;
    world.apply().await.expect("applied");
    world.cluster.epoch = 8;
    world.apply().await.expect("the next epoch");
    let before = world.api.get(CONFIG);
    world.cluster.epoch = 7;
    world.variables.insert("HOST".into(), "stale.example".into());
    let stale = |error: &Error| matches!(error, Error::StaleEpoch { there: 8, ours: 7, .. });
    let error = world.apply().await.expect_err("stale");
    assert!(stale(&error), "{error:?}");
    let error = world
        .cluster
        .delete(world.dir.path(), &world.variables)
        .await
        .expect_err("stale");
    assert!(stale(&error), "{error:?}");
    assert_eq!(world.api.get(CONFIG), before);
    assert!(world.api.requests("DELETE").is_empty());
}

#[tokio::test]
async fn a_write_between_look_and_write_makes_it_look_again() {
    let mut world = World::new().await;
    world.apply().await.expect("applied");
    world.variables.insert("HOST".into(), "other.example".into());
    world.api.fail(&format!("PATCH {CONFIG}"), Fault::Overtaken, 1);
    let looked = world.api.requests(&format!("GET {CONFIG}")).len();
    assert_eq!(world.outcomes().await[2].1, Outcome::Configured);
    assert_eq!(world.api.requests(&format!("GET {CONFIG}")).len(), looked + 2);
}

#[tokio::test]
async fn a_secret_is_applied_and_stands_in_no_message() {
    let world = World::new().await;
    let values = [("password".to_owned(), Secret::new("hunter2"))].into();
    let path = "/api/v1/namespaces/bank/secrets/db";
    let error = world
        .cluster
        .apply_secret("bank", "db", &values)
        .await
        .expect_err("no namespace");
    assert!(
        matches!(error, Error::NotFound { .. }) && error.to_string().contains("Secret bank/db"),
        "{error}"
    );
    world.apply().await.expect("applied");
    let applied = world
        .cluster
        .apply_secret("bank", "db", &values)
        .await
        .expect("applied");
    assert_eq!(world.api.get(path).expect("there")["stringData"]["password"], "hunter2");
    assert!(!format!("{applied:?} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_was_applied_is_taken_back_in_the_other_order() {
    let world = World::new().await;
    world.apply().await.expect("applied");
    let gone = world
        .cluster
        .delete(world.dir.path(), &world.variables)
        .await
        .expect("deleted");
    assert_eq!((gone.len(), gone[0].as_str()), (5, "Deployment bank/web"));
    assert!(world.api.get(CONFIG).is_none() && world.api.get("/api/v1/namespaces/bank").is_none());
    let again = world.cluster.delete(world.dir.path(), &world.variables).await;
    assert_eq!(again.expect("nothing there is fine").len(), 5);
}

#[tokio::test]
async fn a_status_of_the_old_rollout_is_not_taken_for_the_new_one() {
    let mut world = World::new().await;
    let heard = world.with_statuses([status(1, 2, 2, 2)]).await.expect("rolled out");
    assert!(heard.is_empty(), "{heard:?}");
    world.variables.insert("IMAGE".into(), "web:2".into());
    // Complete, and given up: both of the first generation. Then the second, step by step.
    let statuses = [
        status(1, 2, 2, 2),
        given_up(1),
        status(2, 3, 1, 2),
        status(2, 3, 2, 3),
        status(2, 2, 2, 1),
        status(2, 2, 2, 2),
    ];
    let heard = world.with_statuses(statuses).await.expect("rolled out");
    assert_eq!(heard.len(), 5, "{heard:?}");
    assert!(heard[1].contains("not taken notice"), "{heard:?}");
}

#[tokio::test]
async fn a_rollout_that_failed_or_is_stuck_says_what_its_newest_pods_say() {
    let world = World::new().await;
    let applied = world.apply().await.expect("applied");
    let uid = world.api.get(WEB).expect("there")["metadata"]["uid"].clone();
    let owned = |name: &str, owner: &Value, rest: Value| {
        let annotations = rest["revision"]
            .as_str()
            .map(|n| json!({"deployment.kubernetes.io/revision": n}));
        let metadata = json!({"name": name, "uid": format!("uid-{name}"), "labels": {"app": "web"},
            "annotations": annotations,
            "ownerReferences": [{"uid": owner, "apiVersion": "apps/v1", "kind": "X", "name": "x"}]});
        json!({"metadata": metadata, "status": rest["status"]})
    };
    let waits = |reason: &str| json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": "why"}}}]}});
    let (sets, pods) = (
        "/apis/apps/v1/namespaces/bank/replicasets",
        "/api/v1/namespaces/bank/pods",
    );
    world
        .api
        .put(&format!("{sets}/old"), owned("old", &uid, json!({"revision": "9"})));
    world
        .api
        .put(&format!("{sets}/new"), owned("new", &uid, json!({"revision": "10"})));
    world.api.put(
        &format!("{pods}/a"),
        owned("a", &json!("uid-old"), waits("CrashLoopBackOff")),
    );
    world.api.put(
        &format!("{pods}/b"),
        owned("b", &json!("uid-new"), waits("ImagePullBackOff")),
    );
    world.api.put(
        &format!("{pods}/c"),
        owned("c", &json!("uid-new"), waits("ContainerCreating")),
    );

    let error = world.with_statuses([given_up(1)]).await.expect_err("given up");
    let text = error.to_string();
    assert!(matches!(error, Error::Rollout { .. }), "{error:?}");
    assert!(
        text.contains("pod b: ImagePullBackOff: why") && text.contains("timed out progressing"),
        "{text}"
    );
    assert!(
        !text.contains("CrashLoopBackOff") && !text.contains("ContainerCreating"),
        "{text}"
    );

    world.api.script(WEB, [status(1, 3, 1, 2)]);
    let wait = || {
        world
            .cluster
            .wait_rollout(&applied, Duration::from_millis(100), &|_, _| {})
    };
    let error = wait().await.expect_err("stuck");
    assert!(matches!(error, Error::OutOfTime { .. }), "{error:?}");
    assert!(error.to_string().contains("ImagePullBackOff"), "{error}");
    // Who may not see pods is told that, and waits all the same.
    world.api.fail(&format!("GET {pods}"), Fault::Status(403), 100);
    let error = wait().await.expect_err("stuck");
    assert!(matches!(error, Error::OutOfTime { .. }), "{error:?}");
    assert!(
        error.to_string().contains("asking for its Pods: refused (403)"),
        "{error}"
    );
}

#[tokio::test]
async fn a_workload_that_was_deleted_or_made_anew_is_no_success() {
    let world = World::new().await;
    let applied = world.apply().await.expect("applied");
    let mut other = world.api.get(WEB).expect("there");
    other["metadata"]["uid"] = "another".into();
    other["status"] = status(1, 2, 2, 2);
    world.api.put(WEB, other);
    let wait = || world.cluster.wait_rollout(&applied, Duration::from_secs(5), &|_, _| {});
    let error = wait().await.expect_err("another");
    assert!(error.to_string().contains("made another"), "{error}");
    world
        .cluster
        .delete(world.dir.path(), &world.variables)
        .await
        .expect("deleted");
    let error = wait().await.expect_err("gone");
    assert!(error.to_string().contains("deleted"), "{error}");
}
