//! Why a server lets a tenant in no longer: its login has all the sessions that it may have, or the server is full.
//!
//! Both are 53300, and only the message differs, in the server's language. So the opener connects once more to
//! see the code, and then the provisioner reads the limit and counts the sessions. Where that is not possible (the
//! provisioner cannot connect either, a resolver of a host's own stores) the error stays `AcquireError::ConnectTimeout`.
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

/// Counts the sessions of a login, by another login than that.
#[async_trait]
pub(crate) trait CountSessions: Send + Sync + 'static {
    /// `None`: it is not known.
    async fn login_sessions(&self, tenant: TenantId, login: &str) -> Option<LoginSessions>;
}

/// Lifetime of an answer, for every caller of this tenant: many are refused at once.
const COUNTS_FOR: Duration = Duration::from_secs(1);

type Answer = (TenantId, Instant, Option<LoginSessions>);

/// Of one server. One question at a time, so that a tenant that uses up its limit does not use up the server with it.
pub(super) struct Refusals {
    counts: Option<Arc<dyn CountSessions>>,
    last: Mutex<Option<Answer>>,
}

impl Refusals {
    pub(super) fn new(counts: Option<Arc<dyn CountSessions>>) -> Self {
        Self { counts, last: Mutex::new(None) }
    }

    /// How much of the time for one connection is kept for the question: zero without a `CountSessions`.
    pub(super) fn reserve(&self, limit: Duration) -> Duration {
        if self.counts.is_some() { (limit / 4).min(Duration::from_millis(1500)) } else { Duration::ZERO }
    }

    /// The error that names the login's limit, if that is what keeps the tenant out; `None` after `reserve` at the latest.
    pub(super) async fn login_limit(
        &self, tenant: TenantId, options: &PgConnectOptions, waited: Duration, reserve: Duration,
    ) -> Option<AcquireError> {
        let found = timeout(reserve, self.ask(tenant, options)).await.ok()??;
        let LoginSessions { limit, sessions } = found;
        found.is_full().then_some(AcquireError::LoginLimit { waited, limit, sessions })
    }

    async fn ask(&self, tenant: TenantId, options: &PgConnectOptions) -> Option<LoginSessions> {
        let counts = self.counts.as_ref()?;
        let mut last = self.last.lock().await;
        if let Some((of, at, found)) = *last
            && of == tenant
            && at.elapsed() < COUNTS_FOR
        {
            return found;
        }
        let found = match is_refused_for_sessions(options).await {
            true => counts.login_sessions(tenant, options.get_username()).await,
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
