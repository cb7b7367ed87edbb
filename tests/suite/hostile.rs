//! A tenant's login that runs SQL of its own: it escapes no suspension, and is in no other tenant's way. Run on a server
//! that allows prepared transactions, since no session stands behind one.
use crate::auditor::{self, code};
use crate::fail_closed::{entry, sql};
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

/// The bound of *closed* on a machine that runs other tests too; the benchmark measures the second that the README
/// promises.
const SOON: Duration = Duration::from_secs(5);

/// Tenants on a server of their own.
pub(crate) struct Site {
    harness: Harness,
    server: TestServer,
    tenantry: Tenantry,
}

impl Site {
    /// `None`, loudly, on a server that takes no settings.
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
    /// Nothing of these tenants is left: no role, no database.
    async fn assert_gone(&self, database: &str) {
        const LEFT: &str = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1)
            UNION ALL SELECT datname::text FROM pg_database WHERE datname = $1";
        let left: Vec<String> =
            sqlx::query_scalar(LEFT).bind(database).fetch_all(&mut self.superuser().await).await.unwrap();
        assert_eq!(left, Vec::<String>::new());
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

pub(crate) async fn ask<T>(session: &mut PgConnection, text: impl Into<String>) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    #[expect(clippy::disallowed_methods, reason = "the SQL of a test")]
    sqlx::query_scalar(AssertSqlSafe(text.into())).fetch_one(session).await.unwrap()
}

#[tokio::test]
async fn suspend_rotate_and_purge_end_a_tenant_that_keeps_its_own_role_locked() {
    let Some(site) = Site::start(migrated).await else { return };
    for prepared in [false, true] {
        let login = site.provision("acme").await;
        let lock = async |login: &PgConnectOptions| {
            let mut session = lock_own_role(login).await;
            if prepared {
                session.execute("PREPARE TRANSACTION 'locked'").await.unwrap();
            }
            session
        };
        let mut session = lock(&login).await;
        let begun = Instant::now();
        assert!(site.tenantry.suspend("acme").await.unwrap().is_complete(), "prepared: {prepared}");
        assert!(begun.elapsed() < SOON, "prepared: {prepared}: {:?}", begun.elapsed());
        assert!(session.ping().await.is_err(), "its session has ended");
        assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
        site.tenantry.activate("acme").await.unwrap();

        let _session = lock(&login).await;
        site.tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
        assert_eq!(code(&login.connect().await.unwrap_err()), "28P01", "the old login is gone");

        let login = auditor::login(&site.tenantry, "acme").await;
        let database = entry(&site.tenantry, "acme").await.database;
        let _session = lock(&login).await;
        site.tenantry.purge("acme").force().await.unwrap();
        site.assert_gone(database.as_str()).await;
    }
    site.stop().await;
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("a signal");
}

/// A process of the server that does not react, as one in a long statement that cannot be interrupted. It holds its own
/// role locked.
async fn stopped_session(login: &PgConnectOptions) -> (PgConnection, i32) {
    let mut session = lock_own_role(login).await;
    let pid: i32 = ask(&mut session, "SELECT pg_backend_pid()").await;
    signal(pid, Signal::STOP);
    (session, pid)
}

#[tokio::test]
async fn suspend_answers_closing_while_a_session_does_not_end() {
    let Some(site) = Site::start(impatient).await else { return };
    if !matches!(site.server.kind(), ServerKind::Local { .. }) {
        println!("!!! SKIPPED: only processes of a local server can be stopped !!!");
        return site.stop().await;
    }
    let login = site.provision("acme").await;
    let other = site.provision("other").await;
    let (_session, pid) = stopped_session(&login).await;
    let begun = Instant::now();
    let ShutOut::Closing { tenant, operation, sessions, .. } = site.tenantry.suspend("acme").await.unwrap() else {
        panic!("a session is left")
    };
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!((tenant.status(), sessions), (TenantStatus::Suspended, 1));
    assert!(login.connect().await.is_err(), "nobody enters meanwhile");
    // Nor does it delay another tenant's suspension.
    let begun = Instant::now();
    assert!(site.tenantry.suspend("other").await.unwrap().is_complete());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(code(&other.connect().await.unwrap_err()), "28000");

    signal(pid, Signal::CONT);
    recovered(&site.tenantry).await;
    let ended = site.tenantry.operations().get(operation).await.unwrap().unwrap();
    assert_eq!(ended.status, tenantry::operation::OperationStatus::Done);
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
    site.tenantry.activate("acme").await.unwrap();
    let mut session = login.connect().await.expect("the tenant is in again");
    session.execute("SELECT count(*) FROM notes").await.expect("with the rights that it had");
    site.stop().await;
}

