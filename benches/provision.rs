//! Provisioning a tenant, compared with a program that sends the same SQL statements over the same connections but
//! keeps no journal.
//!
//! `cargo bench --bench provision [-- --encryption off|tls]` measures without TLS and with TLS. The module [`bare`] is the reference.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use std::time::Instant;
use tenantry::sqlx;
use tenantry::testing::Harness;

mod bare;
mod encryption;
mod ratio;
use encryption::Encryption;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("benches/migrations");

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut ratios = vec![];
    for encryption in Encryption::from_arguments() {
        ratios.push(measure(encryption).await);
    }
    ratio::report("provision", &ratios).unwrap();
}

async fn measure(encryption: Encryption) -> ratio::Ratio {
    let server = encryption.server().durable(true).start().await.unwrap();
    println!("{}", encryption.label(&server.describe()));
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&MIGRATIONS)).await.unwrap();
    let bare = bare::Bare::new(&harness, &tenantry, &MIGRATIONS).await;
    let mut ratio = ratio::Ratio::new(encryption.label("provision a tenant (three migrations)"), 1.3);
    for n in 0..34 {
        let clock = Instant::now();
        tenantry.provision(format!("tenant-{n}")).await.unwrap();
        let ours = clock.elapsed();
        let clock = Instant::now();
        bare.provision(&format!("bare_{n}")).await;
        let reference = clock.elapsed();
        // The first rounds fill caches and prepare statements, so they are not counted.
        if n >= 3 {
            ratio.add_pair(ours, reference);
        }
    }
    tenantry.close().await;
    ratio
}
