//! An edge and origins made of real HTTP. The edge reads a distribution's configuration anew for each request, and does what CloudFront documents of
//! it: the first behaviour whose path pattern matches, else the default; only the methods which that allows; an origin as it is; a group's
//! origins in order, for GET, HEAD and OPTIONS, as long as one does not answer or answers with a status that counts as failed. It caches
//! nothing, so that every request shows where it would go. Include with `#[path = "support/edge.rs"] mod edge;`.

#![allow(dead_code, reason = "shared by several test files; none uses all of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_sdk_cloudfront::Client;
use aws_sdk_cloudfront::types::DistributionConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A web server that writes down what it is asked, and says who it is.
pub struct Origin {
    pub address: SocketAddr,
    name: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
    serving: JoinSet<()>,
}

impl Origin {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut origin = Self {
            address: listener.local_addr().expect("an address"),
            name,
            seen: Arc::default(),
            serving: JoinSet::new(),
        };
        origin.serve(listener);
        origin
    }

    fn serve(&mut self, listener: TcpListener) {
        let (name, seen) = (self.name, Arc::clone(&self.seen));
        self.serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, name, &seen).await;
            }
        });
    }

    /// Nobody answers at its address any more.
    pub async fn stop(&mut self) {
        self.serving.shutdown().await;
    }

    /// It answers again.
    pub async fn again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port");
        self.serve(listener);
    }

    /// `METHOD PATH BODY` of every request since the last look.
    pub fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().expect("not poisoned"))
    }
}

async fn answer(mut stream: TcpStream, name: &str, seen: &Mutex<Vec<String>>) {
    let Some(request) = read(&mut stream).await else { return };
    let line = format!("{} {} {}", request.method, request.path, request.body);
    seen.lock().expect("not poisoned").push(line.trim_end().to_owned());
    write(&mut stream, 200, name).await;
}

struct Request {
    method: String,
    path: String,
    body: String,
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let (head, mut body) = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(at + 4);
            break (String::from_utf8_lossy(&bytes).into_owned(), body);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split_whitespace();
    Some(Request {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

async fn write(stream: &mut TcpStream, status: u16, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} So\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    // Whoever does not listen any more, does not.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Runs until dropped.
pub struct Edge {
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Edge {
    /// `hosts`: where the origins' host names lead.
    pub async fn start(client: Client, distribution: &str, hosts: BTreeMap<String, SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let distribution = distribution.to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let http = reqwest::Client::builder().no_proxy().build().expect("a client");
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read(&mut stream).await else {
                    continue;
                };
                let present = super::cloudfront::config(&client, &distribution).await;
                let (status, body) = pass_on(&http, &present, &hosts, &request).await;
                write(&mut stream, status, &body).await;
            }
        });
        Self {
            address,
            _serving: serving,
        }
    }

    /// Status and text of the answer.
    pub async fn ask(&self, http: &reqwest::Client, method: &str, path: &str) -> (u16, String) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let asked = http.request(method.clone(), format!("http://{}{path}", self.address));
        let asked = if method == "GET" { asked } else { asked.body("amount=1") };
        let answer = asked.send().await.expect("the edge answers");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }
}

async fn pass_on(
    http: &reqwest::Client,
    present: &DistributionConfig,
    hosts: &BTreeMap<String, SocketAddr>,
    request: &Request,
) -> (u16, String) {
    let path = request.path.split('?').next().unwrap_or_default();
    let others = present.cache_behaviors.iter().flat_map(|others| others.items());
    let first = others.into_iter().find(|one| matches(one.path_pattern(), path));
    let default = present.default_cache_behavior.as_ref().expect("a default");
    let (target, allowed) = match first {
        Some(one) => (one.target_origin_id(), one.allowed_methods()),
        None => (default.target_origin_id(), default.allowed_methods()),
    };
    let is_allowed = allowed.is_some_and(|methods| methods.items().iter().any(|one| one.as_str() == request.method));
    if !is_allowed {
        return (403, "the behaviour does not allow that method".to_owned());
    }
    let groups = present.origin_groups.iter().flat_map(|groups| groups.items());
    let group = groups.into_iter().find(|group| group.id() == target);
    let (members, failed): (Vec<&str>, &[i32]) = match group {
        Some(group) => {
            let members = group.members().expect("members").items();
            let codes = group.failover_criteria().and_then(|criteria| criteria.status_codes());
            let members = members.iter().map(|member| member.origin_id()).collect();
            (members, codes.map(|codes| codes.items()).unwrap_or_default())
        }
        None => (vec![target], &[]),
    };
    let goes_on = ["GET", "HEAD", "OPTIONS"].contains(&request.method.as_str());
    let mut last = (502, "no origin answers".to_owned());
    for member in members {
        let origins = present.origins.iter().flat_map(|origins| origins.items());
        let origin = origins
            .into_iter()
            .find(|origin| origin.id() == member)
            .expect("an origin");
        let Some(address) = hosts.get(origin.domain_name()) else {
            last = (502, format!("{} is not known", origin.domain_name()));
            continue;
        };
        let method = reqwest::Method::from_bytes(request.method.as_bytes()).expect("a method");
        let url = format!(
            "http://{address}{}{}",
            origin.origin_path().unwrap_or_default(),
            request.path
        );
        last = match http.request(method, url).body(request.body.clone()).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(error) => (502, error.to_string()),
        };
        let is_failed = last.0 == 502 || failed.contains(&i32::from(last.0));
        if !(is_failed && goes_on) {
            break;
        }
    }
    last
}

/// `*` stands for any text, `?` for one letter; a leading slash may be left out.
/// Source: <https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesCacheBehavior.html>
fn matches(pattern: &str, path: &str) -> bool {
    fn rest(pattern: &[u8], path: &[u8]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, left) => left.is_none(),
            (Some((b'*', after)), _) => (0..=path.len()).any(|at| rest(after, &path[at..])),
            (Some((b'?', after)), Some((_, left))) => rest(after, left),
            (Some((letter, after)), Some((other, left))) => letter == other && rest(after, left),
            (Some(_), None) => false,
        }
    }
    let bare = |text: &str| text.trim_start_matches('/').as_bytes().to_vec();
    rest(&bare(pattern), &bare(path))
}