#[tokio::test]
async fn suspend_is_not_delayed_by_other_tenants_whose_sessions_do_not_end() {
    let Some(site) = Site::start(impatient).await else { return };
    if !matches!(site.server.kind(), ServerKind::Local { .. }) {
        println!("!!! SKIPPED: only processes of a local server can be stopped !!!");
        return site.stop().await;
    }
    let mut stopped = vec![];
    for slug in ["one", "two", "three"] {
        let login = site.provision(slug).await;
        stopped.push(stopped_session(&login).await);
    }
    site.provision("acme").await;
    let blocked = ["one", "two", "three"].map(|slug| {
        let tenantry = site.tenantry.clone();
        tokio::spawn(async move { tenantry.suspend(slug).await })
    });
    let begun = Instant::now();
    assert!(site.tenantry.suspend("acme").await.unwrap().is_complete());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for suspended in blocked {
        assert!(!suspended.await.unwrap().unwrap().is_complete());
    }
    for (_, pid) in &stopped {
        signal(*pid, Signal::CONT);
    }
    recovered(&site.tenantry).await;
    site.stop().await;
}

/// Grants by which a neighbour keeps the roles of others from being dropped, repeated for every role that it sees.
pub(crate) async fn grant_to(neighbour: &mut PgConnection, roles: &[String]) {
    for (n, role) in roles.iter().enumerate() {
        let large = 90_000 + n;
        let grants = [
            String::from("SET ROLE NONE"),
            format!(
                "SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_largeobject_metadata WHERE oid = {large}) THEN lo_create({large}) END"
            ),
            format!("GRANT SELECT ON LARGE OBJECT {large} TO \"{role}\""),
            format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{role}\""),
            String::from("RESET ROLE"),
            format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"{role}\""),
        ];
        for grant in grants {
            #[expect(clippy::disallowed_methods, reason = "the SQL of a test")]
            // A role that is gone meanwhile.
            let _ = sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut *neighbour).await;
        }
    }
}

#[tokio::test]
async fn purge_and_rotate_remove_what_a_neighbour_granted_to_their_roles() {
    let Some(site) = Site::start(migrated).await else { return };
    let neighbour = site.provision("neighbour").await;
    for is_archived in [false, true] {
        site.provision("victim").await;
        let victim = entry(&site.tenantry, "victim").await;
        let roles =
            [victim.login.to_string(), format!("{}_app", victim.database), format!("{}_owner", victim.database)];
        let mut session = neighbour.connect().await.unwrap();
        grant_to(&mut session, &roles).await;
        // A grant of a role that got the right to grant, on an object of another one.
        let own: String = ask(&mut session, "SELECT session_user::text").await;
        sql(&mut session, "SET ROLE NONE; SELECT lo_create(80000)").await;
        let acts_as: String = ask(
            &mut session,
            format!(
                "SELECT substr(c, 6) FROM pg_roles, unnest(rolconfig) c WHERE rolname = '{own}' AND c LIKE 'role=%'"
            ),
        )
        .await;
        sql(&mut session, format!("GRANT SELECT ON LARGE OBJECT 80000 TO {acts_as} WITH GRANT OPTION; RESET ROLE"))
            .await;
        sql(&mut session, format!("GRANT SELECT ON LARGE OBJECT 80000 TO \"{}\"", victim.login)).await;
        session.close().await.unwrap();
        if is_archived {
            site.tenantry.archive("neighbour").await.unwrap();
        } else {
            let rotated = site.tenantry.rotate("victim").grace(Duration::ZERO).await.unwrap();
            assert_eq!(rotated.retiring, None, "the old login is dropped");
        }
        site.tenantry.purge("victim").force().await.unwrap();
        site.assert_gone(victim.database.as_str()).await;
        let open = "SELECT datallowconn FROM pg_database WHERE datname = ";
        let database = entry(&site.tenantry, "neighbour").await.database;
        let is_open: bool = ask(&mut site.superuser().await, format!("{open}'{database}'")).await;
        assert_eq!(is_open, !is_archived, "the neighbour's database is as it was");
        const MEMBER: &str = "SELECT count(*) FROM pg_roles r WHERE rolname LIKE 't\\_%' AND rolcanlogin \
            AND pg_has_role(";
        let members: i64 =
            ask(&mut site.superuser().await, format!("{MEMBER}'{}_admin', oid, 'USAGE')", site.harness.prefix())).await;
        assert_eq!(members, 0, "no membership is left");
        if !is_archived {
            let mut session = neighbour.connect().await.unwrap();
            sql(&mut session, "SET ROLE NONE; SELECT lo_unlink(80000)").await;
        }
    }
    site.stop().await;
}

