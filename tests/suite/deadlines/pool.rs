//! The application's pool under calls that are too late: waiting for a connection has the deadline too, and no connection
//! is lost to a call that was dropped or whose server went silent.
use super::{DEADLINE, is_unavailable, lock};
use crate::landlord;
use crate::provision::migrated;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tenantry::testing::Harness;
use tenantry::testing::proxy::{Director, Point, Proxy, Verdict};
use tenantry::{Builder, Tenantry, schema, sqlx};
use tokio::time::timeout;

/// More than two deadlines and the clean-up on a busy machine, less than the pool's own timeout of 30 s.
const LIMIT: Duration = Duration::from_secs(12);

/// A pool with one connection, so that a lost one is noticed.
fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(30)).connect_lazy_with(options)
}

fn builder(harness: &Harness, landlord: &PgPool) -> Builder {
    migrated(Tenantry::builder(landlord.clone()).keys(harness.keys().clone())).landlord_timeout(DEADLINE)
}

fn options(harness: &Harness) -> PgConnectOptions {
    harness.landlord().connect_options().as_ref().clone()
}

/// Calls the registry. The call must fail within its limit, with an error that tells the caller to repeat it.
async fn assert_find_fails(node: &Tenantry, condition: &str) {
    let found = timeout(LIMIT, node.registry().find("acme".into())).await;
    let found = found.unwrap_or_else(|_| panic!("{condition}: the call did not return within {LIMIT:?}"));
    let error = found.expect_err(condition);
    assert!(is_unavailable(&error), "{condition}: {error:?}");
}

#[tokio::test]
async fn wait_for_a_connection_ends_at_the_deadline() {
    let harness = Harness::start().await.unwrap();
    let landlord = pool(options(&harness));
    let node = builder(&harness, &landlord).build().await.unwrap();
    let used = landlord.acquire().await.unwrap();
    assert_find_fails(&node, "the only connection is in use").await;
    drop(used);
    node.registry().find("acme".into()).await.expect("the connection is free again");
}

/// The operating system accepts the connection, and no server ever answers.
#[tokio::test]
async fn build_fails_at_its_deadline_when_the_landlord_never_answers_a_login() {
    let harness = Harness::start().await.unwrap();
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let landlord = pool(options(&harness).host("127.0.0.1").port(silent.local_addr().unwrap().port()));
    let built = timeout(LIMIT, builder(&harness, &landlord).build()).await.expect("build() returns at its deadline");
    let error = built.map(drop).expect_err("the landlord does not answer");
    assert!(is_unavailable(&error), "{error:?}");
}

#[tokio::test]
async fn dropped_call_frees_its_connection_while_its_table_is_locked() {
    let harness = Harness::start().await.unwrap();
    let landlord = pool(options(&harness));
    let node = builder(&harness, &landlord).build().await.unwrap();
    let lock = lock(&harness, "tenants").await;
    let registry = node.registry();
    tokio::select! {
        found = registry.find("acme".into()) => panic!("the table is locked: {found:?}"),
        () = landlord::somebody_waits(harness.landlord()) => {}
    }
    let free = timeout(LIMIT, landlord.acquire()).await.expect("a dropped call keeps its connection").unwrap();
    drop(free);
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting: i64 = sqlx::query_scalar(WAITING).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(waiting, 0, "the statement of the dropped call still waits on the server");
    lock.rollback().await.unwrap();
    node.registry().find("acme".into()).await.expect("the table is unlocked");
}

/// Makes every connection half-open while the switch is on.
#[derive(Clone, Default)]
struct Silence(Arc<AtomicBool>);
#[async_trait::async_trait]
impl Director for Silence {
    async fn at(&self, _: Point) -> Verdict {
        if self.0.load(SeqCst) { Verdict::Stall } else { Verdict::Forward }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connection_is_given_up_at_the_deadline_and_replaced() {
    let harness = Harness::start().await.unwrap();
    let address = (harness.landlord().connect_options().get_host().to_owned(), options(&harness).get_port());
    let address = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
    let silence = Silence::default();
    let proxy = Proxy::start(address, silence.clone()).await.unwrap();
    let landlord = pool(options(&harness).host("127.0.0.1").port(proxy.port()));
    // A login through the proxy must fit into the deadline on a busy machine.
    let node = builder(&harness, &landlord).landlord_timeout(Duration::from_secs(2)).build().await.unwrap();
    for _ in 0..2 {
        silence.0.store(true, SeqCst);
        assert_find_fails(&node, "the connection is half-open").await;
        let problems = timeout(LIMIT, node.problems()).await.expect("the readiness check returns at its deadline");
        assert_eq!(problems.first().map(|problem| problem.code), Some("schema"), "{problems:?}");
        silence.0.store(false, SeqCst);
        let found = timeout(LIMIT, node.registry().find("acme".into())).await;
        found.expect("the place of the half-open connection is free").expect("the landlord answers again");
    }
}

/// The lock lasts longer than the deadline of `schema::check`, as the migration of a large landlord on another node may.
#[tokio::test]
async fn install_waits_for_a_locked_table_longer_than_the_deadline_of_check() {
    const WAITED: &str = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8
        FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let harness = Harness::start().await.unwrap();
    let lock = lock(&harness, "schema_migrations").await;
    let pool = pool(options(&harness).options([("statement_timeout", "300ms")]));
    let install = tokio::spawn(async move { schema::install(&pool).await });
    while sqlx::query_scalar::<_, f64>(WAITED).fetch_one(harness.landlord()).await.unwrap() < 11.0 {
        assert!(!install.is_finished(), "install() gave up: {:?}", install.await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lock.rollback().await.unwrap();
    install.await.unwrap().expect("install() succeeds after the lock");
}
