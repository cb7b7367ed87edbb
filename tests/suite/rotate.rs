//! Rotation: a new login without a lost query, and an old one that goes, now or when nothing keeps it any more.
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

async fn who(db: &TenantPool) -> (String, String) {
    sqlx::query_as("SELECT session_user::text, current_user::text").fetch_one(db).await.unwrap()
}

/// The tenant's logins on the server, as a superuser sees them.
async fn logins(harness: &Harness, database: &str) -> Vec<String> {
    const LOGINS: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '\\_v%' ORDER BY 1";
    let mut server = auditor::superuser(harness).await;
    sqlx::query_scalar(LOGINS).bind(database).fetch_all(&mut server).await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "names that the crate has made")]
async fn run(admin: &mut PgConnection, statement: String) {
    admin.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
}

async fn database_of(tenantry: &Tenantry, slug: &str) -> String {
    auditor::login(tenantry, slug).await.get_database().unwrap().to_owned()
}

#[tokio::test]
async fn a_tenant_goes_over_to_a_new_login_and_the_old_one_is_gone() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('before')").await.unwrap();
    let (was, app) = who(&db).await;
    let old = auditor::login(&tenantry, "acme").await;

    let rotated = tenantry.rotate("acme").reason("yearly").await.unwrap();
    assert_eq!((rotated.generation.0, rotated.retiring), (2, None));
    let (is, app_now) = who(&db).await;
    assert_ne!(was, is);
    assert_eq!(app, app_now, "what it may do, and whose the objects are, stays the same");
    let notes: i64 = sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&db).await.unwrap();
    assert_eq!(notes, 1, "a handle from before goes on");
    assert_eq!(code(&old.connect().await.unwrap_err()), "28P01", "the old login is gone");
    assert_eq!(logins(&harness, &database_of(&tenantry, "acme").await).await, [is]);
    let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.credentials WHERE purpose = 'login'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(secrets, 1, "the old secret is forgotten");
    assert_eq!(tenantry.rotate("acme").await.unwrap().generation.0, 3);
}

/// Two places: whoever is refused must not keep the second.
#[tokio::test]
async fn a_rotation_that_is_refused_keeps_no_place_among_the_workers() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| quick(b).workers(2)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let held = db.acquire().await.unwrap();
    let first = tenantry.rotate("acme").grace(Duration::from_secs(60)).start().await.unwrap();
    for _ in 0..3 {
        let refused = tenantry.rotate("acme").await;
        assert!(matches!(refused, Err(ChangeError::Busy { operation, .. }) if operation == first), "{refused:?}");
    }
    tenantry.provision("other").await.unwrap();
    drop(held);
    tenantry.close().await;
}

#[tokio::test]
async fn who_cannot_be_rotated_is_told_so_and_one_key_is_one_rotation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    assert!(matches!(tenantry.rotate("nobody").await, Err(ChangeError::Unknown)));
    tenantry.provision("acme").await.unwrap();
    let first = tenantry.rotate("acme").key("suspicion-7").await.unwrap();
    let again = tenantry.rotate("acme").key("suspicion-7").await.unwrap();
    assert_eq!((first.generation.0, again.generation.0), (2, 2), "joined, not done twice");
    let other = tenantry.rotate("acme").key("suspicion-7").grace(Duration::ZERO).await;
    assert!(matches!(other, Err(ChangeError::KeyReused { .. })), "{other:?}");
    tenantry.suspend("acme").await.unwrap();
    assert!(matches!(tenantry.rotate("acme").await, Err(ChangeError::Status { .. })));
}

