//! Issues links on the application's request, and reads a link that an operation has issued.
//!
//! The facade's `Tokens` calls these functions. The sagas of a provisioning and of a credentials link issue their links
//! under their own operation instead: see `operations/provision/link.rs`.
//!
//! Invariants:
//! - The text of a link that is issued here is only in the result. The landlord stores its hash.
//! - A password link is for the stored address of an admin, never for the text that a visitor has typed.
use super::SetupLinks;
use super::session::connect_as_application;
use crate::cluster::OperationContext;
use crate::error::{ChangeError, StepError, StoreError};
use crate::names::Email;
use crate::operations::provision;
use crate::store::tokens::{LinkId, NewToken, SetupLink, Token, TokenPurpose};
use crate::tenant::{TenantId, TenantRef, TenantStatus};
use sqlx::Connection;
use std::time::Duration;

/// The `application_name` of the session that looks an admin's address up.
const APPLICATION: &str = "tenantry issue link";

/// Issues a link of this purpose for an address of an active tenant. The only write is one statement.
///
/// # Errors
/// As `Tokens::issue`.
pub(crate) async fn issue(
    stores: &OperationContext, purpose: TokenPurpose, tenant: TenantRef<'_>, email: &str, lifetime: Duration,
) -> Result<SetupLink, ChangeError> {
    let email = parse_email(email)?;
    let tenant = find_active(stores, tenant).await?;
    issue_to(stores, purpose, tenant, &email, lifetime).await
}

impl SetupLinks {
    /// Issues a password link for the stored address of the admin whose address this is.
    ///
    /// # Errors
    /// As `Tokens::issue_password`.
    pub(crate) async fn issue_password(
        &self, tenant: TenantRef<'_>, email: &str, lifetime: Duration,
    ) -> Result<SetupLink, ChangeError> {
        let email = parse_email(email)?;
        let tenant = find_active(&self.stores, tenant).await?;
        let stored = self.find_admin(tenant, &email).await.map_err(unreadable)?;
        let stored = stored.ok_or(ChangeError::NoAdmin(email))?;
        issue_to(&self.stores, TokenPurpose::password(), tenant, &stored, lifetime).await
    }

    async fn find_admin(&self, tenant: TenantId, email: &Email) -> Result<Option<Email>, StepError> {
        let (mut session, _permit) = connect_as_application(&self.stores, tenant, APPLICATION).await?;
        let found = self.admins.find_admin(&mut session, email).await;
        let _ = session.close().await;
        Ok(found?)
    }
}

fn unreadable(error: StepError) -> ChangeError {
    let retry_after = error.is_retry().then_some(Duration::from_secs(1));
    ChangeError::AdminUnreadable { retry_after, source: error.into_cause() }
}

fn parse_email(email: &str) -> Result<Email, ChangeError> {
    email.parse().map_err(|source| ChangeError::Invalid { field: "email", source })
}

async fn find_active(stores: &OperationContext, tenant: TenantRef<'_>) -> Result<TenantId, ChangeError> {
    match stores.registry.find(tenant).await?.ok_or(ChangeError::Unknown)? {
        tenant if tenant.status() == TenantStatus::Active => Ok(tenant.id()),
        tenant => Err(ChangeError::Status { found: tenant.status() }),
    }
}

async fn issue_to(
    stores: &OperationContext, purpose: TokenPurpose, tenant: TenantId, email: &Email, lifetime: Duration,
) -> Result<SetupLink, ChangeError> {
    let token = Token::random(purpose);
    let new = NewToken::new(LinkId::new(), tenant, email.as_str(), &token, lifetime);
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
