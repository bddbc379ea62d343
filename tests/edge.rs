//! The traffic switch against moto with a strict CloudFront, through a proxy that misbehaves: every behaviour goes to the standby and back, everything
//! else stays as it was, others' changes too, and an answer that got lost is found out. And whether the primary is ready.
//!
//! Where AWS is depends on the environment of the whole process, so each test runs as a child of this program: `with_aws` starts the ignored
//! test of the same name.

#[path = "support/cloudfront.rs"]
mod cloudfront;
#[path = "support/http_fault.rs"]
mod http_fault;
mod support;

use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_cloudfront::Client;
use aws_sdk_cloudfront::types::DistributionConfig;
use cloudfront::{HEADER, bank, config, distribution, targets};
use http_fault::{Fault, HttpFault, Rule};
use planb::edge::{Edge, EdgeError, Goal, Origin, Standing, read_kept};
use planb::source::rds::{Rds, RdsError, Snapshot};
use planb::source::ready::{self, ReadyError, Wanted};
use support::StrictMoto;

/// Runs this program's ignored test `name` against a moto of its own, behind a proxy with these rules.
async fn with_aws(name: &str, rules: Vec<Rule>) -> usize {
    let moto = StrictMoto::start();
    let proxy = HttpFault::start(moto.address, rules).await;
    let output = tokio::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env("AWS_ENDPOINT_URL", format!("http://{}", proxy.address()))
        .env("DIRECT", format!("http://{}", moto.address))
        .env("MEDDLER", &moto.meddler)
        .env("AWS_REGION", "ap-northeast-2")
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", "testing")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(180), output)
        .await
        .expect("in time")
        .expect("ran");
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && told.contains("1 passed"), "{name}:\n{told}");
    proxy.faults_met()
}

// --- the distribution -------------------------------------------------------------------------------------

/// Past the proxy.
async fn direct() -> Client {
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(std::env::var("DIRECT").expect("DIRECT"))
        .load()
        .await;
    Client::new(&config)
}

fn meddle(json: &str) {
    std::fs::write(std::env::var("MEDDLER").expect("MEDDLER"), json).expect("a meddler");
}

/// Everything but the targets.
fn rest(mut config: DistributionConfig) -> DistributionConfig {
    if let Some(default) = &mut config.default_cache_behavior {
        default.target_origin_id.clear();
    }
    for behaviour in config
        .cache_behaviors
        .iter_mut()
        .filter_map(|others| others.items.as_mut())
        .flatten()
    {
        behaviour.target_origin_id.clear();
    }
    config
}

fn azure() -> Origin {
    Origin {
        id: "azure".into(),
        domain: bank()["azure"].as_str().unwrap().to_owned(),
        path: String::new(),
    }
}

const HOME: [&str; 4] = ["both", "alb", "s3", "both"];
const AWAY: [&str; 4] = ["azure"; 4];