/// Two nodes that run, and ask all the time; every answer must be the tenant's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_fails_while_logins_change() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(quick).await.unwrap(), harness.tenantry(quick).await.unwrap()];
    for slug in ["acme", "other"] {
        nodes[0].provision(slug).await.unwrap();
        let db = nodes[0].resolve(slug).await.unwrap();
        sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(slug).execute(&db).await.unwrap();
    }
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for node in &nodes {
        tokio::spawn(node.run(std::future::pending::<()>()));
        for slug in ["acme", "acme", "other"] {
            let (node, stop, asked) = (node.clone(), stop.clone(), asked.clone());
            load.spawn(async move {
                while !stop.load(Relaxed) {
                    let db = node.resolve(slug).await.expect("resolves");
                    let text: String =
                        sqlx::query_scalar("SELECT text FROM notes").fetch_one(&db).await.expect("answers");
                    assert_eq!(text, slug, "no other tenant's row, ever");
                    asked.fetch_add(1, Relaxed);
                }
            });
        }
    }
    for n in 0..15 {
        let rotated = nodes[n % 2].rotate("acme").await.unwrap();
        assert_eq!(rotated.retiring, None);
        let seen = asked.load(Relaxed);
        while asked.load(Relaxed) < seen + 20 {
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
async fn a_zero_grace_ends_what_uses_the_old_login_and_a_longer_one_waits_for_it() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut stranger = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
    assert!(stranger.execute("SELECT 1").await.is_err(), "ended at once");

    let mut job = auditor::login(&tenantry, "acme").await.connect().await.unwrap();
    let rotation = tokio::spawn(tenantry.rotate("acme").grace(Duration::from_secs(60)).into_future());
    let flipped = async || tenantry.resolve("acme").await.is_ok_and(|db| db.tenant().slug().as_str() == "acme");
    assert!(flipped().await);
    for _ in 0..5 {
        job.execute("SELECT pg_sleep(0.02)").await.expect("goes on within the grace");
    }
    assert!(!rotation.is_finished(), "it waits for the job");
    job.close().await.unwrap();
    assert_eq!(rotation.await.unwrap().unwrap().retiring, None);
}

/// Rotates while `obstacle` stands, goes on working, and is rid of the old login when it is gone.
async fn waits(harness: &Harness, tenantry: &Tenantry, slug: &str, named: &str) -> String {
    waits_after(Duration::ZERO, harness, tenantry, slug, named).await
}

async fn waits_after(grace: Duration, harness: &Harness, tenantry: &Tenantry, slug: &str, named: &str) -> String {
    let db = tenantry.resolve(slug).await.unwrap();
    let rotated = tenantry.rotate(slug).grace(grace).await.unwrap();
    let reason = rotated.retiring.unwrap_or_else(|| panic!("{slug}: the old login should have stayed"));
    assert!(reason.contains(named), "{slug}: {reason}");
    db.execute("INSERT INTO notes (text) VALUES ('the application never notices')").await.unwrap();
    let listed = tenantry.retiring(100).await.unwrap();
    let mine = listed.iter().find(|r| r.user.tenant == rotated.tenant.id()).expect("it is listed");
    assert_eq!(mine.user.reason.as_deref(), Some(reason.as_str()));
    assert_eq!(tenantry.operations().open().await.unwrap().len(), 0, "no operation is kept open for it");
    assert_eq!(logins(harness, mine.user.database.as_str()).await.len(), 2);
    mine.user.database.to_string()
}

async fn gone(harness: &Harness, tenantry: &Tenantry, database: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while logins(harness, database).await.len() > 1 {
        assert!(Instant::now() < until, "still there: {:?}", tenantry.retiring(9).await);
        tenantry.retire_due().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!tenantry.retiring(100).await.unwrap().iter().any(|r| r.user.database.as_str() == database));
}

#[tokio::test]
async fn a_grant_in_another_database_keeps_the_old_login_and_nothing_else() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let mut admin = auditor::superuser(&harness).await;
    let grant = format!("GRANT TEMPORARY ON DATABASE postgres TO \"{old}\"");
    run(&mut admin, grant).await;
    let database = waits(&harness, &tenantry, "acme", &old).await;
    // Rotating again blocks on nothing: two may wait.
    assert_eq!(tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
    run(&mut admin, format!("REVOKE TEMPORARY ON DATABASE postgres FROM \"{old}\"")).await;
    gone(&harness, &tenantry, &database).await;
}

#[tokio::test]
async fn a_lock_that_another_session_holds_is_waited_for_later() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let mut admin = auditor::superuser(&harness).await;
    let lock = format!("BEGIN; ALTER ROLE \"{old}\" CONNECTION LIMIT 3");
    run(&mut admin, lock).await;
    let database = waits(&harness, &tenantry, "acme", "locked").await;
    admin.execute("ROLLBACK").await.unwrap();
    gone(&harness, &tenantry, &database).await;
}

