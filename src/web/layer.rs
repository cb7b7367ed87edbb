use super::{Identify, TenantRejection, WebResponse};
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::resolver::ConnectionResolver;
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use std::{fmt, sync::Arc};

type Answer = dyn Fn(&TenantRejection) -> WebResponse + Send + Sync;

/// Identifies and resolves, and answers unknown, suspended and archived tenants itself. What no rule names passes through
/// without a tenant. A tower layer for axum, a middleware for actix-web.
#[derive(Clone)]
pub struct TenantLayer(pub(super) Arc<Inner>);

#[derive(Clone)]
pub(super) struct Inner {
    resolver: Arc<dyn ConnectionResolver>,
    pub(super) identify: Identify,
    admit: Vec<TenantStatus>,
    pub(super) reject: Arc<Answer>,
}

impl TenantLayer {
    /// Over a resolver, with these rules.
    pub fn new(resolver: Arc<dyn ConnectionResolver>, identify: Identify) -> Self {
        Self(Arc::new(Inner {
            resolver,
            identify,
            admit: vec![],
            reject: Arc::new(|rejection| WebResponse::from(rejection)),
        }))
    }
    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }
    /// Lets tenants of this status through to handlers that take [`Tenant`]: a billing page. A handler that takes
    /// [`TenantPool`] still refuses them.
    pub fn admit(self, status: TenantStatus) -> Self {
        self.change(|inner| inner.admit.push(status))
    }
    /// The host's own answer to every rejection, of this layer and of the handlers below it.
    pub fn on_reject(self, page: impl Fn(&TenantRejection) -> WebResponse + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.reject = Arc::new(page))
    }
}

/// What the layer leaves for the extractors.
#[derive(Clone)]
pub(super) enum Found {
    Nobody,
    Pool(TenantPool),
    Only(Tenant, TenantRejection),
}

impl Inner {
    /// What needs no waiting.
    pub(super) fn at_once(&self, named: Option<&TenantRef<'_>>) -> Option<Found> {
        match named {
            None => Some(Found::Nobody),
            Some(tenant) => self.resolver.cached(tenant).map(Found::Pool),
        }
    }

    pub(super) async fn find(&self, named: TenantRef<'static>) -> Result<Found, TenantRejection> {
        match self.resolver.resolve(named).await {
            Ok(pool) => Ok(Found::Pool(pool)),
            Err(error) => match refused(&error).filter(|tenant| self.admit.contains(&tenant.status())) {
                Some(tenant) => Ok(Found::Only(tenant.clone(), error.into())),
                None => Err(error.into()),
            },
        }
    }
}

fn refused(error: &ResolveError) -> Option<&Tenant> {
    match error {
        ResolveError::Provisioning(tenant) | ResolveError::Suspended(tenant) | ResolveError::Archived(tenant) => {
            Some(tenant)
        }
        _ => None,
    }
}

impl Found {
    pub(super) fn tenant(found: Option<&Self>) -> Result<Tenant, TenantRejection> {
        match found {
            Some(Self::Pool(pool)) => Ok(pool.tenant().clone()),
            Some(Self::Only(tenant, _)) => Ok(tenant.clone()),
            Some(Self::Nobody) => Err(TenantRejection::NotIdentified),
            None => Err(TenantRejection::NoLayer),
        }
    }
    pub(super) fn pool(found: Option<&Self>) -> Result<TenantPool, TenantRejection> {
        match found {
            Some(Self::Pool(pool)) => Ok(pool.clone()),
            Some(Self::Only(_, rejection)) => Err(rejection.clone()),
            Some(Self::Nobody) => Err(TenantRejection::NotIdentified),
            None => Err(TenantRejection::NoLayer),
        }
    }
}

impl fmt::Debug for TenantLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantLayer").field("identify", &self.0.identify).finish_non_exhaustive()
    }
}
