#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::{Event, IssuedToken, LinkId, NewToken, TokenClaim, TokenEvent, TokenEventKind, TokenStore};
use crate::error::StoreError;
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
    tokens: BTreeMap<LinkId, Kept>,
    epochs: HashMap<OperationId, i64>,
    events: Vec<(Option<TenantId>, TokenEvent)>,
}

#[derive(Debug)]
struct Kept {
    token: IssuedToken,
    hash: [u8; 32],
    used: bool,
    revoked: bool,
}
impl Kept {
    fn why_refused(&self) -> TokenEventKind {
        match self {
            Self { used: true, .. } => TokenEventKind::Reused,
            Self { revoked: true, .. } => TokenEventKind::Revoked,
            _ if self.token.claimed_by.is_some() => TokenEventKind::Claimed,
            _ if self.token.expires_at <= OffsetDateTime::now_utc() => TokenEventKind::Expired,
            _ => TokenEventKind::OtherPurpose,
        }
    }
    fn is_good(&self) -> bool {
        let in_time = self.token.expires_at > OffsetDateTime::now_utc() || self.token.claimed_by.is_some();
        in_time && !self.used && !self.revoked
    }
}

impl MemoryTokenStore {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn held(&self, writer: FencingToken) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.epochs.get(&writer.operation) == Some(&writer.epoch) { Ok(state) } else { Err(StoreError::Fenced) }
    }
}

impl State {
    fn find(&mut self, hash: &[u8; 32]) -> Option<&mut Kept> {
        self.tokens.values_mut().find(|k| k.hash == *hash && k.is_good())
    }
}

#[async_trait]
impl TokenStore for MemoryTokenStore {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        let mut state = self.state();
        let known = state.epochs.entry(operation).or_insert(epoch);
        *known = epoch.max(*known);
        if *known == epoch { Ok(()) } else { Err(StoreError::Fenced) }
    }
    async fn issue(&self, new: &NewToken, writer: Option<FencingToken>) -> Result<IssuedToken, StoreError> {
        let mut state = match writer {
            Some(writer) => self.held(writer)?,
            None => self.state(),
        };
        if let Some(kept) = state.tokens.get(&new.id) {
            return Ok(kept.token.clone());
        }
        let email = new.email.to_lowercase();
        for kept in state.tokens.values_mut() {
            let sibling = kept.token.tenant == new.tenant && kept.token.purpose == new.purpose;
            if sibling && kept.token.email.to_lowercase() == email && kept.token.claimed_by.is_none() {
                kept.revoked = true;
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
        state.tokens.insert(new.id, Kept { token: token.clone(), hash: new.hash, used: false, revoked: false });
        Ok(token)
    }
    async fn look(&self, hash: &[u8; 32]) -> Result<Option<IssuedToken>, StoreError> {
        Ok(self.state().find(hash).map(|k| k.token.clone()))
    }
    async fn claim(&self, hash: &[u8; 32], by: OperationId) -> Result<TokenClaim, StoreError> {
        let mut state = self.state();
        let Some(kept) = state.find(hash) else { return Ok(TokenClaim::NotValid) };
        let owner = *kept.token.claimed_by.get_or_insert(by);
        let token = kept.token.clone();
        Ok(if owner == by { TokenClaim::Claimed(token) } else { TokenClaim::Joined(token) })
    }
    async fn use_up(&self, id: LinkId, by: OperationId) -> Result<(), StoreError> {
        let mut state = self.state();
        let kept = state.tokens.get_mut(&id).filter(|k| k.token.claimed_by == Some(by));
        kept.ok_or_else(|| StoreError::conflict("the token is not this operation's"))?.used = true;
        Ok(())
    }
    async fn unclaim(&self, id: LinkId, by: OperationId) -> Result<(), StoreError> {
        if let Some(kept) = self.state().tokens.get_mut(&id)
            && kept.token.claimed_by == Some(by)
            && !kept.used
        {
            kept.token.claimed_by = None;
        }
        Ok(())
    }
    async fn revoke(&self, id: LinkId) -> Result<(), StoreError> {
        if let Some(kept) = self.state().tokens.get_mut(&id)
            && kept.token.claimed_by.is_none()
        {
            kept.revoked = true;
        }
        Ok(())
    }
    async fn delivered(&self, id: LinkId) -> Result<(), StoreError> {
        if let Some(kept) = self.state().tokens.get_mut(&id) {
            kept.token.delivered = true;
        }
        Ok(())
    }
    async fn of_tenant(&self, tenant: TenantId) -> Result<Vec<IssuedToken>, StoreError> {
        let state = self.state();
        let good = state.tokens.values().rev().filter(|k| k.token.tenant == tenant && k.is_good());
        Ok(good.map(|k| k.token.clone()).collect())
    }
    async fn record(&self, events: &[Event]) -> Result<(), StoreError> {
        let mut state = self.state();
        for event in events {
            let found = state.tokens.values().find(|k| k.hash == event.hash);
            let what = event.what.unwrap_or_else(|| found.map_or(TokenEventKind::Unknown, Kept::why_refused));
            let of = found.map(|k| (k.token.tenant, k.token.id));
            let at = OffsetDateTime::now_utc() - event.at.elapsed();
            let client = event.client.map(|c| c.to_string());
            state
                .events
                .push((of.map(|(tenant, _)| tenant), TokenEvent::new(at, what, of.map(|(_, link)| link), client)));
        }
        Ok(())
    }
    async fn events(&self, tenant: TenantId, limit: u32) -> Result<Vec<TokenEvent>, StoreError> {
        let state = self.state();
        let mut events: Vec<_> =
            state.events.iter().filter(|(of, _)| *of == Some(tenant)).map(|(_, e)| e.clone()).collect();
        events.sort_by_key(|e| std::cmp::Reverse(e.at));
        events.truncate(limit as usize);
        Ok(events)
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        self.held(writer)?.tokens.retain(|_, k| k.token.tenant != tenant);
        Ok(())
    }
}
