//! `rotate` and `rotate_all`: the tenant gets a new login without a failed query, and the old login is dropped.
//!
//! If something prevents the drop, the rotation still ends: the old login is refused and listed by `retiring()`, and
//! `retire_due()` drops it once the obstacle is gone.
mod batch;

use crate::auditor::{self, code};
use crate::provision::migrated;
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::error::{ChangeError, ResolveError};
use tenantry::operation::OperationStatus;
use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, TenantPool, Tenantry, sqlx};

fn quick(builder: Builder) -> Builder {
    migrated(builder).lease(Duration::from_secs(2)).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

/// `session_user` and `current_user` of a session of this handle.
async fn session_roles(db: &TenantPool) -> (String, String) {
    sqlx::query_as("SELECT session_user::text, current_user::text").fetch_one(db).await.unwrap()
}

/// All logins of this database that exist on the server, sorted by name.
async fn logins(harness: &Harness, database: &str) -> Vec<String> {
    const LOGINS: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '\\_v%' ORDER BY 1";
    let mut server = auditor::superuser(harness).await;
    sqlx::query_scalar(LOGINS).bind(database).fetch_all(&mut server).await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the statement contains names that the crate made")]
async fn execute(admin: &mut PgConnection, statement: String) {
    admin.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
}

/// The name of the tenant's database.
async fn database_of(tenantry: &Tenantry, slug: &str) -> String {
    auditor::login(tenantry, slug).await.get_database().unwrap().to_owned()
}

#[tokio::test]
async fn rotate_switches_to_a_new_login_and_drops_the_old_one() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('before')").await.unwrap();
    let (old_login, app) = session_roles(&db).await;
    let old = auditor::login(&tenantry, "acme").await;

    let rotated = tenantry.rotate("acme").reason("yearly").await.unwrap();
    assert_eq!((rotated.generation.0, rotated.retiring), (2, None));
    let (new_login, app_now) = session_roles(&db).await;
    assert_ne!(old_login, new_login);
    assert_eq!(app, app_now, "the rotation changed the app role, which owns the rights of the tenant");
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&db).await.unwrap();
    assert_eq!(notes, 1, "a handle from before the rotation does not reach the database");
    assert_eq!(code(&old.connect().await.unwrap_err()), "28P01", "the old login can still connect");
    assert_eq!(logins(&harness, &database_of(&tenantry, "acme").await).await, [new_login]);
    let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.credentials WHERE purpose = 'login'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(secrets, 1, "secrets of logins in the vault");
    assert_eq!(tenantry.rotate("acme").await.unwrap().generation.0, 3);
}

/// The node has two worker permits. A refused rotation must return the second one, or the provisioning would wait
/// forever.
#[tokio::test]
async fn refused_rotation_returns_its_worker_permit() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| quick(b).workers(2)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let busy = db.acquire().await.unwrap();
    let first = tenantry.rotate("acme").grace(Duration::from_secs(60)).start().await.unwrap();
    for _ in 0..3 {
        let refused = tenantry.rotate("acme").await;
        assert!(matches!(refused, Err(ChangeError::Busy { operation, .. }) if operation == first), "{refused:?}");
    }
    tenantry.provision("other").await.unwrap();
    drop(busy);
    tenantry.close().await;
}

#[tokio::test]
async fn rotate_refuses_unknown_or_suspended_tenants_and_joins_by_key() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    assert!(matches!(tenantry.rotate("nobody").await, Err(ChangeError::Unknown)));
    tenantry.provision("acme").await.unwrap();
    let first = tenantry.rotate("acme").key("suspicion-7").await.unwrap();
    let again = tenantry.rotate("acme").key("suspicion-7").await.unwrap();
    assert_eq!((first.generation.0, again.generation.0), (2, 2), "the second call with the same key rotated again");
    let other = tenantry.rotate("acme").key("suspicion-7").grace(Duration::ZERO).await;
    assert!(matches!(other, Err(ChangeError::KeyReused { .. })), "{other:?}");
    tenantry.suspend("acme").await.unwrap();
    assert!(matches!(tenantry.rotate("acme").await, Err(ChangeError::Status { .. })));
}

