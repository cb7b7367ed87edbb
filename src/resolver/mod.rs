//! From a tenant to a ready connection.
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use std::sync::Arc;

mod pooled;
pub use pooled::{PooledResolver, PooledResolverBuilder};

/// Tenant to handle. Resolving opens no connection; the handle does, when it is used.
///
/// A tenant that is not active has no handle: each status has an error of its own, so that a web layer can tell them
/// apart. There is no default tenant.
#[async_trait]
pub trait ConnectionResolver: Send + Sync + 'static {
    /// What is known and valid right now; no I/O, no waiting. `None` says nothing: resolve it then.
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool>;
    /// What is cached first; else the cold path: registry and vault, at most once at a time for a name, however many
    /// wait for it.
    ///
    /// # Errors
    /// [`Unknown`](ResolveError::Unknown) or [`Invalid`](ResolveError::Invalid) if it is nobody's name; what the
    /// tenant's status says; [`Closed`](ResolveError::Closed).
    ///
    /// # Cancel safety
    /// Dropping one waiter stops no other.
    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError>;
    /// Something about the tenant changed: who resolves it after this call is told what holds after this call. Handles
    /// that are out stay; they find out when they are used.
    fn invalidate(&self, tenant: TenantId);
    /// The same for all tenants, and for names that were nobody's: whoever cannot say what changed calls it.
    fn invalidate_all(&self);
    /// Refuses new work, waits a bounded time for what is out, closes. Nothing of the resolver runs when it returns.
    /// Idempotent.
    ///
    /// # Cancel safety
    /// What was begun goes on; a second call waits for it.
    async fn close(&self);
}

#[async_trait]
impl<T: ConnectionResolver + ?Sized> ConnectionResolver for Arc<T> {
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool> {
        (**self).cached(tenant)
    }
    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError> {
        (**self).resolve(tenant).await
    }
    fn invalidate(&self, tenant: TenantId) {
        (**self).invalidate(tenant);
    }
    fn invalidate_all(&self) {
        (**self).invalidate_all();
    }
    async fn close(&self) {
        (**self).close().await;
    }
}
