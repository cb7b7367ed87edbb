//! A table of the landlord that another session has locked. Every call returns within its deadline, with an error that
//! tells the caller to repeat it. Afterwards everything works again, and the pool has all its connections.
use crate::provision::{migrated, statement_of};
use futures_core::future::BoxFuture;
use secrecy::ExposeSecret;
use sqlx::Executor;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::error::Error;
use std::time::{Duration, Instant};
use tenantry::operation::OperationId;
use tenantry::testing::Harness;
use tenantry::tokens::{Token, TokenPurpose};
use tenantry::{Tenantry, schema, sqlx};

mod pool;

/// Deadline of a statement in these tests. Opening a connection on a busy machine must fit into it.
const DEADLINE: Duration = Duration::from_secs(1);
const CONNECTIONS: u32 = 40;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
type Call = (&'static str, BoxFuture<'static, Outcome>);

/// A node with a landlord pool of its own.
async fn node(harness: &Harness) -> (Tenantry, PgPool) {
    let options = harness.landlord().connect_options().as_ref().clone().application_name("a host");
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(Duration::from_secs(30));
    let landlord = pool.connect_lazy_with(options);
    let builder = migrated(Tenantry::builder(landlord.clone()).keys(harness.keys().clone()));
    let builder = builder.landlord_timeout(DEADLINE).lease(Duration::from_secs(1)).attempts(2);
    let builder = builder.backoff(Duration::from_millis(10), Duration::from_millis(50));
    let tenantry = builder.build().await.unwrap();
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
    (tenantry, landlord)
}

macro_rules! call {
    ($node:ident, $name:literal, $call:expr) => {{
        let $node = $node.clone();
        let call: BoxFuture<'static, Outcome> = Box::pin(async move { Ok($call.await.map(drop)?) });
        ($name, call)
    }};
}

fn reads(node: &Tenantry, tenant: tenantry::TenantId) -> Vec<Call> {
    let token = Token::random(TokenPurpose::credentials()).expose().expose_secret().to_owned();
    let purpose = TokenPurpose::credentials;
    vec![
        call!(node, "resolve", node.resolve("acme")),
        call!(node, "migration_status", node.migration_status("acme")),
        call!(node, "registry.find", node.registry().find("acme".into())),
        call!(node, "registry.databases", node.registry().databases(tenant)),
        call!(node, "registry.page", node.registry().page(None, 10)),
        call!(node, "registry.domains", node.registry_writer().domains(tenant)),
        call!(node, "registry.users", node.registry_writer().users(tenant)),
        call!(node, "registry.retiring", node.retiring(10)),
        call!(node, "servers.list", node.servers().list()),
        call!(node, "operations.get", node.operations().get(OperationId::new())),
        call!(node, "operations.open", node.operations().open()),
        call!(node, "operations.recover", node.operations().recover()),
        call!(node, "tokens.look_up", node.tokens().look_up(&purpose(), &token)),
        call!(node, "tokens.undelivered", node.tokens().undelivered(tenant)),
        call!(node, "tokens.events", node.tokens().events(tenant, 10)),
        call!(node, "nodes.list_live", node.nodes().list_live(Duration::from_secs(15))),
    ]
}

fn verbs(node: &Tenantry, round: usize) -> Vec<Call> {
    let slug = format!("new-{round}");
    vec![
        call!(node, "provision", node.provision(slug).into_future()),
        call!(node, "suspend", node.suspend("beta").into_future()),
        call!(node, "rotate", node.rotate("gamma").grace(Duration::ZERO).into_future()),
        call!(node, "archive", node.archive("delta").into_future()),
        call!(node, "migrate", node.migrate("epsilon").into_future()),
        call!(node, "rekey", node.rekey().into_future()),
        call!(node, "servers.undrain", async { node.servers().undrain("main").await }),
        call!(node, "tokens.issue", node.tokens().issue("epsilon", "ada@epsilon.example")),
    ]
}

/// Locks a table until the returned transaction ends.
async fn lock(harness: &Harness, table: &str) -> sqlx::PgTransaction<'static> {
    let mut tx = harness.landlord().begin().await.unwrap();
    let lock = format!("LOCK TABLE tenantry.{table} IN ACCESS EXCLUSIVE MODE");
    tx.execute(statement_of(lock)).await.unwrap();
    tx
}

/// Tables that the verbs write.
const WRITTEN: [&str; 5] = ["credentials", "database_servers", "operations", "tenant_databases", "tenants"];

async fn tables(harness: &Harness) -> Vec<String> {
    const TABLES: &str = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'tenantry' ORDER BY 1";
    sqlx::query_scalar(TABLES).fetch_all(harness.landlord()).await.unwrap()
}

