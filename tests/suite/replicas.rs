//! A physical standby of the tenants' server, registered as a replica.
//!
//! `TenantPool::read()` uses the standby and falls back to the primary, so a broken standby never fails a read.
//! Suspend, archive, purge and rotate end the sessions of old logins on the standby too.
use crate::auditor::{self, code};
use crate::provision::migrated;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor, PgConnection};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::directory::{DatabaseStatus, TenantDatabase};
use tenantry::error::{ChangeError, FailureState, ResolveError};
use tenantry::pool::AcquireError;
use tenantry::registry::TenantRegistry;
use tenantry::server::TlsMode;
use tenantry::tenant::TenantStatus;
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, TenantPool, Tenantry, sqlx};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

/// A server and its standby, shared by the tests of this file. `None`, with a note in the output, where no standby can
/// be made.
async fn pair() -> Option<(&'static TestServer, &'static TestServer)> {
    static PAIR: OnceCell<Option<(&TestServer, &TestServer)>> = OnceCell::const_new();
    let pair = PAIR.get_or_init(async || {
        let primary: &'static TestServer = Box::leak(Box::new(TestServer::start().await.unwrap()));
        let standby: &'static TestServer = Box::leak(Box::new(standby_of(primary).await?));
        Some((primary, standby))
    });
    *pair.await
}

/// A new standby of this server, for tests that stop or pause it.
async fn standby_of(primary: &TestServer) -> Option<TestServer> {
    match primary.standby().await {
        Err(error @ NoServer::NoStandby { .. }) => {
            println!("!!! SKIPPED: {error}: REPLICAS ARE UNTESTED HERE !!!");
            None
        }
        started => Some(started.unwrap()),
    }
}

fn quick(builder: Builder) -> Builder {
    migrated(builder).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

/// Registers the standby as a replica of the tenant's database.
async fn replicate(tenantry: &Tenantry, slug: &str, standby: &TestServer) -> TenantDatabase {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap().id();
    let primary = tenantry.registry().primary(tenant).await.unwrap().unwrap();
    let on_standby = standby.admin_options();
    let replica = TenantDatabase::replica_of(&primary, on_standby.get_host(), on_standby.get_port());
    tenantry.registry_writer().put_database(None, &replica, None).await.unwrap();
    tenantry.resolver().invalidate(tenant);
    replica
}

/// Marks the replica's entry as dropped.
async fn remove(tenantry: &Tenantry, replica: &TenantDatabase) {
    let mut dropped = replica.clone();
    dropped.status = DatabaseStatus::Dropped;
    tenantry.registry_writer().put_database(Some(replica.generation), &dropped, None).await.unwrap();
    tenantry.resolver().invalidate(replica.tenant);
}

/// Waits until the standby has replayed everything that the primary has committed so far.
pub(crate) async fn wait_for_replay(primary: &TestServer, standby: &TestServer) {
    let mut session = primary.admin_options().connect().await.unwrap();
    let position: String =
        sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(&mut session).await.unwrap();
    let mut on_standby = standby.admin_options().connect().await.unwrap();
    const REPLAYED: &str = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
    let begun = Instant::now();
    while !sqlx::query_scalar::<_, bool>(REPLAYED).bind(&position).fetch_one(&mut on_standby).await.unwrap() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the standby has not caught up within 60 s: {:?}",
            standby.log().await
        );
    }
}

/// Whether a query through this handle runs on a standby.
async fn reads_on_standby(db: &TenantPool) -> bool {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(db).await.unwrap()
}

/// How many sessions on the standby belong to these logins.
async fn sessions(on_standby: &mut PgConnection, logins: &[String]) -> i64 {
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY($1)";
    sqlx::query_scalar(SESSIONS).bind(logins).fetch_one(on_standby).await.unwrap()
}

/// The tenant's current login, to be used on the standby.
async fn login_at(tenantry: &Tenantry, slug: &str, standby: &TestServer) -> PgConnectOptions {
    auditor::login(tenantry, slug).await.port(standby.admin_options().get_port())
}

/// Polls the condition; panics after 60 s.
async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "not reached within 60 s: {what}");
    }
}

/// Starts a query on the standby that runs until PostgreSQL terminates it. The task returns the time at which it ended.
async fn start_long_read(db: &TenantPool, on_standby: &mut PgConnection, login: &str) -> JoinHandle<Instant> {
    let reader = db.read();
    let long_read = tokio::spawn(async move {
        assert!(sqlx::query("SELECT pg_sleep(600)").execute(&reader).await.is_err(), "the query was not terminated");
        Instant::now()
    });
    const RUNS: &str =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%pg_sleep(600)%')";
    wait_until("the long query runs on the standby", async || {
        assert!(!long_read.is_finished(), "the long query ended before it was seen on the standby");
        sqlx::query_scalar(RUNS).bind(login).fetch_one(&mut *on_standby).await.unwrap()
    })
    .await;
    long_read
}