/// Two nodes query both tenants all the time, while one tenant is rotated. Every answer must come from the right
/// tenant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_fails_no_query_on_two_nodes() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(quick).await.unwrap(), harness.tenantry(quick).await.unwrap()];
    for slug in ["acme", "other"] {
        nodes[0].provision(slug).await.unwrap();
        let db = nodes[0].resolve(slug).await.unwrap();
        sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(slug).execute(&db).await.unwrap();
    }
    let (stop, queries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for node in &nodes {
        tokio::spawn(node.run(std::future::pending::<()>()));
        for slug in ["acme", "acme", "other"] {
            let (node, stop, queries) = (node.clone(), stop.clone(), queries.clone());
            load.spawn(async move {
                while !stop.load(Relaxed) {
                    let db = node.resolve(slug).await.expect("resolve failed during a rotation");
                    let text: String = sqlx::query_scalar("SELECT text FROM notes")
                        .fetch_one(&db)
                        .await
                        .expect("a query failed during a rotation");
                    assert_eq!(text, slug, "a query returned the row of another tenant");
                    queries.fetch_add(1, Relaxed);
                }
            });
        }
    }
    for n in 0..15 {
        let rotated = nodes[n % 2].rotate("acme").await.unwrap();
        assert_eq!(rotated.retiring, None);
        let seen = queries.load(Relaxed);
        while queries.load(Relaxed) < seen + 20 {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert_eq!(logins(&harness, &database_of(&nodes[0], "acme").await).await.len(), 1);
}

#[tokio::test]
async fn grace_decides_when_sessions_of_the_old_login_are_terminated() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut other_client = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
    assert!(other_client.execute("SELECT 1").await.is_err(), "a session of the old login survived a grace of zero");

    let mut job = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    let rotation = tokio::spawn(tenantry.rotate("acme").grace(Duration::from_secs(60)).into_future());
    let is_resolved = async || tenantry.resolve("acme").await.is_ok_and(|db| db.tenant().slug().as_str() == "acme");
    assert!(is_resolved().await, "the tenant does not resolve during its rotation");
    for _ in 0..5 {
        job.execute("SELECT pg_sleep(0.02)").await.expect("a session of the old login was terminated within the grace");
    }
    assert!(!rotation.is_finished(), "the rotation did not wait for a session of the old login");
    job.close().await.unwrap();
    assert_eq!(rotation.await.unwrap().unwrap().retiring, None);
}

/// Rotates while an obstacle prevents the drop of the old login, whose reason contains `named`. The tenant keeps
/// working and the old login is listed as retiring. Returns the name of the database.
async fn assert_old_login_retires(harness: &Harness, tenantry: &Tenantry, slug: &str, named: &str) -> String {
    assert_old_login_retires_after(Duration::ZERO, harness, tenantry, slug, named).await
}

/// The same with this grace.
async fn assert_old_login_retires_after(
    grace: Duration, harness: &Harness, tenantry: &Tenantry, slug: &str, named: &str,
) -> String {
    let db = tenantry.resolve(slug).await.unwrap();
    let rotated = tenantry.rotate(slug).grace(grace).await.unwrap();
    let reason =
        rotated.retiring.unwrap_or_else(|| panic!("{slug}: the old login was dropped in spite of the obstacle"));
    assert!(reason.contains(named), "{slug}: the reason does not contain {named:?}: {reason}");
    db.execute("INSERT INTO notes (text) VALUES ('the application never notices')").await.unwrap();
    let listed = tenantry.retiring(100).await.unwrap();
    let retiring_login = listed
        .iter()
        .find(|r| r.user.tenant == rotated.tenant.id())
        .expect("the old login is not listed by retiring()");
    assert_eq!(retiring_login.user.reason.as_deref(), Some(reason.as_str()));
    assert_eq!(
        tenantry.operations().open().await.unwrap().len(),
        0,
        "operations that are open while an old login retires"
    );
    assert_eq!(logins(harness, retiring_login.user.database.as_str()).await.len(), 2);
    retiring_login.user.database.to_string()
}

/// Retries the retirement until the old login is dropped.
async fn wait_until_retired(harness: &Harness, tenantry: &Tenantry, database: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while logins(harness, database).await.len() > 1 {
        assert!(Instant::now() < until, "the old login was not dropped within 60 s: {:?}", tenantry.retiring(9).await);
        tenantry.retire_due().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let retiring = tenantry.retiring(100).await.unwrap();
    let listed = retiring.iter().any(|r| r.user.database.as_str() == database);
    assert!(!listed, "a dropped login is still listed by retiring()");
}

#[tokio::test]
async fn grant_in_another_database_delays_only_the_drop_of_the_old_login() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let mut admin = auditor::superuser(&harness).await;
    let grant = format!("GRANT TEMPORARY ON DATABASE postgres TO \"{old}\"");
    execute(&mut admin, grant).await;
    let database = assert_old_login_retires(&harness, &tenantry, "acme", &old).await;
    // A retiring login does not block the next rotation.
    assert_eq!(tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
    execute(&mut admin, format!("REVOKE TEMPORARY ON DATABASE postgres FROM \"{old}\"")).await;
    wait_until_retired(&harness, &tenantry, &database).await;
}

#[tokio::test]
async fn locked_role_is_dropped_after_the_lock_is_released() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let mut admin = auditor::superuser(&harness).await;
    let lock = format!("BEGIN; ALTER ROLE \"{old}\" CONNECTION LIMIT 3");
    execute(&mut admin, lock).await;
    let database = assert_old_login_retires(&harness, &tenantry, "acme", "holds a lock").await;
    admin.execute("ROLLBACK").await.unwrap();
    wait_until_retired(&harness, &tenantry, &database).await;
}

/// Since PostgreSQL 16 only a role with ADMIN OPTION on another role may drop it. On 15, CREATEROLE is enough.
#[tokio::test]
async fn missing_admin_option_delays_the_drop_until_it_is_granted_again() {
    let harness = Harness::start().await.unwrap();
    if harness.server().version_num() < 160_000 {
        println!("!!! SKIPPED: before PostgreSQL 16, the right to drop a role cannot be revoked !!!");
        return;
    }
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let (mut admin, role) = (auditor::superuser(&harness).await, format!("{}_admin", harness.prefix()));
    execute(&mut admin, format!("REVOKE ADMIN OPTION FOR \"{old}\" FROM \"{role}\"")).await;
    // With a grace of zero the rotation would not end, because without this right the old login cannot be set to
    // NOLOGIN.
    let grace = Duration::from_millis(1);
    let database = assert_old_login_retires_after(grace, &harness, &tenantry, "acme", "WITH ADMIN OPTION").await;
    execute(&mut admin, format!("GRANT \"{old}\" TO \"{role}\" WITH ADMIN OPTION")).await;
    wait_until_retired(&harness, &tenantry, &database).await;
}

#[tokio::test]
async fn objects_of_the_old_login_are_reassigned_and_it_is_dropped() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| quick(b).temp_tables(true)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut session = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    let object: i64 =
        sqlx::query_scalar("SELECT lo_from_bytea(0, 'kept')::bigint").fetch_one(&mut session).await.unwrap();
    session.execute("CREATE TEMP TABLE scratch (n int); SET ROLE NONE").await.unwrap();
    let own: i64 =
        sqlx::query_scalar("SELECT lo_from_bytea(0, 'its own')::bigint").fetch_one(&mut session).await.unwrap();
    session.close().await.unwrap();
    assert_eq!(tenantry.rotate("acme").await.unwrap().retiring, None, "the old login was not dropped at once");
    let db = tenantry.resolve("acme").await.unwrap();
    for object in [object, own] {
        let content: Vec<u8> =
            sqlx::query_scalar("SELECT lo_get($1::bigint::oid)").bind(object).fetch_one(&db).await.unwrap();
        assert!(!content.is_empty(), "the new login cannot read a large object of the old one");
    }
}

