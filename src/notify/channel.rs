//! A channel takes messages or says why not; these are the ones of the configuration.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::desk::{Audience, Item, Refusal, Route};
use super::http::{Form, Http};
use super::message::Sender;
use super::notice::Severity;
use super::smtp::Smtp;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::notify::{Channel as Configured, Least, To};
use crate::secret::Resolver;

/// One try may take this long, finding the secret included.
pub const SEND_WITHIN: Duration = Duration::from_secs(30);

/// That a channel took something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whom it did not reach all the same, and why.
    pub except: Option<String>,
}

/// One way to reach people or programs.
#[async_trait]
pub trait Channel: Send + Sync {
    /// One message about all of these. Whoever is cut off on the way may have sent it.
    ///
    /// # Errors
    /// [`Refusal`], without a secret in it.
    async fn send(&self, sender: &Sender, items: &[Item]) -> Result<Taken, Refusal>;
}

/// A channel, and what it takes.
#[derive(Clone)]
pub struct Line {
    pub route: Route,
    pub channel: Arc<dyn Channel>,
}

/// Who speaks, by the configuration.
pub fn sender(config: &Config) -> Sender {
    Sender {
        service: config.service.name.clone(),
        site: config.service.site.clone(),
        language: config.notify.language,
        contact: config.notify.contact.clone(),
    }
}

/// Every channel of the configuration.
pub fn lines(config: &Config, clock: &Arc<dyn Clock>) -> Vec<Line> {
    let resolver = Arc::new(Resolver::for_config(config));
    let channels = config.notify.channels.iter();
    channels.map(|channel| line(channel, &resolver, clock)).collect()
}

fn line(channel: &Configured, resolver: &Arc<Resolver>, clock: &Arc<dyn Clock>) -> Line {
    let http = |form: Form, tls_ca: &Option<std::path::PathBuf>| {
        Arc::new(Http {
            form,
            tls_ca: tls_ca.clone(),
            resolver: Arc::clone(resolver),
            clock: Arc::clone(clock),
        })
    };
    let (audience, reached_by): (Audience, Arc<dyn Channel>) = match &channel.to {
        To::Slack { url, tls_ca } => (Audience::People, http(Form::Slack { url: url.clone() }, tls_ca)),
        To::PagerDuty { key, endpoint, tls_ca } => {
            let form = Form::PagerDuty {
                key: key.clone(),
                endpoint: endpoint.clone(),
            };
            (Audience::Pager, http(form, tls_ca))
        }
        To::Webhook { url, secret, tls_ca } => {
            let form = Form::Webhook {
                url: url.clone(),
                secret: secret.clone(),
            };
            (Audience::Program, http(form, tls_ca))
        }
        To::Email(email) => {
            let smtp = Smtp {
                email: email.clone(),
                resolver: Arc::clone(resolver),
                clock: Arc::clone(clock),
            };
            (Audience::People, Arc::new(smtp))
        }
    };
    let minimum = match channel.least {
        Least::Info => Severity::Info,
        Least::Warning => Severity::Warning,
        Least::Critical => Severity::Critical,
    };
    Line {
        route: Route {
            channel: channel.name.clone(),
            audience,
            minimum,
            events: channel.events.clone(),
        },
        channel: reached_by,
    }
}
