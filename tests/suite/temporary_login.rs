//! `temporary_login`: a person gets a login of their own in a tenant's database, for a limited time.
use crate::auditor::{self, code};
use crate::provision::migrated;
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use std::collections::BTreeMap;
use std::time::Duration;
use tenantry::directory::UserStatus;
use tenantry::doctor::Code;
use tenantry::error::ChangeError;
use tenantry::operation::OperationStatus;
use tenantry::registry::TenantRegistry;
use tenantry::temporary_login::TemporaryLogin;
use tenantry::testing::Harness;
use tenantry::{Builder, OperationId, Tenantry, sqlx};
use tokio::time::{Instant, sleep};

fn quick(builder: Builder) -> Builder {
    migrated(builder).lease(Duration::from_secs(2)).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

fn options(login: &TemporaryLogin) -> PgConnectOptions {
    let password = login.password.expose_secret();
    tenantry::testing::connect_options(&login.host, login.port, login.login.as_str(), password, login.database.as_str())
}
async fn connect(login: &TemporaryLogin) -> PgConnection {
    options(login).connect().await.unwrap()
}
async fn refusal(login: &TemporaryLogin) -> String {
    code(&options(login).connect().await.expect_err("the login can still connect"))
}

const WRITE: &str = "INSERT INTO notes (text) VALUES ('by hand')";

async fn count_notes(session: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(session).await.unwrap()
}

/// The temporary logins on the server, each with its connection limit.
async fn on_server(harness: &Harness, tenantry: &Tenantry, slug: &str) -> BTreeMap<String, i32> {
    const LOGINS: &str = "SELECT rolname::text, rolconnlimit FROM pg_roles WHERE rolname LIKE $1 || '\\_t%'";
    let database = auditor::login(tenantry, slug).await.get_database().unwrap().to_owned();
    let mut server = auditor::superuser(harness).await;
    sqlx::query_as(LOGINS).bind(database).fetch_all(&mut server).await.unwrap().into_iter().collect()
}

/// The states of the tenant's temporary logins in the landlord, oldest first.
async fn recorded(tenantry: &Tenantry, slug: &str) -> Vec<UserStatus> {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
    let users = tenantry.registry_writer().users(tenant.id()).await.unwrap();
    users.into_iter().filter(|user| user.is_temporary()).map(|user| user.status).collect()
}

async fn examine(tenantry: &Tenantry) -> Vec<Code> {
    tenantry.doctor().examine().await.unwrap().findings.into_iter().map(|finding| finding.code).collect()
}

async fn start() -> (Harness, Tenantry) {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    (harness, tenantry)
}

#[tokio::test]
async fn temporary_login_reads_and_does_not_write_by_default() {
    let (harness, tenantry) = start().await;
    let login = tenantry.temporary_login("acme").reason("ada: ticket 17").await.unwrap();
    assert!(login.read_only);
    let mut session = connect(&login).await;
    assert_eq!(count_notes(&mut session).await, 0);
    let refused = session.execute(WRITE).await.expect_err("a read-only login has written");
    assert_eq!(code(&refused), "25006", "the reason of the refusal");
    let mut second = connect(&login).await;
    second.ping().await.unwrap();
    assert_eq!(refusal(&login).await, "53300", "the third session of a login for one person");

    let record = tenantry.operations().get(login.operation).await.unwrap().unwrap();
    assert_eq!((record.status, record.reason.as_deref()), (OperationStatus::Done, Some("ada: ticket 17")));
    let now: time::OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(harness.landlord()).await.unwrap();
    let left = login.expires_at - now;
    assert!(left > time::Duration::minutes(13) && left <= time::Duration::minutes(15), "default lifetime: {left}");
}

#[tokio::test]
async fn writable_temporary_login_writes_as_the_application() {
    let (_harness, tenantry) = start().await;
    let login = tenantry.temporary_login("acme").writable().await.unwrap();
    let mut session = connect(&login).await;
    session.execute(WRITE).await.unwrap();
    assert!(!login.read_only);
    let db = tenantry.resolve("acme").await.unwrap();
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&db).await.unwrap();
    assert_eq!(notes, 1, "rows that the application sees");
    let refused =
        session.execute("DROP TABLE notes").await.expect_err("the login has more rights than the application");
    assert_eq!(code(&refused), "42501");
}

