//! Connections that break under load: terminated by an administrator, cut for seconds, half-open, or lost in a crash of
//! the server. A task that retries is served again, and no task ever sees another tenant's row.
use crate::auditor;
use crate::provision::migrated;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// Time within which every tenant must be served again. It allows for a machine that runs other tests at the same time;
/// on an idle machine recovery takes far less than a second.
const RECOVERY_LIMIT: Duration = Duration::from_secs(5);
const TENANTS: usize = 4;

/// The network between the pools and the tenants' server, as the proxy simulates it.
#[derive(Clone, Default)]
struct Network {
    /// 0: open. 1: cut. 2: connections numbered up to `last_half_open` are half-open.
    state: Arc<AtomicU8>,
    last_half_open: Arc<AtomicU64>,
    /// Number of the newest connection.
    newest: Arc<AtomicU64>,
}
#[async_trait::async_trait]
impl Director for Network {
    async fn at(&self, point: Point) -> Verdict {
        self.newest.fetch_max(point.connection, SeqCst);
        match self.state.load(SeqCst) {
            1 => Verdict::Cut,
            2 if point.connection <= self.last_half_open.load(SeqCst) && point.stage != Stage::Connect => {
                Verdict::Stall
            }
            _ => Verdict::Forward,
        }
    }
}

/// A node with a few tenants whose server is reached through a proxy.
struct Fixture {
    harness: Harness,
    tenantry: Tenantry,
    proxy: Proxy,
    network: Network,
}

impl Fixture {
    async fn on(harness: Harness) -> Self {
        let tenantry = migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone()));
        let tenantry = tenantry.max_connections(6).build().await.unwrap();
        let admin = harness.server().admin_options();
        let upstream: SocketAddr =
            tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
        let network = Network::default();
        let proxy = Proxy::start(upstream, network.clone()).await.unwrap();
        let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
        set_up.address("127.0.0.1", proxy.port()).await.unwrap();
        for n in 0..TENANTS {
            let slug = format!("tenant-{n}");
            tenantry.provision(&slug).await.unwrap();
            let db = tenantry.resolve(&*slug).await.unwrap();
            sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(&slug).execute(&db).await.unwrap();
        }
        Self { harness, tenantry, proxy, network }
    }

    /// Starts two tasks per tenant that query it without a pause.
    fn start_load(&self) -> Load {
        let load = Load::default();
        for n in (0..TENANTS).chain(0..TENANTS) {
            tokio::spawn(query_in_loop(self.tenantry.clone(), n, load.clone()));
        }
        load
    }
}

/// Tasks that query the tenants, and their results so far.
#[derive(Clone, Default)]
struct Load {
    /// Ends the tasks.
    stopped: Arc<AtomicBool>,
    /// When each tenant was last served.
    last_served: Arc<Mutex<[Option<Instant>; TENANTS]>>,
    /// Number of rows that belonged to another tenant.
    foreign_rows: Arc<AtomicU64>,
    /// Number of failed queries.
    errors: Arc<AtomicU64>,
}

