//! An examination of 1,000 tenants on one server, compared with a bare loop that connects to each database once as the
//! provisioner; and its memory with 1,000 and with 100,000 rows in the registry.
//!
//! `cargo bench --bench doctor`; `-- --tenants 200` takes fewer tenants and leaves the memory out.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use futures_util::{StreamExt, stream};
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::time::{Duration, Instant};
use tenantry::secret::CredentialId;
use tenantry::testing::{Harness, TestServer, connect_options};
use tenantry::{Tenantry, sqlx};

mod ratio;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("benches/migrations");
/// Pairs of measurements.
const ROUNDS: usize = 5;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given = arguments.iter().position(|argument| argument == "--tenants").and_then(|at| arguments.get(at + 1));
    let tenants: usize = given.map_or(1000, |number| number.parse().unwrap());
    let server = TestServer::builder().start().await.unwrap();
    println!("{}", server.describe());
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let tenantry = harness.tenantry(|builder| builder.tenant_migrations(&MIGRATIONS)).await.unwrap();
    let provisioned = stream::iter(0..tenants).map(|n| tenantry.provision(format!("tenant-{n}")).into_future());
    provisioned.buffer_unordered(8).for_each(|provisioned| async move { drop(provisioned.unwrap()) }).await;
    let databases = list_databases(&harness).await;
    assert_eq!(databases.len(), tenants, "some tenant has no database");

    let provisioner = provisioner_options(&harness, &tenantry).await;
    let mut without = ratio::Ratio::new(format!("examine {tenants} tenants as the provisioner / bare loop"), 1.5);
    let mut with = ratio::Ratio::new(format!("examine {tenants} tenants with their logins / bare loop"), 2.7);
    for round in 0..=ROUNDS {
        let (ours, reference) = (examine(&tenantry, false).await, connect_to_all(&provisioner, &databases).await);
        let (logins, again) = (examine(&tenantry, true).await, connect_to_all(&provisioner, &databases).await);
        if round > 0 {
            without.add_pair(ours, reference);
            with.add_pair(logins, again);
        }
    }
    ratio::report("doctor", &[without, with]).unwrap();
    if given.is_none() {
        measure_memory(&harness, &tenantry).await;
    }
    tenantry.close().await;
}

/// The time of an examination, which finds nothing.
async fn examine(tenantry: &Tenantry, logins: bool) -> Duration {
    let clock = Instant::now();
    let plan = tenantry.doctor().logins(logins).examine().await.unwrap();
    let took = clock.elapsed();
    assert!(plan.is_clean(), "{}", plan.to_json());
    took
}

/// The time of a loop that connects to each database, runs a statement and disconnects.
async fn connect_to_all(provisioner: &PgConnectOptions, databases: &[String]) -> Duration {
    let clock = Instant::now();
    for database in databases {
        let mut session = provisioner.clone().database(database).connect().await.unwrap();
        sqlx::raw_sql("SELECT 1").execute(&mut session).await.unwrap();
        session.close().await.unwrap();
    }
    clock.elapsed()
}

async fn list_databases(harness: &Harness) -> Vec<String> {
    let names = sqlx::query_scalar("SELECT database FROM tenantry.placements ORDER BY 1");
    names.fetch_all(harness.landlord()).await.unwrap()
}

/// Options of the provisioner's login, without a database.
async fn provisioner_options(harness: &Harness, tenantry: &Tenantry) -> PgConnectOptions {
    let login = format!("{}_blue", harness.prefix());
    let id = CredentialId::provisioner(&"main".parse().unwrap(), &login.parse().unwrap(), 1);
    let password = tenantry.vault().open(&id).await.unwrap();
    let admin = harness.server().admin_options();
    connect_options(admin.get_host(), admin.get_port(), &login, password.expose_secret(), "postgres")
}

/// Prints the peak memory of the process with few and with many rows in the registry. The rows have no placement.
async fn measure_memory(harness: &Harness, tenantry: &Tenantry) {
    const FILL: &str = "INSERT INTO tenantry.tenants (id, slug, name, status)
        SELECT gen_random_uuid(), 'row-' || $1 || '-' || n, 'Row', 'archived' FROM generate_series(1, $1) n";
    for rows in [1000, 99_000] {
        sqlx::query(FILL).bind(rows).execute(harness.landlord()).await.unwrap();
        let took = examine(tenantry, false).await;
        println!("examined with {rows} more rows in {took:.1?}: the peak of the process is {} MiB", peak() / 1024);
    }
}

/// Peak of the resident memory in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
