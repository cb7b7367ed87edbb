//! CONNECTION LIMIT of the tenants' logins: one tenant cannot use up its server.
use crate::auditor::{self, code};
use crate::provision::{migrated, statement_of};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor, PgConnection};
use std::time::Duration;
use tenantry::pool::AcquireError;
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, Tenantry, sqlx};

/// Two connections on each of two nodes, and three more.
const LIMIT: i32 = 7;

fn small(builder: Builder) -> Builder {
    let builder = migrated(builder).max_connections(10).max_connections_per_tenant(2).max_nodes(2);
    builder.acquire_timeout(Duration::from_secs(4))
}

/// A server of the test's own; `None` where the environment names one that takes no settings.
async fn server(settings: &[(&str, &str)]) -> Option<&'static TestServer> {
    let builder = settings.iter().fold(TestServer::builder(), |b, (name, value)| b.setting(*name, *value));
    match builder.start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => None,
        started => Some(Box::leak(Box::new(started.unwrap()))),
    }
}

/// As many sessions as the server gives to this login, and why it gives no more.
async fn open_all_sessions(login: &PgConnectOptions) -> (Vec<PgConnection>, sqlx::Error) {
    let mut sessions = vec![];
    loop {
        match login.connect().await {
            Ok(session) => sessions.push(session),
            Err(error) => return (sessions, error),
        }
    }
}

/// The limit of a login, and whether it may log in.
async fn login_of(harness: &Harness, login: &str) -> (i32, bool) {
    const LOGIN: &str = "SELECT rolconnlimit, rolcanlogin FROM pg_roles WHERE rolname = $1";
    sqlx::query_as(LOGIN).bind(login).fetch_one(&mut auditor::superuser(harness).await).await.unwrap()
}

/// What a person does to a login, or an older version left it as.
async fn alter(harness: &Harness, login: &str, limit: i32) {
    let alter = statement_of(format!("ALTER ROLE \"{login}\" CONNECTION LIMIT {limit}"));
    auditor::superuser(harness).await.execute(alter).await.unwrap();
}

async fn provision(tenantry: &Tenantry, slug: &str) -> String {
    tenantry.provision(slug).await.unwrap();
    auditor::login(tenantry, slug).await.get_username().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_tenant_cannot_use_up_its_server() {
    let Some(server) = server(&[("max_connections", "40")]).await else { return };
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(small).await.unwrap();
    for slug in ["hostile", "acme"] {
        tenantry.provision(slug).await.unwrap();
    }
    let (mut sessions, refused) = open_all_sessions(&auditor::login(&tenantry, "hostile").await).await;
    assert_eq!((code(&refused).as_str(), sessions.len()), ("53300", LIMIT as usize), "{refused:?}");

    let acme = tenantry.resolve("acme").await.unwrap();
    acme.execute("SELECT * FROM notes").await.expect("another tenant works");
    tenantry.provision("umbrella").await.expect("a new tenant is made");
    let hostile = tenantry.resolve("hostile").await.unwrap();
    let error = hostile.execute("SELECT 1").await.unwrap_err();
    let found = AcquireError::find(&error);
    assert!(
        matches!(found, Some(AcquireError::LoginLimit { limit: LIMIT, sessions, .. }) if *sessions >= i64::from(LIMIT)),
        "the error names the login's limit: {error:?}"
    );
    tenantry.suspend("hostile").await.expect("it is suspended");
    for session in &mut sessions {
        session.execute("SELECT 1").await.expect_err("its sessions have ended");
    }
    let error = acme.execute("SELECT * FROM notes").await.map(drop);
    error.expect("the other tenant still works");
}

/// Before 16 only a superuser can connect to a server that another role has filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_uses_reserved_connections_when_the_server_is_full() {
    if TestServer::shared().await.unwrap().version_num() < 160_000 {
        return;
    }
    let Some(server) = server(&[("max_connections", "20"), ("reserved_connections", "5")]).await else { return };
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry_on(server, small).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
    let stranger = server.create_database("stranger").await.unwrap();
    let (_sessions, refused) = open_all_sessions(&stranger.options()).await;
    assert_eq!(code(&refused), "53300", "the server is full: {refused:?}");
    tenantry.suspend("acme").await.expect("the provisioner has connections of its own");
}

#[tokio::test]
async fn limit_logins_alters_what_differs_and_opens_no_suspended_login() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(small).await.unwrap();
    let (acme, asleep) = (provision(&tenantry, "acme").await, provision(&tenantry, "asleep").await);
    tenantry.suspend("asleep").await.unwrap();
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true), "as it was made");
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 0, 0), "nothing differs");

    alter(&harness, &acme, -1).await;
    alter(&harness, &asleep, 2).await;
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 2, 0));
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true));
    assert_eq!(login_of(&harness, &asleep).await, (LIMIT, false), "a suspended tenant stays so");

    alter(&harness, &acme, -1).await;
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).await.unwrap();
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true), "set-up looks too");
}

#[tokio::test]
async fn limit_logins_leaves_a_login_whose_row_is_locked_and_goes_on_with_the_others() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(small).await.unwrap();
    let (acme, hostile) = (provision(&tenantry, "acme").await, provision(&tenantry, "hostile").await);
    for login in [&acme, &hostile] {
        alter(&harness, login, -1).await;
    }
    let mut locks = auditor::login(&tenantry, "hostile").await.connect().await.unwrap();
    let lock = "BEGIN; SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'";
    locks.execute(sqlx::raw_sql(lock)).await.unwrap();
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 1, 1));
    assert_eq!(login_of(&harness, &acme).await, (LIMIT, true));
    locks.execute("ROLLBACK").await.unwrap();
    let report = tenantry.servers().limit_logins().await.unwrap();
    assert_eq!((report.seen, report.changed, report.left), (2, 1, 0), "the next pass gets it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_limits_the_new_login_and_the_old_one() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(small).await.unwrap();
    let old = provision(&tenantry, "acme").await;
    alter(&harness, &old, -1).await;
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
    .expect("the old login, which still works, has the limit too");
    drop(in_use);
    rotation.await.unwrap().unwrap();
    let new = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    assert_ne!(new, old);
    assert_eq!(login_of(&harness, &new).await, (LIMIT, true));
}