/// From 16 on a role is managed by whoever has ADMIN on it; on 15 by everybody with CREATEROLE.
#[tokio::test]
async fn a_right_that_was_taken_away_keeps_the_old_login_until_it_is_back() {
    let harness = Harness::start().await.unwrap();
    if harness.server().version_num() < 160_000 {
        println!("!!! SKIPPED: on this version nobody can take the right away !!!");
        return;
    }
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let (mut admin, role) = (auditor::superuser(&harness).await, format!("{}_admin", harness.prefix()));
    run(&mut admin, format!("REVOKE ADMIN OPTION FOR \"{old}\" FROM \"{role}\"")).await;
    // Without a grace the rotation would not end: the old login can still enter.
    let grace = Duration::from_millis(1);
    let database = waits_after(grace, &harness, &tenantry, "acme", "WITH ADMIN OPTION").await;
    run(&mut admin, format!("GRANT \"{old}\" TO \"{role}\" WITH ADMIN OPTION")).await;
    gone(&harness, &tenantry, &database).await;
}

#[tokio::test]
async fn what_a_login_made_by_accident_is_no_obstacle() {
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
    assert_eq!(tenantry.rotate("acme").await.unwrap().retiring, None, "dropped at once");
    let db = tenantry.resolve("acme").await.unwrap();
    for object in [object, own] {
        let kept: Vec<u8> =
            sqlx::query_scalar("SELECT lo_get($1::bigint::oid)").bind(object).fetch_one(&db).await.unwrap();
        assert!(!kept.is_empty(), "the new login reads it");
    }
}

/// The flip waits for a lock of the landlord's while the tenant is suspended.
async fn suspended_before_the_flip(harness: &Harness, tenantry: &Tenantry) -> tenantry::OperationId {
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
async fn a_suspend_in_the_middle_takes_the_new_login_too_and_activation_goes_on_with_it() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let database = database_of(&tenantry, "acme").await;
    let id = suspended_before_the_flip(&harness, &tenantry).await;
    let parked = tenantry.operations().get(id).await.unwrap().unwrap();
    assert_eq!(parked.status, OperationStatus::Parked);
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Suspended(_))));
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '\\_v%' AND rolcanlogin")
            .bind(&database)
            .fetch_one(&mut auditor::superuser(&harness).await)
            .await
            .unwrap();
    assert_eq!(open, 0, "neither the old login nor the new one comes in");
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
    assert_eq!(logins(&harness, &database).await, [who(&db).await.0]);
}

#[tokio::test]
async fn an_undone_rotation_leaves_the_tenant_as_it_was() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| quick(b).attempts(1)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (database, old) = (database_of(&tenantry, "acme").await, auditor::login(&tenantry, "acme").await);
    // Somebody else's role has the name that the next login would have.
    let mut admin = auditor::superuser(&harness).await;
    run(&mut admin, format!("CREATE ROLE \"{database}_v2\" NOLOGIN")).await;
    let error = tenantry.rotate("acme").await.unwrap_err();
    assert!(matches!(&error, ChangeError::Failed(f) if f.state == tenantry::error::FailureState::Undone), "{error:?}");
    old.connect().await.expect("the old login is in use").close().await.unwrap();
    assert_eq!(logins(&harness, &database).await.len(), 2, "a stranger's role is left alone");
    let open: Vec<String> = auditor::landlord_only(harness.landlord()).await;
    let users: Vec<_> = open.iter().filter(|row| row.starts_with("user") || row.starts_with("secret login")).collect();
    assert_eq!(users.len(), 2, "one login and its secret: {users:?}");
    // The next one takes another name.
    assert_eq!(tenantry.rotate("acme").await.unwrap().generation.0, 3);
    run(&mut admin, format!("DROP ROLE \"{database}_v2\"")).await;
}