#[tokio::test]
async fn provision_and_migrate_end_beside_a_neighbour_that_grants_to_every_migrator() {
    let Some(site) = Site::start(migrated).await else { return };
    let neighbour = site.provision("neighbour").await;
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
        site.tenantry.provision(slug).await.unwrap();
        site.tenantry.migrate(slug).await.unwrap();
    }
    stop.cancel();
    assert!(granting.await.unwrap() > 0, "the neighbour has met a migrator");
    let left: i64 =
        ask(&mut site.superuser().await, "SELECT count(*) FROM pg_roles WHERE rolname LIKE '%\\_mig'").await;
    assert_eq!(left, 0, "no migrator is left");
    site.stop().await;
}

#[tokio::test]
async fn purge_ends_a_neighbour_that_keeps_the_database_locked() {
    let Some(site) = Site::start(migrated).await else { return };
    let neighbour = site.provision("neighbour").await;
    for prepared in [false, true] {
        site.provision("victim").await;
        let database = entry(&site.tenantry, "victim").await.database;
        let mut session = neighbour.connect().await.unwrap();
        let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{database}\" SET work_mem = '4MB'");
        sql(&mut session, format!("SET ROLE NONE; BEGIN; {set}")).await;
        if prepared {
            sql(&mut session, "PREPARE TRANSACTION 'in the way'").await;
        }
        let begun = Instant::now();
        site.tenantry.purge("victim").force().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        site.assert_gone(database.as_str()).await;
        let count: i64 = ask(&mut site.superuser().await, "SELECT count(*) FROM pg_prepared_xacts").await;
        assert_eq!(count, 0);
    }
    neighbour.connect().await.expect("the neighbour itself is not shut out");
    site.stop().await;
}

#[tokio::test]
async fn operations_end_beside_prepared_transactions_of_a_neighbour() {
    let Some(site) = Site::start(migrated).await else { return };
    let neighbour = site.provision("neighbour").await;
    let mut session = neighbour.connect().await.unwrap();
    let own = entry(&site.tenantry, "neighbour").await.database;
    let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{own}\" SET work_mem = '4MB'");
    sql(&mut session, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'of a neighbour'")).await;
    let mut elsewhere = neighbour.database("postgres").connect().await.unwrap();
    let set = "ALTER ROLE CURRENT_USER IN DATABASE postgres SET work_mem = '4MB'";
    sql(&mut elsewhere, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'in another database'")).await;
    let login = site.provision("acme").await;
    assert!(site.tenantry.suspend("acme").await.unwrap().is_complete());
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
    site.tenantry.activate("acme").await.unwrap();
    site.tenantry.migrate("acme").await.unwrap();
    assert_eq!(site.tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
    site.tenantry.purge("acme").force().await.unwrap();
    site.tenantry.purge("neighbour").force().await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn rotate_and_purge_remove_large_objects_that_a_login_made_in_shared_databases() {
    let Some(site) = Site::start(migrated).await else { return };
    let login = site.provision("acme").await;
    let database = entry(&site.tenantry, "acme").await.database;
    for (rotate, shared) in [(true, "postgres"), (false, "template1")] {
        let login = if rotate { login.clone() } else { auditor::login(&site.tenantry, "acme").await };
        let mut session = login.database(shared).connect().await.unwrap();
        sql(&mut session, "SET ROLE NONE; SELECT lo_create(0)").await;
        session.close().await.unwrap();
        if rotate {
            assert_eq!(site.tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
        } else {
            site.tenantry.purge("acme").force().await.unwrap();
        }
    }
    site.assert_gone(database.as_str()).await;
    site.provision("acme").await;
    site.stop().await;
}

#[tokio::test]
async fn purge_names_an_event_trigger_that_would_run_with_the_provisioners_rights() {
    let Some(site) = Site::start(impatient).await else { return };
    let login = site.provision("acme").await;
    let database = entry(&site.tenantry, "acme").await.database;
    let mut session = login.database("postgres").connect().await.unwrap();
    sql(&mut session, "SET ROLE NONE; SELECT lo_create(0)").await;
    session.close().await.unwrap();
    let mut superuser = site.superuser().await;
    sql(
        &mut superuser,
        "CREATE FUNCTION audit_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
         CREATE EVENT TRIGGER watch_ddl ON sql_drop EXECUTE FUNCTION audit_ddl()",
    )
    .await;
    site.tenantry.purge("acme").force().await.unwrap_err();
    let told = told(&site.tenantry).await;
    assert!(told.contains("watch_ddl") && told.contains("postgres"), "{told}");
    sql(&mut superuser, "DROP EVENT TRIGGER watch_ddl").await;
    recovered(&site.tenantry).await;
    site.assert_gone(database.as_str()).await;
    site.stop().await;
}
