//! The time that identifying and extracting the tenant adds to a request, in axum and in actix-web. The goal is at most
//! one microsecond.
//!
//! `cargo bench --bench identify --features axum,actix`. The requests run in this process, without a network. The
//! reference is the same empty handler without the layer. All tenants are cached.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use ratio::{Goal, Row};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tenantry::resolver::PooledResolver;
use tenantry::web::{Identify, TenantLayer};
use tenantry::{ConnectionResolver, Tenant, TenantPool};
use tower::Service;

#[path = "pool/hosts.rs"]
mod hosts;
mod ratio;

const HOST: &str = "tenant-7.example.org";
const TIMES: u32 = 20_000;
const ROUNDS: usize = 61;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let hosts = hosts::Hosts::at("127.0.0.1", 1, 100);
    let resolver =
        PooledResolver::builder(hosts.clone(), hosts).pool(|p| p.fresh_for(Duration::from_secs(3600))).build();
    for n in 0..100 {
        resolver.resolve(hosts::slug(n).as_str().into()).await.unwrap();
    }
    let layer = TenantLayer::new(std::sync::Arc::new(resolver), Identify::subdomain_of("example.org"));
    let rows = [measure_axum(&layer).await, tokio::task::LocalSet::new().run_until(measure_actix(&layer)).await];
    ratio::report_rows("identify", &rows).unwrap();
}

/// The reference handler.
async fn plain_handler() -> &'static str {
    "ok"
}
/// The handler that extracts the tenant and its pool.
async fn tenant_handler(tenant: Tenant, db: TenantPool) -> &'static str {
    black_box((tenant, db));
    "ok"
}

async fn measure_axum(layer: &TenantLayer) -> Row {
    async fn time(app: &mut Router) -> f64 {
        let mut spent = Duration::ZERO;
        for _ in 0..TIMES {
            let request = Request::builder().uri("/").header("host", HOST).body(Body::empty()).unwrap();
            let clock = Instant::now();
            let response = app.call(request).await.unwrap();
            spent += clock.elapsed();
            assert_eq!(response.status(), 200);
        }
        spent.as_secs_f64() * 1e6 / f64::from(TIMES)
    }
    let mut bare: Router = Router::new().route("/", get(plain_handler));
    let mut ours: Router = Router::new().route("/", get(tenant_handler)).layer(layer.clone());
    let mut pairs = vec![];
    for _ in 0..ROUNDS {
        let (ours, bare) = (time(&mut ours).await, time(&mut bare).await);
        pairs.push((ours - bare, 1.0));
    }
    Row::of("axum: identify and extract, added", "us", Goal::AtMost(1.0), &pairs)
}

async fn measure_actix(layer: &TenantLayer) -> Row {
    use actix_web::{App, dev::Service, test, web};
    let bare = test::init_service(App::new().route("/", web::get().to(plain_handler))).await;
    let ours = test::init_service(App::new().wrap(layer.clone()).route("/", web::get().to(tenant_handler))).await;
    let mut pairs = vec![];
    for _ in 0..ROUNDS {
        let mut spent = [Duration::ZERO; 2];
        for _ in 0..TIMES {
            for (at, spent) in spent.iter_mut().enumerate() {
                let request = test::TestRequest::with_uri("/").insert_header(("host", HOST)).to_request();
                let clock = Instant::now();
                let status = match at {
                    0 => ours.call(request).await.unwrap().status(),
                    _ => bare.call(request).await.unwrap().status(),
                };
                *spent += clock.elapsed();
                assert_eq!(status, 200);
            }
        }
        let [ours, bare] = spent.map(|s| s.as_secs_f64() * 1e6 / f64::from(TIMES));
        pairs.push((ours - bare, 1.0));
    }
    Row::of("actix-web: identify and extract, added", "us", Goal::AtMost(1.0), &pairs)
}