// --- there and back -------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_behaviour_goes_to_the_standby_and_back_and_nothing_else_changes() {
    with_aws("child_there_and_back", Vec::new()).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_there_and_back() {
    let client = direct().await;
    let id = distribution(&client, true).await;
    let edge = Edge::new(&id);
    let before = config(&client, &id).await;
    assert_eq!(targets(&before), HOME);
    assert_eq!(edge.status(&azure()).await.unwrap().standing, Standing::None);

    let goal = Goal::To(azure());
    let planned = edge.plan(&goal).await.unwrap();
    assert_eq!(planned.retargets.len(), 4);
    assert_eq!(config(&client, &id).await, before, "a plan changes nothing");
    let text = planned.kept.clone().expect("something to keep");
    let kept = read_kept(&text).unwrap();
    assert!(kept.configuration.contains("X-Origin-Verify") && kept.configuration.contains("www.bank.example.com"));
    assert!(!text.contains(HEADER), "a header's value is a secret");

    edge.apply(&goal, &planned).await.unwrap();
    let there = config(&client, &id).await;
    assert_eq!(targets(&there), AWAY);
    assert_eq!(rest(there), rest(before.clone()));
    assert_eq!(edge.status(&azure()).await.unwrap().standing, Standing::All);
    edge.wait_deployed(Duration::from_secs(60), &|_| {}).await.unwrap();
    assert!(edge.status(&azure()).await.unwrap().is_deployed);

    // Again: nothing to do, and nothing to keep in place of what is kept.
    let again = edge.plan(&goal).await.unwrap();
    assert!(again.retargets.is_empty() && again.kept.is_none());
    edge.apply(&goal, &again).await.unwrap();

    // Somebody deploys something while the standby serves.
    meddle(r#"{"comment": "during the outage"}"#);
    let back = Goal::Back(vec![kept]);
    let planned = edge.plan(&back).await.unwrap();
    edge.apply(&back, &planned).await.unwrap();
    let mut home = config(&client, &id).await;
    assert_eq!(targets(&home), HOME);
    assert_eq!(home.comment, "during the outage");
    home.comment.clone_from(&before.comment);
    assert_eq!(rest(home), rest(before));
    assert!(edge.plan(&back).await.unwrap().retargets.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_not_there_is_added() {
    with_aws("child_added", Vec::new()).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_added() {
    let client = direct().await;
    let id = distribution(&client, false).await;
    let edge = Edge::new(&id);
    let goal = Goal::To(azure());
    edge.apply(&goal, &edge.plan(&goal).await.unwrap()).await.unwrap();
    let there = config(&client, &id).await;
    assert_eq!(targets(&there), AWAY);
    let origins = there.origins.expect("origins");
    assert_eq!(origins.quantity, 3);
    let added = origins.items.iter().find(|origin| origin.id == "azure").expect("added");
    assert_eq!(added.domain_name, azure().domain);
    let custom = added.custom_origin_config.as_ref().expect("custom");
    assert_eq!(custom.origin_protocol_policy.as_str(), "https-only");

    // Its id is somebody else's host.
    let wrong = Goal::To(Origin {
        domain: "evil.example.com".into(),
        ..azure()
    });
    let error = edge.plan(&wrong).await.unwrap_err();
    assert!(
        matches!(error, EdgeError::Taken { .. }) && error.is_permanent(),
        "{error}"
    );
    let none = Edge::new("ENOTHERE").plan(&goal).await.unwrap_err();
    assert!(matches!(none, EdgeError::Missing { .. }), "{none}");
}

// --- others, and lost answers ---------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_s_change_in_between_is_merged_and_preserved() {
    with_aws("child_raced", Vec::new()).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_raced() {
    let client = direct().await;
    let id = distribution(&client, true).await;
    let edge = Edge::new(&id);
    let goal = Goal::To(azure());
    let planned = edge.plan(&goal).await.unwrap();
    // Between our reading and our update.
    meddle(r#"{"comment": "somebody was faster"}"#);
    edge.apply(&goal, &planned).await.unwrap();
    let there = config(&client, &id).await;
    assert_eq!(
        (targets(&there), there.comment.as_str()),
        (AWAY.map(str::to_owned).to_vec(), "somebody was faster")
    );

    // One that is about the same behaviours is to be kept first.
    let id = distribution_again(&client).await;
    let edge = Edge::new(&id);
    let planned = edge.plan(&goal).await.unwrap();
    meddle(r#"{"target": "s3"}"#);
    let error = edge.apply(&goal, &planned).await.unwrap_err();
    assert!(
        matches!(error, EdgeError::Changed { .. }) && !error.is_permanent(),
        "{error}"
    );
    assert_eq!(targets(&config(&client, &id).await)[1], "alb", "nothing was switched");
    let planned = edge.plan(&goal).await.unwrap();
    edge.apply(&goal, &planned).await.unwrap();
    let back = Goal::Back(vec![read_kept(&planned.kept.expect("kept")).unwrap()]);
    edge.apply(&back, &edge.plan(&back).await.unwrap()).await.unwrap();
    assert_eq!(targets(&config(&client, &id).await), ["s3", "alb", "s3", "both"]);
}

/// A second one with another caller reference.
async fn distribution_again(client: &Client) -> String {
    let first = client.list_distributions().send().await.expect("listed");
    let first = first.distribution_list.expect("a list").items()[0].id.clone();
    let mut config = config(client, &first).await;
    config.caller_reference = "bank-2".into();
    if let Some(default) = &mut config.default_cache_behavior {
        default.target_origin_id = "both".into();
    }
    let home = HOME[1..].iter();
    let others = config
        .cache_behaviors
        .as_mut()
        .and_then(|others| others.items.as_mut())
        .expect("behaviours");
    for (behaviour, target) in others.iter_mut().zip(home) {
        behaviour.target_origin_id = (*target).into();
    }
    let made = client
        .create_distribution()
        .distribution_config(config)
        .send()
        .await
        .expect("made");
    made.distribution.expect("a distribution").id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_whose_answer_was_lost_is_recognised() {
    let lost = |times| {
        vec![Rule::new(
            &["PUT /2020-05-31/distribution"],
            Fault::SwallowAnswer,
            times,
        )]
    };
    assert_eq!(with_aws("child_lost", lost(1)).await, 1);
    // And the SDK's own second try.
    assert!(with_aws("child_lost", lost(2)).await >= 1);
    let reset = Rule::new(&["PUT /2020-05-31/distribution"], Fault::Reset, 3);
    assert_eq!(with_aws("child_lost", vec![reset]).await, 3);
    let busy = Rule::new(&["/2020-05-31/distribution"], Fault::Status(503), 5);
    assert_eq!(with_aws("child_lost", vec![busy]).await, 5);
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_lost() {
    let client = direct().await;
    let id = distribution(&client, true).await;
    let edge = Edge::new(&id);
    let goal = Goal::To(azure());
    let planned = loop {
        match edge.plan(&goal).await {
            Ok(planned) => break planned,
            Err(error) => assert!(
                matches!(error, EdgeError::Unreachable { .. }) && !error.is_permanent(),
                "{error}"
            ),
        }
    };
    edge.apply(&goal, &planned).await.unwrap();
    assert_eq!(targets(&config(&client, &id).await), AWAY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aws_that_is_away_is_told_in_time_with_the_other_way() {
    let hang = Rule::new(&["/"], Fault::Hang, 100);
    assert!(with_aws("child_away", vec![hang]).await > 0);
    let reset = Rule::new(&["/"], Fault::Reset, 1_000);
    assert!(with_aws("child_away", vec![reset]).await > 0);
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_away() {
    let client = direct().await;
    let id = distribution(&client, true).await;
    let edge = Edge::new(&id);
    let began = Instant::now();
    let error = edge.plan(&Goal::To(azure())).await.unwrap_err();
    assert!(matches!(error, EdgeError::Unreachable { .. }), "{error}");
    assert!(
        error.to_string().contains("`command` step") && error.to_string().contains("DNS"),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let began = Instant::now();
    let error = edge.wait_deployed(Duration::from_secs(2), &|_| {}).await.unwrap_err();
    assert!(matches!(error, EdgeError::Unreachable { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_takes_too_long_is_told() {
    with_aws("child_deploying", Vec::new()).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_deploying() {
    let client = direct().await;
    let id = distribution(&client, true).await;
    let edge = Edge::new(&id);
    let goal = Goal::To(azure());
    edge.apply(&goal, &edge.plan(&goal).await.unwrap()).await.unwrap();
    let error = edge.wait_deployed(Duration::ZERO, &|_| {}).await.unwrap_err();
    assert!(
        matches!(error, EdgeError::Deploying { .. }) && !error.is_permanent(),
        "{error}"
    );
}

/// moto makes one for each region, and knows the service by the signature's scope.
async fn default_vpc() -> String {
    let scope =
        "AWS4-HMAC-SHA256 Credential=testing/20260101/ap-northeast-2/ec2/aws4_request, SignedHeaders=host, Signature=0";
    let answer = reqwest::Client::new()
        .post(std::env::var("DIRECT").expect("DIRECT"))
        .header("Authorization", scope)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("Action=DescribeVpcs&Version=2016-11-15")
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a text");
    let id = answer.split_once("<vpcId>").and_then(|(_, rest)| rest.split_once('<'));
    id.unwrap_or_else(|| panic!("no VPC: {answer}")).0.to_owned()
}

// --- primary ready --------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_primary_lacks_is_named_thing_by_thing() {
    with_aws("child_ready", Vec::new()).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_ready() {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let rds = aws_sdk_rds::Client::new(&config);
    let created = rds
        .create_db_instance()
        .db_instance_identifier("prod")
        .engine("mysql")
        .db_instance_class("db.t3.micro")
        .allocated_storage(20)
        .master_username("admin")
        .master_user_password("a-long-password");
    created.send().await.expect("an instance");
    let eks = aws_sdk_eks::Client::new(&config);
    let network = aws_sdk_eks::types::VpcConfigRequest::builder()
        .subnet_ids("subnet-1")
        .build();
    let role = "arn:aws:iam::123456789012:role/eks";
    eks.create_cluster()
        .name("bank")
        .role_arn(role)
        .resources_vpc_config(network)
        .send()
        .await
        .expect("a cluster");
    eks.create_nodegroup()
        .cluster_name("bank")
        .nodegroup_name("web")
        .subnets("subnet-1")
        .node_role(role)
        .send()
        .await
        .expect("a node group");
    let elb = aws_sdk_elasticloadbalancingv2::Client::new(&config);
    let group = elb
        .create_target_group()
        .name("web")
        .protocol(aws_sdk_elasticloadbalancingv2::types::ProtocolEnum::Http)
        .port(80)
        .vpc_id(default_vpc().await)
        .target_type(aws_sdk_elasticloadbalancingv2::types::TargetTypeEnum::Ip)
        .send()
        .await
        .expect("a target group");
    let arn = group.target_groups()[0].target_group_arn().expect("an ARN").to_owned();

    let mut wanted = Wanted {
        region: None,
        node_groups: vec![("bank".into(), "web".into())],
        target_groups: vec![arn.clone()],
        rds_instances: vec!["prod".into()],
    };
    let missing = |facts: Vec<ready::Fact>| -> Vec<String> {
        let missing = facts
            .into_iter()
            .filter_map(|fact| fact.missing.map(|why| format!("{}: {why}", fact.what)));
        missing.collect()
    };
    let facts = missing(ready::look(&wanted).await.unwrap());
    assert!(
        facts.len() == 1 && facts[0].contains("targets of web/") && facts[0].contains("no healthy target"),
        "{facts:?}"
    );

    let target = aws_sdk_elasticloadbalancingv2::types::TargetDescription::builder()
        .id("10.0.0.9")
        .port(80)
        .build();
    elb.register_targets()
        .target_group_arn(&arn)
        .targets(target)
        .send()
        .await
        .expect("a target");
    let facts = missing(ready::look(&wanted).await.unwrap());
    assert!(facts.is_empty(), "{facts:?}");

    rds.stop_db_instance()
        .db_instance_identifier("prod")
        .send()
        .await
        .expect("stopped");
    eks.delete_nodegroup()
        .cluster_name("bank")
        .nodegroup_name("web")
        .send()
        .await
        .expect("gone");
    wanted.target_groups = vec![arn.replace("/web/", "/gone/")];
    let facts = missing(ready::look(&wanted).await.unwrap());
    assert_eq!(facts.len(), 3, "{facts:?}");
    assert!(
        facts[0].contains("EKS node group bank/web: it is not there"),
        "{facts:?}"
    );
    assert!(facts[1].contains("it is not there (TargetGroupNotFound"), "{facts:?}");
    assert!(facts[2].contains("it is stopped, not available"), "{facts:?}");
    wanted.rds_instances = vec!["other".into()];
    let facts = missing(ready::look(&wanted).await.unwrap());
    assert!(facts[2].contains("other is not in"), "{facts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_nobody_can_ask_about_is_no_fact() {
    with_aws("child_unasked", vec![Rule::new(&["/"], Fault::Reset, 1_000)]).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_unasked() {
    let wanted = Wanted {
        node_groups: vec![("bank".into(), "web".into())],
        ..Wanted::default()
    };
    let error = ready::look(&wanted).await.unwrap_err();
    assert!(
        matches!(error, ReadyError::Unavailable { .. }) && !error.is_permanent(),
        "{error}"
    );
}

// --- a snapshot before a failback -------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_made_once_and_found_again() {
    with_aws("child_snapshot", Vec::new()).await;
}

#[tokio::test]
#[ignore = "runs as a child"]
async fn child_snapshot() {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let client = aws_sdk_rds::Client::new(&config);
    for name in ["prod", "other"] {
        let created = client
            .create_db_instance()
            .db_instance_identifier(name)
            .engine("mysql")
            .db_instance_class("db.t3.micro")
            .allocated_storage(20)
            .master_username("admin")
            .master_user_password("a-long-password");
        created.send().await.expect("an instance");
    }
    let rds = Rds::default();
    let made = rds.snapshot("prod", "planb-bank-3", None).await;
    assert_eq!(made.expect("made, or found to be"), Snapshot::Available);
    assert_eq!(
        rds.snapshot("prod", "planb-bank-3", None).await.expect("found"),
        Snapshot::Available
    );
    let all = client
        .describe_db_snapshots()
        .snapshot_type("manual")
        .send()
        .await
        .expect("listed");
    assert_eq!(all.db_snapshots().len(), 1, "{all:?}");
    let error = rds.snapshot("none", "planb-bank-4", None).await.unwrap_err();
    assert!(
        matches!(error, RdsError::NoSuchInstance { .. }) && error.is_permanent(),
        "{error}"
    );
    let error = rds.snapshot("other", "planb-bank-3", None).await.unwrap_err();
    assert!(
        error.to_string().contains("is of instance prod") && error.is_permanent(),
        "{error}"
    );
}
