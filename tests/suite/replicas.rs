//! A physical standby of the tenants' server: reads go there, failures do not come from there, and fences hold there.
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
use tenantry::registry::TenantRegistryExt;
use tenantry::server::TlsMode;
use tenantry::tenant::TenantStatus;
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, TenantPool, Tenantry, sqlx};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

/// A server and a standby of it, for all tests here; `None`, loudly, where no standby can be made.
async fn pair() -> Option<(&'static TestServer, &'static TestServer)> {
    static PAIR: OnceCell<Option<(&TestServer, &TestServer)>> = OnceCell::const_new();
    let pair = PAIR.get_or_init(async || {
        let primary: &'static TestServer = Box::leak(Box::new(TestServer::start().await.unwrap()));
        let standby: &'static TestServer = Box::leak(Box::new(standby_of(primary).await?));
        Some((primary, standby))
    });
    *pair.await
}

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

/// From now on the tenant has a replica there.
async fn replicate(tenantry: &Tenantry, slug: &str, standby: &TestServer) -> TenantDatabase {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap().id();
    let primary = tenantry.registry().primary(tenant).await.unwrap().unwrap();
    let there = standby.admin_options();
    let replica = TenantDatabase::replica_of(&primary, there.get_host(), there.get_port());
    tenantry.registry_writer().put_database(None, &replica, None).await.unwrap();
    tenantry.resolver().invalidate(tenant);
    replica
}

async fn remove(tenantry: &Tenantry, replica: &TenantDatabase) {
    let mut gone = replica.clone();
    gone.status = DatabaseStatus::Dropped;
    tenantry.registry_writer().put_database(Some(replica.generation), &gone, None).await.unwrap();
    tenantry.resolver().invalidate(replica.tenant);
}

/// Until the standby has what the primary has committed.
pub(crate) async fn caught_up(primary: &TestServer, standby: &TestServer) {
    let mut session = primary.admin_options().connect().await.unwrap();
    let at: String =
        sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(&mut session).await.unwrap();
    let mut there = standby.admin_options().connect().await.unwrap();
    const REPLAYED: &str = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
    let begun = Instant::now();
    while !sqlx::query_scalar::<_, bool>(REPLAYED).bind(&at).fetch_one(&mut there).await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not caught up: {:?}", standby.log().await);
    }
}

async fn reads_on_standby(db: &TenantPool) -> bool {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(db).await.unwrap()
}

/// Sessions there by these logins.
async fn sessions(there: &mut PgConnection, logins: &[String]) -> i64 {
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY($1)";
    sqlx::query_scalar(SESSIONS).bind(logins).fetch_one(there).await.unwrap()
}

async fn login_at(tenantry: &Tenantry, slug: &str, standby: &TestServer) -> PgConnectOptions {
    auditor::login(tenantry, slug).await.port(standby.admin_options().get_port())
}

/// Asks again and again, and not for ever.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
    }
}

/// A query on the standby that nobody but the server ends; it says when that was.
async fn busy(db: &TenantPool, there: &mut PgConnection, login: &str) -> JoinHandle<Instant> {
    let reader = db.read();
    let busy = tokio::spawn(async move {
        assert!(sqlx::query("SELECT pg_sleep(600)").execute(&reader).await.is_err());
        Instant::now()
    });
    const RUNS: &str =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%pg_sleep(600)%')";
    until("it runs there", async || {
        assert!(!busy.is_finished());
        sqlx::query_scalar(RUNS).bind(login).fetch_one(&mut *there).await.unwrap()
    })
    .await;
    busy
}

/// The error with its causes.
fn chain(error: &dyn Error) -> String {
    error.to_string() + &error.source().map(|cause| format!(": {}", chain(cause))).unwrap_or_default()
}

