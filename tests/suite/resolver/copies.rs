//! Sessions that are not ready for a statement (in COPY mode, or with a query still running) return their slot.
//!
//! Each test limits the pool to one connection, so a leaked slot makes the next query time out.
use super::sessions::ResolverSetup;
use sqlx::{Executor, PgExecutor};
use std::time::{Duration, Instant};
use tenantry::resolver::PooledResolverBuilder;
use tenantry::{ConnectionResolver, TenantPool, sqlx};

const COPY_IN: &str = "COPY notes FROM STDIN";
const COPY_OUT: &str = "COPY notes TO STDOUT";

/// A resolver with one connection in all, and a tenant with the table `notes`.
async fn resolver_with_one_connection(
    configure: impl FnOnce(PooledResolverBuilder) -> PooledResolverBuilder,
) -> (ResolverSetup, impl ConnectionResolver, TenantPool) {
    let world = ResolverSetup::new().await;
    world.tenant("acme").await;
    let resolver = world.resolver().max_connections(1).acquire_timeout(Duration::from_secs(10));
    let resolver = configure(resolver).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    db.execute("CREATE TABLE notes (text text)").await.unwrap();
    (world, resolver, db)
}

/// Asserts that sqlx refuses to run COPY as a plain query.
async fn assert_refused(copied: Result<impl Sized, sqlx::Error>, how: &str) {
    let Err(error) = copied else { panic!("COPY by {how} succeeded") };
    assert!(matches!(error, sqlx::Error::Protocol(_)), "{how}: {error:?}");
}

/// Asserts that the pool gives a usable connection.
async fn assert_answers(db: impl PgExecutor<'_>, after: &str) {
    let began = Instant::now();
    let one: Result<i32, _> = sqlx::query_scalar("SELECT 1").fetch_one(db).await;
    assert!(matches!(one, Ok(1)), "SELECT 1 after {after} failed after {:?}: {one:?}", began.elapsed());
}

#[tokio::test]
async fn copy_through_the_handle_returns_its_slot() {
    let (_world, resolver, db) = resolver_with_one_connection(|b| b).await;
    for copy in [COPY_IN, COPY_OUT] {
        assert_refused(sqlx::raw_sql(copy).execute(&db).await, copy).await;
        assert_answers(&db, copy).await;
        assert_refused(sqlx::query(copy).execute(&db).await, copy).await;
        assert_answers(&db, copy).await;
        assert_refused(sqlx::raw_sql(copy).fetch_all(&db).await, copy).await;
        assert_answers(&db, copy).await;
        assert_refused(sqlx::query(copy).fetch_optional(&db).await, copy).await;
        assert_answers(&db, copy).await;
    }
    assert_eq!(db.connections(), (1, 0), "open connections");
    resolver.close().await;
}

#[tokio::test]
async fn copy_on_an_acquired_connection_returns_its_slot_after_the_release_timeout() {
    for discard in [false, true] {
        let limit = Duration::from_millis(300);
        let (_world, resolver, db) =
            resolver_with_one_connection(|b| b.pool(|p| p.release_timeout(limit).discard_on_release(discard))).await;
        for copy in [COPY_IN, "BEGIN; COPY notes FROM STDIN"] {
            let mut session = db.acquire().await.unwrap();
            assert_refused(sqlx::raw_sql(copy).execute(&mut *session).await, copy).await;
            drop(session);
            assert_answers(&db, copy).await;
        }
        resolver.close().await;
    }
}

#[tokio::test]
async fn dropped_query_returns_its_slot_after_the_release_timeout() {
    let (_world, resolver, db) =
        resolver_with_one_connection(|b| b.pool(|p| p.release_timeout(Duration::from_millis(300)))).await;
    let long = sqlx::query("SELECT pg_sleep(60)").execute(&db);
    assert!(tokio::time::timeout(Duration::from_millis(100), long).await.is_err());
    assert_answers(&db, "a query that was dropped and still runs").await;
    resolver.close().await;
}