/// Suspends the tenant while the rotation waits for a table lock in the landlord, just before it switches the entry to
/// the new login (step `entry.flip`). Returns the id of the rotation.
async fn suspend_before_the_flip(harness: &Harness, tenantry: &Tenantry) -> tenantry::OperationId {
    let mut landlord: PgConnection = harness.landlord().connect_options().connect().await.unwrap();
    landlord.execute("BEGIN; LOCK TABLE tenantry.tenant_databases IN EXCLUSIVE MODE").await.unwrap();
    let id = tenantry.rotate("acme").start().await.unwrap();
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
        AND relation = 'tenantry.tenant_databases'::regclass)";
    while !sqlx::query_scalar::<_, bool>(WAITS).fetch_one(&mut landlord).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    tenantry.suspend("acme").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    landlord.execute("ROLLBACK").await.unwrap();
    id
}

#[tokio::test]
async fn suspend_during_a_rotation_refuses_both_logins_and_activate_resumes_it() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let database = database_of(&tenantry, "acme").await;
    let id = suspend_before_the_flip(&harness, &tenantry).await;
    let parked = tenantry.operations().get(id).await.unwrap().unwrap();
    assert_eq!(parked.status, OperationStatus::Parked);
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Suspended(_))));
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '\\_v%' AND rolcanlogin")
            .bind(&database)
            .fetch_one(&mut auditor::superuser(&harness).await)
            .await
            .unwrap();
    assert_eq!(open, 0, "logins of a suspended tenant that can still connect");
    assert_eq!(logins(&harness, &database).await.len(), 2);

    tenantry.activate("acme").await.unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while tenantry.operations().get(id).await.unwrap().unwrap().status != OperationStatus::Done {
        assert!(Instant::now() < until, "{:?}", tenantry.operations().get(id).await);
        tenantry.operations().recover().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('after')").await.unwrap();
    assert_eq!(logins(&harness, &database).await, [session_roles(&db).await.0]);
}

