//! Leases: a landlord that is away, and more operations than connections.
use crate::auditor;
use crate::busy::beside_others;
use crate::provision::migrated;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tenantry::error::ProvisionError;
use tenantry::step::{Step, StepContext, StepError};
use tenantry::testing::Harness;
use tenantry::testing::proxy::{Director, Point, Proxy, Verdict};
use tenantry::{Tenantry, sqlx};

/// A landlord that can be away: every connection is cut, and no new one comes about.
#[derive(Clone, Default)]
struct Outage(Arc<AtomicBool>);
#[async_trait::async_trait]
impl Director for Outage {
    async fn at(&self, _: Point) -> Verdict {
        if self.0.load(SeqCst) { Verdict::Cut } else { Verdict::Forward }
    }
}

/// A node whose landlord stands behind a proxy.
async fn behind(harness: &Harness, proxy: &Proxy, connections: u32, lease: Duration) -> Tenantry {
    let options = harness.landlord().connect_options().as_ref().clone().host("127.0.0.1").port(proxy.port());
    let landlord = PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5));
    node(harness, landlord.connect_lazy_with(options), lease).await
}

async fn node(harness: &Harness, landlord: PgPool, lease: Duration) -> Tenantry {
    let builder = Tenantry::builder(landlord).keys(harness.keys().clone());
    migrated(builder).lease(lease).backoff(Duration::from_millis(50), Duration::from_secs(1)).build().await.unwrap()
}

async fn upstream(harness: &Harness) -> std::net::SocketAddr {
    let options = harness.landlord().connect_options();
    let address = (options.get_host().to_owned(), options.get_port());
    tokio::net::lookup_host(address).await.unwrap().next().unwrap()
}