#[tokio::test]
async fn any_node_ends_an_expired_login_and_its_open_session() {
    let (harness, tenantry) = start().await;
    let other = harness.tenantry(quick).await.unwrap();
    let login = tenantry.temporary_login("acme").lifetime(Duration::from_secs(1)).await.unwrap();
    let mut session = connect(&login).await;
    tenantry.close().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while recorded(&other, "acme").await != [UserStatus::Dropped] {
        assert!(Instant::now() < deadline, "the login still exists a minute after its expiry");
        other.retire_due().await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(session.execute("SELECT 1").await.is_err(), "the session of an expired login still works");
    assert_eq!(on_server(&harness, &other, "acme").await, BTreeMap::new());
    assert_eq!(refusal(&login).await, "28P01");
}

/// No node runs here, so only PostgreSQL's own clock can refuse the login.
#[tokio::test]
async fn server_refuses_an_expired_login_without_any_node() {
    let (harness, tenantry) = start().await;
    let login = tenantry.temporary_login("acme").lifetime(Duration::from_secs(1)).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Ok(session) = options(&login).connect().await {
        session.close().await.unwrap();
        assert!(Instant::now() < deadline, "the server admits the login a minute after its expiry");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(refusal(&login).await, "28P01");
    assert_eq!(on_server(&harness, &tenantry, "acme").await.len(), 1, "logins on the server: no node has dropped it");
}

#[tokio::test]
async fn suspend_ends_a_temporary_login_and_activate_does_not_bring_it_back() {
    let (harness, tenantry) = start().await;
    let login = tenantry.temporary_login("acme").await.unwrap();
    let mut session = connect(&login).await;
    assert!(tenantry.suspend("acme").await.unwrap().is_complete());
    assert!(session.execute("SELECT 1").await.is_err(), "a session of a suspended tenant still works");
    let refused = tenantry.temporary_login("acme").await;
    assert!(matches!(refused, Err(ChangeError::Status { .. })), "{refused:?}");
    tenantry.activate("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
    assert_eq!(refusal(&login).await, "28000");
    tenantry.end_temporary_login(login.operation).await.unwrap();
    tenantry.archive("acme").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
    auditor::assert_nothing(&harness, "after the purge of a tenant that had a temporary login").await;
}

async fn recover_all(tenantry: &Tenantry) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !tenantry.operations().open().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "operations are still open after a minute of recovery");
        tenantry.operations().recover().await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_drops_the_login_of_a_process_that_died_after_any_step() {
    let (harness, tenantry) = start().await;
    let other = harness.tenantry(quick).await.unwrap();
    for step in ["login.record", "login.create"] {
        let call = tenantry.temporary_login("acme").on_event(move |event| {
            if event.step == step {
                // Unwinds like a panic, but prints no message.
                std::panic::resume_unwind(Box::new("died"));
            }
        });
        let died = call.await.expect_err("the worker dies before the operation ends");
        assert!(matches!(died, ChangeError::Landlord(_)), "{died:?}");
        let open = other.operations().open().await.unwrap();
        assert_eq!(open.len(), 1, "operations that the dead worker has left after {step}");
        recover_all(&other).await;
        let ended = other.operations().get(open[0].id).await.unwrap().unwrap();
        assert_eq!(ended.status, OperationStatus::Undone, "after {step}");
        other.retire_due().await.unwrap();
        assert_eq!(on_server(&harness, &other, "acme").await, BTreeMap::new(), "logins that are left after {step}");
    }
    assert!(recorded(&other, "acme").await.iter().all(|status| *status == UserStatus::Dropped));
    assert_eq!(examine(&other).await, []);
    other.temporary_login("acme").await.unwrap();
}

#[tokio::test]
async fn two_temporary_logins_and_a_rotation_do_not_disturb_each_other() {
    let (harness, tenantry) = start().await;
    let reader = tenantry.temporary_login("acme").await.unwrap();
    let writer = tenantry.temporary_login("acme").writable().await.unwrap();
    assert_ne!(reader.login, writer.login);
    let (mut reading, mut writing) = (connect(&reader).await, connect(&writer).await);
    writing.execute(WRITE).await.unwrap();
    assert_eq!(count_notes(&mut reading).await, 1);
    assert!(reading.execute(WRITE).await.is_err(), "the login of the reader has written");

    let report = tenantry.rotate_all().grace(Duration::from_secs(1)).await.unwrap();
    let left: Vec<_> = report.done.iter().map(|(_, rotated)| &rotated.retiring).collect();
    assert_eq!(left, [&None], "a temporary login is no login that the rotation has replaced");
    writing.execute(WRITE).await.unwrap();
    assert_eq!(count_notes(&mut reading).await, 2);
    let limits = on_server(&harness, &tenantry, "acme").await;
    assert_eq!(limits.into_values().collect::<Vec<_>>(), [2, 2], "connection limits of the temporary logins");
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn password_of_a_temporary_login_is_neither_stored_nor_printed() {
    let (harness, tenantry) = start().await;
    let login = tenantry.temporary_login("acme").key("once").await.unwrap();
    let again = tenantry.temporary_login("acme").key("once").await;
    let other = matches!(again, Err(ChangeError::PasswordNotStored { operation, .. }) if operation == login.operation);
    assert!(other, "a second caller with the same key: {again:?}");
    let password = login.password.expose_secret();
    let hex: String = password.bytes().map(|byte| format!("{byte:02x}")).collect();
    let rows = crate::canary::dump_landlord(&harness).await;
    assert!(rows.contains(login.login.as_str()), "the dump of the landlord does not show the login");
    for (source, text) in [("the landlord", rows), ("Debug output", format!("{login:?} {tenantry:?}"))] {
        assert!(!text.contains(password) && !text.contains(&hex), "the password appears in {source}");
    }
}

#[tokio::test]
async fn doctor_finds_nothing_about_a_temporary_login_and_reports_one_that_nothing_drops() {
    let (harness, tenantry) = start().await;
    let login = tenantry.temporary_login("acme").writable().await.unwrap();
    let mut session = connect(&login).await;
    session.execute(WRITE).await.unwrap();
    assert_eq!(examine(&tenantry).await, []);

    const FAILED: &str =
        "UPDATE tenantry.tenant_database_users SET attempts = 12, retry_at = now() + interval '1 h' WHERE role = $1";
    sqlx::query(FAILED).bind(login.login.as_str()).execute(harness.landlord()).await.unwrap();
    assert_eq!(examine(&tenantry).await, [Code::RetirementOverdue]);

    const LOST: &str = "DELETE FROM tenantry.tenant_database_users WHERE role = $1";
    sqlx::query(LOST).bind(login.login.as_str()).execute(harness.landlord()).await.unwrap();
    assert_eq!(examine(&tenantry).await, [Code::LoginUnrecorded]);
}

#[tokio::test]
async fn temporary_login_refuses_a_bad_lifetime_and_an_unknown_tenant_before_it_writes() {
    let (_harness, tenantry) = start().await;
    for lifetime in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(86_401), Duration::MAX] {
        let refused = tenantry.temporary_login("acme").lifetime(lifetime).await;
        assert!(
            matches!(refused, Err(ChangeError::Lifetime { lifetime: found, .. }) if found == lifetime),
            "{refused:?}"
        );
    }
    assert!(matches!(tenantry.temporary_login("missing").await, Err(ChangeError::Unknown)));
    assert_eq!(recorded(&tenantry, "acme").await, []);
    assert!(tenantry.operations().open().await.unwrap().is_empty());
}

#[tokio::test]
async fn end_temporary_login_ends_its_sessions_and_may_be_repeated() {
    let (harness, tenantry) = start().await;
    let other = harness.tenantry(quick).await.unwrap();
    let [first, second] =
        [tenantry.temporary_login("acme").await.unwrap(), tenantry.temporary_login("acme").await.unwrap()];
    let (mut ended, mut kept) = (connect(&first).await, connect(&second).await);
    for _ in 0..2 {
        other.end_temporary_login(first.operation).await.unwrap();
    }
    assert!(ended.execute("SELECT 1").await.is_err(), "the session of an ended login still works");
    assert_eq!(refusal(&first).await, "28P01");
    kept.execute("SELECT 1").await.unwrap();
    assert_eq!(recorded(&tenantry, "acme").await, [UserStatus::Dropped, UserStatus::Retiring]);
    let rotated = tenantry.rotate("acme").key("r").start().await.unwrap();
    for none in [rotated, OperationId::new()] {
        let refused = tenantry.end_temporary_login(none).await;
        assert!(
            matches!(refused, Err(ChangeError::NoTemporaryLogin { operation, .. }) if operation == none),
            "{refused:?}"
        );
    }
}
