//! What an answer means: done, to be tried again, or over; and its name then.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Cluster, Error};

/// Between two tries; the server's own Retry-After goes before it.
const PAUSE: Duration = Duration::from_millis(500);

/// What may be repeated of an answer in an error. An answer about a secret may quote it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Telling {
    Answer,
    CodeOnly,
}

/// What came of one try.
pub(super) enum Answer {
    Kube(kube::Error),
    /// Not yet; look again.
    Later(String),
    Final(Error),
}

impl From<kube::Error> for Answer {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

/// How long to wait before the next try, if one may help.
fn passing(answer: &Answer) -> Option<Duration> {
    match answer {
        Answer::Final(_) => None,
        Answer::Later(_) => Some(PAUSE),
        Answer::Kube(kube::Error::Api(status)) => {
            let details = status.details.as_ref();
            let fields = details.is_some_and(|d| d.causes.iter().any(|cause| cause.reason == "FieldManagerConflict"));
            let asked = details.map_or(0, |details| details.retry_after_seconds);
            let may_pass = matches!(status.code, 429 | 500 | 502 | 503 | 504) || (status.code == 409 && !fields);
            may_pass.then(|| PAUSE.max(Duration::from_secs(asked.into())))
        }
        Answer::Kube(kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_)) => Some(PAUSE),
        Answer::Kube(_) => None,
    }
}

impl Cluster {
    /// `work`, again and again while what went wrong may pass, up to the limit.
    pub(super) async fn trying<T, F: Future<Output = Result<T, Answer>>>(
        &self,
        what: &str,
        telling: Telling,
        work: impl Fn() -> F,
    ) -> Result<T, Error> {
        let end = Instant::now() + self.limit;
        loop {
            let (last, pause) = match timeout(self.request_limit, work()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Answer::Later(last))) => (last, PAUSE),
                Ok(Err(answer)) => match passing(&answer) {
                    Some(pause) => (self.named(what, telling, answer).to_string(), pause),
                    None => return Err(self.named(what, telling, answer)),
                },
                Err(_) => (format!("no answer within {} s", self.request_limit.as_secs()), PAUSE),
            };
            if Instant::now() + pause > end {
                let (what, limit) = (what.to_owned(), self.limit);
                return Err(Error::OutOfTime { what, limit, last });
            }
            tracing::debug!(what, last, "trying again");
            sleep(pause).await;
        }
    }

    pub(super) fn named(&self, what: &str, telling: Telling, answer: Answer) -> Error {
        let what = what.to_owned();
        match answer {
            Answer::Final(error) => error,
            Answer::Later(detail) => Error::NotFound { what, detail },
            Answer::Kube(kube::Error::Api(status)) => {
                let code = status.code;
                let detail = match telling {
                    Telling::Answer => status.message,
                    Telling::CodeOnly => status.reason,
                };
                match code {
                    401 => Error::Unauthorized { what },
                    403 => Error::Forbidden { what, detail },
                    404 => Error::NotFound { what, detail },
                    409 => Error::Conflict { what, detail },
                    _ => Error::Refused { what, code, detail },
                }
            }
            Answer::Kube(kube::Error::Auth(error)) => {
                Error::Kubeconfig(format!("logging in as it says failed: {error}"))
            }
            Answer::Kube(error) => Error::Refused {
                what,
                code: 0,
                detail: match telling {
                    Telling::Answer => error.to_string(),
                    Telling::CodeOnly => "no answer that makes sense".into(),
                },
            },
        }
    }
}
