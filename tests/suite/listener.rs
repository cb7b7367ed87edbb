//! `TenantPool::listener()`: notifications of a tenant's database, over rotations and suspensions.
use crate::migrate::migrations;
use crate::resolver::sessions::ResolverSetup;
use sqlx::Executor;
use std::time::{Duration, Instant};
use tenantry::error::ResolveError;
use tenantry::pool::{AcquireError, TenantListener};
use tenantry::testing::Harness;
use tenantry::{ConnectionResolver, TenantPool, Tenantry, sqlx};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(20);

async fn node(harness: &Harness) -> Tenantry {
    let migrator = migrations(&["SELECT 1"]);
    harness.tenantry(|b| b.tenant_migrations(migrator)).await.unwrap()
}

/// The payload of the next notification; `None` if the listener has connected again.
async fn recv(listener: &mut TenantListener) -> sqlx::Result<Option<String>> {
    let received = timeout(TIMEOUT, listener.recv()).await.expect("recv() gave nothing within the time limit")?;
    Ok(received.map(|notification| notification.payload().to_owned()))
}

async fn notify(db: &TenantPool, payload: &str) {
    sqlx::query("SELECT pg_notify('news', $1)").bind(payload).execute(db).await.unwrap();
}

/// Polls the listener in a task, as an application does.
fn spawn(mut listener: TenantListener) -> (JoinHandle<()>, mpsc::UnboundedReceiver<Option<String>>) {
    let (to, from) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok(received) = listener.recv().await {
            to.send(received.map(|notification| notification.payload().to_owned())).unwrap();
        }
    });
    (task, from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_follows_a_rotation_without_delaying_it() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness).await;
    node.provision("acme").await.unwrap();
    let db = node.resolve("acme").await.unwrap();
    let mut listener = db.listener().await.unwrap();
    listener.listen("news").await.unwrap();
    notify(&db, "before").await;
    assert_eq!(recv(&mut listener).await.unwrap().as_deref(), Some("before"));

    let (task, mut received) = spawn(listener);
    let begun = Instant::now();
    node.rotate("acme").grace(Duration::from_secs(60)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30), "the rotation waited for the listener: {:?}", begun.elapsed());
    assert_eq!(timeout(TIMEOUT, received.recv()).await.unwrap(), Some(None), "the listener did not report the gap");
    notify(&db, "after").await;
    assert_eq!(timeout(TIMEOUT, received.recv()).await.unwrap(), Some(Some("after".into())));
    node.close().await;
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_fails_with_the_reason_while_its_tenant_is_suspended() {
    let harness = Harness::start().await.unwrap();
    let node = node(&harness).await;
    node.provision("acme").await.unwrap();
    let db = node.resolve("acme").await.unwrap();
    let mut listener = db.listener().await.unwrap();
    listener.listen("news").await.unwrap();
    node.suspend("acme").await.unwrap();
    let error = recv(&mut listener).await.unwrap_err();
    let reason = AcquireError::find(&error);
    assert!(matches!(reason, Some(AcquireError::Refused(ResolveError::Suspended(_)))), "{error:?}");

    node.activate("acme").await.unwrap();
    assert_eq!(recv(&mut listener).await.unwrap(), None, "notifications of the time in between are lost");
    notify(&node.resolve("acme").await.unwrap(), "again").await;
    assert_eq!(recv(&mut listener).await.unwrap().as_deref(), Some("again"));
    let ((), closed) = tokio::join!(node.close(), recv(&mut listener));
    let error = closed.unwrap_err();
    assert!(matches!(AcquireError::find(&error), Some(AcquireError::Closed)), "{error:?}");
}

#[tokio::test]
async fn listener_counts_against_the_limits_until_it_is_dropped() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().max_connections_per_tenant(1).acquire_timeout(Duration::from_secs(2)).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    db.execute("SELECT 1").await.unwrap();
    let mut listener = db.listener().await.unwrap();
    listener.listen("news").await.unwrap();
    assert_eq!(db.connections(), (1, 1));
    let error = db.execute("SELECT 1").await.unwrap_err();
    assert!(matches!(AcquireError::find(&error), Some(AcquireError::PoolExhausted { .. })), "{error:?}");

    drop(listener);
    let channels: Vec<String> =
        sqlx::query_scalar("SELECT pg_listening_channels()").fetch_all(&db).await.expect("the connection came back");
    assert_eq!(channels, Vec::<String>::new(), "the next caller's session still listens");
    assert_eq!(world.sessions_of(&[database.name().to_owned()]).await, 1);
    resolver.close().await;
}

/// The server ends the session, as after a restart. The listener connects again, to its channels.
#[tokio::test]
async fn listener_connects_again_after_its_session_was_terminated() {
    let mut world = ResolverSetup::new().await;
    let name = [world.tenant("acme").await.name().to_owned()];
    let resolver = world.resolver().build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let mut listener = db.listener().await.unwrap();
    listener.listen("news").await.unwrap();
    world.kill_one_of(&name).await;
    assert_eq!(recv(&mut listener).await.unwrap(), None);
    notify(&db, "again").await;
    assert_eq!(recv(&mut listener).await.unwrap().as_deref(), Some("again"));
    resolver.close().await;
}
