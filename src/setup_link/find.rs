//! Finds the link that a token's text belongs to.
//!
//! The web layer finds the link of a request once and passes the [`FoundLink`] to the facade. The facade's methods that
//! take the token's text find the link themselves.
//!
//! Invariants:
//! - Finding a link consumes nothing. The operation that does the work claims the token in a statement of its own,
//!   which refuses a link that was used, revoked or has expired in the meantime.
//! - Every text that is not a valid link of the purpose gets the same result from one statement, so the response time
//!   does not reveal the reason.
use super::{SetupLinkError, SetupLinks};
use crate::cluster::OperationContext;
use crate::error::StoreError;
use crate::store::tokens::{IssuedToken, Token, TokenPurpose};
use crate::tenant::Tenant;

/// A valid link, as it was found for one request.
#[derive(Clone)]
pub(crate) struct FoundLink<'a> {
    /// The issued token. Its purpose equals the one that the caller passed: for a web request, the purpose in its path.
    pub(crate) issued: IssuedToken,
    /// The tenant of the link, of any status.
    pub(crate) tenant: Tenant,
    /// The token's text. It is a secret, so this type has no `Debug`.
    pub(crate) text: &'a str,
}

impl FoundLink<'_> {
    /// Reads the tenant again. A call that has waited for another operation needs this before it begins its own one,
    /// because the other operation may have suspended the tenant.
    pub(super) async fn reload_tenant(&mut self, stores: &OperationContext) -> Result<(), SetupLinkError> {
        self.tenant = stores.registry.find(self.issued.tenant.into()).await?.ok_or(SetupLinkError::NotValid)?;
        Ok(())
    }
}

/// Looks up the token of this purpose with this text. `None` if the text is unknown, or if its token has expired, was
/// revoked or used, or has another purpose.
pub(crate) async fn look_up(
    stores: &OperationContext, purpose: &TokenPurpose, text: &str,
) -> Result<Option<IssuedToken>, StoreError> {
    let found = stores.tokens.look_up(&Token::hash_of(text)).await?;
    Ok(found.filter(|issued| issued.purpose == *purpose))
}

impl SetupLinks {
    /// Finds the valid link of this purpose with this text, and its tenant.
    pub(crate) async fn find<'a>(
        &self, purpose: &TokenPurpose, text: &'a str,
    ) -> Result<FoundLink<'a>, SetupLinkError> {
        let issued = look_up(&self.stores, purpose, text).await?.ok_or(SetupLinkError::NotValid)?;
        let found = self.stores.registry.find(issued.tenant.into()).await?;
        Ok(FoundLink { issued, tenant: found.ok_or(SetupLinkError::NotValid)?, text })
    }
}
