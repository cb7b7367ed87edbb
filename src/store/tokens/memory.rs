//! [`TokenStore`] in memory, for tests. Same semantics as [`PgTokenStore`](super::PgTokenStore), with this process's
//! clock.
#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::{IssuedToken, LinkId, NewToken, PendingEvent, TokenClaim, TokenEvent, TokenEventKind, TokenStore};
use crate::error::{Rows, StoreError};
use crate::operation::{FencingToken, OperationId};
use crate::tenant::TenantId;
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;

/// Tokens in memory, by this process's clock.
#[derive(Debug, Default)]
pub struct MemoryTokenStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tokens: BTreeMap<LinkId, StoredToken>,
    epochs: HashMap<OperationId, i64>,
    events: Vec<(Option<TenantId>, TokenEvent)>,
}

#[derive(Debug)]
struct StoredToken {
    token: IssuedToken,
    hash: [u8; 32],
    used: bool,
    revoked: bool,
}
impl StoredToken {
    fn refusal_reason(&self) -> TokenEventKind {
        match self {
            Self { used: true, .. } => TokenEventKind::Reused,
            Self { revoked: true, .. } => TokenEventKind::Revoked,
            _ if self.token.claimed_by.is_some() => TokenEventKind::Claimed,
            _ if self.token.expires_at <= OffsetDateTime::now_utc() => TokenEventKind::Expired,
            _ => TokenEventKind::OtherPurpose,
        }
    }
    fn is_valid(&self) -> bool {
        let in_time = self.token.expires_at > OffsetDateTime::now_utc() || self.token.claimed_by.is_some();
        in_time && !self.used && !self.revoked
    }
}

impl MemoryTokenStore {
    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is used anyway: no code panics while it holds the lock, so the state is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Locks the state for a write of this writer; `Fenced` if its epoch is not the stored one.
    fn lock_for(&self, writer: FencingToken) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.epochs.get(&writer.operation) == Some(&writer.epoch) { Ok(state) } else { Err(StoreError::Fenced) }
    }
}

impl State {
    fn find(&mut self, hash: &[u8; 32]) -> Option<&mut StoredToken> {
        self.tokens.values_mut().find(|k| k.hash == *hash && k.is_valid())
    }
}

#[async_trait]
impl TokenStore for MemoryTokenStore {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        let mut state = self.state();
        let newest = state.epochs.entry(operation).or_insert(epoch);
        *newest = epoch.max(*newest);
        if *newest == epoch { Ok(()) } else { Err(StoreError::Fenced) }
    }
    async fn issue(&self, new: &NewToken, writer: Option<FencingToken>) -> Result<IssuedToken, StoreError> {
        let mut state = match writer {
            Some(writer) => self.lock_for(writer)?,
            None => self.state(),
        };
        if let Some(stored) = state.tokens.get(&new.id) {
            return Ok(stored.token.clone());
        }
        for stored in state.tokens.values_mut() {
            let sibling = stored.token.tenant == new.tenant && stored.token.purpose == new.purpose;
            if sibling && stored.token.email.eq_ignore_ascii_case(&new.email) && stored.token.claimed_by.is_none() {
                stored.revoked = true;
            }
        }
        let token = IssuedToken {
            id: new.id,
            tenant: new.tenant,
            purpose: new.purpose.clone(),
            email: new.email.clone(),
            expires_at: OffsetDateTime::now_utc() + new.lifetime,
            claimed_by: None,
            delivered: false,
        };
        state.tokens.insert(new.id, StoredToken { token: token.clone(), hash: new.hash, used: false, revoked: false });
        Ok(token)
    }
    async fn look_up(&self, hash: &[u8; 32]) -> Result<Option<IssuedToken>, StoreError> {
        Ok(self.state().find(hash).map(|k| k.token.clone()))
    }
    async fn claim(&self, hash: &[u8; 32], by: OperationId) -> Result<TokenClaim, StoreError> {
        let mut state = self.state();
        let Some(stored) = state.find(hash) else { return Ok(TokenClaim::NotValid) };
        let owner = *stored.token.claimed_by.get_or_insert(by);
        let token = stored.token.clone();
        Ok(if owner == by { TokenClaim::Claimed(token) } else { TokenClaim::Joined(token) })
    }
    async fn use_up(&self, id: LinkId, by: OperationId) -> Result<(), StoreError> {
        let mut state = self.state();
        let token = state.tokens.get_mut(&id).filter(|k| k.token.claimed_by == Some(by));
        token.ok_or_else(|| StoreError::conflict("this operation has not claimed the token"))?.used = true;
        Ok(())
    }
    async fn unclaim(&self, id: LinkId, by: OperationId) -> Result<(), StoreError> {
        if let Some(stored) = self.state().tokens.get_mut(&id)
            && stored.token.claimed_by == Some(by)
            && !stored.used
        {
            stored.token.claimed_by = None;
        }
        Ok(())
    }
    async fn revoke(&self, id: LinkId) -> Result<(), StoreError> {
        if let Some(stored) = self.state().tokens.get_mut(&id)
            && stored.token.claimed_by.is_none()
        {
            stored.revoked = true;
        }
        Ok(())
    }
    async fn mark_delivered(&self, id: LinkId) -> Result<(), StoreError> {
        if let Some(stored) = self.state().tokens.get_mut(&id) {
            stored.token.delivered = true;
        }
        Ok(())
    }
    async fn of_tenant(&self, tenant: TenantId) -> Result<Rows<IssuedToken>, StoreError> {
        let state = self.state();
        let valid = state.tokens.values().rev().filter(|k| k.token.tenant == tenant && k.is_valid());
        Ok(valid.map(|k| k.token.clone()).collect())
    }
    async fn record(&self, events: &[PendingEvent]) -> Result<(), StoreError> {
        let mut state = self.state();
        for event in events {
            let found = state.tokens.values().find(|k| k.hash == event.hash);
            let what = event.what.unwrap_or_else(|| found.map_or(TokenEventKind::Unknown, StoredToken::refusal_reason));
            let of = found.map(|k| (k.token.tenant, k.token.id));
            let at = OffsetDateTime::now_utc() - event.at.elapsed();
            let client = event.client.map(|c| c.to_string());
            state
                .events
                .push((of.map(|(tenant, _)| tenant), TokenEvent::new(at, what, of.map(|(_, link)| link), client)));
        }
        Ok(())
    }
    async fn events(&self, tenant: TenantId, limit: u32) -> Result<Rows<TokenEvent>, StoreError> {
        let state = self.state();
        let mut events: Vec<_> =
            state.events.iter().filter(|(of, _)| *of == Some(tenant)).map(|(_, e)| e.clone()).collect();
        events.sort_by_key(|e| std::cmp::Reverse(e.at));
        events.truncate(limit as usize);
        Ok(events.into())
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        self.lock_for(writer)?.tokens.retain(|_, k| k.token.tenant != tenant);
        Ok(())
    }
}
