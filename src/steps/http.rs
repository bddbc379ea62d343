//! A step that waits until an endpoint is healthy, several times in a row.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Method;
use url::{Host, Url};

use super::Executor;
use crate::config::steps::Http;
use crate::http::{self, Expected};
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;

/// One answer must come within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl Executor {
    /// Until it is healthy: the step's timeout ends it otherwise, with what was seen last.
    pub(super) async fn http(&self, task: &Task, http: &Http) -> Result<Outcome, StepError> {
        let url = self.render(&http.url, task).await?.plain("url")?;
        let body = match &http.body {
            Some(body) => Some(self.render(body, task).await?.expose().to_owned()),
            None => None,
        };
        let connect = match &http.connect {
            Some(connect) => Some(self.render(connect, task).await?.plain("connect")?),
            None => None,
        };
        let connect = match &connect {
            Some(connect) => Some(elsewhere(&url, connect).map_err(StepError::permanent)?),
            None => None,
        };
        let connect = connect.as_ref().map(|(name, address)| (name.as_str(), *address));
        let client = http::client(http.tls_ca.as_deref(), ANSWER_WITHIN, connect).map_err(StepError::permanent)?;
        let method = Method::from_bytes(http.method.as_bytes()).unwrap_or(Method::GET);
        let expected = Expected {
            statuses: &http.expect,
            contains: http.contains.as_deref(),
        };
        let mut in_a_row = 0;
        let mut asked = 0_u64;
        let mut seen = "no answer".to_owned();
        loop {
            if task.cancel.is_cancelled() {
                return Err(StepError::passing(format!(
                    "{} {url} was not healthy {} times in a row; seen last: {seen}",
                    http.method, http.times
                )));
            }
            asked += 1;
            let answer = tokio::select! {
                () = task.cancel.cancelled() => continue,
                answer = http::ask(&client, &method, &url, body.clone(), expected) => answer,
            };
            match answer {
                Ok(_) => {
                    in_a_row += 1;
                    seen = format!("healthy, {in_a_row} in a row");
                }
                Err(what) => {
                    in_a_row = 0;
                    self.tell
                        .tell(&task.step.name, &format!("{} {url}: {what}", http.method));
                    seen = what;
                }
            }
            if in_a_row >= http.times {
                return Ok(Outcome {
                    note: format!(
                        "{} {url} healthy {in_a_row} times in a row, asked {asked} times",
                        http.method
                    ),
                    ..Outcome::default()
                });
            }
            tokio::select! {
                () = task.cancel.cancelled() => {}
                () = tokio::time::sleep(http.interval) => {}
            }
        }
    }
}

/// The name that is asked for, and where.
fn elsewhere(url: &str, connect: &str) -> Result<(String, IpAddr), String> {
    let address = connect
        .parse()
        .map_err(|_| format!("connect = {connect:?} became no IP address: what does the output that it names hold?"))?;
    match Url::parse(url)
        .ok()
        .and_then(|url| url.host().map(|host| host.to_owned()))
    {
        Some(Host::Domain(name)) => Ok((name, address)),
        _ => Err(format!(
            "{url} holds no name that could be asked for at {connect}: leave connect out"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::elsewhere;

    #[test]
    fn a_name_is_asked_for_at_an_address_and_nothing_else_is() {
        let there = elsewhere("https://www.bank.example:8443/health", "203.0.113.7").unwrap();
        assert_eq!(there, ("www.bank.example".to_owned(), "203.0.113.7".parse().unwrap()));
        for (url, connect) in [
            ("https://www.bank.example/", "gateway.example"),
            ("https://www.bank.example/", ""),
            ("https://198.51.100.1/", "203.0.113.7"),
            ("nonsense", "203.0.113.7"),
        ] {
            assert!(elsewhere(url, connect).is_err(), "{url} at {connect}");
        }
    }
}