#[tokio::test]
async fn undone_rotation_leaves_the_old_login_in_use() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| quick(b).attempts(1)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (database, old) = (database_of(&tenantry, "acme").await, auditor::login(&tenantry, "acme").await);
    // A foreign role has the name that the next login would get.
    let mut admin = auditor::superuser(&harness).await;
    execute(&mut admin, format!("CREATE ROLE \"{database}_v2\" NOLOGIN")).await;
    let error = tenantry.rotate("acme").await.unwrap_err();
    assert!(matches!(&error, ChangeError::Failed(f) if f.state == tenantry::error::FailureState::Undone), "{error:?}");
    old.connect().await.expect("the old login cannot connect after an undone rotation").close().await.unwrap();
    assert_eq!(logins(&harness, &database).await.len(), 2, "the old login and the foreign role");
    let open: Vec<String> = auditor::landlord_only(harness.landlord()).await;
    let users: Vec<_> = open.iter().filter(|row| row.starts_with("user") || row.starts_with("secret login")).collect();
    assert_eq!(users.len(), 2, "expected one login and its secret: {users:?}");
    // The next rotation uses the next generation, and so another name.
    assert_eq!(tenantry.rotate("acme").await.unwrap().generation.0, 3);
    execute(&mut admin, format!("DROP ROLE \"{database}_v2\"")).await;
}

#[tokio::test]
async fn rotate_all_skips_logins_younger_than_the_limit() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    for slug in ["aaa", "bbb", "ccc"] {
        tenantry.provision(slug).await.unwrap();
    }
    let none_due = tenantry.rotate_all().older_than(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((none_due.done.len(), none_due.unchanged, none_due.failed.len()), (0, 3, 0));
    sqlx::query("UPDATE tenantry.operations SET created_at = created_at - interval '2 days'")
        .execute(harness.landlord())
        .await
        .unwrap();
    tenantry.rotate("aaa").await.unwrap();
    let report = tenantry.rotate_all().older_than(Duration::from_secs(24 * 3600)).concurrency(2).await.unwrap();
    assert_eq!((report.done.len(), report.unchanged), (2, 1), "{report:?}");
    assert_eq!(tenantry.rotate_all().await.unwrap().done.len(), 3);
}

