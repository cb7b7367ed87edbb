//! Tenants for a benchmark: many databases with one login, and a registry and a vault in memory.
//!
//! A benchmark passes [`Hosts`] to a resolver, so that it measures connections and not a landlord.
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use std::collections::HashMap;
use std::sync::Arc;
use tenantry::directory::TenantDatabase;
use tenantry::error::{Rows, StoreError, VaultError};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::testing::{TestServer, tenant};
use tenantry::{CredentialVault, Tenant, TenantId, TenantRef, TenantRegistry, sqlx};

/// The login of every tenant.
pub(crate) const LOGIN: &str = "pooled";
pub(crate) const PASSWORD: &str = "the password of all tenants here";

/// The registry and vault. Tenant `n` has the slug `tenant-<n>` and the database `pooled_<n>`.
#[derive(Clone)]
pub(crate) struct Hosts(Arc<HashMap<TenantRef<'static>, (Tenant, TenantDatabase)>>);

pub(crate) fn slug(n: usize) -> String {
    format!("tenant-{n}")
}

impl Hosts {
    /// Creates the login and this many databases on the server, and as many tenants.
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) async fn new(server: &TestServer, tenants: usize) -> Self {
        let mut session = server.admin_options().disable_statement_logging().connect().await.unwrap();
        execute(&mut session, format!("CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}'")).await;
        for n in 0..tenants {
            execute(&mut session, format!("CREATE DATABASE pooled_{n} TEMPLATE template0 OWNER {LOGIN}")).await;
        }
        Self::named(server, tenants)
    }

    /// Creates tenants at the address of the server, without databases.
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) fn named(server: &TestServer, tenants: usize) -> Self {
        let admin = server.admin_options();
        Self::at(admin.get_host(), admin.get_port(), tenants)
    }

    /// Creates tenants at any address. Nothing connects to it before a tenant is queried.
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) fn at(host: &str, port: u16, tenants: usize) -> Self {
        let mut tenants_by_name = HashMap::new();
        for n in 0..tenants {
            let tenant = tenant(&slug(n), TenantStatus::Active);
            let (database, login) = (format!("pooled_{n}").parse().unwrap(), LOGIN.parse().unwrap());
            let credential = CredentialId::login(tenant.id(), &database, &login, 1);
            let entry = TenantDatabase::primary(tenant.id(), host, port, database, login, credential);
            for name in [TenantRef::Slug(slug(n).into()), TenantRef::Id(tenant.id())] {
                tenants_by_name.insert(name, (tenant.clone(), entry.clone()));
            }
        }
        Self(Arc::new(tenants_by_name))
    }
}

#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
#[expect(clippy::disallowed_methods, reason = "all names in the SQL are constants of the benchmark")]
async fn execute(session: &mut PgConnection, sql: String) {
    session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// Options to connect to the database of tenant `n`.
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
pub(crate) fn options(server: &TestServer, n: usize) -> PgConnectOptions {
    let options = server.admin_options().username(LOGIN).password(PASSWORD).disable_statement_logging();
    options.database(&format!("pooled_{n}")).ssl_mode(sqlx::postgres::PgSslMode::Prefer)
}

#[async_trait]
impl TenantRegistry for Hosts {
    async fn find(&self, name: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        Ok(self.0.get(&name.into_owned()).map(|(tenant, _)| tenant.clone()))
    }
    async fn databases(&self, id: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        Ok(self.0.get(&TenantRef::Id(id)).map(|(_, entry)| entry.clone()).into_iter().collect())
    }
    async fn page(&self, _: Option<TenantId>, _: u32) -> Result<Rows<Tenant>, StoreError> {
        Ok(vec![].into())
    }
}

#[async_trait]
impl CredentialVault for Hosts {
    async fn open(&self, _: &CredentialId) -> Result<SecretString, VaultError> {
        Ok(PASSWORD.into())
    }
}
