//! `&TenantPool` works wherever generic sqlx code takes `&PgPool`: as an executor, to acquire connections and
//! transactions, for streams and migrations, and inside spawned (`Send`) futures.
use crate::resolver::fakes;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{Acquire, Connection, Executor, PgExecutor, Postgres, Transaction};
use tenantry::tenant::TenantStatus;
use tenantry::testing::{TestServer, tenant};
use tenantry::{ConnectionResolver, TenantPool, sqlx};

async fn select_with_executor<'e>(e: impl Executor<'e, Database = Postgres>) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT 1").fetch_one(e).await
}
async fn select_with_acquire<'a>(a: impl Acquire<'a, Database = Postgres>) -> sqlx::Result<i32> {
    let mut connection = a.acquire().await?;
    sqlx::query_scalar("SELECT 1").fetch_one(&mut *connection).await
}
/// An `async fn` with an `impl Acquire` argument does not compile in a spawned future that passes `&mut *tx`, not even
/// with sqlx's own pool (sqlx#1015). This form compiles.
#[expect(clippy::manual_async_fn, reason = "the form that can be spawned")]
fn select_in_spawnable<'a, 'c: 'a>(
    a: impl Acquire<'c, Database = Postgres> + Send + 'a,
) -> impl Future<Output = sqlx::Result<i32>> + Send + 'a {
    async move {
        let mut connection = a.acquire().await?;
        sqlx::query_scalar("SELECT 1").fetch_one(&mut *connection).await
    }
}
async fn select_twice<'e, E: PgExecutor<'e> + Copy>(e: E) -> sqlx::Result<i32> {
    Ok(select_with_executor(e).await? + select_with_executor(e).await?)
}
struct Repository<P>(P);
impl<P> Repository<P>
where
    for<'c> &'c P: PgExecutor<'c>,
{
    async fn select(&self) -> sqlx::Result<i32> {
        select_with_executor(&self.0).await
    }
}
/// The stream outlives the reference that it is made from, as with `&PgPool`.
fn stream_rows(db: &TenantPool) -> BoxStream<'static, sqlx::Result<PgRow>> {
    sqlx::query("SELECT generate_series(1, 10000)").fetch(db)
}

async fn create_pool(pool: PgPoolOptions) -> (PgPool, TenantPool) {
    let made = TestServer::shared().await.unwrap().create_database("drop_in").await.unwrap();
    let pool = pool.connect_with(made.options()).await.unwrap();
    let db = TenantPool::from_pool(tenant("acme", TenantStatus::Active), pool.clone());
    db.execute("CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, text text NOT NULL)").await.unwrap();
    (pool, db)
}

async fn count(db: &TenantPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(db).await.unwrap()
}

/// Options of a pool with one connection: if code does not return it, the next acquire times out and the test fails.
fn single_connection() -> PgPoolOptions {
    PgPoolOptions::new().max_connections(1).acquire_timeout(std::time::Duration::from_secs(5))
}

#[tokio::test]
async fn tenant_pool_replaces_pg_pool_in_a_spawned_task() {
    let (_, db) = create_pool(single_connection()).await;
    tokio::spawn(async move {
        assert_eq!(
            (select_with_executor(&db).await?, select_with_acquire(&db).await?, select_in_spawnable(&db).await?),
            (1, 1, 1)
        );
        assert_eq!((select_twice(&db).await?, Repository(db.clone()).select().await?), (2, 1));
        let mut connection = db.acquire().await?;
        assert_eq!(
            (select_with_executor(&mut *connection).await?, select_in_spawnable(&mut *connection).await?),
            (1, 1)
        );
        Ok::<_, sqlx::Error>(())
    })
    .await
    .unwrap()
    .unwrap();
}

