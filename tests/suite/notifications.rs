//! Propagation of changes between nodes while a tenant fills the notification queue of its cluster.
//!
//! `LISTEN/NOTIFY` shares one queue per cluster, so any login can fill it. Changes must still commit, and the other
//! nodes must still see them, by reading the table `tenant_changes`.
use crate::auditor::{self, code};
use crate::provision::migrated;
use futures_util::StreamExt;
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};
use std::time::Duration;
use tenantry::error::ResolveError;
use tenantry::registry::{Change, PgChanges};
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{TenantId, Tenantry, sqlx};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// Documented limit until another node sees a change that was not notified.
const PROMISED: Duration = Duration::from_secs(5);

/// A harness on a server of its own, because the queue belongs to the whole cluster. From PostgreSQL 17 on the queue
/// can be made small enough to be filled. Before 17 it always holds 8 GB. There the tests only fill it to the level
/// above which the trigger omits notifications. `None` on a server named by URL.
async fn harness() -> Option<Harness> {
    let shared = TestServer::shared().await.unwrap();
    let builder = TestServer::builder();
    let builder = match can_be_full(shared) {
        true => builder.setting("max_notify_queue_pages", "64"),
        false => builder.setting("log_statement", "none"),
    };
    match builder.start().await {
        Ok(server) => Some(Harness::on(Box::leak(Box::new(server))).await.unwrap()),
        Err(NoServer::UrlTakesNoSettings { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Whether the size of the queue can be set, so that a test can fill it.
fn can_be_full(server: &TestServer) -> bool {
    server.version_num() >= 170_000
}

/// Fills the queue from a tenant's own database, with its own login. The returned session keeps the queue full: it
/// listens and has an open transaction, so PostgreSQL cannot discard what it has not read. `full`: until `NOTIFY`
/// fails; otherwise until 6 % are used.
async fn flood(login: &PgConnectOptions, full: bool) -> PgConnection {
    const MANY: &str =
        "DO $$ BEGIN FOR n IN 1..1000 LOOP PERFORM pg_notify('flood', n || repeat('x', 7900)); END LOOP; END $$";
    let mut listener = login.connect().await.unwrap();
    for sql in ["LISTEN flood", "BEGIN", "SELECT 1"] {
        listener.execute(sql).await.unwrap();
    }
    let mut notifier = login.connect().await.unwrap();
    loop {
        match notifier.execute(MANY).await {
            Ok(_) if full => {}
            Ok(_) if usage(&mut notifier).await < 0.06 => {}
            Ok(_) => return listener,
            Err(error) => {
                assert_eq!(code(&error), "54000", "{error:?}");
                return listener;
            }
        }
    }
}

/// The used part of the notification queue, from 0 to 1.
async fn usage(session: &mut PgConnection) -> f64 {
    sqlx::query_scalar("SELECT pg_notification_queue_usage()").fetch_one(session).await.unwrap()
}

/// Waits until the other node listens and has read the table of changes. From then on it caches answers for a minute.
async fn wait_until_followed(landlord: &PgPool) {
    const BUSY: &str = "SELECT count(DISTINCT left(query, 6)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'tenantry background'
          AND (query LIKE 'LISTEN%' OR (query LIKE '%tenant_changes%' AND state = 'idle'))";
    timeout(SOON, async {
        while sqlx::query_scalar::<_, i64>(BUSY).fetch_one(landlord).await.unwrap() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the other node did not start to listen and read in time");
}

async fn is_suspended(node: &Tenantry, slug: &str) -> bool {
    matches!(node.resolve(slug).await, Err(ResolveError::Suspended(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_and_provision_succeed_and_other_nodes_see_it_when_the_notification_queue_is_full() {
    let Some(harness) = harness().await else { return };
    let full = can_be_full(harness.server());
    let (this_node, other_node) =
        (harness.tenantry(migrated).await.unwrap(), harness.tenantry(migrated).await.unwrap());
    for slug in ["acme", "hostile"] {
        this_node.provision(slug).await.unwrap();
    }
    let background = tokio::spawn(other_node.run(std::future::pending::<()>()));
    wait_until_followed(harness.landlord()).await;
    other_node.resolve("acme").await.expect("an active tenant resolves");

    let listener = flood(&auditor::login(&this_node, "hostile").await, full).await;
    if full {
        let refused = harness.landlord().execute("NOTIFY by_hand").await.unwrap_err();
        assert_eq!(code(&refused), "54000", "NOTIFY succeeded although the queue should be full");
    }
    this_node.suspend("acme").await.expect("suspend failed while the notification queue was full");
    timeout(PROMISED, async {
        while !is_suspended(&other_node, "acme").await {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the other node did not see the suspension within five seconds");
    this_node.provision("umbrella").await.expect("provision failed while the notification queue was full");

    listener.close().await.unwrap();
    timeout(SOON, async {
        while harness.landlord().execute("NOTIFY by_hand").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the queue stayed full after the blocking listener had closed");
    other_node.close().await;
    background.await.unwrap().unwrap();
}

#[tokio::test]
async fn change_trigger_leaves_the_notification_out_when_the_queue_fills_up() {
    let Some(harness) = harness().await else { return };
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant.id();
    let hostile = tenantry.provision("hostile").await.unwrap().tenant.id();
    let mut notifications = PgListener::connect_with(harness.landlord()).await.unwrap();
    notifications.listen("tenantry_changes").await.unwrap();
    let listener = flood(&auditor::login(&tenantry, "hostile").await, can_be_full(harness.server())).await;
    rename(harness.landlord(), acme).await;
    listener.close().await.unwrap();
    if can_be_full(harness.server()) {
        // The flood ended with an error, so PostgreSQL has not woken this listener and it still blocks the queue.
        notifications.unlisten_all().await.unwrap();
        notifications.listen("tenantry_changes").await.unwrap();
    }
    let mut admin = auditor::superuser(&harness).await;
    timeout(SOON, async {
        while usage(&mut admin).await > 0.04 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the queue was not emptied in time");
    rename(harness.landlord(), hostile).await;
    let first = timeout(SOON, notifications.recv()).await.expect("no notification in time").unwrap();
    assert_eq!(first.payload(), hostile.to_string(), "the change under a full queue was notified after all");
    const ROWS: &str = "SELECT count(*) FROM tenantry.tenant_changes WHERE tenant_id = $1 AND txid =
        (SELECT max(txid) FROM tenantry.tenant_changes WHERE tenant_id = $1)";
    for tenant in [acme, hostile] {
        let rows: i64 = sqlx::query_scalar(ROWS).bind(tenant.as_uuid()).fetch_one(harness.landlord()).await.unwrap();
        assert_eq!(rows, 1, "the latest change of tenant {tenant} is not in the table once");
    }
}

async fn rename(landlord: &PgPool, tenant: TenantId) {
    const RENAME: &str = "UPDATE tenantry.tenants SET name = name || '!' WHERE id = $1";
    sqlx::query(RENAME).bind(tenant.as_uuid()).execute(landlord).await.unwrap();
}

/// A position from a sequence would miss such a change: the first writer has the lower number but commits last, and a
/// reader that has seen the second number never looks for the first.
#[tokio::test]
async fn follow_reports_a_change_when_it_commits_after_a_later_one() {
    let harness = Harness::start().await.unwrap();
    let (written_first, written_second) = (TenantId::new(), TenantId::new());
    let mut changes = PgChanges::new(harness.landlord().clone()).poll_every(Duration::from_millis(20)).follow();
    let mut next = async || timeout(SOON, changes.next()).await.expect("no change in time").unwrap();
    assert_eq!(next().await, Change::Missed);
    const WRITE: &str = "INSERT INTO tenantry.tenant_changes (tenant_id) VALUES ($1)";
    let mut slow = harness.landlord().begin().await.unwrap();
    sqlx::query(WRITE).bind(written_first.as_uuid()).execute(&mut *slow).await.unwrap();
    sqlx::query(WRITE).bind(written_second.as_uuid()).execute(harness.landlord()).await.unwrap();
    assert_eq!(next().await, Change::Tenant(written_second));
    slow.commit().await.unwrap();
    assert_eq!(
        next().await,
        Change::Tenant(written_first),
        "the change that was written first and committed last is missing"
    );
    let again = timeout(Duration::from_millis(500), next()).await;
    assert!(again.is_err(), "a change was reported twice: {again:?}");
}

#[tokio::test]
async fn domain_that_moves_to_another_tenant_reports_both() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let from = tenantry.provision("acme").domain("acme.example").await.unwrap().tenant.id();
    let to = tenantry.provision("umbrella").await.unwrap().tenant.id();
    let mut notifications = PgListener::connect_with(harness.landlord()).await.unwrap();
    notifications.listen("tenantry_changes").await.unwrap();
    const MOVE: &str = "UPDATE tenantry.tenant_domains SET tenant_id = $1";
    sqlx::query(MOVE).bind(to.as_uuid()).execute(harness.landlord()).await.unwrap();
    let mut reported = vec![];
    for _ in 0..2 {
        reported.push(
            timeout(SOON, notifications.recv())
                .await
                .expect("fewer than two notifications in time")
                .unwrap()
                .payload()
                .to_owned(),
        );
    }
    assert_eq!(reported, [to.to_string(), from.to_string()]);
}
