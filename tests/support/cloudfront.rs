//! A distribution as a bank's, in strict moto. Include with `#[path = "support/cloudfront.rs"] mod cloudfront;`.

#![allow(dead_code, reason = "shared by several test files; none uses all of it")]

use aws_sdk_cloudfront::Client;
use aws_sdk_cloudfront::types::DistributionConfig;

pub const HEADER: &str = "s3cret-between-edge-and-origin";

/// As a bank's has it: a group of origins for what is read, the load balancer for what is written, and much else.
pub fn bank() -> serde_json::Value {
    serde_json::json!({
        "alb": "alb.ap-northeast-2.example.com",
        "s3": "pages.s3.ap-northeast-2.amazonaws.com",
        "azure": "bank.koreacentral.example.com",
    })
}

pub async fn distribution(client: &Client, with_standby: bool) -> String {
    use aws_sdk_cloudfront::types::*;
    let hosts = bank();
    let custom = |id: &str| {
        let protocols = OriginSslProtocols::builder()
            .quantity(1)
            .items(SslProtocol::TlSv12)
            .build()
            .unwrap();
        let header = OriginCustomHeader::builder()
            .header_name("X-Origin-Verify")
            .header_value(HEADER)
            .build()
            .unwrap();
        aws_sdk_cloudfront::types::Origin::builder()
            .id(id)
            .domain_name(hosts[id].as_str().unwrap())
            .origin_path("")
            .connection_attempts(2)
            .custom_headers(CustomHeaders::builder().quantity(1).items(header).build().unwrap())
            .custom_origin_config(
                CustomOriginConfig::builder()
                    .http_port(80)
                    .https_port(443)
                    .origin_protocol_policy(OriginProtocolPolicy::HttpsOnly)
                    .origin_ssl_protocols(protocols)
                    .origin_read_timeout(45)
                    .build()
                    .unwrap(),
            )
            .build()
            .unwrap()
    };
    let mut origins = vec![custom("alb"), custom("s3")];
    if with_standby {
        origins.push(custom("azure"));
    }
    let member = |id: &str| OriginGroupMember::builder().origin_id(id).build().unwrap();
    let codes = StatusCodes::builder()
        .quantity(2)
        .items(500)
        .items(503)
        .build()
        .unwrap();
    let second = if with_standby { "azure" } else { "s3" };
    let group = OriginGroup::builder()
        .id("both")
        .failover_criteria(OriginGroupFailoverCriteria::builder().status_codes(codes).build())
        .members(
            OriginGroupMembers::builder()
                .quantity(2)
                .items(member("alb"))
                .items(member(second))
                .build()
                .unwrap(),
        )
        .build()
        .unwrap();
    let methods = |all: bool| {
        let mut methods = vec![Method::Get, Method::Head, Method::Options];
        if all {
            methods.extend([Method::Put, Method::Post, Method::Patch, Method::Delete]);
        }
        AllowedMethods::builder()
            .quantity(i32::try_from(methods.len()).unwrap())
            .set_items(Some(methods))
            .build()
            .unwrap()
    };
    let behaviour = |path: &str, target: &str, all: bool| {
        CacheBehavior::builder()
            .path_pattern(path)
            .target_origin_id(target)
            .viewer_protocol_policy(ViewerProtocolPolicy::HttpsOnly)
            .allowed_methods(methods(all))
            .cache_policy_id("658327ea-f89d-4fab-a63d-7e88639e58f6")
            .build()
            .unwrap()
    };
    let others = vec![
        behaviour("/api/*", "alb", true),
        behaviour("/static/*", "s3", false),
        behaviour("/read/*", "both", false),
    ];
    let config = DistributionConfig::builder()
        .caller_reference("bank")
        .comment("bank & customers <main>")
        .enabled(true)
        .price_class(PriceClass::PriceClass200)
        .aliases(
            Aliases::builder()
                .quantity(1)
                .items("www.bank.example.com")
                .build()
                .unwrap(),
        )
        .origins(
            Origins::builder()
                .quantity(i32::try_from(origins.len()).unwrap())
                .set_items(Some(origins))
                .build()
                .unwrap(),
        )
        .origin_groups(OriginGroups::builder().quantity(1).items(group).build().unwrap())
        .default_cache_behavior(
            DefaultCacheBehavior::builder()
                .target_origin_id("both")
                .viewer_protocol_policy(ViewerProtocolPolicy::RedirectToHttps)
                .allowed_methods(methods(false))
                .cache_policy_id("658327ea-f89d-4fab-a63d-7e88639e58f6")
                .build()
                .unwrap(),
        )
        .cache_behaviors(
            CacheBehaviors::builder()
                .quantity(3)
                .set_items(Some(others))
                .build()
                .unwrap(),
        )
        .build()
        .unwrap();
    let made = client
        .create_distribution()
        .distribution_config(config)
        .send()
        .await
        .expect("made");
    made.distribution.expect("a distribution").id
}

pub async fn config(client: &Client, id: &str) -> DistributionConfig {
    let answer = client.get_distribution_config().id(id).send().await.expect("read");
    answer.distribution_config.expect("a configuration")
}

/// Default first.
pub fn targets(config: &DistributionConfig) -> Vec<String> {
    let default = config
        .default_cache_behavior
        .iter()
        .map(|behaviour| behaviour.target_origin_id.clone());
    let others = config.cache_behaviors.iter().flat_map(|others| others.items());
    default
        .chain(others.map(|behaviour| behaviour.target_origin_id.clone()))
        .collect()
}
