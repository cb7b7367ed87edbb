//! Setup links: a secret that works once, of which the landlord keeps a hash alone.
use crate::error::{StepError, StoreError};
use crate::operation::{FencingToken, OperationId};
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};
use time::OffsetDateTime;
use uuid::Uuid;

mod events;
mod format;
#[cfg(feature = "testing")]
mod memory;
mod postgres;
pub use events::{Event, Events, TokenEvent, TokenEventKind};
pub use format::{InvalidToken, Token};
#[cfg(feature = "testing")]
pub use memory::MemoryTokenStore;
pub use postgres::PgTokenStore;

/// A link's id; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkId(Uuid);
impl LinkId {
    /// A new id.
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
    /// From a stored row.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}
impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a token is good for: `credentials`, `password`, or a host's own word of 1 to 20 of `a-z`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenPurpose(Box<str>);
impl TokenPurpose {
    /// Setting a tenant up: its first admin.
    pub fn credentials() -> Self {
        Self("credentials".into())
    }
    /// A new password for an admin.
    pub fn password() -> Self {
        Self("password".into())
    }
    /// The stored word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for TokenPurpose {
    type Err = InvalidToken;
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let fits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase());
        if fits { Ok(Self(text.into())) } else { Err(InvalidToken::Purpose) }
    }
}
impl TryFrom<String> for TokenPurpose {
    type Error = InvalidToken;
    fn try_from(text: String) -> Result<Self, InvalidToken> {
        text.parse()
    }
}
impl From<TokenPurpose> for String {
    fn from(purpose: TokenPurpose) -> String {
        purpose.0.into()
    }
}

/// A setup link. Its token is a secret: no Display, no Serialize, and Debug hides it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetupLink {
    /// Its id.
    pub id: LinkId,
    /// Whose it is.
    pub email: String,
    /// Until when it is good, by the landlord's clock.
    pub expires_at: OffsetDateTime,
    token: Token,
}
impl SetupLink {
    pub(crate) fn new(id: LinkId, email: String, expires_at: OffsetDateTime, token: Token) -> Self {
        Self { id, email, expires_at, token }
    }
    /// `/setup/credentials/tny_…`: prefix it with the tenant's own origin.
    pub fn expose_path(&self) -> String {
        format!("/setup/{}/{}", self.token.purpose().as_str(), self.token.expose().expose_secret())
    }
    /// The token itself.
    pub fn token(&self) -> &Token {
        &self.token
    }
}

/// Brings a link to its reader. `Ok` confirms it: the sealed token is forgotten. Called until then, at least once; the
/// same link has the same [`SetupLink::id`] each time.
#[async_trait]
pub trait LinkDelivery: Send + Sync + 'static {
    /// Delivers it, or says whether it may be tried again.
    async fn deliver(&self, tenant: &Tenant, link: &SetupLink) -> Result<(), StepError>;
}

/// A token that is to be issued: its hash, not its bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewToken {
    /// Its id, chosen by the caller.
    pub id: LinkId,
    /// Whose tenant's.
    pub tenant: TenantId,
    /// What for.
    pub purpose: TokenPurpose,
    /// Whose.
    pub email: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// For how long it is good, from now on by the store's clock.
    pub lifetime: Duration,
}
impl NewToken {
    /// For this token.
    pub fn new(id: LinkId, tenant: TenantId, email: impl Into<String>, token: &Token, lifetime: Duration) -> Self {
        Self { id, tenant, purpose: token.purpose().clone(), email: email.into(), hash: token.hash(), lifetime }
    }
}

/// A token as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuedToken {
    /// Its id.
    pub id: LinkId,
    /// Whose tenant's.
    pub tenant: TenantId,
    /// What for.
    pub purpose: TokenPurpose,
    /// Whose.
    pub email: String,
    /// Until when it is good.
    pub expires_at: OffsetDateTime,
    /// Which operation works with it, if one does.
    pub claimed_by: Option<OperationId>,
    /// Whether somebody has confirmed that its reader has it.
    pub delivered: bool,
}

/// What a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenClaim {
    /// The caller's operation has it, now or since before.
    Claimed(IssuedToken),
    /// Another operation has it: join that one.
    Joined(IssuedToken),
    /// Unknown, expired, revoked or used: one statement and one answer for all of them.
    NotValid,
}

/// Tokens: unused → claimed by an operation → used. Every call is one atomic write or read. Writers are as in
/// [`RegistryWriter`](crate::store::registry::RegistryWriter).
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// As [`RegistryWriter::fence`](crate::store::registry::RegistryWriter::fence).
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
    /// Issues it, and revokes what the same tenant, purpose and address had before and nobody has claimed. A second call
    /// with the same id changes nothing and answers what is there.
    async fn issue(&self, token: &NewToken, writer: Option<FencingToken>) -> Result<IssuedToken, StoreError>;
    /// Looks, and consumes nothing: what a GET does. `None` for every token that is not good.
    async fn look(&self, hash: &[u8; 32]) -> Result<Option<IssuedToken>, StoreError>;
    /// Unused → claimed. What is claimed stays good for its operation, whatever the clock says.
    async fn claim(&self, hash: &[u8; 32], by: OperationId) -> Result<TokenClaim, StoreError>;
    /// Claimed by this operation → used. Repeating it is `Ok`; a token that it has not claimed is `Conflict`.
    async fn use_up(&self, id: LinkId, by: OperationId) -> Result<(), StoreError>;
    /// Claimed → unused again, for an operation that is undone. Not claimed by it: `Ok`, nothing changes.
    async fn unclaim(&self, id: LinkId, by: OperationId) -> Result<(), StoreError>;
    /// No longer good. A claimed one is left to its operation.
    async fn revoke(&self, id: LinkId) -> Result<(), StoreError>;
    /// Somebody has confirmed that its reader has it. Repeating it is `Ok`.
    async fn delivered(&self, id: LinkId) -> Result<(), StoreError>;
    /// The tenant's tokens that are good, newest first.
    async fn of_tenant(&self, tenant: TenantId) -> Result<Vec<IssuedToken>, StoreError>;
    /// Writes down what became of links: history, which a purge leaves. What was refused is told by the token's own state:
    /// unknown, expired, revoked, used before.
    async fn record(&self, events: &[Event]) -> Result<(), StoreError>;
    /// What became of a tenant's links, newest first, at most `limit`.
    async fn events(&self, tenant: TenantId, limit: u32) -> Result<Vec<TokenEvent>, StoreError>;
    /// Deletes every token of a tenant.
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError>;
}
