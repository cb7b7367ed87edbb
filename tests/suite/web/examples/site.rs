//! A running web example ([`Site`]) on a local port, and an HTTP client that sends exactly the bytes that a test gives.
//!
//! The examples are included as modules, so the tests run their code unchanged.
use crate::web::apps::Answer;
use std::net::Ipv4Addr;
use std::time::Duration;
use tenantry::Tenantry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "main() and its server set-up are not used by tests")]
#[allow(clippy::duplicate_mod, reason = "both examples include the module `saas`")]
#[path = "../../../../examples/actix.rs"]
mod actix_example;
#[allow(dead_code, reason = "main() and its server set-up are not used by tests")]
#[allow(clippy::duplicate_mod, reason = "both examples include the module `saas`")]
#[path = "../../../../examples/axum.rs"]
mod axum_example;
pub(super) use axum_example::saas::{FORM, HEAD_TIME, MIGRATIONS, raise_file_limit};

pub(super) const SUFFIX: &str = "example.test";
const OPERATOR_PASSWORD: &str = "printed at the start";

/// A running example. Stop it with [`Site::stop`].
pub(super) struct Site {
    pub(super) port: u16,
    pub(super) admin_password: String,
    end: End,
}
/// How to stop the server.
enum End {
    Axum(CancellationToken),
    Actix(actix_web::dev::ServerHandle),
}

impl Site {
    /// Starts the axum example.
    pub(super) async fn axum(tenantry: &Tenantry) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (port, end) = (listener.local_addr().unwrap().port(), CancellationToken::new());
        let app = axum_example::saas::App::new(tenantry, SUFFIX.into(), port, OPERATOR_PASSWORD.into()).unwrap();
        let admin_password = app.admin_password().to_owned();
        tokio::spawn(axum_example::serve(listener, app, end.clone().cancelled_owned()));
        Self { port, admin_password, end: End::Axum(end) }
    }

    /// Starts the actix-web example, on a thread of its own.
    pub(super) async fn actix(tenantry: &Tenantry) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = actix_example::saas::App::new(tenantry, SUFFIX.into(), port, OPERATOR_PASSWORD.into()).unwrap();
        let admin_password = app.admin_password().to_owned();
        let (handle_sender, handle) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = actix_example::server(listener, app).unwrap();
                handle_sender.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        Self { port, admin_password, end: End::Actix(handle.await.unwrap()) }
    }

    pub(super) async fn both(tenantry: &Tenantry) -> [Self; 2] {
        [Self::axum(tenantry).await, Self::actix(tenantry).await]
    }

    pub(super) async fn stop(self) {
        match self.end {
            End::Axum(end) => end.cancel(),
            End::Actix(server) => server.stop(false).await,
        }
    }

    /// The `Host` of a tenant, or the bare host if the slug is empty.
    pub(super) fn host(&self, slug: &str) -> String {
        let dot = if slug.is_empty() { "" } else { "." };
        format!("{slug}{dot}{SUFFIX}:{}", self.port)
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }
    /// Sends these bytes on a new connection and reads the answer.
    pub(super) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // A server that refuses a request may close the connection before it has read everything.
        let _ = stream.write_all(request).await;
        answer(&mut stream).await
    }
    /// Sends a form request with these extra header lines, each ending in CRLF.
    pub(super) async fn ask(&self, method: &str, host: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
        let form = "content-type: application/x-www-form-urlencoded";
        self.raw(format!("{head}{form}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).await
    }
    pub(super) async fn get(&self, host: &str, path: &str, cookie: &str) -> Answer {
        self.ask("GET", host, path, &format!("cookie: {cookie}\r\n"), "").await
    }
    /// Posts a form as a browser does from a page of the same origin.
    pub(super) async fn post(&self, host: &str, path: &str, cookie: &str, form: &str) -> Answer {
        self.post_from(&format!("http://{host}"), host, path, cookie, form).await
    }
    /// Posts a form with this `Origin` header.
    pub(super) async fn post_from(&self, origin: &str, host: &str, path: &str, cookie: &str, form: &str) -> Answer {
        self.ask("POST", host, path, &format!("origin: {origin}\r\ncookie: {cookie}\r\n"), form).await
    }
}

/// Reads one answer. Status 0: the connection was closed without an answer.
pub(super) async fn answer(stream: &mut TcpStream) -> Answer {
    let (mut bytes, mut part) = (vec![], vec![0; 65536]);
    loop {
        let read =
            tokio::time::timeout(Duration::from_secs(40), stream.read(&mut part)).await.expect("no answer within 40 s");
        // Treat a reset connection like a closed one.
        let read = read.unwrap_or_default();
        bytes.extend_from_slice(&part[..read]);
        if let Some(answer) = parse_answer(std::str::from_utf8(&bytes).unwrap(), read == 0) {
            return answer;
        }
        assert_ne!(
            read,
            0,
            "the connection was closed in the middle of an answer: {}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

/// The answer in these bytes. `None`: it is not complete yet.
fn parse_answer(text: &str, closed: bool) -> Option<Answer> {
    if closed && text.is_empty() {
        return Some(Answer { status: 0, headers: vec![], body: String::new() });
    }
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let whole = match value("content-length") {
        Some(length) => Some(body.to_owned()).filter(|body| body.len() >= length.parse::<usize>().unwrap()),
        None if value("transfer-encoding") == Some("chunked") => decode_chunks(body),
        None => Some(body.to_owned()).filter(|_| closed),
    };
    whole.map(|body| Answer { status, headers, body })
}

/// Decodes a chunked body. `None`: the last chunk has not arrived yet.
fn decode_chunks(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..length)?);
        body = rest.get(length + 2..)?;
    }
}