/// The message of the error and of all its causes.
fn chain(error: &dyn Error) -> String {
    error.to_string() + &error.source().map(|cause| format!(": {}", chain(cause))).unwrap_or_default()
}

/// A session that cannot be cleared is closed. The statements that clear it must also work in recovery.
#[tokio::test]
async fn acquired_session_of_a_standby_is_used_again() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    replicate(&tenantry, "acme", standby).await;
    wait_for_replay(primary, standby).await;
    let db = tenantry.resolve("acme").await.unwrap().read();
    const SESSION: &str = "SELECT pg_backend_pid(), pg_is_in_recovery()";
    let mut first = db.acquire().await.unwrap();
    let session: (i32, bool) = sqlx::query_as(SESSION).fetch_one(&mut *first).await.unwrap();
    assert!(session.1, "the session is not on the standby");
    sqlx::query("SELECT pg_advisory_lock(14)").execute(&mut *first).await.unwrap();
    drop(first);
    wait_until("the acquired session is idle", async || {
        tokio::task::yield_now().await;
        db.connections() == (1, 0)
    })
    .await;
    assert_eq!(sqlx::query_as::<_, (i32, bool)>(SESSION).fetch_one(&db).await.unwrap(), session);
    let locks: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 14")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(locks, 0, "a lock of the last caller is left on the standby");
}

