use crate::cluster::OperationContext;
use crate::error::{ChangeError, StoreError};
use crate::names::Email;
use crate::operations::provision::link;
use crate::store::tokens::{IssuedToken, LinkId, NewToken, SetupLink, Token, TokenEvent, TokenPurpose};
use crate::tenant::{TenantId, TenantRef, TenantStatus};
use std::{fmt, time::Duration};

/// Setup links: new ones, which wait to be delivered, and that they were.
#[derive(Clone)]
pub struct Tokens {
    stores: OperationContext,
    lifetime: Duration,
}

impl Tokens {
    pub(super) fn new(stores: OperationContext, lifetime: Duration) -> Self {
        Self { stores, lifetime }
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
    /// [`TokenStore`](crate::store::tokens::TokenStore). As [`issue`](Self::issue).
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry, landlord: sqlx::PgPool, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// use tenantry::OperationId;
    /// use tenantry::tokens::{PgTokenStore, Token, TokenClaim, TokenPurpose, TokenStore};
    ///
    /// let invite: TokenPurpose = "invite".parse()?;
    /// let link = tenantry.tokens().issue_for(invite.clone(), "acme", "bob@acme.example").await?;
    /// println!("{}", link.expose_path()); // /setup/invite/tny_invite_…: a route of your own, before `SetupRoutes`
    ///
    /// // GET: shows a page, and consumes nothing. A claim does not ask for the purpose, so this comes first at a POST too.
    /// let Some(issued) = tenantry.tokens().look(&invite, text).await? else { return Ok(()) /* 404 */ };
    ///
    /// // POST: claim, do the work, use it up. Under an id that follows from the link, whoever posts again after a crash
    /// // goes on with it: so the work must bear being done twice.
    /// let (store, by) = (PgTokenStore::new(landlord), OperationId::from_uuid(issued.id.as_uuid()));
    /// let TokenClaim::Claimed(issued) = store.claim(&Token::hash_of(text), by).await? else { return Ok(()) /* 404 */ };
    /// let db = tenantry.resolve(issued.tenant).await?;
    /// let add = sqlx::query("INSERT INTO members (email) VALUES ($1) ON CONFLICT DO NOTHING");
    /// add.bind(&issued.email).execute(&db).await?;
    /// store.use_up(issued.id, by).await?;
    /// # Ok(()) }
    /// ```
    pub async fn issue_for<'a>(
        &self, purpose: TokenPurpose, tenant: impl Into<TenantRef<'a>>, email: impl AsRef<str>,
    ) -> Result<SetupLink, ChangeError> {
        let email: Email = email.as_ref().parse().map_err(|source| ChangeError::Invalid { field: "email", source })?;
        let tenant = self.stores.registry.find(tenant.into()).await?.ok_or(ChangeError::Unknown)?;
        if tenant.status() != TenantStatus::Active {
            return Err(ChangeError::Status { found: tenant.status() });
        }
        let token = Token::random(purpose);
        let new = NewToken::new(LinkId::new(), tenant.id(), email.as_str(), &token, self.lifetime);
        let issued = self.stores.tokens.issue(&new, None).await?;
        Ok(SetupLink::new(issued.id, issued.email, issued.expires_at, token))
    }
    /// Whose link this is, and consumes nothing: for showing a page. `None` for every text that is no good link of this
    /// purpose, whatever the reason: all of them cost the same one statement.
    pub async fn look(&self, purpose: &TokenPurpose, text: &str) -> Result<Option<IssuedToken>, StoreError> {
        let found = self.stores.tokens.look(&Token::hash_of(text)).await?;
        Ok(found.filter(|issued| issued.purpose == *purpose))
    }
    /// The newest link that nobody has confirmed yet: what a progress page shows after a reload, on any node. Only one
    /// that a provisioning has made is kept so.
    pub async fn undelivered(&self, tenant: TenantId) -> Result<Option<SetupLink>, StoreError> {
        let good = self.stores.tokens.of_tenant(tenant).await?;
        match good.into_iter().find(|t| !t.delivered) {
            Some(issued) => link(&self.stores, issued).await,
            None => Ok(None),
        }
    }
    /// Its reader has it: it is not shown again. Repeating it is `Ok`.
    pub async fn delivered(&self, link: LinkId) -> Result<(), StoreError> {
        self.stores.tokens.delivered(link).await
    }
    /// What became of a tenant's links and who came with them, newest first, at most `limit`. It stays when the tenant is
    /// purged: client addresses are personal data, so delete what you must not keep.
    pub async fn events(&self, tenant: TenantId, limit: u32) -> Result<Vec<TokenEvent>, StoreError> {
        self.stores.tokens.events(tenant, limit).await
    }
    /// No longer good, unless somebody is at it.
    pub async fn revoke(&self, link: LinkId) -> Result<(), StoreError> {
        self.stores.tokens.revoke(link).await
    }
}
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}