/// Both nodes recover, as they do in the background, until nothing is open.
async fn settled(nodes: [&Tenantry; 2]) {
    for _ in 0..600 {
        for node in nodes {
            let _ = node.operations().recover().await;
        }
        if nodes[0].operations().open().await.is_ok_and(|open| open.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still open: {:?}", nodes[0].operations().open().await);
}

/// One end for each operation, whoever brought it there.
async fn assert_each_ended_once(harness: &Harness, operations: i64) {
    const ENDS: &str = "SELECT count(*), count(DISTINCT operation) FROM tenantry.operation_events e
        JOIN tenantry.operations o ON o.id = e.operation
        WHERE o.kind = 'provision' AND e.status IN ('done', 'undone')";
    let ends: (i64, i64) = sqlx::query_as(ENDS).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(ends, (operations, operations));
}

/// The outage is several leases long, as a minute is for a lease of ten seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_landlord_that_is_away_in_the_middle_loses_nothing() {
    let lease = Duration::from_secs(1);
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap().close().await;
    let outage = Outage::default();
    let proxy = Proxy::start(upstream(&harness).await, outage.clone()).await.unwrap();
    let (one, two) = (behind(&harness, &proxy, 4, lease).await, behind(&harness, &proxy, 4, lease).await);
    let ids = futures_util::future::join_all((0..6).map(|n| one.provision(format!("tenant-{n}")).key(n).start())).await;
    assert!(ids.iter().all(Result::is_ok), "{ids:?}");
    outage.0.store(true, SeqCst);
    proxy.cut_all();
    tokio::time::sleep(lease * 4).await;
    let known: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.operations WHERE status = 'running' AND kind = 'provision'")
            .fetch_one(harness.landlord())
            .await
            .unwrap();
    assert!(known > 0, "the outage came in the middle of something");
    outage.0.store(false, SeqCst);
    settled([&one, &two]).await;
    for n in 0..6 {
        two.provision(format!("tenant-{n}")).key(n).await.unwrap();
        let db = two.resolve(&format!("tenant-{n}")).await.unwrap();
        sqlx::query("INSERT INTO notes (text) VALUES ('works')").execute(&db).await.unwrap();
    }
    assert_eq!(auditor::on_server(&harness).await.len(), 6 * 4, "six whole tenants, and nothing beside them");
    one.close().await;
    two.close().await;
}

/// Two hundred calls at once over four landlord connections a node: twenty find room, each one ends once, and no lease
/// runs out for want of a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_operations_on_eight_connections_end_once_each() {
    let harness = Harness::start().await.unwrap();
    let set_up = harness.tenantry(migrated).await.unwrap();
    let again = set_up.servers().set_up("main", harness.server().admin_options()).capacity(20);
    again.await.unwrap();
    let landlord = || {
        let options = harness.landlord().connect_options().as_ref().clone();
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(120));
        pool.connect_lazy_with(options)
    };
    let lease = Duration::from_secs(3);
    let nodes = [node(&harness, landlord(), lease).await, node(&harness, landlord(), lease).await];
    let stop = tokio_util::sync::CancellationToken::new();
    let recoverers: Vec<_> = nodes.iter().map(|n| tokio::spawn(n.run(stop.clone().cancelled_owned()))).collect();
    let calls = (0..200).map(|n| nodes[n % 2].provision(format!("tenant-{n}")).into_future());
    let answers = futures_util::future::join_all(calls).await;
    let made = answers.iter().filter(|a| a.is_ok()).count();
    let no_room = answers.iter().filter(|a| matches!(a, Err(ProvisionError::NoRoom { .. }))).count();
    let other: Vec<_> = answers
        .iter()
        .filter_map(|a| a.as_ref().err())
        .filter(|e| !matches!(e, ProvisionError::NoRoom { .. }))
        .collect();
    assert_eq!((made, no_room), (20, 180), "{other:?}");
    settled([&nodes[0], &nodes[1]]).await;
    assert_each_ended_once(&harness, 200).await;
    const TAKEN_OVER: &str = "SELECT count(*) FROM tenantry.operations o JOIN tenantry.epochs e ON e.operation = o.id
        WHERE o.kind = 'provision' AND o.status = 'done' AND e.epoch > 1";
    let taken_over: i64 = sqlx::query_scalar(TAKEN_OVER).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(taken_over, 0, "no lease was lost");
    assert_eq!(auditor::on_server(&harness).await.len(), 20 * 4);
    stop.cancel();
    for recoverer in recoverers {
        recoverer.await.unwrap().unwrap();
    }
}

/// Takes longer than a lease, and counts how often it begins.
struct Patient(Arc<AtomicU32>);
#[async_trait::async_trait]
impl Step for Patient {
    const NAME: &'static str = "seed.patient";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.0.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok(())
    }
}

/// The first renewal has to open a connection, and everything of this operation is in one task with other work.
#[tokio::test]
async fn a_busy_task_keeps_the_lease_of_its_operation() {
    let harness = Harness::start().await.unwrap();
    let begun = Arc::new(AtomicU32::new(0));
    let patient = Patient(begun.clone());
    let lease = Duration::from_secs(2);
    let tenantry = harness.tenantry(|b| migrated(b).lease(lease).after_activation(patient)).await.unwrap();
    beside_others(tenantry.provision("acme").into_future()).await.unwrap();
    assert_eq!(begun.load(SeqCst), 1, "its lease was kept");
    tenantry.close().await;
}

/// Two clocks of the same moment, an hour apart, would agree on no deadline: so only the landlord's is asked.
#[test]
fn no_local_clock_decides_anything_that_another_node_sees() {
    fn sources(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut files = vec![];
    sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    // Stores of one process have that process's clock.
    let local = |path: &std::path::PathBuf| {
        !path.ends_with("memory.rs")
            && !path.components().any(|c| c.as_os_str() == "testing" || c.as_os_str() == "memory")
    };
    for file in files.iter().filter(|path| local(path)) {
        let text = std::fs::read_to_string(file).unwrap();
        for clock in ["SystemTime", "now_utc", "now_local", "UtcDateTime::now"] {
            assert!(!text.contains(clock), "{}: {clock}", file.display());
        }
    }
}
