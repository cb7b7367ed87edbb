//! [`TenantRejection`]: why a request for a tenant is not served, and the HTTP response to it.
//!
//! The layer and the extractors return it, and handlers can. `TenantLayer::on_reject` can replace its response.
//!
//! Invariant: no response reveals why the landlord, a pool or a handler failed. The causes are only in the error's
//! source.
use super::WebResponse;
use crate::error::ResolveError;
use crate::pool::AcquireError;
use crate::tenant::Tenant;
use std::sync::Arc;
use std::time::Duration;

/// The reason for which a request is not served. It converts into a plain-text response.
/// [`TenantLayer::on_reject`](super::TenantLayer::on_reject) replaces that response, whether the layer, an extractor or
/// a handler has returned it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TenantRejection {
    /// No rule names a tenant, and the handler needs one. Status 404.
    #[error("this address belongs to no tenant")]
    NotIdentified,
    /// A header that decides about the tenant (`Host`, `X-Forwarded-Host` behind a proxy, or the header of a rule) occurs
    /// more than once, holds a list of hosts, or is not readable. Status 400.
    #[error("a header that names the tenant is repeated or not readable; send it once")]
    UnclearHeader,
    /// A rule names a tenant that does not exist. Status 404.
    #[error("no such tenant")]
    Unknown,
    /// The tenant's provisioning has not ended. Status 503, retry after 1 s.
    #[error("this tenant is being set up")]
    Provisioning(Tenant),
    /// The tenant is suspended. Status 503, retry after a day.
    #[error("this tenant is suspended")]
    Suspended(Tenant),
    /// The tenant is archived. Status 410.
    #[error("this tenant is archived")]
    Archived(Tenant),
    /// A query got no connection in time: see [`from_sqlx`](Self::from_sqlx). Status 503, retry after 1 s.
    #[error("too busy at this moment")]
    OverBudget(Arc<AcquireError>),
    /// The landlord is unreachable, or the tenant's database is not at the migration that this program needs. Status
    /// 503.
    #[error("not available at this moment")]
    Unavailable(#[source] ResolveError),
    /// A handler of the application failed. Status 500.
    #[error("something went wrong")]
    Failed,
    /// A handler takes a tenant on a route that is not below a [`TenantLayer`](super::TenantLayer). Status 500.
    #[error("TenantLayer is missing on this route")]
    NoLayer,
}

impl TenantRejection {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotIdentified | Self::Unknown => 404,
            Self::UnclearHeader => 400,
            Self::Archived(_) => 410,
            Self::NoLayer | Self::Failed => 500,
            _ => 503,
        }
    }
    /// Value of the `Retry-After` header; `None` if a retry is not expected to succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OverBudget(_) | Self::Provisioning(_) => Some(Duration::from_secs(1)),
            Self::Unavailable(error) => Some(error.retry_after().unwrap_or(Duration::from_secs(10))),
            Self::Suspended(_) => Some(Duration::from_secs(24 * 3600)),
            _ => None,
        }
    }
    /// Converts an error of a query, for a handler's own error type. A lack of connections appears only when a query
    /// runs, not in the extractor. `None` if the query itself failed.
    pub fn from_sqlx(error: &sqlx::Error) -> Option<Self> {
        Some(match AcquireError::find(error)? {
            // The tenant was suspended, archived or purged after the extractor ran and before the query.
            AcquireError::Refused(error) => error.clone().into(),
            error => Self::OverBudget(Arc::new(error.clone())),
        })
    }
}

impl From<ResolveError> for TenantRejection {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::Unknown | ResolveError::Invalid(_) => Self::Unknown,
            ResolveError::Provisioning(tenant) => Self::Provisioning(tenant),
            ResolveError::Suspended(tenant) => Self::Suspended(tenant),
            ResolveError::Archived(tenant) => Self::Archived(tenant),
            error => Self::Unavailable(error),
        }
    }
}

impl From<&TenantRejection> for WebResponse {
    fn from(rejection: &TenantRejection) -> Self {
        let page = Self::text(rejection.status(), rejection.to_string());
        match rejection.retry_after() {
            Some(wait) => page.header("retry-after", wait.as_secs().max(1).to_string()),
            None => page,
        }
    }
}
