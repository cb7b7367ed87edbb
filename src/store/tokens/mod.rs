//! Setup links and their tokens: a link contains a secret that works once. A token store keeps only the secret's hash.
//!
//! The facade and the sagas issue tokens through [`TokenStore`]. The web layer looks them up for a GET, and the
//! operation that does the work of a link claims the token and uses it up.
//!
//! Invariants: a token goes from unused to claimed to used, and only its operation can move it on from claimed. Every
//! token that is not valid gets the same answer from the same statement, so the time does not reveal the reason.
use crate::error::{Rows, StepError, StoreError};
use crate::names::InvalidName;
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
#[cfg(not(feature = "testing"))]
pub(crate) use events::Events;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use events::Events;
pub use events::{PendingEvent, TokenEvent, TokenEventKind};
pub use format::Token;
#[cfg(feature = "testing")]
pub use memory::MemoryTokenStore;
pub use postgres::PgTokenStore;

/// Id of a setup link. It is not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LinkId(Uuid);
impl LinkId {
    /// Creates a new random id (UUID version 7).
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
    /// Creates the id from the UUID of a stored row.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The id as a UUID, to be stored.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}
impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Purpose of a token: `credentials`, `password`, or a word of the application's own with 1 to 20 characters of `a-z`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenPurpose(Box<str>);
impl TokenPurpose {
    /// Sets up a tenant: its first admin chooses a password.
    pub fn credentials() -> Self {
        Self("credentials".into())
    }
    /// Sets a new password for a tenant admin.
    pub fn password() -> Self {
        Self("password".into())
    }
    /// The purpose as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for TokenPurpose {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase());
        if fits { Ok(Self(text.into())) } else { Err(InvalidName::Shape("1 to 20 characters of a-z")) }
    }
}
impl TryFrom<String> for TokenPurpose {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}
impl From<TokenPurpose> for String {
    fn from(purpose: TokenPurpose) -> String {
        purpose.0.into()
    }
}

/// A setup link. Its token is a secret: the type has no `Display` and no `Serialize`, and `Debug` hides the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetupLink {
    /// Id of the link.
    pub id: LinkId,
    /// Address of the tenant admin that the link is for.
    pub email: String,
    /// Time at which the link expires, by the landlord's clock.
    pub expires_at: OffsetDateTime,
    token: Token,
}
impl SetupLink {
    pub(crate) fn new(id: LinkId, email: String, expires_at: OffsetDateTime, token: Token) -> Self {
        Self { id, email, expires_at, token }
    }
    /// The path with the token in plain text, for example `/setup/credentials/tny_…`. Prefix it with the tenant's
    /// origin.
    pub fn expose_path(&self) -> String {
        format!("/setup/{}/{}", self.token.purpose().as_str(), self.token.expose().expose_secret())
    }
    /// The token of the link.
    pub fn token(&self) -> &Token {
        &self.token
    }
}

/// Sends a setup link to the tenant admin, by e-mail for example. `Ok` confirms that it was sent; the sealed token is
/// deleted then. Until then the saga calls this at least once, and after an error or a crash again. All calls for one
/// link have the same [`SetupLink::id`].
#[async_trait]
pub trait LinkDelivery: Send + Sync + 'static {
    /// Sends the link. The error says whether the saga may try again.
    async fn deliver(&self, tenant: &Tenant, link: &SetupLink) -> Result<(), StepError>;
}

/// A token to be issued. It contains the token's hash, not the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewToken {
    /// Id of the link, chosen by the caller.
    pub id: LinkId,
    /// Tenant that the token belongs to.
    pub tenant: TenantId,
    /// Purpose of the token.
    pub purpose: TokenPurpose,
    /// Address of the tenant admin that the token is for.
    pub email: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Lifetime of the token, from the moment of its issue by the store's clock.
    pub lifetime: Duration,
}
impl NewToken {
    /// Describes this token, with its hash and its purpose.
    pub fn new(id: LinkId, tenant: TenantId, email: impl Into<String>, token: &Token, lifetime: Duration) -> Self {
        Self { id, tenant, purpose: token.purpose().clone(), email: email.into(), hash: token.hash(), lifetime }
    }
}

/// An issued token, as the store returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuedToken {
    /// Id of the link.
    pub id: LinkId,
    /// Tenant that the token belongs to.
    pub tenant: TenantId,
    /// Purpose of the token.
    pub purpose: TokenPurpose,
    /// Address of the tenant admin that the token is for.
    pub email: String,
    /// Time at which the token expires, by the store's clock. A claimed token stays valid after it.
    pub expires_at: OffsetDateTime,
    /// Operation that has claimed the token, if there is one.
    pub claimed_by: Option<OperationId>,
    /// Whether its delivery was confirmed.
    pub delivered: bool,
}

/// What [`TokenStore::claim`] found: the claimed token, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenClaim {
    /// The caller's operation has claimed the token, in this call or in an earlier one.
    Claimed(IssuedToken),
    /// Another operation has claimed the token. The caller should wait for that operation.
    Joined(IssuedToken),
    /// The token is unknown, expired, revoked or used. All these cases get this answer from the same statement.
    NotValid,
}

/// Stores the tokens of setup links. A token is first unused, then claimed by an operation, then used. Every call is
/// one atomic write or read. A `writer` argument has the same meaning as in
/// [`RegistryWriter`](crate::store::registry::RegistryWriter).
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// As [`RegistryWriter::fence`](crate::store::registry::RegistryWriter::fence).
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
    /// Issues the token, and revokes the unclaimed earlier tokens of the same tenant, purpose and address. A second
    /// call with the same id changes nothing and returns the stored token.
    async fn issue(&self, token: &NewToken, writer: Option<FencingToken>) -> Result<IssuedToken, StoreError>;
    /// Looks up a token and consumes nothing, for a GET request. `None` for every token that is not valid.
    async fn look_up(&self, hash: &[u8; 32]) -> Result<Option<IssuedToken>, StoreError>;
    /// Claims the token for an operation. A claimed token stays valid for its operation after it expires.
    async fn claim(&self, hash: &[u8; 32], by: OperationId) -> Result<TokenClaim, StoreError>;
    /// Marks a token used that this operation has claimed. Repeating it is `Ok`. `Conflict` if this operation has not
    /// claimed it.
    async fn use_up(&self, id: LinkId, by: OperationId) -> Result<(), StoreError>;
    /// Returns a claimed token to unused, when the operation is undone. `Ok` without a change if this operation has not
    /// claimed it.
    async fn unclaim(&self, id: LinkId, by: OperationId) -> Result<(), StoreError>;
    /// Revokes the token. A claimed one is left to its operation.
    async fn revoke(&self, id: LinkId) -> Result<(), StoreError>;
    /// Records that the delivery of the link was confirmed. Repeating it is `Ok`.
    async fn mark_delivered(&self, id: LinkId) -> Result<(), StoreError>;
    /// The tenant's valid tokens, newest first.
    async fn of_tenant(&self, tenant: TenantId) -> Result<Rows<IssuedToken>, StoreError>;
    /// Records uses of links. The events are history, which a purge keeps. For a refused token the store finds the
    /// reason in the token's state: unknown, expired, revoked, used, claimed, or of another purpose.
    async fn record(&self, events: &[PendingEvent]) -> Result<(), StoreError>;
    /// The events of a tenant's links, newest first, at most `limit`.
    async fn events(&self, tenant: TenantId, limit: u32) -> Result<Rows<TokenEvent>, StoreError>;
    /// Deletes all tokens of a tenant. Their events stay.
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError>;
}
