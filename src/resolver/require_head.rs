//! [`RequireHead`]: resolves only tenants that have applied the newest of this program's migrations.
//!
//! The facade puts it around its own resolver if the builder's `require_head` is on. It is the one resolver that opens
//! a connection: it reads the tenant's table of applied migrations, over one of the tenant's own connections.
//!
//! Invariants: a tenant is read until it passes, and then no more, because applied migrations are not reverted. At most
//! one such read per tenant runs at a time. A tenant whose table cannot be read counts as behind.
use super::ConnectionResolver;
use crate::cluster::pg::ddl;
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use sqlx::migrate::Migrator;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Maximum tenants that are remembered. Beyond it all are forgotten, and each is read once more.
const MAX_REMEMBERED: usize = 100_000;

/// A resolver around `inner` that refuses tenants which are behind these migrations. A tenant with newer migrations
/// passes.
pub(crate) struct RequireHead<R> {
    inner: R,
    migrations: &'static Migrator,
    passed: Mutex<HashMap<TenantId, Arc<OnceCell<()>>>>,
}

impl<R: ConnectionResolver> RequireHead<R> {
    pub(crate) fn new(inner: R, migrations: &'static Migrator) -> Self {
        Self { inner, migrations, passed: Mutex::default() }
    }

    /// The cell of a tenant, which is filled when the tenant has passed.
    fn cell(&self, tenant: TenantId) -> Arc<OnceCell<()>> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.len() >= MAX_REMEMBERED && !passed.contains_key(&tenant) {
            passed.clear();
        }
        passed.entry(tenant).or_default().clone()
    }

    /// Fails if the tenant lacks the newest migration.
    async fn verify(&self, handle: &TenantPool) -> Result<(), ResolveError> {
        let head = self.migrations.iter().filter(|m| !m.migration_type.is_down_migration()).map(|m| m.version).max();
        let Some(head) = head else { return Ok(()) };
        let ledger = async {
            let mut session = handle.acquire().await?;
            ddl::read_ledger(&self.migrations.table_name, &mut session).await
        };
        let newest = match ledger.await {
            Ok(rows) => rows.into_iter().filter(|row| row.2).map(|row| row.0).max(),
            Err(error) => {
                let tenant = handle.tenant().id();
                tracing::debug!(%tenant, %error, "could not read a tenant's migrations ledger; it counts as behind");
                None
            }
        };
        match newest {
            Some(newest) if newest >= head => Ok(()),
            _ => Err(ResolveError::Behind(handle.tenant().clone())),
        }
    }
}

#[async_trait]
impl<R: ConnectionResolver> ConnectionResolver for RequireHead<R> {
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        let handle = self.inner.cached(tenant)?;
        self.cell(handle.tenant().id()).initialized().then_some(handle)
    }
    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError> {
        let handle = self.inner.resolve(tenant).await?;
        self.cell(handle.tenant().id()).get_or_try_init(|| self.verify(&handle)).await?;
        Ok(handle)
    }
    fn invalidate(&self, tenant: TenantId) {
        self.inner.invalidate(tenant);
    }
    fn invalidate_all(&self) {
        self.inner.invalidate_all();
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}