#[tokio::test]
async fn tenant_pool_supports_every_query_method() {
    let (_, db) = create_pool(single_connection()).await;
    let done =
        sqlx::query("INSERT INTO notes (text) VALUES ($1), ($2)").bind("a").bind("b").execute(&db).await.unwrap();
    assert_eq!(done.rows_affected(), 2);
    let found =
        sqlx::query_as::<_, (i32, String)>("SELECT id, text FROM notes ORDER BY id").fetch_all(&db).await.unwrap();
    assert_eq!(found[1].1, "b");
    let none = sqlx::query_as::<_, (i32,)>("SELECT id FROM notes WHERE false").fetch_optional(&db).await.unwrap();
    assert_eq!(none, None);
    let missing = sqlx::query("SELECT id FROM notes WHERE false").fetch_one(&db).await;
    assert!(matches!(missing, Err(sqlx::Error::RowNotFound)));
    sqlx::raw_sql("INSERT INTO notes (text) VALUES ('c'); INSERT INTO notes (text) VALUES ('d')")
        .execute(&db)
        .await
        .unwrap();
    let mut builder = sqlx::QueryBuilder::<Postgres>::new("INSERT INTO notes (text) ");
    builder.push_values(["e", "f"], |mut row, text| {
        row.push_bind(text);
    });
    builder.build().execute(&db).await.unwrap();
    assert_eq!(count(&db).await, 6);
    let statement = db.prepare(sqlx::SqlStr::from_static("SELECT text FROM notes WHERE id = $1")).await.unwrap();
    let text: String = sqlx::Statement::query_scalar(&statement).bind(3).fetch_one(&db).await.unwrap();
    assert_eq!(text, "c");
    let many = sqlx::raw_sql("SELECT 1; SELECT 2").fetch_many(&db).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(many.len(), 4, "two rows and two results");
    let wrong = sqlx::query("SELECT nothing").execute(&db).await.unwrap_err();
    assert_eq!(crate::auditor::code(&wrong), "42703", "the error must carry PostgreSQL's SQLSTATE");
    assert_eq!(count(&db).await, 6, "the connection must still work after an error");
}

#[tokio::test]
async fn describe_returns_the_columns_of_a_query() {
    let (_, db) = create_pool(single_connection()).await;
    let described =
        (&db).describe(sqlx::SqlStr::from_static("SELECT id, text FROM notes WHERE id = $1")).await.unwrap();
    assert_eq!(described.columns().len(), 2);
}

#[tokio::test]
async fn transactions_commit_roll_back_and_nest() {
    let (_, db) = create_pool(single_connection()).await;
    let mut tx: Transaction<'static, Postgres> = db.begin().await.unwrap();
    let add = "INSERT INTO notes (text) VALUES ('x')";
    tx.execute(add).await.unwrap();
    assert_eq!((select_with_executor(&mut *tx).await.unwrap(), select_in_spawnable(&mut *tx).await.unwrap()), (1, 1));
    let mut kept = tx.begin().await.unwrap();
    kept.execute(add).await.unwrap();
    kept.commit().await.unwrap();
    let mut undone = Acquire::begin(&mut *tx).await.unwrap();
    undone.execute(add).await.unwrap();
    undone.rollback().await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 2);
    let mut dropped = db.begin().await.unwrap();
    dropped.execute(add).await.unwrap();
    drop(dropped);
    assert_eq!(count(&db).await, 2, "a dropped transaction must be rolled back");
    let (connection, transaction) = acquire_static(&db).await.unwrap();
    drop((connection, transaction));
}

/// Calls the methods of the trait, not the inherent ones. They return sqlx's own types, without a borrow of the pool.
async fn acquire_static(db: &TenantPool) -> sqlx::Result<(PoolConnection<Postgres>, Transaction<'static, Postgres>)> {
    let connection = <&TenantPool as Acquire<'static>>::acquire(db).await?;
    drop(connection);
    let transaction = <&TenantPool as Acquire<'static>>::begin(db).await?;
    transaction.rollback().await?;
    Ok((<&TenantPool as Acquire<'static>>::acquire(db).await?, {
        let (_, other) = create_pool(single_connection()).await;
        <&TenantPool as Acquire<'static>>::begin(&other).await?
    }))
}

