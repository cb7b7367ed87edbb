//! A hostile tenant that runs SQL of its own as its login: it cannot escape a suspension, and it cannot obstruct
//! operations on other tenants. The servers allow prepared transactions, because no session exists that the crate could
//! terminate to end one.
use crate::auditor::{self, code};
use crate::fail_closed::{primary_entry, run_sql};
use crate::obstacles::{impatient, recovered, server, told};
use crate::provision::migrated;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use std::time::{Duration, Instant};
use tenantry::lifecycle::ShutOut;
use tenantry::tenant::TenantStatus;
use tenantry::testing::server::ServerKind;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, Tenantry, sqlx};

/// Time within which a suspension must answer, on a machine that runs other tests too. The README promises one second,
/// which the benchmark measures.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// Tenants on a server of their own.
pub(crate) struct Fixture {
    harness: Harness,
    server: TestServer,
    tenantry: Tenantry,
}

impl Fixture {
    /// `None`, with a printed notice, if the server takes no settings.
    pub(crate) async fn start(configure: impl FnOnce(Builder) -> Builder) -> Option<Self> {
        let server = server(&[("max_prepared_transactions", "20"), ("max_connections", "60")]).await?;
        let harness = Harness::start().await.unwrap();
        let tenantry = harness.tenantry_on(&server, configure).await.unwrap();
        Some(Self { harness, server, tenantry })
    }
    async fn provision(&self, slug: &str) -> PgConnectOptions {
        self.tenantry.provision(slug).await.unwrap();
        auditor::login(&self.tenantry, slug).await
    }
    async fn superuser(&self) -> PgConnection {
        self.server.admin_options().connect().await.unwrap()
    }
    /// Asserts that neither the database nor a role whose name begins with its name is left.
    async fn assert_gone(&self, database: &str) {
        const LEFT: &str = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1)
            UNION ALL SELECT datname::text FROM pg_database WHERE datname = $1";
        let left: Vec<String> =
            sqlx::query_scalar(LEFT).bind(database).fetch_all(&mut self.superuser().await).await.unwrap();
        assert_eq!(left, Vec::<String>::new(), "roles or databases of the tenant are left");
    }
    async fn stop(self) {
        self.tenantry.close().await;
        drop(self.harness);
        self.server.stop().await.unwrap();
    }
}

/// A session of the tenant that keeps the row of its own login locked.
async fn lock_own_role(login: &PgConnectOptions) -> PgConnection {
    let mut session = login.connect().await.unwrap();
    session.execute("BEGIN; SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'").await.unwrap();
    session
}

/// Runs a query that returns one value.
pub(crate) async fn fetch_scalar<T>(session: &mut PgConnection, text: impl Into<String>) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    #[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
    sqlx::query_scalar(AssertSqlSafe(text.into())).fetch_one(session).await.unwrap()
}

#[tokio::test]
async fn suspend_rotate_and_purge_work_on_a_tenant_that_keeps_its_own_role_locked() {
    let Some(fixture) = Fixture::start(migrated).await else { return };
    for prepared in [false, true] {
        let login = fixture.provision("acme").await;
        let lock = async |login: &PgConnectOptions| {
            let mut session = lock_own_role(login).await;
            if prepared {
                session.execute("PREPARE TRANSACTION 'locked'").await.unwrap();
            }
            session
        };
        let mut session = lock(&login).await;
        let started = Instant::now();
        assert!(
            fixture.tenantry.suspend("acme").await.unwrap().is_complete(),
            "the suspension is not complete; prepared: {prepared}"
        );
        assert!(started.elapsed() < CLOSING_LIMIT, "prepared: {prepared}: the suspension took {:?}", started.elapsed());
        assert!(session.ping().await.is_err(), "the session of the login must have ended");
        assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
        fixture.tenantry.activate("acme").await.unwrap();

        let _session = lock(&login).await;
        fixture.tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
        assert_eq!(code(&login.connect().await.unwrap_err()), "28P01", "the old login must be dropped");

        let login = auditor::login(&fixture.tenantry, "acme").await;
        let database = primary_entry(&fixture.tenantry, "acme").await.database;
        let _session = lock(&login).await;
        fixture.tenantry.purge("acme").force().await.unwrap();
        fixture.assert_gone(database.as_str()).await;
    }
    fixture.stop().await;
}

