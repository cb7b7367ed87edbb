//! Queries with which the tests inspect the server and the landlord. They share no code with the crate, so an error in
//! one of the crate's own queries cannot hide what an operation has left behind.
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, PgConnection};
use tenantry::testing::Harness;

/// Opens a superuser's session on the harness's server.
pub(crate) async fn superuser(harness: &Harness) -> PgConnection {
    harness.server().admin_options().connect().await.expect("the superuser can connect")
}

/// Names of the databases and roles on the server that this installation made for tenants, sorted.
pub(crate) async fn on_server(harness: &Harness) -> Vec<String> {
    const FOUND: &str = "SELECT 'database ' || d.datname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
          WHERE r.rolname = $1 || '_admin' AND d.datname <> $1 || '_maintenance'
        UNION ALL
        SELECT 'role ' || rolname FROM pg_roles
          WHERE shobj_description(oid, 'pg_authid') LIKE 'tenantry ' || $2 || ' %'
        ORDER BY 1";
    let installation: String =
        sqlx::query_scalar("SELECT id::text FROM tenantry.installation").fetch_one(harness.landlord()).await.unwrap();
    let mut server = superuser(harness).await;
    sqlx::query_scalar(FOUND).bind(harness.prefix()).bind(installation).fetch_all(&mut server).await.unwrap()
}

/// The landlord's rows of tenants that are not deleted: one line per row, sorted.
pub(crate) async fn landlord_only(landlord: &PgPool) -> Vec<String> {
    const ROWS: &str = "SELECT 'tenant ' || slug || ' ' || status FROM tenantry.tenants WHERE status <> 'deleted'
        UNION ALL SELECT 'domain ' || domain FROM tenantry.tenant_domains
        UNION ALL SELECT 'entry ' || database FROM tenantry.tenant_databases WHERE status <> 'dropped'
        UNION ALL SELECT 'user ' || role FROM tenantry.tenant_database_users WHERE status <> 'dropped'
        UNION ALL SELECT 'place ' || database FROM tenantry.placements
        UNION ALL SELECT 'secret ' || purpose FROM tenantry.credentials WHERE owner LIKE 'tenant:%'
        UNION ALL SELECT 'token ' || email FROM tenantry.setup_tokens
        UNION ALL SELECT 'lane ' || subject FROM tenantry.lanes
            WHERE (change IS NOT NULL OR fence IS NOT NULL) AND subject LIKE 'tenant:%'
        UNION ALL SELECT 'count ' || tenants FROM tenantry.database_servers WHERE tenants <> 0
        ORDER BY 1";
    sqlx::query_scalar(ROWS).fetch_all(landlord).await.unwrap()
}

/// Asserts that nothing of any tenant is left on the server or in the landlord. `why` begins the failure message.
pub(crate) async fn assert_nothing(harness: &Harness, why: &str) {
    assert_eq!(on_server(harness).await, Vec::<String>::new(), "{why}: objects are left on the server");
    assert_eq!(landlord_only(harness.landlord()).await, Vec::<String>::new(), "{why}: rows are left in the landlord");
}

/// Number of operations of this kind that have this status.
pub(crate) async fn operations(landlord: &PgPool, kind: &str, status: &str) -> i64 {
    const COUNT: &str = "SELECT count(*) FROM tenantry.operations WHERE kind = $1 AND status = $2";
    sqlx::query_scalar(COUNT).bind(kind).bind(status).fetch_one(landlord).await.unwrap()
}

/// Options to connect to the tenant's database as its login. They come from the landlord's directory and the vault.
pub(crate) async fn login(tenantry: &tenantry::Tenantry, slug: &str) -> PgConnectOptions {
    use secrecy::ExposeSecret;
    use tenantry::registry::TenantRegistry;
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().expect("the tenant exists");
    let entry =
        tenantry.registry().primary(tenant.id()).await.unwrap().expect("the tenant has a primary database entry");
    let password = tenantry.vault().open(&entry.credential).await.expect("the vault has the login's password");
    let (login, database) = (entry.login.as_str(), entry.database.as_str());
    tenantry::testing::connect_options(&entry.host, entry.port, login, password.expose_secret(), database)
}

/// SQLSTATE of an error, or the error's text if it did not come from PostgreSQL.
pub(crate) fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned()).unwrap_or_else(|| error.to_string())
}
