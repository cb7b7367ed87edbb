//! What the quickstart shows: tenants are provisioned, used, suspended, activated and purged.
use super::AnyError;
use secrecy::ExposeSecret;
use sqlx::postgres::PgPool;
use sqlx::{ConnectOptions, Connection};
use std::time::Instant;
use tenantry::Tenantry;
use tenantry::directory::TenantDatabase;
use tenantry::registry::TenantRegistry;
use tenantry::testing::connect_options;

const SLUGS: [&str; 3] = ["acme", "globex", "initech"];

/// Runs the whole tour. Afterwards the tenants `acme` and `globex` exist.
pub(super) async fn run(tenantry: &Tenantry, landlord: &PgPool) -> Result<(), AnyError> {
    provision(tenantry).await?;
    write_and_read_rows(tenantry).await?;
    try_foreign_databases(tenantry, landlord).await?;
    change_status(tenantry).await?;
    print_landlord(landlord).await
}

async fn provision(tenantry: &Tenantry) -> Result<(), AnyError> {
    for slug in SLUGS {
        let clock = Instant::now();
        println!("\nProvisioning {slug}");
        let call = tenantry.provision(slug).admin(format!("ada@{slug}.example"));
        let done = call.on_event(|event| println!("  {event}")).await?;
        println!("  ready in {:.0?}", clock.elapsed());
        if let Some(link) = done.link {
            let path = link.expose_path();
            println!("  setup link for {}: {}… (shown once, works once)", link.email, &path[..30]);
        }
    }
    Ok(())
}

async fn write_and_read_rows(tenantry: &Tenantry) -> Result<(), AnyError> {
    println!("\nRows, with plain sqlx");
    for slug in SLUGS {
        let clock = Instant::now();
        let db = tenantry.resolve(slug).await?;
        sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(format!("hello from {slug}")).execute(&db).await?;
        let texts: Vec<String> = sqlx::query_scalar("SELECT text FROM notes").fetch_all(&db).await?;
        println!("  {slug}: {texts:?} in {:.1?}", clock.elapsed());
    }
    Ok(())
}

/// Shows that the server refuses a tenant's login in another tenant's database and in the landlord.
async fn try_foreign_databases(tenantry: &Tenantry, landlord: &PgPool) -> Result<(), AnyError> {
    println!("\nacme's login, in databases of others");
    let mut entries = vec![];
    for slug in ["acme", "globex"] {
        let tenant = tenantry.registry().find(slug.into()).await?.ok_or("no such tenant")?;
        entries.push(tenantry.registry().primary(tenant.id()).await?.ok_or("no entry")?);
    }
    let password = tenantry.vault().open(&entries[0].credential).await?;
    let TenantDatabase { host, port, login, database, .. } = &entries[0];
    let login = connect_options(host, *port, login.as_str(), password.expose_secret(), database.as_str());
    let landlord = landlord.connect_options().get_database().unwrap_or_default().to_owned();
    for (what, database) in [("globex's database", entries[1].database.as_str()), ("the landlord", &landlord)] {
        match login.clone().database(database).connect().await {
            Ok(session) => {
                session.close().await?;
                return Err(format!("{what} accepted acme's login").into());
            }
            Err(error) => println!("  {what}: {error}"),
        }
    }
    Ok(())
}

async fn change_status(tenantry: &Tenantry) -> Result<(), AnyError> {
    println!("\nSuspension, activation and purge");
    let clock = Instant::now();
    tenantry.suspend("globex").reason("unpaid").await?;
    match tenantry.resolve("globex").await {
        Ok(_) => return Err("a suspended tenant was resolved".into()),
        Err(error) => println!("  suspended in {:.0?}: {error}", clock.elapsed()),
    }
    let clock = Instant::now();
    tenantry.activate("globex").await?;
    let notes: i64 =
        sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&tenantry.resolve("globex").await?).await?;
    println!("  activated in {:.0?}: {notes} note, as before", clock.elapsed());
    let clock = Instant::now();
    tenantry.purge("initech").force().await?;
    println!("  initech purged in {:.0?}; its slug is free again", clock.elapsed());
    Ok(())
}

async fn print_landlord(landlord: &PgPool) -> Result<(), AnyError> {
    println!("\nContents of the landlord");
    const TENANTS: &str = "SELECT t.slug, t.status, coalesce(d.database, '-'), coalesce(d.login, '-'), \
        (SELECT count(*) FROM tenantry.credentials WHERE owner = 'tenant:' || t.id) \
        FROM tenantry.tenants t LEFT JOIN tenantry.tenant_databases d ON d.tenant_id = t.id AND d.status = 'active' \
        ORDER BY t.id";
    println!("  {:10} {:10} {:36} {:40} secrets", "tenant", "status", "database", "login");
    for (slug, status, database, login, secrets) in
        sqlx::query_as::<_, (String, String, String, String, i64)>(TENANTS).fetch_all(landlord).await?
    {
        println!("  {slug:10} {status:10} {database:36} {login:40} {secrets}");
    }
    const OPERATIONS: &str = "SELECT kind, status, count(*), avg(extract(epoch FROM finished_at - created_at) * 1000)::float8 \
        FROM tenantry.operations GROUP BY 1, 2 ORDER BY min(created_at)";
    println!("  {:16} {:8} {:>5}  mean", "operation", "status", "count");
    for (kind, status, count, mean) in
        sqlx::query_as::<_, (String, String, i64, Option<f64>)>(OPERATIONS).fetch_all(landlord).await?
    {
        println!("  {kind:16} {status:8} {count:>5}  {:.0} ms", mean.unwrap_or_default());
    }
    Ok(())
}
