//! The web examples with bad clients: bodies that are too large, too slow or malformed, and 2000 idle connections.
//!
//! The examples must answer each with its status and keep serving others meanwhile.
use super::site::{self, FORM, HEAD_TIME, Site, answer};
use std::time::{Duration, Instant};
use tenantry::testing::Harness;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Idle connections per example.
const CONNECTIONS: usize = 2000;

/// Opens idle connections. Half of them send nothing, half of them send an incomplete request head.
async fn open_idle(site: &Site) -> Vec<TcpStream> {
    let mut connections = vec![];
    for n in 0..CONNECTIONS {
        let mut stream = site.connect().await;
        if n % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: acme.exam").await.unwrap();
        }
        connections.push(stream);
    }
    connections
}

/// Posts bad bodies to a path that takes a form, and asserts the status of each answer.
async fn assert_bad_bodies_are_refused(site: &Site, host: &str, path: &str) {
    let head = |more: &str| format!("POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}\r\n\r\n");
    let huge = format!("{}{}", head("content-length: 10000000"), "x".repeat(2 * FORM));
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let chunks = head("transfer-encoding: chunked") + &chunk.repeat(5);
    let slow = head("content-length: 100") + "password=";
    let broken = head("transfer-encoding: chunked") + "5\r\nabcde\r\nzz\r\n";
    let asks = [(huge, 413), (chunks, 413), (slow, 408), (broken, 400)];
    let answers = asks.map(async |(request, status)| {
        let answer = site.raw(request.as_bytes()).await;
        let begin = &request[..request.len().min(200)];
        assert_eq!(answer.status, status, "{begin:?} at {path}: {answer:?}");
    });
    futures_util::future::join_all(answers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_refuse_bad_bodies_and_serve_others_during_2000_idle_connections() {
    site::raise_file_limit();
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&site::MIGRATIONS)).await.unwrap();
    let link = tenantry.provision("acme").admin("ada@acme.example").await.unwrap().link.unwrap().expose_path();
    let sites = Site::both(&tenantry).await;
    let checks = sites.iter().map(async |site| {
        let host = site.host("acme");
        let idle = open_idle(site).await;
        let clock = Instant::now();
        assert_eq!(site.get(&host, "/health", "").await.status, 200);
        assert!(
            clock.elapsed() < HEAD_TIME,
            "a request took too long while the idle connections were open: {:?}",
            clock.elapsed()
        );
        let (bare, paths) = (site.host(""), ["/login", link.as_str()]);
        tokio::join!(
            assert_bad_bodies_are_refused(site, &host, paths[0]),
            assert_bad_bodies_are_refused(site, &host, paths[1]),
            assert_bad_bodies_are_refused(site, &bare, "/signup"),
        );
        let closed = idle.into_iter().map(async |mut stream| answer(&mut stream).await.status);
        let closed = tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(closed)).await;
        let closed = closed.expect("idle connections are still open after their time limit");
        assert!(closed.iter().all(|status| [0, 408].contains(status)), "{closed:?}");
        assert_eq!(site.get(&host, "/health", "").await.status, 200);
        assert_eq!(site.get(&host, &link, "").await.status, 200, "the link is valid after the bad posts");
        let no_text = site.ask("POST", &bare, "/signup", "", "company=%ff%fe&slug=%00&email=%").await;
        assert_eq!(no_text.status, 422, "{no_text:?}");
    });
    futures_util::future::join_all(checks).await;
    for site in sites {
        site.stop().await;
    }
    tenantry.close().await;
}
