//! Clients that are slow, silent, far too talkative, or broken, and two thousand of them at once.
use super::site::{self, FORM, HEAD_TIME, Site, answer};
use std::time::{Duration, Instant};
use tenantry::testing::Harness;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const CONNECTIONS: usize = 2000;

/// Half of them say nothing, half of them begin to say something.
async fn idle(site: &Site) -> Vec<TcpStream> {
    let mut idle = vec![];
    for n in 0..CONNECTIONS {
        let mut stream = site.connect().await;
        if n % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: acme.exam").await.unwrap();
        }
        idle.push(stream);
    }
    idle
}

/// Each of these paths takes a form.
async fn bodies(site: &Site, host: &str, path: &str) {
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
async fn bad_bodies_get_their_status_and_two_thousand_idle_connections_keep_nobody_out() {
    site::raise_file_limit();
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&site::MIGRATIONS)).await.unwrap();
    let link = tenantry.provision("acme").admin("ada@acme.example").await.unwrap().link.unwrap().expose_path();
    let sites = Site::both(&tenantry).await;
    let checks = sites.iter().map(async |site| {
        let host = site.host("acme");
        let idle = idle(site).await;
        let clock = Instant::now();
        assert_eq!(site.get(&host, "/health", "").await.status, 200);
        assert!(clock.elapsed() < HEAD_TIME, "while they are all open: {:?}", clock.elapsed());
        let (bare, paths) = (site.host(""), ["/login", link.as_str()]);
        tokio::join!(bodies(site, &host, paths[0]), bodies(site, &host, paths[1]), bodies(site, &bare, "/signup"));
        let closed = idle.into_iter().map(async |mut stream| answer(&mut stream).await.status);
        let closed = tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(closed)).await;
        let closed = closed.expect("whoever says nothing is not kept");
        assert!(closed.iter().all(|status| [0, 408].contains(status)), "{closed:?}");
        assert_eq!(site.get(&host, "/health", "").await.status, 200);
        assert_eq!(site.get(&host, &link, "").await.status, 200, "the link is as good as before");
        let no_text = site.ask("POST", &bare, "/signup", "", "company=%ff%fe&slug=%00&email=%").await;
        assert_eq!(no_text.status, 422, "{no_text:?}");
    });
    futures_util::future::join_all(checks).await;
    for site in sites {
        site.stop().await;
    }
    tenantry.close().await;
}
