//! [`TenantLayer`]: the framework-independent part of the middleware.
//!
//! `axum.rs` and `actix.rs` call [`Inner::look_up`] for each request, and [`Inner::resolve`] if the tenant is not
//! cached. They store the [`Resolution`] in the request's extensions, where the extractors of `Tenant` and `TenantPool`
//! find it.
//!
//! Invariants:
//! - A request whose tenant was named but cannot be served never reaches a handler, unless its status is admitted.
//! - A handler that takes a [`TenantPool`] never gets the pool of a tenant that is not active.
use super::request::UnclearHeader;
use super::{Identify, RequestView, TenantRejection, WebResponse};
use crate::error::ResolveError;
use crate::pool::TenantPool;
use crate::resolver::ConnectionResolver;
use crate::tenant::{Tenant, TenantRef, TenantStatus};
use std::{fmt, sync::Arc};

type OnReject = dyn Fn(&TenantRejection) -> WebResponse + Send + Sync;

/// Identifies the tenant of each request and resolves it. It is a tower layer for axum and a middleware for actix-web.
///
/// The layer itself responds to requests for unknown, suspended and archived tenants. A request for which no rule names
/// a tenant reaches the handler without one.
#[derive(Clone)]
pub struct TenantLayer(pub(super) Arc<Inner>);

#[derive(Clone)]
pub(super) struct Inner {
    resolver: Arc<dyn ConnectionResolver>,
    identify: Identify,
    admit: Vec<TenantStatus>,
    reject: Arc<OnReject>,
}

impl TenantLayer {
    /// Creates a layer that identifies tenants by these rules and resolves them with this resolver.
    pub fn new(resolver: Arc<dyn ConnectionResolver>, identify: Identify) -> Self {
        Self(Arc::new(Inner {
            resolver,
            identify,
            admit: vec![],
            reject: Arc::new(|rejection| WebResponse::from(rejection)),
        }))
    }
    fn modify(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }
    /// Admits tenants of this status to handlers that take [`Tenant`], for example a billing page for suspended
    /// tenants. A handler that takes [`TenantPool`] still refuses them. By default only active tenants are admitted.
    pub fn admit(self, status: TenantStatus) -> Self {
        self.modify(|inner| inner.admit.push(status))
    }
    /// Sets the response to every rejection, whether this layer or a handler below it has rejected the request.
    pub fn on_reject(self, page: impl Fn(&TenantRejection) -> WebResponse + Send + Sync + 'static) -> Self {
        self.modify(|inner| inner.reject = Arc::new(page))
    }
}

/// What the layer has found for one request: its tenant, or why there is none. It is stored in the request's extensions
/// for the extractors.
#[derive(Clone)]
pub(super) enum Resolution {
    /// No rule named a tenant.
    NoTenant,
    /// The tenant is active.
    Pool(TenantPool),
    /// The tenant is not active, but its status is admitted. The rejection is for extractors of the pool.
    TenantOnly(Tenant, TenantRejection),
}

/// What the layer knows about the tenant of a request without waiting.
pub(super) enum Lookup {
    /// The request can be passed on.
    Ready(Resolution),
    /// The tenant is not cached; [`Inner::resolve`] loads it.
    Load(TenantRef<'static>),
    /// The request cannot be served; this is the response.
    Refuse(WebResponse),
}

impl Inner {
    /// Identifies the tenant of a request and looks it up in the cache.
    pub(super) fn look_up(&self, request: &RequestView<'_>) -> Lookup {
        match self.identify.evaluate(request) {
            Err(UnclearHeader) => Lookup::Refuse((self.reject)(&TenantRejection::UnclearHeader)),
            Ok(None) => Lookup::Ready(Resolution::NoTenant),
            Ok(Some(tenant)) => match self.resolver.cached(&tenant) {
                Some(pool) => Lookup::Ready(Resolution::Pool(pool)),
                None => Lookup::Load(tenant.into_owned()),
            },
        }
    }

    /// Resolves a tenant that is not cached. `Err` is the response to a request that is rejected.
    pub(super) async fn resolve(&self, tenant: TenantRef<'static>) -> Result<Resolution, WebResponse> {
        match self.resolver.resolve(tenant).await {
            Ok(pool) => Ok(Resolution::Pool(pool)),
            Err(error) => match inactive_tenant(&error).filter(|tenant| self.admit.contains(&tenant.status())) {
                Some(tenant) => Ok(Resolution::TenantOnly(tenant.clone(), error.into())),
                None => Err((self.reject)(&error.into())),
            },
        }
    }

    /// The application's response to a rejection that a handler's response carries, if it carries one.
    pub(super) fn replace_rejection(&self, rejection: Option<&TenantRejection>) -> Option<WebResponse> {
        rejection.map(|rejection| (self.reject)(rejection))
    }
}

/// The tenant of an error that its status has caused.
fn inactive_tenant(error: &ResolveError) -> Option<&Tenant> {
    match error {
        ResolveError::Provisioning(tenant) | ResolveError::Suspended(tenant) | ResolveError::Archived(tenant) => {
            Some(tenant)
        }
        _ => None,
    }
}

impl Resolution {
    /// What an extractor of [`Tenant`] returns.
    pub(super) fn tenant(resolution: Option<&Self>) -> Result<Tenant, TenantRejection> {
        match resolution {
            Some(Self::Pool(pool)) => Ok(pool.tenant().clone()),
            Some(Self::TenantOnly(tenant, _)) => Ok(tenant.clone()),
            Some(Self::NoTenant) => Err(TenantRejection::NotIdentified),
            None => Err(TenantRejection::NoLayer),
        }
    }
    /// What an extractor of [`TenantPool`] returns.
    pub(super) fn pool(resolution: Option<&Self>) -> Result<TenantPool, TenantRejection> {
        match resolution {
            Some(Self::Pool(pool)) => Ok(pool.clone()),
            Some(Self::TenantOnly(_, rejection)) => Err(rejection.clone()),
            Some(Self::NoTenant) => Err(TenantRejection::NotIdentified),
            None => Err(TenantRejection::NoLayer),
        }
    }
}

impl fmt::Debug for TenantLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantLayer").field("identify", &self.0.identify).finish_non_exhaustive()
    }
}
