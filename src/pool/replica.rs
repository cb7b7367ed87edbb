//! A tenant's part of a standby's budget. Whatever goes wrong there, the primary is asked instead.
use super::is_refused;
use crate::pool::budget::{Checkout, CircuitBreaker, TenantShare};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A standby has so long to let somebody in: opening a connection takes a few milliseconds.
pub(super) const LIMIT: Duration = Duration::from_millis(500);

pub(crate) struct Replica {
    member: TenantShare,
    /// Of this tenant alone: a login that is not known there yet.
    refused: CircuitBreaker,
}

pub(super) enum Answer {
    /// `None`: it is retired, there is another one.
    Found(Option<Checkout<'static>>),
    /// Not now. The primary is there.
    Elsewhere,
    /// The login is.
    Refused(sqlx::Error),
}

impl Replica {
    pub(crate) fn new(member: TenantShare) -> Self {
        Self { member, refused: CircuitBreaker::default() }
    }
    pub(super) fn usage(&self) -> (usize, usize) {
        self.member.usage()
    }
    pub(super) fn retire(&self) {
        self.member.retire();
    }
    /// One that is idle and known to live.
    pub(super) fn checkout(&self) -> Option<Checkout<'_>> {
        self.member.checkout()
    }

    /// A part of `limit` at most: the rest is for the primary.
    pub(super) async fn acquire(&self, limit: Duration) -> Answer {
        let now = Instant::now();
        if !self.refused.is_tried(now) || !self.member.circuit_breaker().is_tried(now) {
            return self.checkout().map_or(Answer::Elsewhere, |checkout| Answer::Found(Some(checkout.owned())));
        }
        match timeout(LIMIT.min(limit / 2), self.member.acquire()).await {
            Ok(Ok(None)) => Answer::Found(None),
            Ok(Ok(found)) => {
                self.refused.is_back();
                self.member.circuit_breaker().is_back();
                Answer::Found(found)
            }
            Ok(Err(error)) if is_refused(&error) => {
                self.member.circuit_breaker().is_back();
                self.refused.failed(Instant::now());
                Answer::Refused(error)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a replica lets nobody in; reads go to the primary");
                self.member.circuit_breaker().failed(Instant::now());
                Answer::Elsewhere
            }
            // All that the budget or the tenant may have there is in use, and that is no failure.
            Err(_) if self.member.is_full() => Answer::Elsewhere,
            Err(_) => {
                tracing::warn!("a replica does not answer in time; reads go to the primary");
                self.member.circuit_breaker().failed(Instant::now());
                Answer::Elsewhere
            }
        }
    }
}
