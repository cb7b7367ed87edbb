//! A tower layer for background workers: it resolves each job's tenant and runs the job with that tenant's handle.
//!
//! Code in the job reads the handle with [`TenantPool::current`](crate::TenantPool::current).
//! [`Tenantry::with_tenant`](crate::Tenantry::with_tenant) does the same without tower. Invariant: a job whose tenant
//! does not resolve does not run.
use crate::error::ResolveError;
use crate::resolver::ConnectionResolver;
use crate::tenant::TenantRef;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_layer::Layer;
use tower_service::Service;

type TenantOf<J> = Arc<dyn Fn(&J) -> TenantRef<'static> + Send + Sync>;

/// Resolves a job's tenant and runs the job with [`TenantPool::current`](crate::TenantPool::current) set to its handle.
/// A job whose tenant does not resolve fails with the [`ResolveError`] and does not run; there is no default tenant. A
/// closure reads the tenant from the job. It is not a trait, because an application cannot implement a foreign trait
/// for a queue's own type.
///
/// ```
/// # fn example(resolver: std::sync::Arc<dyn tenantry::ConnectionResolver>) {
/// use tenantry::job::TenantLayer;
///
/// struct Invoice { tenant: tenantry::TenantId }
/// let layer = TenantLayer::new(resolver, |job: &Invoice| job.tenant.into());
/// # }
/// ```
pub struct TenantLayer<J> {
    resolver: Arc<dyn ConnectionResolver>,
    tenant_of: TenantOf<J>,
}

impl<J> TenantLayer<J> {
    /// A layer that resolves through `resolver`. `tenant_of` returns the job's tenant.
    pub fn new(
        resolver: Arc<dyn ConnectionResolver>, tenant_of: impl Fn(&J) -> TenantRef<'static> + Send + Sync + 'static,
    ) -> Self {
        Self { resolver, tenant_of: Arc::new(tenant_of) }
    }
}
impl<J> Clone for TenantLayer<J> {
    fn clone(&self) -> Self {
        Self { resolver: self.resolver.clone(), tenant_of: self.tenant_of.clone() }
    }
}
impl<J> std::fmt::Debug for TenantLayer<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantLayer(..)")
    }
}

impl<S, J> Layer<S> for TenantLayer<J> {
    type Service = TenantService<S, J>;
    fn layer(&self, inner: S) -> TenantService<S, J> {
        TenantService { inner, layer: self.clone() }
    }
}

/// The service that [`TenantLayer`] puts around a worker.
#[doc(hidden)]
pub struct TenantService<S, J> {
    inner: S,
    layer: TenantLayer<J>,
}
impl<S: Clone, J> Clone for TenantService<S, J> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}
impl<S, J> std::fmt::Debug for TenantService<S, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TenantService(..)")
    }
}

impl<S, J> Service<J> for TenantService<S, J>
where
    S: Service<J> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: From<ResolveError>,
    J: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, job: J) -> Self::Future {
        let next = self.inner.clone();
        // `poll_ready` was called on the present `inner`, so that one must serve this job; its clone may not be ready.
        let mut inner = std::mem::replace(&mut self.inner, next);
        let (resolver, tenant) = (self.layer.resolver.clone(), (self.layer.tenant_of)(&job));
        Box::pin(async move {
            let pool = match resolver.cached(&tenant) {
                Some(pool) => pool,
                None => resolver.resolve(tenant).await?,
            };
            crate::pool::run_with_current(pool, async move { inner.call(job).await }).await
        })
    }
}
