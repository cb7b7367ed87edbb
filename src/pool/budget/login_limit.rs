//! Finds out why a server refuses a tenant's connections with 53300: the login has reached its CONNECTION LIMIT, or the
//! server has no free connection.
//!
//! PostgreSQL reports both with SQLSTATE 53300. Only the message differs, and it is localised. So [`LoginLimitProbe`]
//! connects once more to see the SQLSTATE, and then asks [`CountSessions`] (the provisioner's login) for the limit and
//! the session count. Where that is not possible the caller's error stays `AcquireError::ConnectTimeout`: the
//! provisioner cannot connect either, or the resolver was built over custom stores and has no `CountSessions`.
use crate::pool::AcquireError;
use crate::server::LoginSessions;
use crate::sqlstate;
use crate::tenant::TenantId;
use async_trait::async_trait;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Counts the sessions of a tenant's login, over a connection of another login that is not at its limit.
#[async_trait]
pub(crate) trait CountSessions: Send + Sync + 'static {
    /// `None` if the limit or the session count could not be read.
    async fn login_sessions(&self, tenant: TenantId, login: &str) -> Option<LoginSessions>;
}

/// Lifetime of a count. Many callers of one tenant are refused at the same moment; one count serves them all.
const COUNT_LIFETIME: Duration = Duration::from_secs(1);

type CachedCount = (TenantId, Instant, Option<LoginSessions>);

/// The probe of one server. It runs one probe at a time, so that a tenant at its login limit does not also use up the
/// server's connections with probes.
pub(super) struct LoginLimitProbe {
    counter: Option<Arc<dyn CountSessions>>,
    last: Mutex<Option<CachedCount>>,
}

impl LoginLimitProbe {
    pub(super) fn new(counter: Option<Arc<dyn CountSessions>>) -> Self {
        Self { counter, last: Mutex::new(None) }
    }

    /// How much of `limit` (the time for opening one connection) to keep for a probe: a quarter, at most 1.5 s. Zero
    /// without a `CountSessions`.
    pub(super) fn reserve(&self, limit: Duration) -> Duration {
        if self.counter.is_some() { (limit / 4).min(Duration::from_millis(1500)) } else { Duration::ZERO }
    }

    /// [`AcquireError::LoginLimit`] if the login has reached its CONNECTION LIMIT. `None` if it has not, if the count
    /// is unknown, or if the probe takes longer than `reserve`.
    pub(super) async fn find_login_limit(
        &self, tenant: TenantId, options: &PgConnectOptions, waited: Duration, reserve: Duration,
    ) -> Option<AcquireError> {
        let found = timeout(reserve, self.count(tenant, options)).await.ok()??;
        let LoginSessions { limit, sessions } = found;
        found.is_full().then_some(AcquireError::LoginLimit { waited, limit, sessions })
    }

    async fn count(&self, tenant: TenantId, options: &PgConnectOptions) -> Option<LoginSessions> {
        let counter = self.counter.as_ref()?;
        let mut last = self.last.lock().await;
        if let Some((of, at, found)) = *last
            && of == tenant
            && at.elapsed() < COUNT_LIFETIME
        {
            return found;
        }
        let found = match is_refused_for_sessions(options).await {
            true => counter.login_sessions(tenant, options.get_username()).await,
            false => None,
        };
        *last = Some((tenant, Instant::now(), found));
        found
    }
}

async fn is_refused_for_sessions(options: &PgConnectOptions) -> bool {
    match options.connect().await {
        Ok(session) => {
            let _ = session.close().await;
            false
        }
        Err(error) => sqlstate::is(&error, sqlstate::TOO_MANY_CONNECTIONS),
    }
}
