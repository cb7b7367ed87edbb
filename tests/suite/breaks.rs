//! Connections that break under a load: terminated, cut for seconds, half-open, a server that crashes. Whoever asks again is
//! served again, and never with another tenant's row.
use crate::auditor;
use crate::provision::migrated;
use sqlx::Executor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
use tenantry::testing::server::NoServer;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// Served again after so long, by a machine that runs other tests beside this one; undisturbed it is far less than a second.
const BACK: Duration = Duration::from_secs(5);
const TENANTS: usize = 4;

/// The way to the tenants' server.
#[derive(Clone, Default)]
struct Way {
    /// 0: open; 1: cut; 2: connections up to `newest` are half-open.
    state: Arc<AtomicU8>,
    newest: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
}
#[async_trait::async_trait]
impl Director for Way {
    async fn at(&self, point: Point) -> Verdict {
        self.seen.fetch_max(point.connection, SeqCst);
        match self.state.load(SeqCst) {
            1 => Verdict::Cut,
            2 if point.connection <= self.newest.load(SeqCst) && point.stage != Stage::Connect => Verdict::Stall,
            _ => Verdict::Forward,
        }
    }
}

struct World {
    harness: Harness,
    tenantry: Tenantry,
    proxy: Proxy,
    way: Way,
}

impl World {
    async fn on(harness: Harness) -> Self {
        let tenantry = migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone()));
        let tenantry = tenantry.max_connections(6).build().await.unwrap();
        let admin = harness.server().admin_options();
        let upstream: SocketAddr =
            tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
        let way = Way::default();
        let proxy = Proxy::start(upstream, way.clone()).await.unwrap();
        let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
        set_up.address("127.0.0.1", proxy.port()).await.unwrap();
        for n in 0..TENANTS {
            let slug = format!("tenant-{n}");
            tenantry.provision(&slug).await.unwrap();
            let db = tenantry.resolve(&*slug).await.unwrap();
            sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(&slug).execute(&db).await.unwrap();
        }
        Self { harness, tenantry, proxy, way }
    }

    fn load(&self) -> Load {
        let load = Load::default();
        for n in (0..TENANTS).chain(0..TENANTS) {
            tokio::spawn(ask(self.tenantry.clone(), n, load.clone()));
        }
        load
    }
}

/// Asks without a pause, and says when each tenant was served last.
#[derive(Clone, Default)]
struct Load {
    over: Arc<AtomicBool>,
    served: Arc<Mutex<[Option<Instant>; TENANTS]>>,
    wrong: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

async fn ask(tenantry: Tenantry, n: usize, load: Load) {
    let slug = format!("tenant-{n}");
    while !load.over.load(SeqCst) {
        let answer: Result<String, sqlx::Error> = match tenantry.resolve(&*slug).await {
            Ok(db) => sqlx::query_scalar("SELECT text FROM notes").fetch_one(&db).await,
            Err(error) => Err(sqlx::Error::Configuration(error.into())),
        };
        match answer {
            Ok(text) if text == slug => {
                load.served.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some(Instant::now());
            }
            Ok(_) => drop(load.wrong.fetch_add(1, SeqCst)),
            Err(_) => {
                load.failed.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Load {
    /// Until every tenant was served after `since`; how long that took.
    async fn all_served(&self, since: Instant) -> Duration {
        loop {
            let served = *self.served.lock().unwrap_or_else(PoisonError::into_inner);
            if served.iter().all(|at| at.is_some_and(|at| at > since)) {
                return since.elapsed();
            }
            assert!(since.elapsed() < BACK, "not served again: {served:?} of {since:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    fn end(&self) {
        self.over.store(true, SeqCst);
        assert_eq!(self.wrong.load(SeqCst), 0, "another tenant's row");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_ended_or_cut_for_seconds_come_back_by_themselves() {
    let world = World::on(Harness::start().await.unwrap()).await;
    let load = world.load();
    load.all_served(Instant::now()).await;

    let mut admin = auditor::superuser(&world.harness).await;
    const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'tenantry' AND datname LIKE 't\\_%'";
    for _ in 0..5 {
        admin.execute(END).await.unwrap();
        let back = load.all_served(Instant::now()).await;
        println!("BACK {back:?} after all sessions were terminated");
    }

    world.way.state.store(1, SeqCst);
    world.proxy.cut_all();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(load.failed.load(SeqCst) > 0, "it was noticed");
    world.way.state.store(0, SeqCst);
    println!("BACK {:?} after five seconds without a network", load.all_served(Instant::now()).await);
    load.end();
    world.tenantry.close().await;
    world.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_lead_nowhere_are_found_before_they_are_used() {
    let world = World::on(Harness::start().await.unwrap()).await;
    let one_each = async || {
        let asked = (0..TENANTS).map(async |n| {
            let slug = format!("tenant-{n}");
            let db = world.tenantry.resolve(&*slug).await.unwrap();
            let text: String = sqlx::query_scalar("SELECT text FROM notes").fetch_one(&db).await.unwrap();
            assert_eq!(text, slug);
        });
        tokio::time::timeout(BACK, futures_util::future::join_all(asked)).await.expect("served").len()
    };
    one_each().await;
    // Longer than what counts as just used.
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.way.newest.store(world.way.seen.load(SeqCst), SeqCst);
    world.way.state.store(2, SeqCst);
    let asked = Instant::now();
    assert_eq!(one_each().await, TENANTS, "nobody has noticed more than the wait");
    println!("BACK {:?} over half-open connections", asked.elapsed());
    assert!(asked.elapsed() >= Duration::from_millis(400), "they did lead nowhere");
    world.tenantry.close().await;
    world.proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_serves_everybody_when_it_is_back() {
    let server = match TestServer::builder().local_only().start().await {
        Err(NoServer::Local(error)) => {
            println!("!!! SKIPPED: only a local server can be crashed: {error} !!!");
            return;
        }
        started => Box::leak(Box::new(started.unwrap())),
    };
    let world = World::on(Harness::on(server).await.unwrap()).await;
    let load = world.load();
    load.all_served(Instant::now()).await;
    server.crash().await.unwrap();
    println!("BACK {:?} after the server was back", load.all_served(Instant::now()).await);
    assert!(load.failed.load(SeqCst) > 0, "it was noticed");
    load.end();
    world.tenantry.close().await;
    world.proxy.stop().await;
}