#[tokio::test]
async fn all_are_rotated_and_those_that_were_are_left_alone() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    for slug in ["aaa", "bbb", "ccc"] {
        tenantry.provision(slug).await.unwrap();
    }
    let young = tenantry.rotate_all().older_than(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((young.done.len(), young.unchanged, young.failed.len()), (0, 3, 0));
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
async fn no_password_is_told_by_the_history_of_a_rotation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap();
    tenantry.rotate("acme").await.unwrap();
    use tenantry::registry::TenantRegistryExt;
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
async fn who_is_connecting_with_the_new_login_is_not_taken_for_somebody_with_the_old_one() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let before = auditor::login(&tenantry, "acme").await;
    let job = before.clone().connect().await.unwrap();
    let rotation = tokio::spawn(tenantry.rotate("acme").grace(Duration::from_secs(60)).into_future());
    let new = loop {
        let now = auditor::login(&tenantry, "acme").await;
        if now.get_username() != before.get_username() {
            break now;
        }
        tokio::task::yield_now().await;
    };
    // The rotation waits for the job. Meanwhile somebody has passed the new login's door, and stands in it.
    let connecting = tokio::spawn(async move { new.options([("post_auth_delay", "1")]).connect().await });
    const IN_THE_DOOR: &str = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
        WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND d.datname = $1
          AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL))";
    let mut admin = auditor::superuser(&harness).await;
    let database = before.get_database().unwrap();
    while !sqlx::query_scalar::<_, bool>(IN_THE_DOOR).bind(database).fetch_one(&mut admin).await.unwrap() {}
    job.close().await.unwrap();
    assert_eq!(rotation.await.unwrap().unwrap().retiring, None);
    let mut session = connecting.await.unwrap().expect("it is not ended");
    session.execute("SELECT * FROM notes").await.unwrap();
}

/// Does this to the first `DROP ROLE` that passes.
#[derive(Clone, Default)]
struct AtDrop(Arc<std::sync::Mutex<Option<Verdict>>>);
#[async_trait::async_trait]
impl Director for AtDrop {
    async fn at(&self, point: Point) -> Verdict {
        match point.stage == Stage::Before && point.sql.starts_with("DROP ROLE") {
            true => self.0.lock().unwrap().take().unwrap_or(Verdict::Forward),
            false => Verdict::Forward,
        }
    }
}

#[tokio::test]
async fn a_deadlock_and_a_connection_that_breaks_leave_the_old_login_to_the_queue() {
    let harness = Harness::start().await.unwrap();
    let tenantry =
        quick(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone())).build().await.unwrap();
    let (admin, faults) = (harness.server().admin_options(), AtDrop::default());
    let upstream = tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
    let proxy = Proxy::start(upstream, faults.clone()).await.unwrap();
    let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
    set_up.address("127.0.0.1", proxy.port()).await.unwrap();
    for (n, fault) in [Verdict::Answer("40P01"), Verdict::Answer("57014"), Verdict::Cut].into_iter().enumerate() {
        let slug = format!("tenant-{n}");
        tenantry.provision(&slug).await.unwrap();
        *faults.0.lock().unwrap() = Some(fault);
        let database = waits(&harness, &tenantry, &slug, "dropping a role").await;
        gone(&harness, &tenantry, &database).await;
    }
    tenantry.close().await;
    proxy.stop().await;
}

#[tokio::test]
async fn rotate_rolls_back_a_prepared_transaction_of_the_old_login() {
    let server = match TestServer::builder().setting("max_prepared_transactions", "10").start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => {
            println!("!!! SKIPPED: a server named by URL takes no settings !!!");
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
    assert_eq!(tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None, "dropped at once");
    let mut superuser = harness.server().admin_options().connect().await.unwrap();
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_prepared_xacts").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(left, 0);
}
