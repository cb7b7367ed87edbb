//! What the handles do on a real server.
use super::fakes::{Fakes, known};
use crate::busy::beside_others;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Executor};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tenantry::directory::Generation;
use tenantry::error::ResolveError;
use tenantry::pool::AcquireError;
use tenantry::resolver::{PooledResolver, PooledResolverBuilder};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::testing::server::TestDatabase;
use tenantry::testing::{TestServer, tenant};
use tenantry::{ConnectionResolver, TenantId, TenantPool, sqlx};

/// Tenants that have a database each, and a superuser's session.
pub(crate) struct World {
    fakes: Fakes,
    admin: PgConnection,
}

impl World {
    pub(crate) async fn new() -> Self {
        let admin = TestServer::shared().await.unwrap().admin_options();
        Self { fakes: Fakes::default(), admin: admin.disable_statement_logging().connect().await.unwrap() }
    }
    /// An active tenant with a database and a login of its own.
    pub(crate) async fn tenant(&self, slug: &str) -> TestDatabase {
        let made = TestServer::shared().await.unwrap().create_database("resolved").await.unwrap();
        let tenant = known(&self.fakes, tenant(slug, TenantStatus::Active));
        let url = made.options().to_url_lossy();
        self.point(slug, &made, 1, url.password().unwrap());
        assert_eq!(tenant.slug().as_str(), slug);
        made
    }
    /// The entry of a tenant leads to that login's generation.
    fn point(&self, slug: &str, made: &TestDatabase, generation: i64, password: &str) {
        let options = made.options();
        let credential = self.fakes.entry(slug, |entry| {
            (entry.host, entry.port) = (options.get_host().into(), options.get_port());
            (entry.database, entry.login) = (made.name().parse().unwrap(), made.name().parse().unwrap());
            entry.generation = Generation(generation);
            entry.credential = CredentialId::login(entry.tenant, &entry.database, &entry.login, generation);
            entry.credential.clone()
        });
        self.fakes.secret(credential, password);
    }
    #[expect(clippy::disallowed_methods, reason = "names of the test's own")]
    async fn say(&mut self, sql: String) {
        self.admin.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    }
    /// Sessions in a database.
    async fn sessions(&mut self, made: &TestDatabase) -> i64 {
        const COUNT: &str =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";
        sqlx::query_scalar(COUNT).bind(made.name()).fetch_one(&mut self.admin).await.unwrap()
    }
    pub(crate) async fn sessions_of(&mut self, names: &[String]) -> i64 {
        const COUNT: &str =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY($1) AND backend_type = 'client backend'";
        sqlx::query_scalar(COUNT).bind(names).fetch_one(&mut self.admin).await.unwrap()
    }
    pub(crate) async fn kill_one_of(&mut self, names: &[String]) {
        const KILL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY($1) LIMIT 1";
        sqlx::query(KILL).bind(names).execute(&mut self.admin).await.unwrap();
    }
    async fn gone(&mut self, made: &TestDatabase) {
        for _ in 0..250 {
            if self.sessions(made).await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("sessions are left after 5 s");
    }
    async fn end_sessions(&mut self, made: &TestDatabase) {
        const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(END).bind(made.name()).execute(&mut self.admin).await.unwrap();
        self.gone(made).await;
    }
    pub(crate) fn resolver(&self) -> PooledResolverBuilder {
        self.fakes.resolver()
    }
}

async fn resolve(resolver: &PooledResolver, slug: &str) -> TenantPool {
    resolver.resolve(slug.into()).await.unwrap()
}

async fn shown(db: &TenantPool, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(db).await.unwrap()
}

/// What a query met instead of a connection.
async fn refused(db: &TenantPool) -> AcquireError {
    let error = sqlx::query("SELECT 1").execute(db).await.unwrap_err();
    AcquireError::find(&error).unwrap_or_else(|| panic!("no AcquireError: {error:?}")).clone()
}

#[tokio::test]
async fn sessions_are_as_the_entry_says() {
    let mut world = World::new().await;
    let made = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let plain = resolve(&resolver, "acme").await;
    assert_eq!(world.sessions(&made).await, 0, "resolving opens no connection");
    assert_eq!(shown(&plain, "application_name").await, "tenantry");
    assert_eq!(shown(&plain, "search_path").await, "\"$user\", public");

    world.fakes.entry("acme", |entry| {
        entry.settings.search_path = vec!["a b\\c,\"d\" -c work_mem=1MB".into(), "public".into()];
        entry.settings.application_name = Some("notes of acme".into());
        entry.settings.statement_timeout_ms = Some(61_000);
        entry.settings.lock_timeout_ms = Some(1_500);
        entry.settings.idle_in_transaction_timeout_ms = Some(2_500);
    });
    resolver.invalidate(plain.tenant().id());
    let set = resolve(&resolver, "acme").await;
    assert_eq!(shown(&set, "search_path").await, "\"a b\\c,\"\"d\"\" -c work_mem=1MB\",\"public\"");
    assert_eq!(shown(&set, "application_name").await, "notes of acme");
    assert_eq!(shown(&set, "statement_timeout").await, "61s");
    assert_eq!(shown(&set, "lock_timeout").await, "1500ms");
    assert_eq!(shown(&set, "idle_in_transaction_session_timeout").await, "2500ms");
    assert_eq!(shown(&plain, "application_name").await, "notes of acme", "a handle from before follows");
    resolver.close().await;
}

#[tokio::test]
async fn a_busy_task_gets_its_connection_soon() {
    let world = World::new().await;
    let _made = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolve(&resolver, "acme").await;
    let begun = Instant::now();
    beside_others(db.execute("SELECT 1")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    resolver.close().await;
}

#[tokio::test]
async fn a_password_needs_no_url() {
    let mut world = World::new().await;
    let made = world.tenant("acme").await;
    let password = "p@ss/w?rd:1#%'\" \\ä";
    world.say(format!("ALTER ROLE \"{}\" PASSWORD '{}'", made.name(), password.replace('\'', "''"))).await;
    world.point("acme", &made, 1, password);
    let resolver = world.resolver().build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    assert!(!format!("{db:?} {resolver:?}").contains("p@ss"));
}

#[tokio::test]
async fn a_handle_follows_a_rotation_that_its_node_never_heard_of() {
    let mut world = World::new().await;
    let made = world.tenant("acme").await;
    let resolver = world.resolver().fresh_for(Duration::from_secs(3600)).ping_after(Duration::ZERO).build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    world.say(format!("ALTER ROLE \"{}\" PASSWORD 'second'", made.name())).await;
    world.point("acme", &made, 2, "second");
    let asked = world.fakes.finds.load(SeqCst);
    db.execute("SELECT 1").await.expect("an open connection goes on");
    world.end_sessions(&made).await;
    let queries = (0..20).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { sqlx::query("SELECT 1").execute(&db).await.map(drop) })
    });
    for query in queries.collect::<Vec<_>>() {
        query.await.unwrap().expect("28P01 is no answer to a user");
    }
    let looked = world.fakes.finds.load(SeqCst) - asked;
    assert!((1..=3).contains(&looked), "twenty were refused; the registry was asked {looked} times");
}

