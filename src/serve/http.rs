//! HTTP/1.1 as far as pages and scrapers need it: the head of one request, one answer, then the connection ends.
//!
//! The head is parsed by `httparse`, which hyper uses too. A body is never read, so nothing in one can be taken for a request.

use std::borrow::Cow;
use std::time::Duration;

use httparse::Status;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// A head is some hundred bytes; a proxy's cookies may make it more.
pub const LARGEST_HEAD_BYTES: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;
/// From the first byte awaited to the end of the head.
pub const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// A page is written whole within this, or the connection is dropped.
pub const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// After the answer, what the client still sends is read away for so long: closing before would take the answer from it.
const LINGER: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Other,
}

/// What was asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Without its query.
    pub path: String,
    pub host: Option<String>,
    /// May hold the token: never shown.
    pub authorization: Option<String>,
    pub accept: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Cow<'static, str>,
    /// Beyond those that every answer has.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
}

/// Why there is no request to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The client went away.
    Gone,
    Slow,
    TooLarge,
    Malformed,
}

impl Response {
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
            headers: Vec::new(),
        }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn head(&self) -> String {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head
    }
}

/// Source: RFC 9110 §15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

impl From<Unread> for Option<Response> {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Gone => None,
            Unread::Slow => Some(Response::text(408, "the request took too long\n")),
            Unread::TooLarge => Some(Response::text(431, "the request's head is too large\n")),
            Unread::Malformed => Some(Response::text(400, "this is not HTTP/1.1\n")),
        }
    }
}

/// Reads the head of a request.
///
/// # Errors
/// [`Unread`]; nothing of the request is repeated.
pub async fn read(connection: &mut (impl AsyncRead + Unpin)) -> Result<Request, Unread> {
    match timeout(HEAD_WITHIN, read_head(connection)).await {
        Ok(result) => result,
        Err(_) => Err(Unread::Slow),
    }
}

async fn read_head(connection: &mut (impl AsyncRead + Unpin)) -> Result<Request, Unread> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let before = head.len();
        let read = connection.read_buf(&mut head).await.map_err(|_| Unread::Gone)?;
        if read == 0 {
            return Err(Unread::Gone);
        }
        // Parsed once its end is there: a head that comes byte by byte costs no more than one that comes at once.
        let tail = before.saturating_sub(3);
        let has_ended = head[tail..].windows(4).any(|four| four == b"\r\n\r\n")
            || head[tail..].windows(2).any(|two| two == b"\n\n");
        if has_ended {
            return parse(&head);
        }
        if head.len() > LARGEST_HEAD_BYTES {
            return Err(Unread::TooLarge);
        }
    }
}

fn parse(head: &[u8]) -> Result<Request, Unread> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(Unread::Malformed),
        Err(httparse::Error::TooManyHeaders) => return Err(Unread::TooLarge),
        Err(_) => return Err(Unread::Malformed),
    }
    let target = request.path.unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value)
            .ok()
            .map(|value| value.trim().to_owned())
    };
    Ok(Request {
        method: match request.method {
            Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            _ => Method::Other,
        },
        path: path.to_owned(),
        host: header("host"),
        authorization: header("authorization"),
        accept: header("accept").unwrap_or_default(),
    })
}

/// Writes the answer, without its body for a HEAD, and ends the connection so that the client gets all of it.
pub async fn write(connection: &mut (impl AsyncRead + AsyncWrite + Unpin), response: &Response, with_body: bool) {
    let mut bytes = response.head().into_bytes();
    if with_body {
        bytes.extend_from_slice(response.body.as_bytes());
    }
    let written = timeout(WRITE_WITHIN, async {
        connection.write_all(&bytes).await?;
        connection.shutdown().await
    });
    // Whoever went away needs no answer.
    if let Ok(Ok(())) = written.await {
        let mut rest = [0; 4096];
        let _ = timeout(LINGER, async {
            while matches!(connection.read(&mut rest).await, Ok(1..)) {}
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(bytes: &[u8]) -> Result<Request, Unread> {
        read(&mut &*bytes).await
    }

    #[tokio::test]
    async fn a_request_is_its_method_path_and_a_few_headers() {
        let request = asked(b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:9105\r\nACCEPT: text/plain\r\n\r\n").await;
        let Ok(request) = request else { panic!("not read") };
        assert_eq!((request.method, request.path.as_str()), (Method::Get, "/metrics"));
        assert_eq!(
            (request.host.as_deref(), request.accept.as_str()),
            (Some("localhost:9105"), "text/plain")
        );
        for method in ["POST", "DELETE", "OPTIONS", "get"] {
            let request = asked(format!("{method} / HTTP/1.1\r\n\r\n").as_bytes()).await;
            assert!(
                matches!(
                    request,
                    Ok(Request {
                        method: Method::Other,
                        ..
                    })
                ),
                "{method}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_request_is_refused_within_bounds() {
        assert_eq!(asked(b"").await.err(), Some(Unread::Gone));
        assert_eq!(asked(b"GET / HTT").await.err(), Some(Unread::Gone));
        assert_eq!(
            asked(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await.err(),
            Some(Unread::Malformed)
        );
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        assert_eq!(asked(many.as_bytes()).await.err(), Some(Unread::TooLarge));
        let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(2 * LARGEST_HEAD_BYTES));
        assert_eq!(asked(long.as_bytes()).await.err(), Some(Unread::TooLarge));
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(b"GET / HTTP/1.1\r\n").await.expect("room");
        assert_eq!(read(&mut near).await.err(), Some(Unread::Slow));
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_is_the_same_request() {
        let (mut near, mut far) = tokio::io::duplex(1);
        let writing = async {
            far.write_all(b"HEAD /healthz HTTP/1.0\r\nhost: a\r\n\r\n")
                .await
                .expect("read on the other side");
        };
        let (request, ()) = tokio::join!(read(&mut near), writing);
        assert!(matches!(
            request,
            Ok(Request {
                method: Method::Head,
                ..
            })
        ));
    }
}