#[tokio::test]
async fn stream_dropped_half_read_returns_its_connection() {
    let (pool, db) = create_pool(single_connection()).await;
    for _ in 0..3 {
        let mut half = stream_rows(&db);
        for _ in 0..5 {
            half.next().await.unwrap().unwrap();
        }
        assert_eq!(pool.num_idle(), 0, "the connection must be in use while the stream exists");
        drop(half);
        assert_eq!(
            select_with_executor(&db).await.unwrap(),
            1,
            "the connection must be usable after the stream was dropped"
        );
    }
    assert_eq!(stream_rows(&db).try_collect::<Vec<_>>().await.unwrap().len(), 10_000);
    let stream = (&db).fetch("SELECT 1");
    let owned: Vec<PgRow> = tokio::spawn(stream.try_collect()).await.unwrap().unwrap();
    assert_eq!((owned.len(), pool.size()), (1, 1));
}

#[tokio::test]
async fn copy_and_listen_work_on_an_acquired_connection() {
    let (_, db) = create_pool(single_connection().max_connections(2)).await;
    let mut connection = db.acquire().await.unwrap();
    let mut copy = connection.copy_in_raw("COPY notes (text) FROM STDIN").await.unwrap();
    copy.send(b"a\nb\nc\n".as_slice()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 3);
    let out = connection.copy_out_raw("COPY notes (text) TO STDOUT").await.unwrap();
    let out: Vec<_> = out.try_collect().await.unwrap();
    assert_eq!(out.concat(), b"a\nb\nc\n");
    connection.execute("LISTEN news").await.unwrap();
    db.execute("NOTIFY news").await.unwrap();
    connection.ping().await.unwrap();
    connection.close().await.unwrap();
    assert_eq!(count(&db).await, 3);
}

#[tokio::test]
async fn migrations_run_on_a_tenant_pool() {
    let (_, db) = create_pool(single_connection().max_connections(2)).await;
    db.execute("DROP TABLE notes").await.unwrap();
    for _ in 0..2 {
        crate::provision::MIGRATIONS.run(&db).await.unwrap();
    }
    tokio::spawn(async move {
        sqlx::migrate!("examples/tenant_migrations").run(&db).await.unwrap();
        assert_eq!(count(&db).await, 0);
    })
    .await
    .unwrap();
}

/// A resolved handle, whose connections the resolver opens, supports what a `TenantPool` over a plain pool supports.
#[tokio::test]
async fn resolved_handle_supports_queries_transactions_and_migrations() {
    let made = TestServer::shared().await.unwrap().create_database("drop_in").await.unwrap();
    let (fakes, _) = fakes::active("acme");
    fakes.entry("acme", |entry| {
        let options = made.options();
        (entry.host, entry.port) = (options.get_host().into(), options.get_port());
        (entry.database, entry.login) = (made.name().parse().unwrap(), made.name().parse().unwrap());
    });
    let url = sqlx::ConnectOptions::to_url_lossy(&made.options());
    fakes.secret(fakes.entry("acme", |entry| entry.credential.clone()), url.password().unwrap());
    let resolver = fakes.resolver().max_connections_per_tenant(1).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    sqlx::migrate!("examples/tenant_migrations").run(&db).await.unwrap();
    assert_eq!((select_twice(&db).await.unwrap(), select_in_spawnable(&db).await.unwrap()), (2, 1));
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO notes (text) VALUES ('x')").await.unwrap();
    tx.commit().await.unwrap();
    let mut half = stream_rows(&db);
    half.next().await.unwrap().unwrap();
    drop(half);
    assert_eq!(count(&db).await, 1);
    let reads: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&db.read()).await.unwrap();
    assert_eq!(reads, 1);
    resolver.close().await;
}
