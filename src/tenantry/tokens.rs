use crate::error::{ChangeError, StoreError};
use crate::ident::Email;
use crate::provision::link;
use crate::tenant::{TenantId, TenantRef, TenantStatus};
use crate::tokens::{IssuedToken, LinkId, NewToken, SetupLink, Token, TokenEvent, TokenPurpose};
use crate::worker::Workshop;
use std::{fmt, time::Duration};

/// Setup links: new ones, which wait to be delivered, and that they were.
#[derive(Clone)]
pub struct Tokens {
    shop: Workshop,
    lifetime: Duration,
}

impl Tokens {
    pub(super) fn new(shop: Workshop, lifetime: Duration) -> Self {
        Self { shop, lifetime }
    }
    /// A new link for this address, in place of those that it had and nobody is at. Its bytes are in the answer alone:
    /// deliver it, or issue another one.
    ///
    /// # Errors
    /// `Unknown`, `Status` for a tenant that is not active, `Invalid` for an address that is none.
    ///
    /// # Cancel safety
    /// One write: there is a link that nobody has, or none.
    pub async fn issue<'a>(
        &self, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        self.issue_for(TokenPurpose::credentials(), tenant, email).await
    }
    /// A new link by which this admin sets a new password. As [`issue`](Self::issue).
    pub async fn issue_password<'a>(
        &self, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        self.issue_for(TokenPurpose::password(), tenant, email).await
    }
    /// A new link for a purpose of the host's own, which the host then handles by [`look`](Self::look) and the
    /// [`TokenStore`](crate::tokens::TokenStore). As [`issue`](Self::issue).
    pub async fn issue_for<'a>(
        &self, purpose: TokenPurpose, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        let email: Email = email.as_ref().parse().map_err(|source| ChangeError::Invalid { field: "email", source })?;
        let tenant = self.shop.registry.find(tenant.into()).await?.ok_or(ChangeError::Unknown)?;
        if tenant.status() != TenantStatus::Active {
            return Err(ChangeError::Status { found: tenant.status() });
        }
        let token = Token::random(purpose);
        let new = NewToken::new(LinkId::new(), tenant.id(), email.as_str(), &token, self.lifetime);
        let issued = self.shop.tokens.issue(&new, None).await?;
        Ok(SetupLink::new(issued.id, issued.email, issued.expires_at, token))
    }
    /// Whose link this is, and consumes nothing: for showing a page. `None` for every text that is no good link of this
    /// purpose, whatever the reason: all of them cost the same one statement.
    pub async fn look(&self, purpose: &TokenPurpose, text: &str) -> Result<Option<IssuedToken>, StoreError> {
        let found = self.shop.tokens.look(&Token::hash_of(text)).await?;
        Ok(found.filter(|issued| issued.purpose == *purpose))
    }
    /// The newest link that nobody has confirmed yet: what a progress page shows after a reload, on any node. Only one
    /// that a provisioning has made is kept so.
    pub async fn undelivered(&self, tenant: TenantId) -> Result<Option<SetupLink>, StoreError> {
        let good = self.shop.tokens.of_tenant(tenant).await?;
        match good.into_iter().find(|t| !t.delivered) {
            Some(issued) => link(&self.shop, issued).await,
            None => Ok(None),
        }
    }
    /// Its reader has it: it is not shown again. Repeating it is `Ok`.
    pub async fn delivered(&self, link: LinkId) -> Result<(), StoreError> {
        self.shop.tokens.delivered(link).await
    }
    /// What became of a tenant's links and who came with them, newest first, at most `limit`. It stays when the tenant is
    /// purged: client addresses are personal data, so delete what you must not keep.
    pub async fn events(&self, tenant: TenantId, limit: u32) -> Result<Vec<TokenEvent>, StoreError> {
        self.shop.tokens.events(tenant, limit).await
    }
    /// No longer good, unless somebody is at it.
    pub async fn revoke(&self, link: LinkId) -> Result<(), StoreError> {
        self.shop.tokens.revoke(link).await
    }
}
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}