#[tokio::test]
async fn a_suspension_reaches_a_handle_by_the_server_and_says_what_it_is() {
    let mut world = World::new().await;
    let made = world.tenant("acme").await;
    let resolver = world.resolver().fresh_for(Duration::from_secs(3600)).ping_after(Duration::ZERO).build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    world.say(format!("ALTER ROLE \"{}\" NOLOGIN", made.name())).await;
    world.end_sessions(&made).await;

    let error = db.execute("SELECT 1").await.unwrap_err();
    assert_eq!(crate::auditor::code(&error), "28000", "the registry says active: the server's word stands");
    let suspended = world.fakes.set_status("acme", TenantStatus::Suspended);
    let reason = refused(&db).await;
    assert!(matches!(&reason, AcquireError::Refused(ResolveError::Suspended(t)) if *t == suspended), "{reason:?}");
    assert!(matches!(resolver.resolve("acme".into()).await, Err(ResolveError::Suspended(_))));

    world.say(format!("ALTER ROLE \"{}\" LOGIN", made.name())).await;
    world.fakes.set_status("acme", TenantStatus::Active);
    db.execute("SELECT 1").await.expect("the handle works again");
}

#[tokio::test]
async fn a_handle_outlives_the_eviction_of_its_pool() {
    let mut world = World::new().await;
    let slugs = ["acme", "umbrella", "initech"];
    let mut made = vec![];
    for slug in slugs {
        made.push(world.tenant(slug).await);
    }
    let resolver = world.resolver().max_connections(2).max_connections_per_tenant(2).max_cached(2).build();
    let mut handles = vec![];
    for slug in slugs {
        handles.push(resolve(&resolver, slug).await);
    }
    assert!(format!("{resolver:?}").contains("pools: 2"), "{resolver:?}");
    for _ in 0..3 {
        for (db, made) in handles.iter().zip(&made) {
            let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(db).await.unwrap();
            assert_eq!(name, made.name(), "the right tenant's");
        }
    }
    world.gone(&made[0]).await;
    let _used = handles[0].acquire().await.unwrap();
    for (db, made) in handles.iter().zip(&made).skip(1) {
        db.execute("SELECT 1").await.unwrap();
        assert_eq!(world.sessions(made).await, 1);
    }
    let (_, stats) = &resolver.stats()[0];
    assert!(stats.open <= 2 && stats.steals > 0, "{stats:?}");
    resolver.invalidate(TenantId::new());
}

