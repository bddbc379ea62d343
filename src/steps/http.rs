//! A step that waits until an endpoint is healthy, several times in a row.

use std::time::Duration;

use reqwest::{Client, Method};

use super::Executor;
use crate::config::steps::Http;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;

/// One answer must come within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of an answer that are looked at.
const LOOKED_AT: usize = 64 << 10;

impl Executor {
    /// Until it is healthy: the step's timeout ends it otherwise, with what was seen last.
    pub(super) async fn http(&self, task: &Task, http: &Http) -> Result<Outcome, StepError> {
        let url = self.render(&http.url, task).await?.plain("url")?;
        let body = match &http.body {
            Some(body) => Some(self.render(body, task).await?.expose().to_owned()),
            None => None,
        };
        let client = client(http)?;
        let method = Method::from_bytes(http.method.as_bytes()).unwrap_or(Method::GET);
        let mut in_a_row = 0;
        let mut asked = 0_u64;
        loop {
            asked += 1;
            let answer = tokio::select! {
                () = task.cancel.cancelled() => Err("stopped".to_owned()),
                answer = ask(&client, &method, &url, body.clone(), http) => answer,
            };
            match answer {
                Ok(()) => in_a_row += 1,
                Err(what) => {
                    in_a_row = 0;
                    self.tell
                        .tell(&task.step.name, &format!("{} {url}: {what}", http.method));
                    if task.cancel.is_cancelled() {
                        return Err(StepError::passing(format!(
                            "{} {url} was not healthy {} times in a row; seen last: {what}",
                            http.method, http.times
                        )));
                    }
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

fn client(http: &Http) -> Result<Client, StepError> {
    let wrong = |what: String| StepError::permanent(what);
    let mut builder = Client::builder()
        .timeout(ANSWER_WITHIN)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &http.tls_ca {
        let pem = std::fs::read(path).map_err(|error| wrong(format!("tls_ca {}: {error}", path.display())))?;
        let certificate = reqwest::Certificate::from_pem(&pem)
            .map_err(|_| wrong(format!("tls_ca {} is no PEM certificate", path.display())))?;
        builder = builder.tls_certs_only([certificate]);
    }
    builder.build().map_err(|error| wrong(error.without_url().to_string()))
}

async fn ask(client: &Client, method: &Method, url: &str, body: Option<String>, http: &Http) -> Result<(), String> {
    let mut request = client.request(method.clone(), url);
    if let Some(body) = body {
        request = request.body(body);
    }
    let mut response = request.send().await.map_err(|error| told(&error))?;
    let status = response.status().as_u16();
    if !http.expect.contains(&status) {
        return Err(format!("answered {status}"));
    }
    let Some(wanted) = &http.contains else { return Ok(()) };
    let mut seen = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        seen.extend_from_slice(&chunk);
        if memchr::memmem::find(&seen, wanted.as_bytes()).is_some() {
            return Ok(());
        }
        if seen.len() > LOOKED_AT {
            break;
        }
    }
    Err(format!("answered {status}, without {wanted:?}"))
}

/// The innermost cause says what happened.
fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