/// Sends a signal to a process of the server.
fn send_signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("the process id is not zero"), signal).expect("the signal is sent");
}

/// Opens a session that keeps its own role locked, and stops its server process. The process then ignores a
/// termination, like one in a long statement that cannot be interrupted.
async fn open_stopped_session(login: &PgConnectOptions) -> (PgConnection, i32) {
    let mut session = lock_own_role(login).await;
    let pid: i32 = fetch_scalar(&mut session, "SELECT pg_backend_pid()").await;
    send_signal(pid, Signal::STOP);
    (session, pid)
}

#[tokio::test]
async fn suspend_answers_closing_while_a_session_does_not_end() {
    let Some(fixture) = Fixture::start(impatient).await else { return };
    if !matches!(fixture.server.kind(), ServerKind::Local { .. }) {
        println!("!!! SKIPPED: only processes of a local server can be stopped !!!");
        return fixture.stop().await;
    }
    let login = fixture.provision("acme").await;
    let other = fixture.provision("other").await;
    let (_session, pid) = open_stopped_session(&login).await;
    let started = Instant::now();
    let ShutOut::Closing { tenant, operation, sessions, .. } = fixture.tenantry.suspend("acme").await.unwrap() else {
        panic!("suspend must answer Closing while a session is left")
    };
    assert!(started.elapsed() < CLOSING_LIMIT, "the suspension took {:?}", started.elapsed());
    assert_eq!((tenant.status(), sessions), (TenantStatus::Suspended, 1));
    assert!(login.connect().await.is_err(), "the tenant must not be able to connect while suspend is closing");
    // The session that does not end must not delay the suspension of another tenant.
    let started = Instant::now();
    assert!(fixture.tenantry.suspend("other").await.unwrap().is_complete());
    assert!(started.elapsed() < CLOSING_LIMIT, "the suspension took {:?}", started.elapsed());
    assert_eq!(code(&other.connect().await.unwrap_err()), "28000");

    send_signal(pid, Signal::CONT);
    recovered(&fixture.tenantry).await;
    let ended = fixture.tenantry.operations().get(operation).await.unwrap().unwrap();
    assert_eq!(ended.status, tenantry::operation::OperationStatus::Done);
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
    fixture.tenantry.activate("acme").await.unwrap();
    let mut session = login.connect().await.expect("the activated tenant can connect");
    session.execute("SELECT count(*) FROM notes").await.expect("the activated tenant has the same rights as before");
    fixture.stop().await;
}

#[tokio::test]
async fn suspend_is_not_delayed_by_other_tenants_whose_sessions_do_not_end() {
    let Some(fixture) = Fixture::start(impatient).await else { return };
    if !matches!(fixture.server.kind(), ServerKind::Local { .. }) {
        println!("!!! SKIPPED: only processes of a local server can be stopped !!!");
        return fixture.stop().await;
    }
    let mut stopped_sessions = vec![];
    for slug in ["one", "two", "three"] {
        let login = fixture.provision(slug).await;
        stopped_sessions.push(open_stopped_session(&login).await);
    }
    fixture.provision("acme").await;
    let blocked = ["one", "two", "three"].map(|slug| {
        let tenantry = fixture.tenantry.clone();
        tokio::spawn(async move { tenantry.suspend(slug).await })
    });
    let started = Instant::now();
    assert!(fixture.tenantry.suspend("acme").await.unwrap().is_complete());
    assert!(started.elapsed() < CLOSING_LIMIT, "the suspension took {:?}", started.elapsed());
    for suspended in blocked {
        assert!(!suspended.await.unwrap().unwrap().is_complete());
    }
    for (_, pid) in &stopped_sessions {
        send_signal(*pid, Signal::CONT);
    }
    recovered(&fixture.tenantry).await;
    fixture.stop().await;
}

/// Grants privileges of the neighbour to each of these roles. PostgreSQL refuses to drop a role that has such
/// privileges.
pub(crate) async fn grant_to(neighbour: &mut PgConnection, roles: &[String]) {
    for (n, role) in roles.iter().enumerate() {
        let large = 90_000 + n;
        let grants = [
            String::from("SET ROLE NONE"),
            format!(
                "SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_largeobject_metadata WHERE oid = {large}) \
                 THEN lo_create({large}) END"
            ),
            format!("GRANT SELECT ON LARGE OBJECT {large} TO \"{role}\""),
            format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{role}\""),
            String::from("RESET ROLE"),
            format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{role}\""),
        ];
        for grant in grants {
            #[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
            // The grant fails if the role has been dropped meanwhile.
            let _ = sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut *neighbour).await;
        }
    }
}

