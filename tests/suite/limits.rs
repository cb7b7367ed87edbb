//! The CONNECTION LIMIT of tenants' logins: one tenant cannot use up the connections of its server. The limit is set
//! when a login is created, and corrected by `limit_logins`, by set-up and by a rotation.
use crate::auditor::{self, code};
use crate::provision::{migrated, statement_of};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor, PgConnection};
use std::time::Duration;
use tenantry::pool::AcquireError;
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, Tenantry, sqlx};

/// Limit that follows from `small_pools`: two connections on each of two nodes, and a reserve of three.
const LIMIT: i32 = 7;

fn small_pools(builder: Builder) -> Builder {
    let builder = migrated(builder).max_connections(10).max_connections_per_tenant(2).max_nodes(2);
    builder.acquire_timeout(Duration::from_secs(4))
}

/// Starts a server for one test. `None` if the environment names a server, which takes no settings.
async fn start_server(settings: &[(&str, &str)]) -> Option<&'static TestServer> {
    let builder = settings.iter().fold(TestServer::builder(), |b, (name, value)| b.setting(*name, *value));
    match builder.start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => None,
        started => Some(Box::leak(Box::new(started.unwrap()))),
    }
}

/// Opens sessions until the server refuses one. Returns them and the refusal.
async fn open_all_sessions(login: &PgConnectOptions) -> (Vec<PgConnection>, sqlx::Error) {
    let mut sessions = vec![];
    loop {
        match login.connect().await {
            Ok(session) => sessions.push(session),
            Err(error) => return (sessions, error),
        }
    }
}

/// Connection limit of the login, and whether it may log in.
async fn login_of(harness: &Harness, login: &str) -> (i32, bool) {
    const LOGIN: &str = "SELECT rolconnlimit, rolcanlogin FROM pg_roles WHERE rolname = $1";
    sqlx::query_as(LOGIN).bind(login).fetch_one(&mut auditor::superuser(harness).await).await.unwrap()
}

/// Sets a connection limit, as an operator or an older version of the crate may have done.
async fn set_limit(harness: &Harness, login: &str, limit: i32) {
    let alter = statement_of(format!("ALTER ROLE \"{login}\" CONNECTION LIMIT {limit}"));
    auditor::superuser(harness).await.execute(alter).await.unwrap();
}

/// Provisions a tenant and returns the name of its login.
async fn provision(tenantry: &Tenantry, slug: &str) -> String {
    tenantry.provision(slug).await.unwrap();
    auditor::login(tenantry, slug).await.get_username().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_tenant_cannot_use_up_its_server() {
    let Some(server) = start_server(&[("max_connections", "40")]).await else { return };
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(small_pools).await.unwrap();
    for slug in ["hostile", "acme"] {
        tenantry.provision(slug).await.unwrap();
    }
    let (mut sessions, refused) = open_all_sessions(&auditor::login(&tenantry, "hostile").await).await;
    assert_eq!((code(&refused).as_str(), sessions.len()), ("53300", LIMIT as usize), "{refused:?}");

    let acme = tenantry.resolve("acme").await.unwrap();
    acme.execute("SELECT * FROM notes").await.expect("another tenant can query its database");
    tenantry.provision("umbrella").await.expect("a new tenant can be provisioned");
    let hostile = tenantry.resolve("hostile").await.unwrap();
    let error = hostile.execute("SELECT 1").await.unwrap_err();
    let found = AcquireError::find(&error);
    assert!(
        matches!(found, Some(AcquireError::LoginLimit { limit: LIMIT, sessions, .. }) if *sessions >= i64::from(LIMIT)),
        "the error must name the login's limit: {error:?}"
    );
    tenantry.suspend("hostile").await.expect("the hostile tenant can be suspended");
    for session in &mut sessions {
        session.execute("SELECT 1").await.expect_err("suspend ends the sessions of the hostile tenant");
    }
    let error = acme.execute("SELECT * FROM notes").await.map(drop);
    error.expect("the other tenant still works");
}

/// Before PostgreSQL 16 there is no `reserved_connections`: only a superuser can connect to a full server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_uses_reserved_connections_when_the_server_is_full() {
    if TestServer::shared().await.unwrap().version_num() < 160_000 {
        return;
    }
    let Some(server) = start_server(&[("max_connections", "20"), ("reserved_connections", "5")]).await else { return };
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry_on(server, small_pools).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
    let stranger = server.create_database("stranger").await.unwrap();
    let (_sessions, refused) = open_all_sessions(&stranger.options()).await;
    assert_eq!(code(&refused), "53300", "the server is full: {refused:?}");
    tenantry.suspend("acme").await.expect("the provisioner can use reserved connections");
}

#[tokio::test]
async fn limit_logins_corrects_limits_and_does_not_enable_suspended_logins() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(small_pools).await.unwrap();
    let (acme, asleep) = (provision(&tenantry, "acme").await, provision(&tenantry, "asleep").await);
    tenantry.suspend("asleep").await.unwrap();
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true), "a new login must have the limit");
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 0, 0), "no login differs from its limit");

    set_limit(&harness, &acme, -1).await;
    set_limit(&harness, &asleep, 2).await;
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 2, 0));
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true));
    assert_eq!(login_of(&harness, &asleep).await, (LIMIT, false), "the login of a suspended tenant must stay refused");

    set_limit(&harness, &acme, -1).await;
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).await.unwrap();
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true), "set-up must correct the limit too");
}

#[tokio::test]
async fn limit_logins_skips_a_locked_login_and_corrects_the_others() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(small_pools).await.unwrap();
    let (acme, hostile) = (provision(&tenantry, "acme").await, provision(&tenantry, "hostile").await);
    for login in [&acme, &hostile] {
        set_limit(&harness, login, -1).await;
    }
    let mut locks = auditor::login(&tenantry, "hostile").await.connect().await.unwrap();
    let lock = "BEGIN; SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'";
    locks.execute(sqlx::raw_sql(lock)).await.unwrap();
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 1, 1));
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true));
    locks.execute("ROLLBACK").await.unwrap();
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!(
        (report.seen, report.changed, report.left),
        (2, 1, 0),
        "the next call must correct the login that was locked"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_limits_the_new_login_and_the_old_one() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(small_pools).await.unwrap();
    let old = provision(&tenantry, "acme").await;
    set_limit(&harness, &old, -1).await;
    let in_use = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    let rotation = tokio::spawn({
        let tenantry = tenantry.clone();
        async move { tenantry.rotate("acme").grace(Duration::from_secs(60)).await }
    });
    tokio::time::timeout(Duration::from_secs(20), async {
        while login_of(&harness, &old).await != (LIMIT, true) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the old login gets the limit while it still works");
    drop(in_use);
    rotation.await.unwrap().unwrap();
    let new = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    assert_ne!(new, old);
    assert_eq!(login_of(&harness, &new).await, (LIMIT, true));
}
