use super::WebResponse;
use crate::error::ResolveError;
use crate::pool::AcquireError;
use crate::tenant::Tenant;
use std::sync::Arc;
use std::time::Duration;

/// Why a request is not served. It answers by itself; [`TenantLayer::on_reject`](super::TenantLayer::on_reject) replaces the
/// answer, wherever it came from.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TenantRejection {
    /// No rule names a tenant. 404.
    #[error("this address belongs to no tenant")]
    NotIdentified,
    /// A rule names one that is not there. 404.
    #[error("no such tenant")]
    Unknown,
    /// Not there yet. 503.
    #[error("this tenant is being set up")]
    Provisioning(Tenant),
    /// Refused for now. 503, for a day at least.
    #[error("this tenant is suspended")]
    Suspended(Tenant),
    /// Refused. 410.
    #[error("this tenant is archived")]
    Archived(Tenant),
    /// The query found no connection in time. 503.
    #[error("too busy at this moment")]
    OverBudget(Arc<AcquireError>),
    /// The landlord does not answer, or the tenant is not ready for this program. 503.
    #[error("not available at this moment")]
    Unavailable(#[source] ResolveError),
    /// A handler of the host's could not do its work. 500.
    #[error("something went wrong")]
    Failed,
    /// A handler wants a tenant on a route without [`TenantLayer`](super::TenantLayer). 500.
    #[error("TenantLayer is missing on this route")]
    NoLayer,
}

impl TenantRejection {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotIdentified | Self::Unknown => 404,
            Self::Archived(_) => 410,
            Self::NoLayer | Self::Failed => 500,
            _ => 503,
        }
    }
    /// What a 503 says in `Retry-FailureState`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OverBudget(_) | Self::Provisioning(_) => Some(Duration::from_secs(1)),
            Self::Unavailable(error) => Some(error.retry_after().unwrap_or(Duration::from_secs(10))),
            Self::Suspended(_) => Some(Duration::from_secs(24 * 3600)),
            _ => None,
        }
    }
    /// For a handler's own error type: "too busy" comes with the query, not with the extractor. `None` for every error that
    /// is the query's own.
    pub fn from_sqlx(error: &sqlx::Error) -> Option<Self> {
        Some(match AcquireError::find(error)? {
            // It was refused between the request's beginning and its query.
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
