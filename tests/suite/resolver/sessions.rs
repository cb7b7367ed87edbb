//! Handles (`TenantPool`) of a `PooledResolver` against real databases: session settings, changed logins, eviction,
//! close.
//!
//! [`ResolverSetup`] is a fake registry whose entries lead to databases on the shared server.
use super::fakes::{Fakes, add_tenant};
use crate::busy::beside_others;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Executor};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tenantry::directory::{Generation, TenantDatabase};
use tenantry::error::ResolveError;
use tenantry::pool::AcquireError;
use tenantry::resolver::{PooledResolver, PooledResolverBuilder};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::testing::server::TestDatabase;
use tenantry::testing::{TestServer, tenant};
use tenantry::{ConnectionResolver, TenantId, TenantPool, sqlx};

/// Tenants with a database each on the shared server, in a fake registry, and a session of the superuser.
pub(crate) struct ResolverSetup {
    fakes: Fakes,
    admin: PgConnection,
}

impl ResolverSetup {
    pub(crate) async fn new() -> Self {
        let admin = TestServer::shared().await.unwrap().admin_options();
        Self { fakes: Fakes::default(), admin: admin.disable_statement_logging().connect().await.unwrap() }
    }
    /// An active tenant with a database and a login of its own.
    pub(crate) async fn tenant(&self, slug: &str) -> TestDatabase {
        let database = TestServer::shared().await.unwrap().create_database("resolved").await.unwrap();
        let tenant = add_tenant(&self.fakes, tenant(slug, TenantStatus::Active));
        let url = database.options().to_url_lossy();
        self.point_entry_at(slug, &database, 1, url.password().unwrap());
        assert_eq!(tenant.slug().as_str(), slug);
        database
    }
    /// Makes the tenant's entry lead to this database, with this generation and password of its login.
    fn point_entry_at(&self, slug: &str, database: &TestDatabase, generation: i64, password: &str) {
        let options = database.options();
        let credential = self.fakes.entry(slug, |entry| {
            (entry.host, entry.port) = (options.get_host().into(), options.get_port());
            (entry.database, entry.login) = (database.name().parse().unwrap(), database.name().parse().unwrap());
            entry.generation = Generation(generation);
            entry.credential = CredentialId::login(entry.tenant, &entry.database, &entry.login, generation);
            entry.credential.clone()
        });
        self.fakes.secret(credential, password);
    }
    #[expect(clippy::disallowed_methods, reason = "names of the test's own")]
    /// Runs a statement as the superuser.
    async fn execute_as_superuser(&mut self, sql: String) {
        self.admin.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.unwrap();
    }
    /// Client sessions that are connected to this database.
    async fn sessions(&mut self, database: &TestDatabase) -> i64 {
        const COUNT: &str =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'";
        sqlx::query_scalar(COUNT).bind(database.name()).fetch_one(&mut self.admin).await.unwrap()
    }
    /// Client sessions that are connected to one of these databases.
    pub(crate) async fn sessions_of(&mut self, names: &[String]) -> i64 {
        const COUNT: &str =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY($1) AND backend_type = 'client backend'";
        sqlx::query_scalar(COUNT).bind(names).fetch_one(&mut self.admin).await.unwrap()
    }
    /// Terminates one session of one of these databases.
    pub(crate) async fn kill_one_of(&mut self, names: &[String]) {
        const KILL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY($1) LIMIT 1";
        sqlx::query(KILL).bind(names).execute(&mut self.admin).await.unwrap();
    }
    /// Waits until the database has no session; panics after 30 s.
    pub(crate) async fn wait_until_no_session(&mut self, database: &TestDatabase) {
        self.wait_until_no_session_of(&[database.name().to_owned()]).await;
    }
    /// Waits until none of these databases has a session; panics after 30 s. A busy server ends its processes some time
    /// after the client has closed the connection.
    pub(crate) async fn wait_until_no_session_of(&mut self, names: &[String]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.sessions_of(names).await > 0 {
            assert!(Instant::now() < deadline, "databases {names:?} still have sessions after 30 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    /// Terminates all sessions of the database.
    async fn end_sessions(&mut self, database: &TestDatabase) {
        const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(END).bind(database.name()).execute(&mut self.admin).await.unwrap();
        self.wait_until_no_session(database).await;
    }
    /// Changes the tenant's entry. The resolver reads it when it next resolves the tenant.
    pub(crate) fn change_entry(&self, slug: &str, change: impl FnOnce(&mut TenantDatabase)) {
        self.fakes.entry(slug, change);
    }
    pub(crate) fn resolver(&self) -> PooledResolverBuilder {
        self.fakes.resolver()
    }
}

async fn resolve(resolver: &PooledResolver, slug: &str) -> TenantPool {
    resolver.resolve(slug.into()).await.unwrap()
}

/// The value of a PostgreSQL setting in a session of this handle.
async fn setting(db: &TenantPool, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(db).await.unwrap()
}

/// The error that a query gets instead of a connection.
async fn acquire_error(db: &TenantPool) -> AcquireError {
    let error = sqlx::query("SELECT 1").execute(db).await.unwrap_err();
    AcquireError::find(&error).unwrap_or_else(|| panic!("the query failed without an AcquireError: {error:?}")).clone()
}

#[tokio::test]
async fn sessions_have_the_settings_of_the_entry() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let plain = resolve(&resolver, "acme").await;
    assert_eq!(world.sessions(&database).await, 0, "resolve() opened a connection");
    assert_eq!(setting(&plain, "application_name").await, "tenantry");
    assert_eq!(setting(&plain, "search_path").await, "\"$user\", public");

    world.fakes.entry("acme", |entry| {
        entry.settings.search_path = vec!["a b\\c,\"d\" -c work_mem=1MB".into(), "public".into()];
        entry.settings.application_name = Some("notes of acme".into());
        entry.settings.statement_timeout_ms = Some(61_000);
        entry.settings.lock_timeout_ms = Some(1_500);
        entry.settings.idle_in_transaction_timeout_ms = Some(2_500);
    });
    resolver.invalidate(plain.tenant().id());
    let set = resolve(&resolver, "acme").await;
    assert_eq!(setting(&set, "search_path").await, "\"a b\\c,\"\"d\"\" -c work_mem=1MB\",\"public\"");
    assert_eq!(setting(&set, "application_name").await, "notes of acme");
    assert_eq!(setting(&set, "statement_timeout").await, "61s");
    assert_eq!(setting(&set, "lock_timeout").await, "1500ms");
    assert_eq!(setting(&set, "idle_in_transaction_session_timeout").await, "2500ms");
    assert_eq!(
        setting(&plain, "application_name").await,
        "notes of acme",
        "a handle from before the change does not use the new settings"
    );
    resolver.close().await;
}

#[tokio::test]
async fn task_on_a_busy_thread_gets_a_connection_soon() {
    let world = ResolverSetup::new().await;
    let _made = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolve(&resolver, "acme").await;
    let begun = Instant::now();
    beside_others(db.execute("SELECT 1")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    resolver.close().await;
}

#[tokio::test]
async fn password_with_special_characters_connects() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let password = "p@ss/w?rd:1#%'\" \\ä";
    world
        .execute_as_superuser(format!("ALTER ROLE \"{}\" PASSWORD '{}'", database.name(), password.replace('\'', "''")))
        .await;
    world.point_entry_at("acme", &database, 1, password);
    let resolver = world.resolver().build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    assert!(!format!("{db:?} {resolver:?}").contains("p@ss"));
}

#[tokio::test]
async fn handle_follows_a_rotation_without_a_notification() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().pool(|p| p.fresh_for(Duration::from_secs(3600)).ping_after(Duration::ZERO)).build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    world.execute_as_superuser(format!("ALTER ROLE \"{}\" PASSWORD 'second'", database.name())).await;
    world.point_entry_at("acme", &database, 2, "second");
    let finds_before = world.fakes.finds.load(SeqCst);
    db.execute("SELECT 1").await.expect("a rotation broke an open connection");
    world.end_sessions(&database).await;
    let queries = (0..20).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { sqlx::query("SELECT 1").execute(&db).await.map(drop) })
    });
    for query in queries.collect::<Vec<_>>() {
        query.await.unwrap().expect("a query failed instead of using the new login");
    }
    let lookups = world.fakes.finds.load(SeqCst) - finds_before;
    assert!((1..=3).contains(&lookups), "twenty refused queries caused {lookups} registry calls");
}

