//! A tenant's share of the connections to one standby, for reads.
//!
//! `TenantPool::read` asks it before the primary. If the standby fails, is too slow or is full, [`Replica::acquire`]
//! returns [`Attempt::UsePrimary`] and the caller uses the primary. Two circuit breakers keep later callers from
//! waiting for a standby that is known to fail: one for the standby (shared by all tenants of it), one for this
//! tenant's login there.
use super::attempt::Attempt;
use super::budget::{CircuitBreaker, PgCheckedOut, TenantShare};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Maximum wait for a connection to the standby. Opening one takes a few milliseconds; after this time the read goes to
/// the primary.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_millis(500);

pub(crate) struct Replica {
    share: TenantShare,
    /// For this tenant alone: opens when the standby refuses the login, for example because it has not yet replayed the
    /// login's creation.
    login_breaker: CircuitBreaker,
}

impl Replica {
    pub(crate) fn new(share: TenantShare) -> Self {
        Self { share, login_breaker: CircuitBreaker::default() }
    }
    pub(super) fn usage(&self) -> (usize, usize) {
        self.share.usage()
    }
    pub(super) fn retire(&self) {
        self.share.retire();
    }
    /// An idle connection that needs no ping, without waiting.
    pub(super) fn checkout(&self) -> Option<PgCheckedOut<'_>> {
        self.share.checkout()
    }

    /// Waits at most half of `limit` and at most [`CONNECT_LIMIT`], so that time is left for the primary.
    pub(super) async fn acquire(&self, limit: Duration) -> Attempt {
        let now = Instant::now();
        if !self.login_breaker.claim_attempt(now) || !self.share.circuit_breaker().claim_attempt(now) {
            return match self.checkout() {
                Some(checked_out) => Attempt::Connection(checked_out.into_owned()),
                None => Attempt::UsePrimary,
            };
        }
        let acquire = self.share.acquire(self.share.enter());
        match timeout(CONNECT_LIMIT.min(limit / 2), acquire).await.map(Attempt::from_result) {
            Ok(Ok(attempt)) => {
                self.record_answer(&attempt);
                attempt
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a replica refused a connection; reads go to the primary for now");
                self.share.circuit_breaker().record_failure(Instant::now());
                Attempt::UsePrimary
            }
            // The tenant's cap or the standby's budget is in use. The standby works, so the breaker stays closed.
            Err(_) if self.share.is_full() => Attempt::UsePrimary,
            Err(_) => {
                tracing::warn!("a replica did not answer in time; reads go to the primary for now");
                self.share.circuit_breaker().record_failure(Instant::now());
                Attempt::UsePrimary
            }
        }
    }

    /// Records an attempt that the standby has answered. Even a refused login shows that the standby works.
    fn record_answer(&self, attempt: &Attempt) {
        match attempt {
            Attempt::Connection(_) => {
                self.login_breaker.record_success();
                self.share.circuit_breaker().record_success();
            }
            Attempt::LoginRefused(_) => {
                self.share.circuit_breaker().record_success();
                self.login_breaker.record_failure(Instant::now());
            }
            Attempt::Retired | Attempt::UsePrimary => {}
        }
    }
}
