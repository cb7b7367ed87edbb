//! The two setup links as a web layer calls them.
use super::Tenantry;
use crate::cluster::ended;
use crate::error::StoreError;
use crate::operation::OperationId;
use crate::saga::{Observer, Outcome};
use crate::setup_link::{SetupLinkError, SetupLinks};
use crate::store::journal::{Begun, Record};
use crate::store::tokens::{SetupLink, Token, TokenEventKind};
use crate::tenant::Tenant;
use secrecy::SecretString;
use std::net::IpAddr;
use tokio::sync::oneshot;

type Started = Option<oneshot::Receiver<Result<Outcome, StoreError>>>;

impl Tenantry {
    /// A credentials link is followed: the tenant gets a new database login, which nobody sees, and the link leads on to
    /// the answer, a link to the password form. Answers after the flip; the old login goes by itself. Whoever comes
    /// meanwhile with the same link joins, and gets the same answer.
    ///
    /// # Errors
    /// [`SetupLinkError::NotValid`] for every text that is no good link.
    ///
    /// # Cancel safety
    /// What has begun goes on in a task of the facade.
    pub async fn follow_credentials_link(&self, token: &str) -> Result<SetupLink, SetupLinkError> {
        let (id, started) = self.begun(self.inner.setup.begin_credentials(token).await?)?;
        let record = self.used(id, started).await?;
        self.inner.setup.follow_up(&record).await
    }
    /// Sets the password of a password link's admin, once, and returns the tenant. A second call with the same password
    /// while the first one runs joins it and gets its outcome. NFD and NFC of one text are the same password.
    ///
    /// # Errors
    /// [`SetupLinkError::NotValid`] for every text that is no good link; [`SetupLinkError::Password`] for a password that breaks
    /// a rule: the link is as good as before. [`SetupLinkError::InUse`] if another call is using the link with another
    /// password: this one was not accepted.
    ///
    /// # Cancel safety
    /// What has begun goes on in a task of the facade. A future that is dropped before the password is sealed leaves an
    /// operation that recovery undoes.
    pub async fn follow_password_link(&self, token: &str, password: &SecretString) -> Result<Tenant, SetupLinkError> {
        let (id, started) = self.begun(self.inner.setup.begin_password(token, password).await?)?;
        let record = self.used(id, started).await?;
        self.inner.setup.has_password(&record).await
    }

    /// Notes what became of a link, for [`Tokens::events`](super::Tokens::events): `None` says that it was refused. It is
    /// written down later, by [`run`](Self::run), so that no answer waits for it; what finds no room is dropped, and counted.
    pub fn note_link(&self, token: &str, what: Option<TokenEventKind>, client: Option<IpAddr>) {
        self.inner.link_events.note(Token::hash_of(token), what, client);
    }
    /// How many notes about links found no room.
    pub fn dropped_link_notes(&self) -> u64 {
        self.inner.link_events.dropped()
    }

    fn begun(&self, begun: Begun) -> Result<(OperationId, Started), SetupLinkError> {
        if self.is_closed() {
            return Err(SetupLinkError::Closed);
        }
        match begun {
            Begun::New(record) => Ok((record.id, Some(self.launch(*record, Observer::none())))),
            Begun::Joined(record) => Ok((record.id, None)),
            Begun::KeyReused(operation) | Begun::Busy(operation) => Err(SetupLinkError::Busy { operation }),
        }
    }

    /// Until the token is used: by its own worker, with the error as it was, or by another one's.
    async fn used(&self, id: OperationId, started: Started) -> Result<Record, SetupLinkError> {
        let Some(told) = started else { return Ok(self.inner.setup.until_used(id).await?) };
        let quiet = Observer::none();
        let mut driven = std::pin::pin!(self.watch(id, Some(told), &quiet));
        tokio::select! {
            outcome = &mut driven => return Ok(ended(outcome?)?),
            record = self.inner.setup.until_used(id) => {
                let record = record?;
                if SetupLinks::is_used(&record) {
                    return Ok(record);
                }
            }
        }
        // It failed: this process knows the error by its type.
        Ok(ended(driven.await?)?)
    }
}