#[tokio::test]
async fn suspended_login_makes_a_handle_report_the_suspension() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().pool(|p| p.fresh_for(Duration::from_secs(3600)).ping_after(Duration::ZERO)).build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    world.execute_as_superuser(format!("ALTER ROLE \"{}\" NOLOGIN", database.name())).await;
    world.end_sessions(&database).await;

    let error = db.execute("SELECT 1").await.unwrap_err();
    assert_eq!(
        crate::auditor::code(&error),
        "28000",
        "while the registry says active, the handle returns the error of PostgreSQL"
    );
    let suspended = world.fakes.set_status("acme", TenantStatus::Suspended);
    let reason = acquire_error(&db).await;
    assert!(matches!(&reason, AcquireError::Refused(ResolveError::Suspended(t)) if *t == suspended), "{reason:?}");
    assert!(matches!(resolver.resolve("acme".into()).await, Err(ResolveError::Suspended(_))));

    world.execute_as_superuser(format!("ALTER ROLE \"{}\" LOGIN", database.name())).await;
    world.fakes.set_status("acme", TenantStatus::Active);
    db.execute("SELECT 1").await.expect("the handle does not work after the activation");
}

#[tokio::test]
async fn handle_works_after_the_eviction_of_its_pool() {
    let mut world = ResolverSetup::new().await;
    let slugs = ["acme", "umbrella", "initech"];
    let mut databases = vec![];
    for slug in slugs {
        databases.push(world.tenant(slug).await);
    }
    let resolver = world.resolver().max_connections(2).max_connections_per_tenant(2).pool(|p| p.max_cached(2)).build();
    let mut handles = vec![];
    for slug in slugs {
        handles.push(resolve(&resolver, slug).await);
    }
    assert!(format!("{resolver:?}").contains("pools: 2"), "{resolver:?}");
    for _ in 0..3 {
        for (db, database) in handles.iter().zip(&databases) {
            let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(db).await.unwrap();
            assert_eq!(name, database.name(), "a handle reached the database of another tenant");
        }
    }
    world.wait_until_no_session(&databases[0]).await;
    let _used = handles[0].acquire().await.unwrap();
    for (db, database) in handles.iter().zip(&databases).skip(1) {
        db.execute("SELECT 1").await.unwrap();
        assert_eq!(world.sessions(database).await, 1);
    }
    let (_, stats) = &resolver.stats()[0];
    assert!(stats.open <= 2 && stats.evictions > 0, "{stats:?}");
    resolver.invalidate(TenantId::new());
}

