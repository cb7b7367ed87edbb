//! Finding a tenant by its slug in the landlord: with a million tenants, compared with a thousand.
//!
//! `cargo bench --bench lookup`. Each measurement finds 300 slugs, and the time of one lookup is compared.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use sqlx::Executor;
use std::time::{Duration, Instant};
use tenantry::registry::PgTenantRegistry;
use tenantry::testing::TestServer;
use tenantry::{TenantRegistry, sqlx};

mod ratio;

const LOOKUPS: u32 = 300;

/// A registry over a landlord with this many tenants.
async fn create_registry(server: &TestServer, tenants: i32) -> PgTenantRegistry {
    let landlord = sqlx::PgPool::connect_with(server.create_database("lookup").await.unwrap().options()).await.unwrap();
    tenantry::schema::install(&landlord).await.unwrap();
    const FILL: &str = "INSERT INTO tenantry.tenants (id, slug, name, status)
        SELECT gen_random_uuid(), 'tenant-' || n, 'Tenant ' || n, 'active' FROM generate_series(1, $1) n";
    sqlx::query(FILL).bind(tenants).execute(&landlord).await.unwrap();
    landlord.execute("VACUUM ANALYZE tenantry.tenants").await.unwrap();
    PgTenantRegistry::new(landlord)
}

/// Mean time of one lookup. `seed` selects other slugs in each round.
async fn measure(registry: &PgTenantRegistry, tenants: u32, seed: u32) -> Duration {
    let slugs: Vec<String> = (0..LOOKUPS)
        .map(|n| format!("tenant-{}", 1 + (n.wrapping_mul(7919).wrapping_add(seed * 104_729)) % tenants))
        .collect();
    let clock = Instant::now();
    for slug in &slugs {
        assert!(registry.find(slug.as_str().into()).await.unwrap().is_some(), "the tenant {slug} was not found");
    }
    clock.elapsed() / LOOKUPS
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let server = TestServer::builder().durable(true).start().await.unwrap();
    println!("{}", server.describe());
    let (many, few) = (create_registry(&server, 1_000_000).await, create_registry(&server, 1000).await);
    let mut ratio = ratio::Ratio::new("lookup by slug: 1,000,000 / 1,000 tenants", 1.3);
    for seed in 0..3 {
        measure(&many, 1_000_000, seed).await;
        measure(&few, 1000, seed).await;
    }
    for seed in 3..44 {
        let ours = measure(&many, 1_000_000, seed).await;
        ratio.add_pair(ours, measure(&few, 1000, seed).await);
    }
    ratio::report("lookup", &[ratio]).unwrap();
}