async fn query_in_loop(tenantry: Tenantry, n: usize, load: Load) {
    let slug = format!("tenant-{n}");
    while !load.stopped.load(SeqCst) {
        let answer: Result<String, sqlx::Error> = match tenantry.resolve(&*slug).await {
            Ok(db) => sqlx::query_scalar("SELECT text FROM notes").fetch_one(&db).await,
            Err(error) => Err(sqlx::Error::Configuration(error.into())),
        };
        match answer {
            Ok(text) if text == slug => {
                load.last_served.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some(Instant::now());
            }
            Ok(_) => drop(load.foreign_rows.fetch_add(1, SeqCst)),
            Err(_) => {
                load.errors.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Load {
    /// Waits until every tenant was served after `since`. Returns how long that took, counted from `since`.
    async fn wait_until_all_served(&self, since: Instant) -> Duration {
        loop {
            let served = *self.last_served.lock().unwrap_or_else(PoisonError::into_inner);
            if served.iter().all(|at| at.is_some_and(|at| at > since)) {
                return since.elapsed();
            }
            assert!(
                since.elapsed() < RECOVERY_LIMIT,
                "some tenant was not served again since {since:?}; last served: {served:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    /// Ends the tasks, and asserts that no query returned a row of another tenant.
    fn stop(&self) {
        self.stopped.store(true, SeqCst);
        assert_eq!(self.foreign_rows.load(SeqCst), 0, "rows of another tenant were returned");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_recovers_after_sessions_are_terminated_or_the_network_is_cut() {
    let fixture = Fixture::on(Harness::start().await.unwrap()).await;
    let load = fixture.start_load();
    load.wait_until_all_served(Instant::now()).await;

    let mut admin = auditor::superuser(&fixture.harness).await;
    // Only the sessions of this test: others use the same server.
    const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'tenantry' AND datname = ANY($1)";
    let databases: Vec<String> = sqlx::query_scalar("SELECT database::text FROM tenantry.placements")
        .fetch_all(fixture.harness.landlord())
        .await
        .unwrap();
    for _ in 0..5 {
        // At a moment at which all connections are being replaced there may be none, so it asks again.
        let since = Instant::now();
        while sqlx::query_scalar::<_, i64>(TERMINATE).bind(&databases).fetch_one(&mut admin).await.unwrap() == 0 {
            assert!(since.elapsed() < RECOVERY_LIMIT, "there was no session to terminate");
        }
        let recovery = load.wait_until_all_served(Instant::now()).await;
        println!("recovered {recovery:?} after all sessions were terminated");
    }

    fixture.network.state.store(1, SeqCst);
    fixture.proxy.cut_all();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(load.errors.load(SeqCst) > 0, "no query failed while the network was cut");
    fixture.network.state.store(0, SeqCst);
    println!("recovered {:?} after the network was back", load.wait_until_all_served(Instant::now()).await);
    load.stop();
    fixture.tenantry.close().await;
    fixture.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_idle_connections_are_detected_before_use() {
    let fixture = Fixture::on(Harness::start().await.unwrap()).await;
    let query_each_tenant = async || {
        let queries = (0..TENANTS).map(async |n| {
            let slug = format!("tenant-{n}");
            let db = fixture.tenantry.resolve(&*slug).await.unwrap();
            let text: String = sqlx::query_scalar("SELECT text FROM notes").fetch_one(&db).await.unwrap();
            assert_eq!(text, slug);
        });
        tokio::time::timeout(RECOVERY_LIMIT, futures_util::future::join_all(queries))
            .await
            .expect("every tenant is served within the limit")
            .len()
    };
    query_each_tenant().await;
    // Longer than `ping_after`: the pool pings each connection before it uses it again.
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.network.last_half_open.store(fixture.network.newest.load(SeqCst), SeqCst);
    fixture.network.state.store(2, SeqCst);
    let started = Instant::now();
    assert_eq!(query_each_tenant().await, TENANTS, "some query failed");
    println!("served {:?} after all connections became half-open", started.elapsed());
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "the connections were not half-open: the pool did not wait for a ping"
    );
    fixture.tenantry.close().await;
    fixture.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_serves_all_tenants_after_the_server_crashed() {
    let server = match TestServer::builder().local_only().start().await {
        Err(NoServer::Local(error)) => {
            println!("!!! SKIPPED: only a local server can be crashed: {error} !!!");
            return;
        }
        started => Box::leak(Box::new(started.unwrap())),
    };
    let fixture = Fixture::on(Harness::on(server).await.unwrap()).await;
    let load = fixture.start_load();
    load.wait_until_all_served(Instant::now()).await;
    server.crash().await.unwrap();
    println!("recovered {:?} after the crashed server was back", load.wait_until_all_served(Instant::now()).await);
    assert!(load.errors.load(SeqCst) > 0, "no query failed while the server was down");
    load.stop();
    fixture.tenantry.close().await;
    fixture.proxy.stop().await;
}