#[tokio::test]
async fn acquire_timeout_reports_how_long_the_caller_waited() {
    let world = ResolverSetup::new().await;
    world.tenant("acme").await;
    let limit = Duration::from_secs(2);
    let resolver = world.resolver().max_connections_per_tenant(1).acquire_timeout(limit).build();
    let db = resolve(&resolver, "acme").await;
    let blocking = db.begin().await.unwrap();
    let clock = Instant::now();
    let reason = acquire_error(&db).await;
    assert!(matches!(reason, AcquireError::PoolExhausted { waited, .. } if waited >= limit), "{reason:?}");
    assert!(reason.retry_after().is_some() && clock.elapsed() < limit * 10, "{:?}", clock.elapsed());
    let mut waiting = Box::pin(db.acquire());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(waiting);
    blocking.rollback().await.unwrap();
    db.execute("SELECT 1").await.expect("a dropped waiter kept the slot");
}

#[tokio::test]
async fn unreachable_server_fails_with_connect_timeout() {
    let world = ResolverSetup::new().await;
    add_tenant(&world.fakes, tenant("acme", TenantStatus::Active));
    let resolver = world.resolver().acquire_timeout(Duration::from_millis(200)).build();
    let reason = acquire_error(&resolve(&resolver, "acme").await).await;
    assert!(matches!(reason, AcquireError::ConnectTimeout { .. }), "{reason:?}");
}

#[tokio::test]
async fn close_waits_for_connections_in_use_and_closes_all() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolve(&resolver, "acme").await;
    db.execute("SELECT 1").await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let closing = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.close().await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!closing.is_finished() && matches!(acquire_error(&db).await, AcquireError::Closed));
    tx.execute("SELECT 1").await.expect("close() broke a transaction in progress");
    tx.commit().await.unwrap();
    closing.await.unwrap();
    world.wait_until_no_session(&database).await;
}

#[tokio::test]
async fn close_waits_no_longer_than_the_drain_timeout() {
    let mut world = ResolverSetup::new().await;
    let database = world.tenant("acme").await;
    let resolver = world.resolver().pool(|p| p.drain_timeout(Duration::from_millis(200))).build();
    let db = resolve(&resolver, "acme").await;
    let mut in_use = db.acquire().await.unwrap();
    let clock = Instant::now();
    resolver.close().await;
    assert!((200..20_000).contains(&clock.elapsed().as_millis()), "{:?}", clock.elapsed());
    in_use.execute("SELECT 1").await.unwrap();
    drop(in_use);
    world.wait_until_no_session(&database).await;
}
