//! Mail, over a connection that is encrypted and whose certificate is checked before anything but a greeting is said on it.
//!
//! One address that its server does not know takes the mail from nobody else. A mail that is sent again, because the answer was
//! lost, carries the same Message-ID: what was delivered all the same is shown once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, SinglePart};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use tokio::time::timeout;

use super::channel::{Channel, Taken};
use super::desk::{Item, Refusal};
use super::message::{self, Sender};
use super::words::Turn;
use crate::clock::Clock;
use crate::config::notify::{Email, MailTls};
use crate::secret::{Resolver, Secret};

/// From the connect to the server's word that it took it.
const SENT_WITHIN: Duration = Duration::from_secs(25);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A server that took the mail may say goodbye, or not.
const QUIT_WITHIN: Duration = Duration::from_secs(1);
/// Of what a server says when it refuses.
const LOOKED_AT: usize = 160;

#[derive(Debug)]
pub struct Smtp {
    pub email: Email,
    pub resolver: Arc<Resolver>,
    pub clock: Arc<dyn Clock>,
}

/// Who logs in, and with what.
struct Login {
    user: String,
    password: Secret,
}

#[async_trait]
impl Channel for Smtp {
    async fn send(&self, sender: &Sender, items: &[Item]) -> Result<Taken, Refusal> {
        let letter = self.letter(sender, items)?;
        let login = match &self.email.login {
            Some((user, reference)) => {
                let resolved = self.resolver.resolve(reference).await;
                let password = resolved.map_err(|error| Refusal {
                    is_permanent: error.is_permanent(),
                    error: error.to_string(),
                    retry_after: None,
                })?;
                let user = user.clone();
                Some(Login { user, password })
            }
            None => None,
        };
        match timeout(SENT_WITHIN, self.deliver(&letter, login.as_ref())).await {
            Ok(sent) => sent,
            Err(_) => Err(passing(format!(
                "{}:{}: no answer within {} s",
                self.email.host,
                self.email.port,
                SENT_WITHIN.as_secs()
            ))),
        }
    }
}

impl Smtp {
    fn letter(&self, sender: &Sender, items: &[Item]) -> Result<Message, Refusal> {
        let from = Mailbox::new(Some(format!("PlanB {}", sender.service)), address(&self.email.from)?);
        let domain = domain(&self.email.from);
        let root = thread(sender, items, domain);
        // So that nobody's absence is answered to us (RFC 3834).
        let automatic = HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        );
        let mut builder = Message::builder()
            .from(from)
            .subject(message::subject(sender, items))
            .date(SystemTime::from(self.clock.now()))
            .message_id(Some(id(sender, items, domain)))
            .raw_header(automatic);
        if let Some(root) = root {
            builder = builder.in_reply_to(root.clone()).references(root);
        }
        for to in &self.email.to {
            builder = builder.to(Mailbox::new(None, address(to)?));
        }
        let body = SinglePart::builder()
            .header(ContentType::TEXT_PLAIN)
            .body(message::text(sender, items));
        builder.singlepart(body).map_err(|error| permanent(error.to_string()))
    }

    async fn deliver(&self, letter: &Message, login: Option<&Login>) -> Result<Taken, Refusal> {
        let server = format!("{}:{}", self.email.host, self.email.port);
        let failed = |stage: &str| {
            let stage = format!("{server}: {stage}");
            move |error: Error| refusal(&stage, &error, login)
        };
        let hello = ClientId::Domain(domain(&self.email.from).to_owned());
        let tls = self.tls().await?;
        let (at_once, later) = match self.email.tls {
            MailTls::Implicit => (tls, None),
            MailTls::StartTls | MailTls::Off => (None, tls),
        };
        let address_of_server = (self.email.host.as_str(), self.email.port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(address_of_server, Some(CONNECT_WITHIN), &hello, at_once, None);
        let mut connection = connecting.await.map_err(failed("connect"))?;
        if let Some(tls) = later {
            if !connection.can_starttls() {
                return Err(permanent(format!(
                    "{server} offers no STARTTLS, and nothing is said in the clear: give the port that does, or tls = \"implicit\""
                )));
            }
            connection.starttls(tls, &hello).await.map_err(failed("STARTTLS"))?;
        }
        if let Some(login) = login {
            let credentials = Credentials::new(login.user.clone(), login.password.expose().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            let logged_in = connection.auth(&mechanisms, &credentials).await;
            logged_in.map_err(failed("login"))?;
        }
        let from = address(&self.email.from)?;
        let said = connection.command(Mail::new(Some(from), Vec::new())).await;
        said.map_err(failed(&format!("sender {}", self.email.from)))?;
        let mut refused = Vec::new();
        for to in &self.email.to {
            if let Err(error) = connection.command(Rcpt::new(address(to)?, Vec::new())).await {
                let refusal = failed(&format!("recipient {to}"))(error);
                if connection.has_broken() {
                    return Err(refusal);
                }
                refused.push(refusal);
            }
        }
        if refused.len() == self.email.to.len() {
            // One that may take it later is waited for.
            let first = refused.iter().find(|refusal| !refusal.is_permanent);
            let first = first.or(refused.first()).cloned();
            return Err(first.unwrap_or_else(|| permanent(format!("{server}: there is no recipient"))));
        }
        connection.command(Data).await.map_err(failed("message"))?;
        connection
            .message(&letter.formatted())
            .await
            .map_err(failed("message"))?;
        let _ = timeout(QUIT_WITHIN, connection.quit()).await;
        let except: Vec<String> = refused.into_iter().map(|refusal| refusal.error).collect();
        Ok(Taken {
            except: (!except.is_empty()).then(|| except.join("; ")),
        })
    }

    async fn tls(&self) -> Result<Option<TlsParameters>, Refusal> {
        if self.email.tls == MailTls::Off {
            return Ok(None);
        }
        let mut parameters = TlsParameters::builder(self.email.host.clone());
        if let Some(path) = &self.email.tls_ca {
            parameters = parameters
                .certificate_store(CertificateStore::None)
                .add_root_certificate(certificate(path).await?);
        }
        let built = parameters.build();
        built.map(Some).map_err(|error| permanent(told(&error)))
    }
}

async fn certificate(path: &PathBuf) -> Result<Certificate, Refusal> {
    let wrong = |path: &Path, what: &str| permanent(format!("tls_ca {}: {what}", path.display()));
    let pem = tokio::fs::read(path)
        .await
        .map_err(|error| wrong(path, &error.kind().to_string()))?;
    Certificate::from_pem(&pem).map_err(|_| wrong(path, "is no PEM certificate"))
}

fn address(text: &str) -> Result<Address, Refusal> {
    text.parse()
        .map_err(|_| permanent(format!("{text} is no mail address")))
}

fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
}