#[tokio::test]
async fn reads_go_to_the_standby_as_long_as_there_is_one_and_nothing_else_does() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let kept = db.read();
    assert!(!reads_on_standby(&kept).await, "there is none yet");
    kept.execute("INSERT INTO notes (text) VALUES ('written')").await.expect("the primary takes writes");

    let replica = replicate(&tenantry, "acme", standby).await;
    caught_up(primary, standby).await;
    let now = tenantry.resolve("acme").await.unwrap();
    for db in [&now, &db] {
        assert!(reads_on_standby(&db.read()).await);
        assert!(!reads_on_standby(db).await, "the handle itself goes to the primary");
    }
    assert!(reads_on_standby(&kept).await, "also a handle from before there was one");
    assert_eq!(now.connections().0, 2, "one to each");
    let text: String = sqlx::query_scalar("SELECT text FROM notes").fetch_one(&now.read()).await.unwrap();
    assert_eq!(text, "written");
    let refused = kept.execute("INSERT INTO notes (text) VALUES ('no')").await.unwrap_err();
    assert_eq!(code(&refused), "25006");
    now.execute("INSERT INTO notes (text) VALUES ('yes')").await.unwrap();

    remove(&tenantry, &replica).await;
    let now = tenantry.resolve("acme").await.unwrap();
    for db in [&now.read(), &kept] {
        assert!(!reads_on_standby(db).await, "it is not used any more");
    }
    let login = auditor::login(&tenantry, "acme").await.get_username().to_owned();
    let mut there = standby.admin_options().connect().await.unwrap();
    until("it has no session there", async || sessions(&mut there, std::slice::from_ref(&login)).await == 0).await;
    tenantry.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_down_costs_no_read_and_is_used_again_when_it_is_back() {
    let Some((primary, _)) = pair().await else { return };
    let Some(standby) = standby_of(primary).await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    for slug in ["acme", "other"] {
        tenantry.provision(slug).await.unwrap();
        replicate(&tenantry, slug, &standby).await;
    }
    caught_up(primary, &standby).await;
    let db = tenantry.resolve("acme").await.unwrap();
    assert!(reads_on_standby(&db.read()).await);
    standby.crash().await.unwrap();
    for _ in 0..20 {
        reads_on_standby(&db.read()).await;
    }
    let begun = Instant::now();
    while !reads_on_standby(&db.read()).await {
        assert!(begun.elapsed() < Duration::from_secs(10), "it is back, and is not used");
    }

    standby.stop().await.unwrap();
    let begun = Instant::now();
    let all = futures_util::future::join_all((0..50).map(|_| async { reads_on_standby(&db.read()).await })).await;
    assert!(all.iter().all(|on_standby| !on_standby), "every read is answered by the primary");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // Who comes next need not find out again: nor need another tenant of the same server.
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
async fn no_read_fails_while_logins_change_and_none_of_the_old_ones_stays_on_the_standby() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    replicate(&tenantry, "acme", standby).await;
    tenantry.resolve("acme").await.unwrap().execute("INSERT INTO notes (text) VALUES ('acme')").await.unwrap();
    caught_up(primary, standby).await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
    let mut load = tokio::task::JoinSet::new();
    let kept = tenantry.resolve("acme").await.unwrap().read();
    for n in 0..4 {
        let (tenantry, kept, stop, asked) = (tenantry.clone(), kept.clone(), stop.clone(), asked.clone());
        load.spawn(async move {
            while !stop.load(Relaxed) {
                let db = if n == 0 { kept.clone() } else { tenantry.resolve("acme").await.unwrap().read() };
                let asks = "SELECT pg_is_in_recovery(), text FROM notes, pg_sleep(0.002)";
                let (on_standby, text): (bool, String) = sqlx::query_as(asks).fetch_one(&db).await.expect("answers");
                assert_eq!(text, "acme");
                asked[usize::from(on_standby)].fetch_add(1, Relaxed);
            }
        });
    }
    let (mut there, mut old) = (standby.admin_options().connect().await.unwrap(), vec![]);
    for _ in 0..3 {
        old.push(auditor::login(&tenantry, "acme").await.get_username().to_owned());
        assert_eq!(tenantry.rotate("acme").await.unwrap().retiring, None);
        assert_eq!(sessions(&mut there, &old).await, 0, "an old login is still in there");
        let seen = asked[1].load(Relaxed);
        while asked[1].load(Relaxed) < seen + 20 {
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
    // A read that takes longer than the last moment of a login has the whole grace there too.
    let (long, login) = (kept.clone(), auditor::login(&tenantry, "acme").await.get_username().to_owned());
    let long = tokio::spawn(async move { sqlx::query("SELECT pg_sleep(3)").execute(&long).await.map(drop) });
    const RUNS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%pg_sleep(3)%')";
    until("it runs there", async || sqlx::query_scalar(RUNS).bind(&login).fetch_one(&mut there).await.unwrap()).await;
    assert_eq!(tenantry.rotate("acme").await.unwrap().retiring, None);
    long.await.unwrap().expect("it has its time");
    assert_eq!(sessions(&mut there, &[login]).await, 0);
    // For a login that others know there is no waiting.
    let stranger = login_at(&tenantry, "acme", standby).await;
    let mut session = stranger.connect().await.unwrap();
    assert_eq!(tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap().retiring, None);
    assert!(session.execute("SELECT 1").await.is_err(), "ended on the standby too");
    caught_up(primary, standby).await;
    assert_eq!(code(&stranger.connect().await.unwrap_err()), "28P01");
    tenantry.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_ends_what_a_tenant_does_on_the_standby_within_a_second() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    let mut there = standby.admin_options().connect().await.unwrap();
    for verb in ["suspend", "archive", "purge"] {
        tenantry.provision(verb).await.unwrap();
        replicate(&tenantry, verb, standby).await;
        caught_up(primary, standby).await;
        let (db, login) = (tenantry.resolve(verb).await.unwrap(), login_at(&tenantry, verb, standby).await);
        let busy = busy(&db, &mut there, login.get_username()).await;
        let begun = Instant::now();
        match verb {
            "suspend" => tenantry.suspend(verb).await.map(drop),
            "archive" => tenantry.archive(verb).await.map(drop),
            _ => tenantry.purge(verb).force().await.map(drop),
        }
        .unwrap();
        assert_eq!(sessions(&mut there, &[login.get_username().to_owned()]).await, 0, "{verb}: ended when it says so");
        let took = busy.await.unwrap() - begun;
        assert!(took < Duration::from_secs(1), "{verb}: {took:?}");
        caught_up(primary, standby).await;
        let refused = code(&login.connect().await.unwrap_err());
        assert_eq!(refused, if verb == "purge" { "28P01" } else { "28000" }, "{verb}");
        assert!(db.read().execute("SELECT 1").await.is_err(), "{verb}");
    }
    let db = tenantry.resolve("suspend").await;
    assert!(matches!(db, Err(ResolveError::Suspended(_))));
    tenantry.activate("suspend").await.unwrap();
    caught_up(primary, standby).await;
    let db = tenantry.resolve("suspend").await.unwrap();
    assert!(reads_on_standby(&db.read()).await);
    tenantry.close().await;
}

/// Its entry asks for TLS, which the server there does not speak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lets_nobody_in_costs_no_read() {
    let Some((primary, standby)) = pair().await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut replica = replicate(&tenantry, "acme", standby).await;
    replica.settings.tls = Some(TlsMode::Require);
    tenantry.registry_writer().put_database(Some(replica.generation), &replica, None).await.unwrap();
    tenantry.resolver().invalidate(replica.tenant);
    caught_up(primary, standby).await;
    let db = tenantry.resolve("acme").await.unwrap();
    let begun = Instant::now();
    for _ in 0..20 {
        assert!(!reads_on_standby(&db.read()).await);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    tenantry.close().await;
}

/// A standby that applies what it gets later: until then it knows nothing of a fence, nor of a new login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lags_is_waited_for_by_fences_and_by_nobody_else() {
    let Some((primary, _)) = pair().await else { return };
    let Some(standby) = standby_of(primary).await else { return };
    let harness = Harness::on(primary).await.unwrap();
    let tenantry = harness.tenantry(quick).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    replicate(&tenantry, "acme", &standby).await;
    caught_up(primary, &standby).await;
    let db = tenantry.resolve("acme").await.unwrap();
    assert!(reads_on_standby(&db.read()).await);
    let mut there = standby.admin_options().connect().await.unwrap();

    there.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let old = auditor::login(&tenantry, "acme").await;
    let rotation = tokio::spawn(tenantry.rotate("acme").grace(Duration::from_secs(1)).into_future());
    until("a new login", async || auditor::login(&tenantry, "acme").await.get_username() != old.get_username()).await;
    for _ in 0..20 {
        reads_on_standby(&db.read()).await;
    }
    tenantry.resolver().invalidate(db.tenant().id());
    let now = tenantry.resolve("acme").await.unwrap().read();
    assert!(!reads_on_standby(&now).await, "the new login is not known there: the primary answers");
    there.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(rotation.await.unwrap().unwrap().retiring, None);
    until("the standby answers", async || reads_on_standby(&now).await).await;

    there.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let login = login_at(&tenantry, "acme", &standby).await;
    let suspension = tokio::spawn(tenantry.suspend("acme").into_future());
    let status = async || tenantry.registry().find("acme".into()).await.unwrap().unwrap().status();
    until("suspended", async || status().await == TenantStatus::Suspended).await;
    assert_eq!(code(&auditor::login(&tenantry, "acme").await.connect().await.unwrap_err()), "28000");
    let mut late = login.connect().await.expect("the standby does not know yet");
    assert!(!suspension.is_finished(), "and the suspension does not say that it holds there");
    there.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    suspension.await.unwrap().unwrap();
    assert!(late.execute("SELECT 1").await.is_err(), "who came in meanwhile is ended");
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000");
    tenantry.close().await;
}

#[tokio::test]
async fn a_standby_that_is_gone_delays_no_fence_and_is_named_until_its_entry_is_gone_too() {
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
    let reason = rotated.retiring.expect("it is not known whether it has sessions there");
    assert!(reason.contains(&name), "{reason}");
    assert_eq!(code(&old.connect().await.unwrap_err()), "28000", "the primary refuses it all the same");

    let db = tenantry.resolve("acme").await.unwrap();
    db.read().execute("SELECT 1 FROM notes").await.expect("from the primary");
    let error = tenantry.suspend("acme").await.unwrap_err();
    let ChangeError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.state, FailureState::Continuing, "{failure:?}");
    assert!(chain(&error).contains(&name), "{}", chain(&error));
    let suspended = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    assert_eq!(suspended.status(), TenantStatus::Suspended, "it holds already");
    assert_eq!(code(&auditor::login(&tenantry, "acme").await.connect().await.unwrap_err()), "28000");
    let refused = db.read().execute("SELECT 1").await.unwrap_err();
    assert!(matches!(AcquireError::find(&refused), Some(AcquireError::Refused(_))), "{refused:?}");

    remove(&tenantry, &replica).await;
    until("nothing is open", async || {
        tenantry.operations().recover().await.unwrap();
        tenantry.operations().open().await.unwrap().is_empty()
    })
    .await;
    until("nothing retires", async || {
        tenantry.retire_due().await.unwrap();
        tenantry.retiring(9).await.unwrap().is_empty()
    })
    .await;
    tenantry.activate("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    tenantry.close().await;
}
