//! The same load on tenantry and on its competitors: one `PgPool` for each tenant, and PgBouncer.
use super::bouncer::Bouncer;
use super::hosts::{Hosts, options, slug};
use super::load::{Load, Zipf, run, run_with};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tenantry::resolver::PooledResolver;
use tenantry::testing::TestServer;
use tenantry::{ConnectionResolver, TenantPool, TenantRef, sqlx};
use tokio::sync::Mutex;

/// Maximum connections to the server, for tenantry and for PgBouncer.
pub(crate) const BUDGET: u32 = 90;
/// Concurrent tasks of the load.
pub(crate) const TASKS: usize = 64;
/// Time before the measurement starts.
pub(crate) const WARM: Duration = Duration::from_secs(2);
/// Duration of the measurement.
pub(crate) const COUNTED: Duration = Duration::from_secs(5);

/// A resolver whose cached answers stay valid during the whole benchmark.
pub(crate) fn create_resolver(hosts: &Hosts, budget: u32) -> PooledResolver {
    let builder = PooledResolver::builder(hosts.clone(), hosts.clone());
    builder.max_connections(budget).pool(|p| p.fresh_for(Duration::from_secs(3600))).build()
}

/// Runs `SELECT 1` for a tenant.
pub(crate) async fn query(db: &TenantPool) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").fetch_one(db).await.map(drop)
}

/// Runs `SELECT 1` as an application does: with the cached handle, or after resolving the tenant.
pub(crate) async fn query_by_name(resolver: &PooledResolver, n: usize) -> Result<(), sqlx::Error> {
    let slug = slug(n);
    let db = match resolver.cached(&TenantRef::from(slug.as_str())) {
        Some(db) => db,
        None => resolver.resolve(slug.as_str().into()).await.map_err(|e| sqlx::Error::Configuration(e.into()))?,
    };
    query(&db).await
}

/// Runs the load on tenantry.
pub(crate) async fn run_tenantry(hosts: &Hosts, zipf: &Zipf) -> Load {
    run_tenantry_with_misses(hosts, zipf).await.0
}

/// As [`run_tenantry`]. Also returns the fraction of queries for which a connection was opened, without those of the
/// warm-up, in which the pool learns how often each tenant is queried.
pub(crate) async fn run_tenantry_with_misses(hosts: &Hosts, zipf: &Zipf) -> (Load, f64) {
    let resolver = create_resolver(hosts, BUDGET);
    let at = resolver.clone();
    let load = run(TASKS, zipf, WARM, COUNTED, move |n| {
        let resolver = at.clone();
        async move { query_by_name(&resolver, n).await }
    });
    let warm = async {
        tokio::time::sleep(WARM).await;
        count_connects_and_checkouts(&resolver)
    };
    let (load, before) = tokio::join!(load, warm);
    print_load("tenantry", &load);
    let after = count_connects_and_checkouts(&resolver);
    resolver.close().await;
    (load, (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64)
}

fn count_connects_and_checkouts(resolver: &PooledResolver) -> (u64, u64) {
    resolver.stats().iter().fold((0, 0), |(o, a), (_, s)| (o + s.connects, a + s.checkouts))
}

/// One pool of at most five connections for each tenant.
pub(crate) fn create_pools(server: &TestServer, tenants: usize) -> Arc<Vec<PgPool>> {
    let pool = |n| {
        PgPoolOptions::new()
            .max_connections(5)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options(server, n))
    };
    Arc::new((0..tenants).map(pool).collect())
}

/// One pool to PgBouncer for each tenant. In session mode every client connection occupies a server connection, so idle
/// ones must be closed soon.
pub(crate) fn bouncer_pools(bouncer: &Bouncer, server: &TestServer, tenants: usize, session: bool) -> Arc<Vec<PgPool>> {
    let pool = |n| {
        PgPoolOptions::new()
            .max_connections(5)
            .test_before_acquire(false)
            .idle_timeout(session.then_some(Duration::from_millis(500)))
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(bouncer.options(options(server, n)))
    };
    Arc::new((0..tenants).map(pool).collect())
}

/// Runs the load on one pool for each tenant. `persistent` is whether statements stay prepared.
pub(crate) async fn run_pools(name: &str, pools: Arc<Vec<PgPool>>, zipf: &Zipf, persistent: bool) -> Load {
    let at = pools.clone();
    let load = run(TASKS, zipf, WARM, COUNTED, move |n| {
        let pool = at[n].clone();
        async move { sqlx::query("SELECT 1").persistent(persistent).fetch_one(&pool).await.map(drop) }
    })
    .await;
    print_load(name, &load);
    for pool in pools.iter() {
        let _ = tokio::time::timeout(Duration::from_millis(300), pool.close()).await;
    }
    load
}

/// Runs the load on connections that each belong to one task: no pool, and no tenant changes its connection.
///
/// `takes_turns`: whether a task lets the others run after each query. Without that, a server on the same machine often
/// answers before the task is polled again, so that two tasks keep both threads and the others wait: twice the rate,
/// for two of the tasks at a time.
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
pub(crate) async fn run_dedicated(server: &TestServer, tenants: usize, takes_turns: bool) -> Load {
    let mut sessions = vec![];
    for task in 0..TASKS {
        sessions.push(Mutex::new(options(server, task % tenants).connect().await.unwrap()));
    }
    // Each task takes the session of its number. It is the only one that locks it.
    let (sessions, next) = (Arc::new(sessions), Arc::new(AtomicUsize::new(0)));
    let at = sessions.clone();
    let load = run_with(TASKS, WARM, COUNTED, move || {
        let (sessions, task) = (at.clone(), next.fetch_add(1, Relaxed));
        move || {
            let sessions = sessions.clone();
            async move {
                let mut session = sessions[task].lock().await;
                let answer = sqlx::query("SELECT 1").fetch_one(&mut *session).await.map(drop);
                if takes_turns {
                    tokio::task::yield_now().await;
                }
                answer
            }
        }
    })
    .await;
    print_load(if takes_turns { "own connections, in turns" } else { "own connections, no turns" }, &load);
    load
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident_bytes() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

pub(crate) fn print_load(name: &str, load: &Load) {
    println!(
        "  {name:28} {:>8.0} ops/s   p50 {:>9.3?}   p99 {:>9.3?}   {} errors",
        load.rate, load.p50, load.p99, load.errors
    );
}