/// The same for the same message, so that one that arrives twice is shown once; another one once it has grown graver.
fn id(sender: &Sender, items: &[Item], domain: &str) -> String {
    let said: Vec<String> = items
        .iter()
        .map(|item| {
            let (key, turn) = (&item.notice.key, item.turn.name());
            let severity = item.notice.severity;
            format!("{} {key} {turn} {severity} {} {}", sender.service, item.at, item.since)
        })
        .collect();
    let first = items.first().map_or(0, |item| item.at.as_millisecond());
    format!(
        "<planb.{first}.{:08x}@{domain}>",
        crc32fast::hash(said.join("\n").as_bytes())
    )
}

/// What goes on is one conversation, from its beginning to its end.
fn thread(sender: &Sender, items: &[Item], domain: &str) -> Option<String> {
    let [item] = items else { return None };
    let is_one = item.notice.what.lasts() || item.turn != Turn::Raised;
    let of = format!("{} {} {}", sender.service, item.notice.key, item.since);
    is_one.then(|| format!("<planb.matter.{:08x}@{domain}>", crc32fast::hash(of.as_bytes())))
}

fn permanent(error: String) -> Refusal {
    Refusal {
        error,
        is_permanent: true,
        retry_after: None,
    }
}

fn passing(error: String) -> Refusal {
    Refusal {
        is_permanent: false,
        ..permanent(error)
    }
}

fn refusal(stage: &str, error: &Error, login: Option<&Login>) -> Refusal {
    let said = match login {
        Some(login) if login.is_in(&told(error)) => "it refused, and repeated the password".to_owned(),
        _ => told(error),
    };
    Refusal {
        error: format!("{stage}: {said}"),
        // 5xx, or nothing that this program could say to such a server.
        is_permanent: error.is_permanent() || error.is_client(),
        retry_after: None,
    }
}

impl Login {
    /// Whether the password can be read out of this, as it is or as it was sent.
    fn is_in(&self, text: &str) -> bool {
        let password = self.password.expose();
        let plain = format!("\0{}\0{password}", self.user);
        [password.to_owned(), BASE64.encode(password), BASE64.encode(plain)]
            .iter()
            .any(|form| text.contains(form))
    }
}

/// In one line: the server's code and words, or the innermost cause.
fn told(error: &Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let words = match error.status() {
        Some(code) => format!("{code} {cause}"),
        None => cause.to_string(),
    };
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LOOKED_AT).collect()
}
