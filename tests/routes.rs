//! Once traffic went over, no route reaches the old site, whatever answers there: real requests through an edge which does what the
//! distribution says, while `planb failover` and `planb failback` change it.

#[path = "support/cloudfront.rs"]
mod cloudfront;
#[path = "support/edge.rs"]
mod edge;
mod support;

use std::collections::BTreeMap;

use aws_sdk_cloudfront::Client;
use edge::{Edge, Origin};
use support::sites::Lab;
use support::{Flavor, StrictMoto};

/// One for each behaviour, and the default twice.
const ROUTES: [&str; 5] = [
    "/",
    "/login?next=a",
    "/api/transfers",
    "/static/logo.png",
    "/read/balance",
];

fn client(endpoint: &str) -> Client {
    let credentials = aws_sdk_cloudfront::config::Credentials::new("testing", "testing", None, None, "test");
    let config = aws_sdk_cloudfront::Config::builder()
        .behavior_version(aws_sdk_cloudfront::config::BehaviorVersion::latest())
        .region(aws_sdk_cloudfront::config::Region::new("us-east-1"))
        .credentials_provider(credentials)
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// The site's two origins, and the standby's.
struct Sites {
    alb: Origin,
    s3: Origin,
    azure: Origin,
}

impl Sites {
    fn old(&self) -> Vec<String> {
        [self.alb.taken(), self.s3.taken()].concat()
    }
}

/// Asks for every route by GET and POST; each answer as `METHOD PATH: STATUS TEXT`.
async fn all(edge: &Edge, http: &reqwest::Client) -> Vec<String> {
    let mut answers = Vec::new();
    for route in ROUTES {
        for method in ["GET", "POST"] {
            let (status, text) = edge.ask(http, method, route).await;
            answers.push(format!("{method} {route}: {status} {text}"));
        }
    }
    answers
}

/// Puts one behaviour somewhere else, as somebody with a console would. The default is number 0.
async fn retarget(client: &Client, distribution: &str, number: usize, to: &str) -> String {
    let read = client.get_distribution_config().id(distribution).send().await;
    let read = read.expect("read");
    let mut config = read.distribution_config.expect("a configuration");
    let target = match number.checked_sub(1) {
        None => config
            .default_cache_behavior
            .as_mut()
            .map(|one| &mut one.target_origin_id),
        Some(at) => {
            let others = config.cache_behaviors.as_mut().and_then(|others| others.items.as_mut());
            others.map(|others| &mut others[at].target_origin_id)
        }
    };
    let was = std::mem::replace(target.expect("a behaviour"), to.to_owned());
    let update = client
        .update_distribution()
        .id(distribution)
        .distribution_config(config);
    update
        .if_match(read.e_tag.expect("an ETag"))
        .send()
        .await
        .expect("updated");
    was
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_old_primary_that_answers_again_gets_neither_reads_nor_writes() {
    let moto = StrictMoto::start();
    let endpoint = format!("http://{}", moto.address);
    let client = client(&endpoint);
    let distribution = cloudfront::distribution(&client, true).await;
    let mut sites = Sites {
        alb: Origin::start("alb").await,
        s3: Origin::start("s3").await,
        azure: Origin::start("azure").await,
    };
    let hosts = cloudfront::bank();
    let host = |id: &str| hosts[id].as_str().expect("a host").to_owned();
    let hosts = BTreeMap::from([
        (host("alb"), sites.alb.address),
        (host("s3"), sites.s3.address),
        (host("azure"), sites.azure.address),
    ]);
    let edge = Edge::start(client.clone(), &distribution, hosts).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");

    let mut lab = Lab::new(Flavor::MySql);
    let dir = lab.planb.path().display().to_string();
    let azure = host("azure");
    for (site, more) in [
        ("standby", format!("domain = \"{azure}\"\n")),
        ("primary", String::new()),
    ] {
        lab.planb.reconfigure(
            &format!("kind = \"command\"\nmeans = \"traffic\"\nsite = \"{site}\"\nprogram = \"{dir}/traffic\"\nargs = [\"{site}\"]\n"),
            &format!("kind = \"traffic\"\ndistribution = \"{distribution}\"\norigin = \"azure\"\n{more}"),
        );
    }
    for (name, value) in [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_REGION", "ap-northeast-2"),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        lab.planb.env.push((name.into(), value.into()));
    }
    lab.planb.backup(&[]);

    // At home. What a behaviour does not allow, no origin sees.
    let home = all(&edge, &http).await;
    let read_only = ["/", "/login?next=a", "/static/logo.png", "/read/balance"];
    for route in read_only {
        assert!(
            home.contains(&format!("POST {route}: 403 the behaviour does not allow that method")),
            "{home:?}"
        );
    }
    assert!(home.contains(&"POST /api/transfers: 200 alb".to_owned()), "{home:?}");
    assert_eq!((sites.old().len(), sites.azure.taken()), (6, Vec::new()), "{home:?}");

    // The region is gone: the group reads from the standby by itself, and every write fails.
    lab.primary.kill();
    sites.alb.stop().await;
    sites.s3.stop().await;
    let lost = all(&edge, &http).await;
    assert!(lost.contains(&"GET /: 200 azure".to_owned()), "{lost:?}");
    assert!(
        lost.iter().any(|line| line.starts_with("POST /api/transfers: 502")),
        "{lost:?}"
    );
    sites.azure.taken();

    let gone = ["--stage", "3", "--accept", "unfenced=the region is gone"];
    let done = lab.unproven(&gone);
    assert_eq!(done["result"], "done", "{done}");

    // It answers again: its database, its load balancer, its files.
    lab.primary.restart(&[]);
    sites.alb.again().await;
    sites.s3.again().await;
    let away: Vec<String> = home
        .iter()
        .map(|line| line.replace("200 alb", "200 azure").replace("200 s3", "200 azure"))
        .collect();
    for _ in 0..3 {
        assert_eq!(all(&edge, &http).await, away);
    }
    assert_eq!(sites.old(), Vec::<String>::new(), "a route reaches the old site");
    let taken = sites.azure.taken();
    assert_eq!(taken.len(), 18, "{taken:?}");
    assert_eq!(
        taken
            .iter()
            .filter(|one| *one == "POST /api/transfers amount=1")
            .count(),
        3,
        "{taken:?}"
    );

    // One behaviour left over would be seen, whichever it is.
    for (number, left) in ["both", "alb", "s3", "both"].into_iter().enumerate() {
        let was = retarget(&client, &distribution, number, left).await;
        assert_eq!(was, "azure");
        all(&edge, &http).await;
        assert_ne!(
            sites.old(),
            Vec::<String>::new(),
            "behaviour {number} at {left} is not seen"
        );
        retarget(&client, &distribution, number, &was).await;
    }
    all(&edge, &http).await;
    assert_eq!(sites.old(), Vec::<String>::new());
    sites.azure.taken();

    // And home: as it was, and nothing at the standby.
    let done = lab
        .planb
        .json(&["--json", "failback", "--yes", "--accept", "confirm-soak=t"]);
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(all(&edge, &http).await, home);
    assert_eq!(sites.azure.taken(), Vec::<String>::new());
}
