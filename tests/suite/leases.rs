//! Leases of operations: a landlord that is unreachable for longer than a lease, more operations than landlord
//! connections, and a worker whose task is busy. Each operation ends once. No node decides anything by its local clock.
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

/// A landlord that can be unreachable: the proxy then cuts every connection and accepts none.
#[derive(Clone, Default)]
struct Outage(Arc<AtomicBool>);
#[async_trait::async_trait]
impl Director for Outage {
    async fn at(&self, _: Point) -> Verdict {
        if self.0.load(SeqCst) { Verdict::Cut } else { Verdict::Forward }
    }
}

/// Builds a node that reaches its landlord through a proxy.
async fn build_node_behind(harness: &Harness, proxy: &Proxy, connections: u32, lease: Duration) -> Tenantry {
    let options = harness.landlord().connect_options().as_ref().clone().host("127.0.0.1").port(proxy.port());
    let landlord = PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5));
    build_node(harness, landlord.connect_lazy_with(options), lease).await
}

async fn build_node(harness: &Harness, landlord: PgPool, lease: Duration) -> Tenantry {
    let builder = Tenantry::builder(landlord).keys(harness.keys().clone());
    migrated(builder).lease(lease).backoff(Duration::from_millis(50), Duration::from_secs(1)).build().await.unwrap()
}

/// Address of the landlord's server.
async fn landlord_address(harness: &Harness) -> std::net::SocketAddr {
    let options = harness.landlord().connect_options();
    let address = (options.get_host().to_owned(), options.get_port());
    tokio::net::lookup_host(address).await.unwrap().next().unwrap()
}

/// Runs recovery on both nodes until no operation is open.
async fn recover_all(nodes: [&Tenantry; 2]) {
    for _ in 0..600 {
        for node in nodes {
            let _ = node.operations().recover().await;
        }
        if nodes[0].operations().open().await.is_ok_and(|open| open.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("operations are still open after a minute of recovery: {:?}", nodes[0].operations().open().await);
}

/// Asserts that each provisioning has exactly one event with a final status.
async fn assert_each_ended_once(harness: &Harness, operations: i64) {
    const ENDS: &str = "SELECT count(*), count(DISTINCT operation) FROM tenantry.operation_events e
        JOIN tenantry.operations o ON o.id = e.operation
        WHERE o.kind = 'provision' AND e.status IN ('done', 'undone')";
    let ends: (i64, i64) = sqlx::query_as(ENDS).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(ends, (operations, operations), "final events, and operations that have one");
}

/// The outage lasts four leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_complete_after_an_outage_of_the_landlord() {
    let lease = Duration::from_secs(1);
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap().close().await;
    let outage = Outage::default();
    let proxy = Proxy::start(landlord_address(&harness).await, outage.clone()).await.unwrap();
    let (one, two) =
        (build_node_behind(&harness, &proxy, 4, lease).await, build_node_behind(&harness, &proxy, 4, lease).await);
    let ids = futures_util::future::join_all((0..6).map(|n| one.provision(format!("tenant-{n}")).key(n).start())).await;
    assert!(ids.iter().all(Result::is_ok), "{ids:?}");
    outage.0.store(true, SeqCst);
    proxy.cut_all();
    tokio::time::sleep(lease * 4).await;
    let running: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.operations WHERE status = 'running' AND kind = 'provision'")
            .fetch_one(harness.landlord())
            .await
            .unwrap();
    assert!(running > 0, "no operation was running during the outage");
    outage.0.store(false, SeqCst);
    recover_all([&one, &two]).await;
    for n in 0..6 {
        two.provision(format!("tenant-{n}")).key(n).await.unwrap();
        let db = two.resolve(&format!("tenant-{n}")).await.unwrap();
        sqlx::query("INSERT INTO notes (text) VALUES ('works')").execute(&db).await.unwrap();
    }
    assert_eq!(
        auditor::on_server(&harness).await.len(),
        6 * 4,
        "each tenant must have four objects on the server, and there must be no others"
    );
    one.close().await;
    two.close().await;
}

/// Two nodes with four landlord connections each get two hundred calls at once. The server has capacity for twenty
/// tenants. Each operation ends once, and no lease expires because its renewal has to wait for a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_operations_on_eight_connections_end_once_each() {
    let harness = Harness::start().await.unwrap();
    let set_up = harness.tenantry(migrated).await.unwrap();
    let limited = set_up.servers().set_up("main", harness.server().admin_options()).capacity(20);
    limited.await.unwrap();
    let landlord = || {
        let options = harness.landlord().connect_options().as_ref().clone();
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(120));
        pool.connect_lazy_with(options)
    };
    // All together take longer than this on any machine, so leases are renewed while connections are scarce. A busy machine
    // delays a renewal by seconds.
    let lease = Duration::from_secs(10);
    let nodes = [build_node(&harness, landlord(), lease).await, build_node(&harness, landlord(), lease).await];
    let stop = tokio_util::sync::CancellationToken::new();
    let recoverers: Vec<_> = nodes.iter().map(|n| tokio::spawn(n.run(stop.clone().cancelled_owned()))).collect();
    let calls = (0..200).map(|n| nodes[n % 2].provision(format!("tenant-{n}")).into_future());
    let answers = futures_util::future::join_all(calls).await;
    let succeeded = answers.iter().filter(|a| a.is_ok()).count();
    let no_room = answers.iter().filter(|a| matches!(a, Err(ProvisionError::NoRoom { .. }))).count();
    let other: Vec<_> = answers
        .iter()
        .filter_map(|a| a.as_ref().err())
        .filter(|e| !matches!(e, ProvisionError::NoRoom { .. }))
        .collect();
    assert_eq!(
        (succeeded, no_room),
        (20, 180),
        "provisionings that succeeded or found no capacity; other errors: {other:?}"
    );
    recover_all([&nodes[0], &nodes[1]]).await;
    assert_each_ended_once(&harness, 200).await;
    const TAKEN_OVER: &str = "SELECT count(*) FROM tenantry.operations o JOIN tenantry.epochs e ON e.operation = o.id
        WHERE o.kind = 'provision' AND o.status = 'done' AND e.epoch > 1";
    let taken_over: i64 = sqlx::query_scalar(TAKEN_OVER).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(taken_over, 0, "number of operations that another worker took over");
    assert_eq!(auditor::on_server(&harness).await.len(), 20 * 4);
    stop.cancel();
    for recoverer in recoverers {
        recoverer.await.unwrap().unwrap();
    }
}

