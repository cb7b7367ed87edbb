//! The frame of the quickstart: arguments, server, tour, and the clean-up that follows in every case.
use super::example_server::{ExampleServer, Landlord, exit};
use super::{AnyError, tour};
use futures_util::StreamExt;
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tenantry::registry::TenantRegistry;
use tenantry::{Tenantry, vault::LocalKeyring};
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: cargo run --example quickstart [-- --keep]

  --keep  remove nothing, and print how to connect

TENANTRY_DATABASE_URL=postgres://…  use the server at this URL. It names a superuser, or a role with
                                    CREATEDB and CREATEROLE.";

/// Maximum time to purge the tenants in the clean-up.
const PURGE_TIME: Duration = Duration::from_secs(60);

/// Runs the example with these command-line arguments.
pub(crate) async fn run(arguments: impl Iterator<Item = String>) -> Result<(), AnyError> {
    let mut keep = false;
    for argument in arguments {
        match argument.as_str() {
            "--keep" => keep = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(format!("unknown argument {argument:?}\n{USAGE}").into()),
        }
    }
    // From here on Ctrl-C does not end the process but is received below.
    let mut interrupts = signal(SignalKind::interrupt())?;
    println!("Finding or starting a PostgreSQL server …");
    let server = ExampleServer::start(Landlord::random("tenantry_quickstart"), None).await?;
    println!("Server: {}", server.describe());
    let mut node = None;
    let (toured, interrupted) = tokio::select! {
        toured = set_up_and_tour(&server, &mut node) => (toured, false),
        _ = interrupts.recv() => (Err("interrupted".into()), true),
    };
    if keep && !interrupted {
        close(node).await;
        return both(toured, server.keep().await);
    }
    let prefix = server.prefix().to_owned();
    let cleaned = tokio::select! {
        cleaned = clean_up(server, node) => cleaned,
        _ = interrupts.recv() => Err(format!("interrupted; names that begin with {prefix} may be left").into()),
    };
    both(toured, cleaned)
}

/// The error of the tour comes first; that of the clean-up is printed before it and never replaces it.
fn both(toured: Result<(), AnyError>, cleaned: Result<(), AnyError>) -> Result<(), AnyError> {
    match (toured, cleaned) {
        (Ok(()), cleaned) => cleaned.map_err(|error| format!("the clean-up failed: {}", exit::chain(&*error)).into()),
        (Err(error), cleaned) => {
            if let Err(cleaned) = cleaned {
                eprintln!("error: the clean-up failed too: {}", exit::chain(&*cleaned));
            }
            Err(error)
        }
    }
}

/// The parts of a running example that the clean-up needs.
struct Node {
    tenantry: Tenantry,
    landlord: PgPool,
}

async fn set_up_and_tour(server: &ExampleServer, node: &mut Option<Node>) -> Result<(), AnyError> {
    let clock = Instant::now();
    let landlord = server.landlord().await?;
    tenantry::schema::install(&landlord).await?;
    let tenantry = Tenantry::builder(landlord.clone())
        // A throwaway key: secrets that it seals cannot be opened after this process ends. A real application reads its
        // key with LocalKeyring::from_env.
        .keys(LocalKeyring::random())
        .tenant_migrations(&sqlx::migrate!("examples/tenant_migrations"))
        .build()
        .await?;
    let Node { tenantry, landlord } = node.insert(Node { tenantry, landlord });
    let report = tenantry.servers().set_up("main", server.admin()).prefix(server.prefix()).await?;
    println!("Set up in {:.0?}, with a throwaway sealing key.", clock.elapsed());
    report.left_open.iter().for_each(|note| println!("  note: {note}"));
    tour::run(tenantry, landlord).await
}

/// Removes everything that the example has created.
async fn clean_up(server: ExampleServer, node: Option<Node>) -> Result<(), AnyError> {
    let mut purged = Ok(());
    if let Some(node) = node.as_ref().filter(|_| server.is_named_by_url()) {
        purged = purge_tenants(&node.tenantry).await;
    }
    close(node).await;
    let removed = server.remove().await;
    purged.and(removed)
}

async fn close(node: Option<Node>) {
    if let Some(Node { tenantry, landlord }) = node {
        tenantry.close().await;
        landlord.close().await;
    }
}

/// Purges all tenants. A tenant whose provisioning was interrupted is purged when that has ended.
async fn purge_tenants(tenantry: &Tenantry) -> Result<(), AnyError> {
    let clock = Instant::now();
    loop {
        let mut failed = None;
        let tenants: Vec<_> = tenantry.registry().all().collect().await;
        for tenant in tenants {
            let tenant = tenant?;
            if let Err(error) = tenantry.purge(&tenant).force().await {
                failed = Some(format!("tenant {} cannot be purged: {}", tenant.slug(), exit::chain(&error)));
            }
        }
        // An interrupted set-up stays open: it has no tenant, and `ExampleServer::remove` drops what it created.
        let open = tenantry.operations().open().await?;
        let open = open.iter().filter(|o| o.subject.tenant().is_some()).map(|o| format!("{} at {}", o.kind, o.step));
        let open: Vec<_> = open.collect();
        match failed {
            None if open.is_empty() => return Ok(()),
            Some(error) if clock.elapsed() > PURGE_TIME => return Err(error.into()),
            None if clock.elapsed() > PURGE_TIME => {
                return Err(
                    format!("these operations have not ended within {PURGE_TIME:?}: {}", open.join(", ")).into()
                );
            }
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