#[tokio::test]
async fn purge_and_rotate_remove_grants_of_a_neighbour_to_their_roles() {
    let Some(fixture) = Fixture::start(migrated).await else { return };
    let neighbour = fixture.provision("neighbour").await;
    for is_archived in [false, true] {
        fixture.provision("victim").await;
        let victim = primary_entry(&fixture.tenantry, "victim").await;
        let roles =
            [victim.login.to_string(), format!("{}_app", victim.database), format!("{}_owner", victim.database)];
        let mut session = neighbour.connect().await.unwrap();
        grant_to(&mut session, &roles).await;
        // A grant by a role that has only the grant option, on another role's object.
        let own: String = fetch_scalar(&mut session, "SELECT session_user::text").await;
        run_sql(&mut session, "SET ROLE NONE; SELECT lo_create(80000)").await;
        let acts_as: String = fetch_scalar(
            &mut session,
            format!(
                "SELECT substr(c, 6) FROM pg_roles, unnest(rolconfig) c WHERE rolname = '{own}' AND c LIKE 'role=%'"
            ),
        )
        .await;
        run_sql(&mut session, format!("GRANT SELECT ON LARGE OBJECT 80000 TO {acts_as} WITH GRANT OPTION; RESET ROLE"))
            .await;
        run_sql(&mut session, format!("GRANT SELECT ON LARGE OBJECT 80000 TO \"{}\"", victim.login)).await;
        session.close().await.unwrap();
        if is_archived {
            fixture.tenantry.archive("neighbour").await.unwrap();
        } else {
            let rotated = fixture.tenantry.rotate("victim").grace(Duration::ZERO).await.unwrap();
            assert_eq!(rotated.retiring, None, "the old login must be dropped at once");
        }
        fixture.tenantry.purge("victim").force().await.unwrap();
        fixture.assert_gone(victim.database.as_str()).await;
        let open = "SELECT datallowconn FROM pg_database WHERE datname = ";
        let database = primary_entry(&fixture.tenantry, "neighbour").await.database;
        let is_open: bool = fetch_scalar(&mut fixture.superuser().await, format!("{open}'{database}'")).await;
        assert_eq!(is_open, !is_archived, "whether the neighbour's database allows connections must not change");
        const MEMBER: &str = "SELECT count(*) FROM pg_roles r WHERE rolname LIKE 't\\_%' AND rolcanlogin \
            AND pg_has_role(";
        let members: i64 = fetch_scalar(
            &mut fixture.superuser().await,
            format!("{MEMBER}'{}_admin', oid, 'USAGE')", fixture.harness.prefix()),
        )
        .await;
        assert_eq!(members, 0, "the admin role is still a member of tenant logins");
        if !is_archived {
            let mut session = neighbour.connect().await.unwrap();
            run_sql(&mut session, "SET ROLE NONE; SELECT lo_unlink(80000)").await;
        }
    }
    fixture.stop().await;
}

#[tokio::test]
async fn provision_and_migrate_succeed_while_a_neighbour_grants_to_every_migrator() {
    let Some(fixture) = Fixture::start(migrated).await else { return };
    let neighbour = fixture.provision("neighbour").await;
    let mut session = neighbour.connect().await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let granting = tokio::spawn(async move {
        let mut granted = 0;
        while !stopped.is_cancelled() {
            const MIGRATORS: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE '%\\_mig'";
            let roles: Vec<String> = sqlx::query_scalar(MIGRATORS).fetch_all(&mut session).await.unwrap();
            granted += roles.len();
            grant_to(&mut session, &roles).await;
        }
        granted
    });
    for slug in ["one", "two", "three"] {
        fixture.tenantry.provision(slug).await.unwrap();
        fixture.tenantry.migrate(slug).await.unwrap();
    }
    stop.cancel();
    assert!(granting.await.unwrap() > 0, "the neighbour saw no migrator, so the test proved nothing");
    let left: i64 =
        fetch_scalar(&mut fixture.superuser().await, "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%\\_mig'")
            .await;
    assert_eq!(left, 0, "migrator roles are left");
    fixture.stop().await;
}

