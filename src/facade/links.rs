//! Following the two kinds of setup links, for a web layer.
//!
//! `web::SetupRoutes` finds a link once per request and follows the found link. An application with its own web stack
//! calls the methods that take the token's text.
//!
//! Invariants:
//! - A call returns when the token is used up; the rest of the operation continues in a task of the facade.
//! - Notes about links are written later by [`Tenantry::run`], so no response waits for them.
use super::Tenantry;
use crate::cluster::require_done;
use crate::saga::{Observer, Started};
use crate::setup_link::{FoundLink, NormalizedPassword, SetupLinkError, SetupLinks};
use crate::store::journal::Record;
use crate::store::tokens::{SetupLink, Token, TokenEventKind, TokenPurpose};
use crate::tenant::Tenant;
use secrecy::SecretString;
use std::net::IpAddr;

impl Tenantry {
    /// Follows a credentials link: rotates the tenant's database login and returns a link to the password form. The new
    /// login is only in the vault.
    ///
    /// The call returns when the new login is in use; the operation then drops the old login. A concurrent call with
    /// the same token joins the operation and gets the same link.
    ///
    /// # Errors
    /// [`SetupLinkError::NotValid`] if the token is not valid, for whatever reason.
    ///
    /// # Cancel safety
    /// An operation that has begun continues in a task of the facade.
    pub async fn follow_credentials_link(&self, token: &str) -> Result<SetupLink, SetupLinkError> {
        let link = self.inner.setup.find(&TokenPurpose::credentials(), token).await?;
        self.follow_found_credentials_link(&link).await
    }
    /// As [`follow_credentials_link`](Self::follow_credentials_link), for a link that was already found.
    pub(crate) async fn follow_found_credentials_link(
        &self, link: &FoundLink<'_>,
    ) -> Result<SetupLink, SetupLinkError> {
        let record = self.wait_until_used(self.inner.setup.begin_credentials(link).await?).await?;
        self.inner.setup.read_password_link(&record).await
    }
    /// Follows a password link: sets the password of the link's tenant admin and returns the tenant.
    ///
    /// A second call with the same password while the first one runs joins it and gets its outcome. The NFD and NFC
    /// forms of a text count as the same password.
    ///
    /// # Errors
    /// - [`SetupLinkError::NotValid`] if the token is not valid, for whatever reason.
    /// - [`SetupLinkError::Password`] if the password breaks a rule. The link stays valid.
    /// - [`SetupLinkError::InUse`] if another call is using the link with another password. This password was not set.
    ///
    /// # Cancel safety
    /// An operation that has begun continues in a task of the facade. A future that is dropped before the password is
    /// sealed leaves an operation that recovery undoes.
    pub async fn follow_password_link(&self, token: &str, password: &SecretString) -> Result<Tenant, SetupLinkError> {
        let password = NormalizedPassword::new(password)?;
        let link = self.inner.setup.find(&TokenPurpose::password(), token).await?;
        self.follow_found_password_link(&link, &password).await
    }
    /// As [`follow_password_link`](Self::follow_password_link), for a link that was already found.
    pub(crate) async fn follow_found_password_link(
        &self, link: &FoundLink<'_>, password: &NormalizedPassword,
    ) -> Result<Tenant, SetupLinkError> {
        let record = self.wait_until_used(self.inner.setup.begin_password(link, password).await?).await?;
        self.inner.setup.read_tenant(&record).await
    }

    /// The counters of attempts to follow links, for the routes of this process.
    #[cfg(any(feature = "axum", feature = "actix"))]
    pub(crate) fn link_attempts(&self) -> &crate::setup_link::LinkAttempts {
        &self.inner.link_attempts
    }

    /// Notes an event of a link for [`Tokens::events`](super::Tokens::events). `None` means that the link was refused.
    /// The note goes into a bounded queue, which [`run`](Self::run) writes to the landlord. A note that does not fit
    /// into the queue is dropped and counted.
    pub fn note_link(&self, token: &str, what: Option<TokenEventKind>, client: Option<IpAddr>) {
        self.inner.link_events.note(Token::hash_of(token), what, client);
    }
    /// Number of notes about links that were dropped since the facade was built.
    pub fn dropped_link_notes(&self) -> u64 {
        self.inner.link_events.dropped()
    }

    /// Drives a new operation in a task, and waits until the operation has used the token up. If this process drives
    /// the operation, a failure keeps its typed error; from another process only the journal's record of it is
    /// available.
    async fn wait_until_used(&self, started: Started) -> Result<Record, SetupLinkError> {
        let (id, quiet) = (started.id(), Observer::none());
        let Some(result) = self.launch(started, quiet.clone()) else {
            return Ok(self.inner.setup.wait_until_used(id).await?);
        };
        let mut end = std::pin::pin!(self.watch(id, Some(result), &quiet));
        tokio::select! {
            outcome = &mut end => return Ok(require_done(outcome?)?),
            record = self.inner.setup.wait_until_used(id) => {
                let record = record?;
                if SetupLinks::is_used(&record) {
                    return Ok(record);
                }
            }
        }
        // The operation has settled without using the token. The task that drives it returns the typed error.
        Ok(require_done(end.await?)?)
    }
}