#[tokio::test]
async fn history_of_a_rotation_contains_no_password() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap();
    tenantry.rotate("acme").await.unwrap();
    use tenantry::registry::TenantRegistry;
    let entry = tenantry.registry().primary(acme.tenant.id()).await.unwrap().unwrap();
    let password = tenantry.vault().open(&entry.credential).await.unwrap();
    let history: String = sqlx::query_scalar(
        "SELECT string_agg(o::text || e::text, ' ')
        FROM tenantry.operations o JOIN tenantry.operation_events e ON e.operation = o.id",
    )
    .fetch_one(harness.landlord())
    .await
    .unwrap();
    assert!(!history.contains(password.expose_secret()) && history.contains("entry.flip"));
}

#[tokio::test]
async fn session_that_is_connecting_with_the_new_login_is_not_terminated() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let before = auditor::login(&tenantry, "acme").await;
    let job = before.clone().connect().await.unwrap();
    let rotation = tokio::spawn(tenantry.rotate("acme").grace(Duration::from_secs(60)).into_future());
    let new = loop {
        let current = auditor::login(&tenantry, "acme").await;
        if current.get_username() != before.get_username() {
            break current;
        }
        tokio::task::yield_now().await;
    };
    // The rotation waits for the job. Meanwhile a client has authenticated with the new login, and its backend holds
    // the lock on the database but is not assigned to a role in pg_stat_activity yet.
    let connecting = tokio::spawn(async move { new.options([("post_auth_delay", "1")]).connect().await });
    const CONNECTING: &str = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
        WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND d.datname = $1
          AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL))";
    let mut admin = auditor::superuser(&harness).await;
    let database = before.get_database().unwrap();
    while !sqlx::query_scalar::<_, bool>(CONNECTING).bind(database).fetch_one(&mut admin).await.unwrap() {}
    job.close().await.unwrap();
    assert_eq!(rotation.await.unwrap().unwrap().retiring, None);
    let mut session = connecting.await.unwrap().expect("the connecting session of the new login was terminated");
    session.execute("SELECT * FROM notes").await.unwrap();
}

/// Applies the stored verdict to the next `DROP ROLE` and forwards everything else.
#[derive(Clone, Default)]
struct AtDropRole(Arc<std::sync::Mutex<Option<Verdict>>>);
#[async_trait::async_trait]
impl Director for AtDropRole {
    async fn at(&self, point: Point) -> Verdict {
        match point.stage == Stage::Before && point.sql.starts_with("DROP ROLE") {
            true => self.0.lock().unwrap().take().unwrap_or(Verdict::Forward),
            false => Verdict::Forward,
        }
    }
}

#[tokio::test]
async fn drop_role_that_fails_leaves_the_old_login_retiring() {
    let harness = Harness::start().await.unwrap();
    let tenantry =
        quick(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone())).build().await.unwrap();
    let (admin, faults) = (harness.server().admin_options(), AtDropRole::default());
    let upstream = tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
    let proxy = Proxy::start(upstream, faults.clone()).await.unwrap();
    let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
    set_up.address("127.0.0.1", proxy.port()).await.unwrap();
    for (n, fault) in [Verdict::Answer("40P01"), Verdict::Answer("57014"), Verdict::Cut].into_iter().enumerate() {
        let slug = format!("tenant-{n}");
        tenantry.provision(&slug).await.unwrap();
        *faults.0.lock().unwrap() = Some(fault);
        let database = assert_old_login_retires(&harness, &tenantry, &slug, "dropping a role").await;
        wait_until_retired(&harness, &tenantry, &database).await;
    }
    tenantry.close().await;
    proxy.stop().await;
}

#[tokio::test]
async fn rotate_rolls_back_a_prepared_transaction_of_the_old_login() {
    let server = match TestServer::builder().setting("max_prepared_transactions", "10").start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => {
            println!("!!! SKIPPED: a server named by URL does not accept settings !!!");
            return;
        }
        started => Box::leak(Box::new(started.unwrap())),
    };
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut session = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    session
        .execute("BEGIN; SET LOCAL ROLE NONE; SELECT lo_create(0); PREPARE TRANSACTION 'left behind'")
        .await
        .unwrap();
    session.close().await.unwrap();
    assert_eq!(
        tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring,
        None,
        "the old login was not dropped at once"
    );
    let mut superuser = harness.server().admin_options().connect().await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_prepared_xacts").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(left, 0, "prepared transactions that are left");
}