#[tokio::test]
async fn purge_ends_a_neighbours_transaction_that_locks_the_database() {
    let Some(fixture) = Fixture::start(migrated).await else { return };
    let neighbour = fixture.provision("neighbour").await;
    for prepared in [false, true] {
        fixture.provision("victim").await;
        let database = primary_entry(&fixture.tenantry, "victim").await.database;
        let mut session = neighbour.connect().await.unwrap();
        let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{database}\" SET work_mem = '4MB'");
        run_sql(&mut session, format!("SET ROLE NONE; BEGIN; {set}")).await;
        if prepared {
            run_sql(&mut session, "PREPARE TRANSACTION 'in the way'").await;
        }
        let started = Instant::now();
        fixture.tenantry.purge("victim").force().await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(20), "the purge took {:?}", started.elapsed());
        fixture.assert_gone(database.as_str()).await;
        let count: i64 = fetch_scalar(&mut fixture.superuser().await, "SELECT count(*) FROM pg_prepared_xacts").await;
        assert_eq!(count, 0, "prepared transactions are left");
    }
    neighbour.connect().await.expect("the neighbour can still connect");
    fixture.stop().await;
}

#[tokio::test]
async fn operations_succeed_despite_prepared_transactions_of_a_neighbour() {
    let Some(fixture) = Fixture::start(migrated).await else { return };
    let neighbour = fixture.provision("neighbour").await;
    let mut session = neighbour.connect().await.unwrap();
    let own = primary_entry(&fixture.tenantry, "neighbour").await.database;
    let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{own}\" SET work_mem = '4MB'");
    run_sql(&mut session, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'of a neighbour'")).await;
    let mut elsewhere = neighbour.database("postgres").connect().await.unwrap();
    let set = "ALTER ROLE CURRENT_USER IN DATABASE postgres SET work_mem = '4MB'";
    run_sql(&mut elsewhere, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'in another database'")).await;
    let login = fixture.provision("acme").await;
    assert!(fixture.tenantry.suspend("acme").await.unwrap().is_complete());
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
    fixture.tenantry.activate("acme").await.unwrap();
    fixture.tenantry.migrate("acme").await.unwrap();
    assert_eq!(fixture.tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
    fixture.tenantry.purge("acme").force().await.unwrap();
    fixture.tenantry.purge("neighbour").force().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn rotate_and_purge_remove_large_objects_of_a_login_in_shared_databases() {
    let Some(fixture) = Fixture::start(migrated).await else { return };
    let login = fixture.provision("acme").await;
    let database = primary_entry(&fixture.tenantry, "acme").await.database;
    for (rotate, shared) in [(true, "postgres"), (false, "template1")] {
        let login = if rotate { login.clone() } else { auditor::login(&fixture.tenantry, "acme").await };
        let mut session = login.database(shared).connect().await.unwrap();
        run_sql(&mut session, "SET ROLE NONE; SELECT lo_create(0)").await;
        session.close().await.unwrap();
        if rotate {
            assert_eq!(fixture.tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
        } else {
            fixture.tenantry.purge("acme").force().await.unwrap();
        }
    }
    fixture.assert_gone(database.as_str()).await;
    fixture.provision("acme").await;
    fixture.stop().await;
}

#[tokio::test]
async fn purge_reports_an_event_trigger_that_would_run_with_the_provisioners_rights() {
    let Some(fixture) = Fixture::start(impatient).await else { return };
    let login = fixture.provision("acme").await;
    let database = primary_entry(&fixture.tenantry, "acme").await.database;
    let mut session = login.database("postgres").connect().await.unwrap();
    run_sql(&mut session, "SET ROLE NONE; SELECT lo_create(0)").await;
    session.close().await.unwrap();
    let mut superuser = fixture.superuser().await;
    run_sql(
        &mut superuser,
        "CREATE FUNCTION audit_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
         CREATE EVENT TRIGGER watch_ddl ON sql_drop EXECUTE FUNCTION audit_ddl()",
    )
    .await;
    fixture.tenantry.purge("acme").force().await.unwrap_err();
    let reported = told(&fixture.tenantry).await;
    assert!(reported.contains("watch_ddl") && reported.contains("postgres"), "{reported}");
    run_sql(&mut superuser, "DROP EVENT TRIGGER watch_ddl").await;
    recovered(&fixture.tenantry).await;
    fixture.assert_gone(database.as_str()).await;
    fixture.stop().await;
}
