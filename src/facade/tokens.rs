//! [`Tokens`]: issues setup links, looks them up, revokes them and lists their events.
//!
//! An application reaches it by [`Tenantry::tokens`](crate::Tenantry::tokens). The module
//! [`setup_link`](crate::setup_link) handles links of the two built-in purposes. An application handles links of its
//! own purposes itself.
//!
//! Invariants:
//! - The landlord stores the hash of a token. Its text is stored, sealed, only if an operation has issued the link.
//! - Looking a link up never consumes it.
use crate::cluster::OperationContext;
use crate::error::{ChangeError, Rows, StoreError};
use crate::setup_link::{SetupLinks, find_undelivered, issue, look_up};
use crate::store::tokens::{IssuedToken, LinkId, SetupLink, TokenEvent, TokenPurpose};
use crate::tenant::{TenantId, TenantRef};
use std::{fmt, time::Duration};

/// Issues, lists and looks up setup links. A link is a path that contains a one-time token.
#[derive(Clone)]
pub struct Tokens {
    stores: OperationContext,
    setup: SetupLinks,
    lifetime: Duration,
}

impl Tokens {
    pub(super) fn new(stores: OperationContext, setup: SetupLinks, lifetime: Duration) -> Self {
        Self { stores, setup, lifetime }
    }
    /// Issues a credentials link for this address. It revokes the earlier credentials links of the address that are not
    /// in use by an operation. The token's text is only in the result: deliver it, or issue another link.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] if there is no such tenant, [`ChangeError::Status`] if it is not active, and
    /// [`ChangeError::Invalid`] if `email` is not an address.
    ///
    /// # Cancel safety
    /// The only write is one statement. A future that is dropped leaves either no link or one that cannot be delivered.
    pub async fn issue<'a>(
        &self, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        self.issue_for(TokenPurpose::credentials(), tenant, email).await
    }
    /// Issues a password link, by which a tenant admin sets a new password. It looks the admin up in the tenant's
    /// database: the one whose stored address equals `email` except for the case of ASCII letters. The link is for the
    /// stored address: send it to [`SetupLink::email`], not to the text that a visitor has typed. Otherwise as
    /// [`issue`](Self::issue).
    ///
    /// # Errors
    /// Those of [`issue`](Self::issue); [`ChangeError::NoAdmin`] if no admin has the address, and
    /// [`ChangeError::AdminUnreadable`] if the tenant's database did not answer. A page that any visitor can use must
    /// show the same text in each case, because the result reveals which addresses exist.
    pub async fn issue_password<'a>(
        &self, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        self.setup.issue_password(tenant.into(), email.as_ref(), self.lifetime).await
    }
    /// Issues a link for a purpose of the application's own, for this address as it is. The application handles it with [`look_up`](Self::look_up)
    /// and the [`TokenStore`](crate::store::tokens::TokenStore). Otherwise as [`issue`](Self::issue).
    ///
    /// ```no_run
    /// # use {sqlx::PgPool, std::error::Error, tenantry::Tenantry};
    /// # async fn example(tenantry: Tenantry, landlord: PgPool, text: &str) -> Result<(), Box<dyn Error>> {
    /// use tenantry::OperationId;
    /// use tenantry::tokens::{PgTokenStore, Token, TokenClaim, TokenPurpose, TokenStore};
    ///
    /// let invite: TokenPurpose = "invite".parse()?;
    /// let link = tenantry.tokens().issue_for(invite.clone(), "acme", "bob@acme.example").await?;
    /// // `/setup/invite/tny_invite_…`. Add a route of your own for it, before `SetupRoutes`.
    /// println!("{}", link.expose_path());
    ///
    /// // GET: look the link up, which does not consume it, and show a page. A POST must do this too, because `claim`
    /// // does not check the purpose.
    /// let Some(issued) = tenantry.tokens().look_up(&invite, text).await? else { return Ok(()) /* 404 */ };
    ///
    /// // POST: claim the token, do the work, use the token up. The operation id is derived from the link, so a second
    /// // POST after a crash can claim the token again. The work must therefore be idempotent.
    /// let (store, by) = (PgTokenStore::new(landlord), OperationId::from_uuid(issued.id.as_uuid()));
    /// let claim = store.claim(&Token::hash_of(text), by).await?;
    /// let TokenClaim::Claimed(issued) = claim else { return Ok(()) /* 404 */ };
    /// let db = tenantry.resolve(issued.tenant).await?;
    /// let add = sqlx::query("INSERT INTO members (email) VALUES ($1) ON CONFLICT DO NOTHING");
    /// add.bind(&issued.email).execute(&db).await?;
    /// store.use_up(issued.id, by).await?;
    /// # Ok(()) }
    /// ```
    pub async fn issue_for<'a>(
        &self, purpose: TokenPurpose, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        issue(&self.stores, purpose, tenant.into(), email.as_ref(), self.lifetime).await
    }
    /// Looks a link up by the text of its token, for showing a page. It does not consume the link. `None` if the text
    /// is unknown, or if its link has expired, was revoked or used, or has another purpose. Each case costs the same
    /// one statement, so the response time does not reveal which it was.
    pub async fn look_up(&self, purpose: &TokenPurpose, text: &str) -> Result<Option<IssuedToken>, StoreError> {
        look_up(&self.stores, purpose, text).await
    }
    /// The tenant's newest link that was not marked by [`mark_delivered`](Self::mark_delivered), for a progress page
    /// that is reloaded, on any node. Only links that an operation has issued can be read again, because only their
    /// text is stored (sealed). `None` for any other link.
    pub async fn undelivered(&self, tenant: TenantId) -> Result<Option<SetupLink>, StoreError> {
        find_undelivered(&self.stores, tenant).await
    }
    /// Lists the tenant's links that are still valid, newest first. Their tokens are not part of the result.
    pub async fn list(&self, tenant: TenantId) -> Result<Rows<IssuedToken>, StoreError> {
        self.stores.tokens.of_tenant(tenant).await
    }
    /// Marks a link as delivered, so that [`undelivered`](Self::undelivered) does not return it again. Idempotent.
    pub async fn mark_delivered(&self, link: LinkId) -> Result<(), StoreError> {
        self.stores.tokens.mark_delivered(link).await
    }
    /// Lists at most `limit` events of a tenant's links, newest first, with the client's address. Events are kept when
    /// the tenant is purged. Client addresses are personal data, so delete events that you must not keep.
    pub async fn events(&self, tenant: TenantId, limit: u32) -> Result<Rows<TokenEvent>, StoreError> {
        self.stores.tokens.events(tenant, limit).await
    }
    /// Makes a link invalid. It has no effect on a link that an operation has claimed.
    pub async fn revoke(&self, link: LinkId) -> Result<(), StoreError> {
        self.stores.tokens.revoke(link).await
    }
}
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}
