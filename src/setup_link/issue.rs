//! Issues links on the application's request, and reads a link that an operation has issued.
//!
//! The facade's `Tokens` calls these functions. The sagas of a provisioning and of a credentials link issue their links
//! under their own operation instead: see `operations/provision/link.rs`.
//!
//! Invariant: the text of a link that is issued here is only in the result. The landlord stores its hash.
use crate::cluster::OperationContext;
use crate::error::{ChangeError, StoreError};
use crate::names::Email;
use crate::operations::provision;
use crate::store::tokens::{LinkId, NewToken, SetupLink, Token, TokenPurpose};
use crate::tenant::{TenantId, TenantRef, TenantStatus};
use std::time::Duration;

/// Issues a link of this purpose for an address of an active tenant. The only write is one statement.
///
/// # Errors
/// As `Tokens::issue`.
pub(crate) async fn issue(
    stores: &OperationContext, purpose: TokenPurpose, tenant: TenantRef<'_>, email: &str, lifetime: Duration,
) -> Result<SetupLink, ChangeError> {
    let email: Email = email.parse().map_err(|source| ChangeError::Invalid { field: "email", source })?;
    let tenant = stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)?;
    if tenant.status() != TenantStatus::Active {
        return Err(ChangeError::Status { found: tenant.status() });
    }
    let token = Token::random(purpose);
    let new = NewToken::new(LinkId::new(), tenant.id(), email.as_str(), &token, lifetime);
    let issued = stores.tokens.issue(&new, None).await?;
    Ok(SetupLink::new(issued.id, issued.email, issued.expires_at, token))
}

/// The tenant's newest link that is valid and not marked as delivered. `None` if it was not issued by an operation,
/// because its text is not stored then.
pub(crate) async fn find_undelivered(
    stores: &OperationContext, tenant: TenantId,
) -> Result<Option<SetupLink>, StoreError> {
    let valid = stores.tokens.of_tenant(tenant).await?;
    match valid.into_iter().find(|token| !token.delivered) {
        Some(issued) => provision::link(stores, issued).await,
        None => Ok(None),
    }
}