/// Runs the calls at once, each with a limit. Returns the name, the time and the error of each call that failed.
async fn run(calls: Vec<Call>, limit: Duration) -> Vec<(&'static str, Duration, Box<dyn Error + Send + Sync>)> {
    let timed = calls.into_iter().map(|(name, call)| async move {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(limit, call).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{name} did not return within {limit:?}"));
        (name, begun.elapsed(), outcome)
    });
    let outcomes = futures_util::future::join_all(timed).await;
    outcomes.into_iter().filter_map(|(name, time, outcome)| Some((name, time, outcome.err()?))).collect()
}

/// Whether a landlord that did not answer caused the error.
fn is_unavailable(error: &(dyn Error + 'static)) -> bool {
    tenantry::error::chain(error).contains("the landlord did not answer; try again")
}

/// Asserts that no statement of the pool runs, and that the pool can give out every one of its connections.
async fn assert_pool_is_whole(harness: &Harness, landlord: &PgPool, table: &str) {
    const ACTIVE: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'a host' AND state <> 'idle'";
    let mut active: i64 = 1;
    // The pool pings each connection that returns, which is a statement too.
    for _ in 0..100 {
        active = sqlx::query_scalar(ACTIVE).fetch_one(harness.landlord()).await.unwrap();
        if active == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(active, 0, "{table}: statements that still run or wait on the server");
    let all = futures_util::future::join_all((0..CONNECTIONS).map(|_| landlord.acquire())).await;
    assert!(all.iter().all(Result::is_ok), "{table}: the pool has lost connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_return_within_their_deadline_while_a_landlord_table_is_locked() {
    let harness = Harness::start().await.unwrap();
    let (node, landlord) = node(&harness).await;
    let tenant = node.provision("acme").await.unwrap().tenant.id();
    let mut failed = std::collections::BTreeSet::new();
    for table in tables(&harness).await {
        node.resolver().invalidate_all();
        let lock = lock(&harness, &table).await;
        for (name, time, error) in run(reads(&node, tenant), Duration::from_secs(20)).await {
            assert!(is_unavailable(&*error), "{name} with {table} locked: {error:?}");
            // Three statements, each with the time to cancel it, and a machine under load.
            assert!(time < Duration::from_secs(15), "{name} with {table} locked returned after {time:?}");
            failed.insert(name);
        }
        assert_pool_is_whole(&harness, &landlord, &table).await;
        lock.rollback().await.unwrap();
        let failures = run(reads(&node, tenant), Duration::from_secs(20)).await;
        assert!(failures.is_empty(), "after {table} was unlocked: {failures:?}");
    }
    assert_eq!(failed.len(), reads(&node, tenant).len(), "each read needs some table; these failed: {failed:?}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_return_within_their_deadline_while_a_landlord_table_is_locked() {
    let harness = Harness::start().await.unwrap();
    let (node, landlord) = node(&harness).await;
    for slug in ["beta", "gamma", "delta", "epsilon"] {
        node.provision(slug).await.unwrap();
    }
    for (round, table) in WRITTEN.into_iter().enumerate() {
        let lock = lock(&harness, table).await;
        for (name, time, error) in run(verbs(&node, round), Duration::from_secs(30)).await {
            assert!(is_unavailable(&*error), "{name} with {table} locked: {error:?}");
            assert!(time < Duration::from_secs(20), "{name} with {table} locked returned after {time:?}");
        }
        lock.rollback().await.unwrap();
        for _ in 0..300 {
            // On a busy machine a call may be too late again.
            let _ = node.operations().recover().await;
            if node.operations().open().await.is_ok_and(|open| open.is_empty()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let open = node.operations().open().await.unwrap();
        assert!(open.is_empty(), "{table}: operations that recovery does not end after the lock: {open:#?}");
        assert_pool_is_whole(&harness, &landlord, table).await;
        let _ = node.activate("beta").await;
        let _ = node.restore("delta").await;
        for slug in ["beta", "gamma", "delta", "epsilon"] {
            let db = node.resolve(slug).await.unwrap_or_else(|e| panic!("{slug} after {table}: {e}"));
            sqlx::query("INSERT INTO notes (text) VALUES ('works')").execute(&db).await.unwrap();
        }
    }
    node.close().await;
}

/// The check of the schema reads the table of migrations. An installation on another node locks it.
#[tokio::test]
async fn schema_check_fails_after_its_deadline_while_its_table_is_locked() {
    let harness = Harness::start().await.unwrap();
    let lock = lock(&harness, "schema_migrations").await;
    let check = tokio::time::timeout(Duration::from_secs(20), schema::check(harness.landlord())).await.unwrap();
    let error = check.expect_err("the check needs the table");
    assert!(is_unavailable(&error), "the error must tell the caller to repeat the call");
    lock.rollback().await.unwrap();
    schema::check(harness.landlord()).await.unwrap();
}
