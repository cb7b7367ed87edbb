//! Requests per second of an axum handler that reads notes: with `TenantLayer` and `TenantPool`, compared with the same
//! handler over one `PgPool` for each tenant.
//!
//! `cargo bench --bench notes --features axum`. The requests run in this process. They are distributed over 300 tenants
//! by Zipf's law.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use hosts::{Hosts, options, slug};
use load::{Load, Zipf, run};
use ratio::{Goal, Row};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Executor};
use std::sync::Arc;
use std::time::Duration;
use tenantry::resolver::PooledResolver;
use tenantry::testing::TestServer;
use tenantry::web::{Identify, TenantLayer, TenantRejection};
use tenantry::{Tenant, TenantPool, sqlx};
use tower::ServiceExt;

#[path = "pool/hosts.rs"]
mod hosts;
#[path = "pool/load.rs"]
mod load;
mod ratio;

const TENANTS: usize = 300;
const BUDGET: u32 = 90;
const TASKS: usize = 64;
const WARM: Duration = Duration::from_secs(2);
const COUNTED: Duration = Duration::from_secs(5);
const NOTES: &str = "SELECT text FROM notes ORDER BY id DESC LIMIT 10";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = TestServer::builder().start().await.unwrap();
    println!("{}", server.describe());
    let hosts = Hosts::new(&server, TENANTS).await;
    for n in 0..TENANTS {
        let mut session = options(&server, n).connect().await.unwrap();
        session
            .execute("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text)")
            .await
            .unwrap();
        session
            .execute("INSERT INTO notes (text) SELECT 'a note of this tenant' FROM generate_series(1, 20)")
            .await
            .unwrap();
    }
    let (zipf, mut pairs) = (Zipf::new(TENANTS), vec![]);
    for _ in 0..3 {
        let pools: Vec<PgPool> = (0..TENANTS).map(|n| tenant_pool(&server, n)).collect();
        let reference = run_requests(reference_router(Arc::new(pools.clone())), &zipf).await;
        for pool in pools {
            let _ = tokio::time::timeout(Duration::from_millis(300), pool.close()).await;
        }
        print_load("a PgPool for each tenant", &reference);
        let builder = PooledResolver::builder(hosts.clone(), hosts.clone()).max_connections(BUDGET);
        let resolver = builder.pool(|p| p.fresh_for(Duration::from_secs(3600))).build();
        let ours = run_requests(tenantry_router(resolver.clone()), &zipf).await;
        tenantry::ConnectionResolver::close(&resolver).await;
        print_load("tenantry", &ours);
        pairs.push((ours.rate, reference.rate));
    }
    let name = "300 tenants, axum: ours / a PgPool for each";
    ratio::report_rows("notes", &[Row::of(name, "/s", Goal::AtLeast(3.5), &pairs)]).unwrap();
}

/// The reference pool of one tenant.
fn tenant_pool(server: &TestServer, n: usize) -> PgPool {
    let options = options(server, n);
    let pool = PgPoolOptions::new().max_connections(5).idle_timeout(Duration::from_secs(10));
    pool.acquire_timeout(Duration::from_secs(5)).connect_lazy_with(options)
}

async fn tenantry_handler(_: Tenant, db: TenantPool) -> Result<Json<Vec<String>>, TenantRejection> {
    let notes = sqlx::query_scalar(NOTES).fetch_all(&db).await;
    Ok(Json(notes.map_err(|e| TenantRejection::from_sqlx(&e).unwrap_or(TenantRejection::Failed))?))
}

fn tenantry_router(resolver: PooledResolver) -> Router {
    let layer = TenantLayer::new(Arc::new(resolver), Identify::subdomain_of("example.org"));
    Router::new().route("/notes", get(tenantry_handler)).layer(layer)
}

async fn reference_handler(
    State(pools): State<Arc<Vec<PgPool>>>, request: Request,
) -> Result<Json<Vec<String>>, StatusCode> {
    let host = request.headers().get("host").and_then(|h| h.to_str().ok()).unwrap_or_default();
    let tenant = host.strip_suffix(".example.org").and_then(|s| s.strip_prefix("tenant-")?.parse::<usize>().ok());
    let pool = tenant.and_then(|n| pools.get(n)).ok_or(StatusCode::NOT_FOUND)?;
    let notes = sqlx::query_scalar(NOTES).fetch_all(pool).await;
    notes.map(Json).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

fn reference_router(pools: Arc<Vec<PgPool>>) -> Router {
    Router::new().route("/notes", get(reference_handler)).with_state(pools)
}

/// Sends requests to the router in [`TASKS`] tasks.
async fn run_requests(app: Router, zipf: &Zipf) -> Load {
    let request = move |n: usize| {
        let app = app.clone();
        async move {
            let host = format!("{}.example.org", slug(n));
            let request = Request::builder().uri("/notes").header("host", host).body(Body::empty()).unwrap();
            let response = app.oneshot(request).await.unwrap();
            let ok = response.status() == StatusCode::OK;
            to_bytes(response.into_body(), usize::MAX).await.unwrap();
            if ok { Ok(()) } else { Err(sqlx::Error::PoolTimedOut) }
        }
    };
    run(TASKS, zipf, WARM, COUNTED, request).await
}

fn print_load(name: &str, load: &Load) {
    println!(
        "  {name:28} {:>8.0} requests/s   p50 {:>9.3?}   p99 {:>9.3?}   {} errors",
        load.rate, load.p50, load.p99, load.errors
    );
}
