//! An example that listens, and a client that says exactly what it is told to.
use crate::web::apps::Answer;
use std::net::Ipv4Addr;
use std::time::Duration;
use tenantry::Tenantry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, reason = "what starts a server and a landlord for a person at the keyboard")]
#[allow(clippy::duplicate_mod, reason = "each example has the SaaS in itself")]
#[path = "../../../../examples/actix.rs"]
mod actix_example;
#[allow(dead_code, reason = "what starts a server and a landlord for a person at the keyboard")]
#[allow(clippy::duplicate_mod, reason = "each example has the SaaS in itself")]
#[path = "../../../../examples/axum.rs"]
mod axum_example;
pub(super) use axum_example::saas::{FORM, HEAD_TIME, MIGRATIONS, raise_file_limit};

pub(super) const SUFFIX: &str = "example.test";

pub(super) struct Site {
    pub(super) port: u16,
    pub(super) admin_password: String,
    end: End,
}
enum End {
    Axum(CancellationToken),
    Actix(actix_web::dev::ServerHandle),
}

impl Site {
    pub(super) async fn axum(tenantry: &Tenantry) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (port, end) = (listener.local_addr().unwrap().port(), CancellationToken::new());
        let app = axum_example::saas::App::new(tenantry, SUFFIX.into(), port).unwrap();
        let admin_password = app.admin_password().to_owned();
        tokio::spawn(axum_example::serve(listener, app, end.clone().cancelled_owned()));
        Self { port, admin_password, end: End::Axum(end) }
    }

    pub(super) async fn actix(tenantry: &Tenantry) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = actix_example::saas::App::new(tenantry, SUFFIX.into(), port).unwrap();
        let admin_password = app.admin_password().to_owned();
        let (give, take) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = actix_example::server(listener, app).unwrap();
                give.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        Self { port, admin_password, end: End::Actix(take.await.unwrap()) }
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

    /// The bare host, or a tenant's.
    pub(super) fn host(&self, slug: &str) -> String {
        let dot = if slug.is_empty() { "" } else { "." };
        format!("{slug}{dot}{SUFFIX}:{}", self.port)
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }
    /// These bytes, and what is answered.
    pub(super) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // A server that has heard enough may close before it has heard all.
        let _ = stream.write_all(request).await;
        answer(&mut stream).await
    }
    pub(super) async fn ask(&self, method: &str, host: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}");
        let form = "content-type: application/x-www-form-urlencoded";
        self.raw(format!("{head}{form}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).await
    }
    pub(super) async fn get(&self, host: &str, path: &str, cookie: &str) -> Answer {
        self.ask("GET", host, path, &format!("cookie: {cookie}\r\n"), "").await
    }
    /// As a browser does from a page of the same origin.
    pub(super) async fn post(&self, host: &str, path: &str, cookie: &str, form: &str) -> Answer {
        self.post_from(&format!("http://{host}"), host, path, cookie, form).await
    }
    pub(super) async fn post_from(&self, origin: &str, host: &str, path: &str, cookie: &str, form: &str) -> Answer {
        self.ask("POST", host, path, &format!("origin: {origin}\r\ncookie: {cookie}\r\n"), form).await
    }
}

/// An answer, or nothing: status 0, if the connection is closed without one.
pub(super) async fn answer(stream: &mut TcpStream) -> Answer {
    let (mut bytes, mut part) = (vec![], vec![0; 65536]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(40), stream.read(&mut part)).await.expect("an answer");
        // A connection that is reset has said what it had to say.
        let read = read.unwrap_or_default();
        bytes.extend_from_slice(&part[..read]);
        if let Some(answer) = parsed(std::str::from_utf8(&bytes).unwrap(), read == 0) {
            return answer;
        }
        assert_ne!(read, 0, "half an answer: {}", String::from_utf8_lossy(&bytes));
    }
}

fn parsed(text: &str, closed: bool) -> Option<Answer> {
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
        None if value("transfer-encoding") == Some("chunked") => unchunked(body),
        None => Some(body.to_owned()).filter(|_| closed),
    };
    whole.map(|body| Answer { status, headers, body })
}

/// `None`: the last one has not come yet.
fn unchunked(mut body: &str) -> Option<String> {
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
