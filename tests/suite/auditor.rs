//! Looks with SQL of its own at what is there, and shares no code with the crate.
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{ConnectOptions, PgConnection};
use tenantry::testing::Harness;

/// The harness's server, as its superuser.
pub(crate) async fn superuser(harness: &Harness) -> PgConnection {
    harness.server().admin_options().connect().await.expect("a superuser's session")
}

/// Everything on the server that this installation made for tenants: databases and roles, by name.
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

/// What the landlord holds of tenants that are not history, one line per row.
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

/// Nothing of any tenant is left, anywhere.
pub(crate) async fn assert_nothing(harness: &Harness, why: &str) {
    assert_eq!(on_server(harness).await, Vec::<String>::new(), "{why}: on the server");
    assert_eq!(landlord_only(harness.landlord()).await, Vec::<String>::new(), "{why}: in the landlord");
}

/// How many operations of this kind ended so.
pub(crate) async fn operations(landlord: &PgPool, kind: &str, status: &str) -> i64 {
    const COUNT: &str = "SELECT count(*) FROM tenantry.operations WHERE kind = $1 AND status = $2";
    sqlx::query_scalar(COUNT).bind(kind).bind(status).fetch_one(landlord).await.unwrap()
}

/// A session of the tenant's own login, by what the landlord says.
pub(crate) async fn login(tenantry: &tenantry::Tenantry, slug: &str) -> PgConnectOptions {
    use secrecy::ExposeSecret;
    use tenantry::registry::TenantRegistryExt;
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().expect("a tenant");
    let entry = tenantry.registry().primary(tenant.id()).await.unwrap().expect("an entry");
    let password = tenantry.vault().open(&entry.credential).await.expect("a secret");
    PgConnectOptions::new_without_pgpass()
        .host(&entry.host)
        .port(entry.port)
        .database(entry.database.as_str())
        .username(entry.login.as_str())
        .password(password.expose_secret())
}

/// The SQLSTATE of a failure.
pub(crate) fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned()).unwrap_or_else(|| error.to_string())
}