#[tokio::test]
async fn read_handle_uses_the_standby_while_it_is_registered() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let reader = db.read();
    assert!(!reads_on_standby(&reader).await, "a read ran on a standby before any was registered");
    reader
        .execute("INSERT INTO notes (text) VALUES ('written')")
        .await
        .expect("the read handle of a tenant without replica cannot write");

    let replica = replicate(&tenantry, "acme", standby).await;
    wait_for_replay(primary, standby).await;
    let current = tenantry.resolve("acme").await.unwrap();
    for db in [&current, &db] {
        assert!(reads_on_standby(&db.read()).await);
        assert!(!reads_on_standby(db).await, "the plain handle ran on the standby");
    }
    assert!(reads_on_standby(&reader).await, "a read handle from before the registration does not use the standby");
    assert_eq!(current.connections().0, 2, "expected one connection to each server");
    let text: String = sqlx::query_scalar("SELECT text FROM notes").fetch_one(&current.read()).await.unwrap();
    assert_eq!(text, "written");
    let refused = reader.execute("INSERT INTO notes (text) VALUES ('no')").await.unwrap_err();
    assert_eq!(code(&refused), "25006");
    current.execute("INSERT INTO notes (text) VALUES ('yes')").await.unwrap();

    remove(&tenantry, &replica).await;
    let current = tenantry.resolve("acme").await.unwrap();
    for db in [&current.read(), &reader] {
        assert!(!reads_on_standby(db).await, "a dropped replica is still used");
    }
    let login = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let mut on_standby = standby.admin_options().connect().await.unwrap();
    wait_until("the login has no session on the standby", async || {
        sessions(&mut on_standby, std::slice::from_ref(&login)).await == 0
    })
    .await;
    tenantry.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_standby_fails_no_read_and_is_used_again_after_a_restart() {
    let Some((primary, _)) = pair().await else { return };
    let Some(standby) = standby_of(primary).await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    for slug in ["acme", "other"] {
        tenantry.provision(slug).await.unwrap();
        replicate(&tenantry, slug, &standby).await;
    }
    wait_for_replay(primary, &standby).await;
    let db = tenantry.resolve("acme").await.unwrap();
    assert!(reads_on_standby(&db.read()).await);
    standby.crash().await.unwrap();
    for _ in 0..20 {
        reads_on_standby(&db.read()).await;
    }
    let begun = Instant::now();
    while !reads_on_standby(&db.read()).await {
        assert!(begun.elapsed() < Duration::from_secs(10), "the restarted standby is not used within 10 s");
    }

    standby.stop().await.unwrap();
    let begun = Instant::now();
    let all = futures_util::future::join_all((0..50).map(|_| async { reads_on_standby(&db.read()).await })).await;
    assert!(all.iter().all(|on_standby| !on_standby), "a read ran on a stopped standby");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // The failure is remembered per server, so neither this tenant nor another one waits for the standby again.
    let other = tenantry.resolve("other").await.unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        reads_on_standby(&db.read()).await;
        reads_on_standby(&other.read()).await;
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    tenantry.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_fails_no_read_and_ends_old_logins_on_the_standby() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    replicate(&tenantry, "acme", standby).await;
    tenantry.resolve("acme").await.unwrap().execute("INSERT INTO notes (text) VALUES ('acme')").await.unwrap();
    wait_for_replay(primary, standby).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
    let mut load = tokio::task::JoinSet::new();
    let reader = tenantry.resolve("acme").await.unwrap().read();
    for n in 0..4 {
        let (tenantry, reader, stop, answers) = (tenantry.clone(), reader.clone(), stop.clone(), answers.clone());
        load.spawn(async move {
            while !stop.load(Relaxed) {
                let db = if n == 0 { reader.clone() } else { tenantry.resolve("acme").await.unwrap().read() };
                let asks = "SELECT pg_is_in_recovery(), text FROM notes, pg_sleep(0.002)";
                let (on_standby, text): (bool, String) =
                    sqlx::query_as(asks).fetch_one(&db).await.expect("a read failed during a rotation");
                assert_eq!(text, "acme");
                answers[usize::from(on_standby)].fetch_add(1, Relaxed);
            }
        });
    }
    let (mut on_standby, mut old) = (standby.admin_options().connect().await.unwrap(), vec![]);
    for _ in 0..3 {
        old.push(auditor::login(&tenantry, "acme").await.get_username().to_owned());
        assert_eq!(tenantry.rotate("acme").await.unwrap().retiring, None);
        assert_eq!(sessions(&mut on_standby, &old).await, 0, "an old login still has a session on the standby");
        let seen = answers[1].load(Relaxed);
        while answers[1].load(Relaxed) < seen + 20 {
            if let Some(ended) = load.try_join_next() {
                ended.unwrap();
            }
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    // The grace applies on the standby too: a read that is running when the login changes may finish.
    let (slow_read, login) = (reader.clone(), auditor::login(&tenantry, "acme").await.get_username().to_owned());
    let slow_read = tokio::spawn(async move { sqlx::query("SELECT pg_sleep(3)").execute(&slow_read).await.map(drop) });
    const RUNS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%pg_sleep(3)%')";
    wait_until("the long read runs on the standby", async || {
        sqlx::query_scalar(RUNS).bind(&login).fetch_one(&mut on_standby).await.unwrap()
    })
    .await;
    assert_eq!(tenantry.rotate("acme").await.unwrap().retiring, None);
    slow_read.await.unwrap().expect("a read was terminated within the grace");
    assert_eq!(sessions(&mut on_standby, &[login]).await, 0);
    // With a grace of zero, sessions of the old login are terminated at once.
    let other_client = login_at(&tenantry, "acme", standby).await;
    let mut session = other_client.connect().await.unwrap();
    assert_eq!(tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
    assert!(session.execute("SELECT 1").await.is_err(), "a session of the old login survived on the standby");
    wait_for_replay(primary, standby).await;
    assert_eq!(code(&other_client.connect().await.unwrap_err()), "28P01");
    tenantry.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_archive_and_purge_end_sessions_on_the_standby_within_a_second() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let mut on_standby = standby.admin_options().connect().await.unwrap();
    for verb in ["suspend", "archive", "purge"] {
        tenantry.provision(verb).await.unwrap();
        replicate(&tenantry, verb, standby).await;
        wait_for_replay(primary, standby).await;
        let (db, login) = (tenantry.resolve(verb).await.unwrap(), login_at(&tenantry, verb, standby).await);
        let long_read = start_long_read(&db, &mut on_standby, login.get_username()).await;
        let begun = Instant::now();
        match verb {
            "suspend" => tenantry.suspend(verb).await.map(drop),
            "archive" => tenantry.archive(verb).await.map(drop),
            _ => tenantry.purge(verb).force().await.map(drop),
        }
        .unwrap();
        assert_eq!(
            sessions(&mut on_standby, &[login.get_username().to_owned()]).await,
            0,
            "{verb} returned and sessions are left on the standby"
        );
        let took = long_read.await.unwrap() - begun;
        assert!(took < Duration::from_secs(1), "{verb} ended the query on the standby only after {took:?}");
        wait_for_replay(primary, standby).await;
        let refused = code(&login.connect().await.unwrap_err());
        assert_eq!(refused, if verb == "purge" { "28P01" } else { "28000" }, "{verb}");
        assert!(db.read().execute("SELECT 1").await.is_err(), "{verb}");
    }
    let db = tenantry.resolve("suspend").await;
    assert!(matches!(db, Err(ResolveError::Suspended(_))));
    tenantry.activate("suspend").await.unwrap();
    wait_for_replay(primary, standby).await;
    let db = tenantry.resolve("suspend").await.unwrap();
    assert!(reads_on_standby(&db.read()).await);
    tenantry.close().await;
}

/// The replica's entry requires TLS, which the standby does not offer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standby_that_refuses_connections_fails_no_read() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut replica = replicate(&tenantry, "acme", standby).await;
    replica.settings.tls = Some(TlsMode::Require);
    tenantry.registry_writer().put_database(Some(replica.generation), &replica, None).await.unwrap();
    tenantry.resolver().invalidate(replica.tenant);
    wait_for_replay(primary, standby).await;
    let db = tenantry.resolve("acme").await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(!reads_on_standby(&db.read()).await);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    tenantry.close().await;
}

/// Replay on the standby is paused, so it knows neither a new login nor `NOLOGIN` until replay continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_waits_for_a_lagging_standby_and_reads_do_not() {
    let Some((primary, _)) = pair().await else { return };
    let Some(standby) = standby_of(primary).await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    replicate(&tenantry, "acme", &standby).await;
    wait_for_replay(primary, &standby).await;
    let db = tenantry.resolve("acme").await.unwrap();
    assert!(reads_on_standby(&db.read()).await);
    let mut on_standby = standby.admin_options().connect().await.unwrap();

    on_standby.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await;
    let rotation = tokio::spawn(tenantry.rotate("acme").grace(Duration::from_secs(1)).into_future());
    wait_until("the tenant has a new login", async || {
        auditor::login(&tenantry, "acme").await.get_username() != old.get_username()
    })
    .await;
    for _ in 0..20 {
        reads_on_standby(&db.read()).await;
    }
    tenantry.resolver().invalidate(db.tenant().id());
    let current = tenantry.resolve("acme").await.unwrap().read();
    assert!(!reads_on_standby(&current).await, "a read with the new login ran on a standby that cannot know it yet");
    on_standby.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(rotation.await.unwrap().unwrap().retiring, None);
    wait_until("reads run on the standby again", async || reads_on_standby(&current).await).await;

    on_standby.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let login = login_at(&tenantry, "acme", &standby).await;
    let suspension = tokio::spawn(tenantry.suspend("acme").into_future());
    let status = async || tenantry.registry().find("acme".into()).await.unwrap().unwrap().status();
    wait_until("the tenant is suspended in the registry", async || status().await == TenantStatus::Suspended).await;
    assert_eq!(code(&auditor::login(&tenantry, "acme").await.connect().await.unwrap_err()), "28000");
    let mut late_session = login.connect().await.expect("the standby refused the login before replay continued");
    assert!(!suspension.is_finished(), "suspend returned before the standby had replayed NOLOGIN");
    on_standby.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    suspension.await.unwrap().unwrap();
    assert!(
        late_session.execute("SELECT 1").await.is_err(),
        "a session that was opened while the standby lagged was not terminated"
    );
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
    tenantry.close().await;
}

#[tokio::test]
async fn unreachable_standby_is_named_and_does_not_delay_the_refusal_of_logins() {
    let Some((primary, _)) = pair().await else { return };
    let Some(standby) = standby_of(primary).await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(|b| quick(b).attempts(1)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let replica = replicate(&tenantry, "acme", &standby).await;
    let name = format!("the standby at {}:{}", replica.host, replica.port);
    standby.stop().await.unwrap();

    let old = auditor::login(&tenantry, "acme").await;
    let rotated = tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
    let reason = rotated.retiring.expect("the old login retires while its sessions on the standby are unknown");
    assert!(reason.contains(&name), "{reason}");
    assert_eq!(code(&old.connect().await.unwrap_err()), "28000", "the primary still accepts the old login");

    let db = tenantry.resolve("acme").await.unwrap();
    db.read()
        .execute("SELECT 1 FROM notes")
        .await
        .expect("the primary did not answer a read while the standby was stopped");
    let error = tenantry.suspend("acme").await.unwrap_err();
    let ChangeError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.state, FailureState::Continuing, "{failure:?}");
    assert!(chain(&error).contains(&name), "{}", chain(&error));
    let suspended = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    assert_eq!(
        suspended.status(),
        TenantStatus::Suspended,
        "the tenant is not suspended although the primary was reachable"
    );
    assert_eq!(code(&auditor::login(&tenantry, "acme").await.connect().await.unwrap_err()), "28000");
    let refused = db.read().execute("SELECT 1").await.unwrap_err();
    assert!(matches!(AcquireError::find(&refused), Some(AcquireError::Refused(_))), "{refused:?}");

    remove(&tenantry, &replica).await;
    wait_until("no operation is open", async || {
        tenantry.operations().recover().await.unwrap();
        tenantry.operations().open().await.unwrap().is_empty()
    })
    .await;
    wait_until("no old login is left", async || {
        tenantry.retire_due().await.unwrap();
        tenantry.retiring(9).await.unwrap().is_empty()
    })
    .await;
    tenantry.activate("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    tenantry.close().await;
}