#[tokio::test]
async fn who_waits_too_long_is_told_for_how_long() {
    let world = World::new().await;
    world.tenant("acme").await;
    let limit = Duration::from_secs(2);
    let resolver = world.resolver().max_connections_per_tenant(1).acquire_timeout(limit).build();
    let db = resolve(&resolver, "acme").await;
    let held = db.begin().await.unwrap();
    let clock = Instant::now();
    let reason = refused(&db).await;
    assert!(matches!(reason, AcquireError::PoolExhausted { waited, .. } if waited >= limit), "{reason:?}");
    assert!(reason.retry_after().is_some() && clock.elapsed() < limit * 10, "{:?}", clock.elapsed());
    let mut waiting = Box::pin(db.acquire());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    held.rollback().await.unwrap();
    db.execute("SELECT 1").await.expect("who gave up took no place with him");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_waited_for_as_long_as_was_said() {
    let world = World::new().await;
    known(&world.fakes, tenant("acme", TenantStatus::Active));
    let resolver = world.resolver().acquire_timeout(Duration::from_millis(200)).build();
    let reason = refused(&resolve(&resolver, "acme").await).await;
    assert!(matches!(reason, AcquireError::ConnectTimeout { .. }), "{reason:?}");
}

#[tokio::test]
async fn close_waits_for_what_is_out_and_leaves_nothing() {
    let mut world = World::new().await;
    let made = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let closing = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.close().await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!closing.is_finished() && matches!(refused(&db).await, AcquireError::Closed));
    tx.execute("SELECT 1").await.expect("what is out may finish");
    tx.commit().await.unwrap();
    closing.await.unwrap();
    world.gone(&made).await;
}

#[tokio::test]
async fn close_waits_no_longer_than_it_was_told() {
    let mut world = World::new().await;
    let made = world.tenant("acme").await;
    let resolver = world.resolver().drain_timeout(Duration::from_millis(200)).build();
    let db = resolve(&resolver, "acme").await;
    let mut kept = db.acquire().await.unwrap();
    let clock = Instant::now();
    resolver.close().await;
    assert!((200..20_000).contains(&clock.elapsed().as_millis()), "{:?}", clock.elapsed());
    kept.execute("SELECT 1").await.unwrap();
    drop(kept);
    world.gone(&made).await;
}