/// Takes longer than a lease, and counts how often it begins.
struct LongStep(Arc<AtomicU32>);
#[async_trait::async_trait]
impl Step for LongStep {
    const NAME: &'static str = "seed.patient";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.0.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok(())
    }
}

/// The operation and the renewals of its lease run in one task with CPU-bound work. The first renewal has to open a
/// connection.
#[tokio::test]
async fn operation_in_a_busy_task_keeps_its_lease() {
    let harness = Harness::start().await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let step = LongStep(runs.clone());
    let lease = Duration::from_secs(2);
    let tenantry = harness.tenantry(|b| migrated(b).lease(lease).after_activation(step)).await.unwrap();
    beside_others(tenantry.provision("acme").into_future()).await.unwrap();
    assert_eq!(runs.load(SeqCst), 1, "the step ran more than once, so the lease was lost");
    tenantry.close().await;
}

/// Clocks of different nodes can differ, so deadlines that several nodes see must use the landlord's clock only. One file
/// compares both clocks, because their difference is a finding of the doctor.
#[test]
fn source_code_reads_no_local_clock() {
    fn collect_files(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { collect_files(&path, found) } else { found.push(path) }
        }
    }
    let mut files = vec![];
    collect_files(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    // The in-memory stores belong to one process and use its clock.
    let is_shared = |path: &std::path::PathBuf| {
        !path.ends_with("memory.rs")
            && !path.ends_with("doctor/observe/clock.rs")
            && !path.components().any(|c| c.as_os_str() == "testing" || c.as_os_str() == "memory")
    };
    for file in files.iter().filter(|path| is_shared(path)) {
        let text = std::fs::read_to_string(file).unwrap();
        for clock in ["SystemTime", "now_utc", "now_local", "UtcDateTime::now"] {
            assert!(!text.contains(clock), "{} reads a local clock: {clock}", file.display());
        }
    }
}
