//! Resolves a tenant's id, slug or domain to a [`TenantPool`].
//!
//! Web layers, job layers and `Tenantry::with_tenant` use a [`ConnectionResolver`]. [`PooledResolver`] is the default
//! one; an application may implement the trait itself. Invariant: only an active tenant has a handle, and there is no
//! default tenant.
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use std::sync::Arc;

mod pooled;
mod require_head;
pub use pooled::{PoolSettings, PooledResolver, PooledResolverBuilder};
pub(crate) use require_head::RequireHead;

/// Resolves tenants to handles. Resolving opens no connection, unless [`require_head`](crate::Builder::require_head) is
/// on; the handle opens connections when it is used.
///
/// A tenant that is not active does not resolve. Each status has an error of its own, so that a web layer can choose
/// the response. There is no default tenant.
#[async_trait]
pub trait ConnectionResolver: Send + Sync + 'static {
    /// The handle if a fresh answer is cached. Does no I/O and does not wait. `None` does not mean that the tenant does
    /// not exist: call [`resolve`](Self::resolve).
    fn cached(&self, tenant: &TenantRef<'_>) -> Option<TenantPool>;
    /// Returns the cached handle, or reads the registry and the vault. At most one such read per name runs at a time;
    /// all callers that resolve the name share it.
    ///
    /// # Errors
    /// - [`Unknown`](ResolveError::Unknown) or [`Invalid`](ResolveError::Invalid): the name belongs to no tenant.
    /// - [`Provisioning`](ResolveError::Provisioning), [`Suspended`](ResolveError::Suspended) and
    ///   [`Archived`](ResolveError::Archived): the tenant's status.
    /// - [`Landlord`](ResolveError::Landlord) and [`Credential`](ResolveError::Credential): the registry or the vault
    ///   failed.
    /// - [`NoEntry`](ResolveError::NoEntry), [`UnknownServer`](ResolveError::UnknownServer) and
    ///   [`NotBuilt`](ResolveError::NotBuilt): the tenant's directory entry is missing or cannot be used.
    /// - [`Behind`](ResolveError::Behind): the tenant lacks a migration that
    ///   [`require_head`](crate::Builder::require_head) demands. [`UnusableMigration`](ResolveError::UnusableMigration):
    ///   it has run one with another text, or only begun it.
    /// - [`Closed`](ResolveError::Closed): the resolver is closing.
    ///
    /// # Cancel safety
    /// Dropping one caller's future does not stop the read for the others.
    async fn resolve(&self, tenant: TenantRef<'_>) -> Result<TenantPool, ResolveError>;
    /// Call this after something about the tenant has changed. Calls of `resolve` that begin later read the registry
    /// again. Existing handles keep working; they resolve the tenant again when the server refuses their login or their
    /// connections are retired.
    fn invalidate(&self, tenant: TenantId);
    /// [`invalidate`](Self::invalidate) for all tenants and for all names that matched no tenant. For callers that do
    /// not know what has changed.
    fn invalidate_all(&self);
    /// Closes the resolver: refuses new calls, closes idle connections, and waits a bounded time for connections in
    /// use. No task of the resolver runs when it returns. May be called more than once.
    ///
    /// # Cancel safety
    /// A future that is dropped after its first poll leaves the resolver closed: it refuses new calls, and connections
    /// in use close when they are returned. A second call waits for them.
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
