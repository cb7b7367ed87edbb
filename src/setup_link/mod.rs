//! What a user does with a setup link: each is one operation, which claims the token, does the work, and only then uses
//! the token up. A crash in between neither loses the link nor does the work twice; a second post joins the operation.
//! A second post with another password is refused while the operation lasts: see `setup/join.rs`.
use crate::cluster::OperationContext;
use crate::error::{ChangeError, Failure, StoreError};
use crate::operation::{Lane, OperationId, Subject};
use crate::operations::rotate::{AppLogin, GRACE};
use crate::saga::{AnySaga, Engine, Saga};
use crate::store::admin::{AdminError, AdminStore, PasswordError};
use crate::store::journal::{Begun, Intent, Record};
use crate::store::tokens::{IssuedToken, LinkId, SetupLink, Token, TokenPurpose};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

mod attempts;
mod credentials;
mod join;
mod link;
mod password;
pub use attempts::RateLimiter;
use credentials::CredentialsSaga;
use password::PasswordSaga;

/// For how long a link waits for another change of its tenant.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a link did not do its work. The link itself is as good as before, but for `NotValid`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupLinkError {
    /// Unknown, expired, revoked, used or mistyped: one answer for all of them.
    #[error("this link is not valid, or not any more")]
    NotValid,
    /// The password breaks a rule.
    #[error(transparent)]
    Password(PasswordError),
    /// The tenant is not active.
    #[error("the tenant is {}", .0.status())]
    Refused(Tenant),
    /// Another change of the tenant takes its time.
    #[error("operation {operation} is under way; try again")]
    #[non_exhaustive]
    Busy {
        /// Which.
        operation: OperationId,
    },
    /// Another post of this password link is being worked on, with another password. Only one of them can be accepted.
    #[error("operation {operation} is using this link with another password; try again when it has ended")]
    #[non_exhaustive]
    InUse {
        /// The operation that uses the link.
        operation: OperationId,
    },
    /// It began and failed.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// The landlord.
    #[error("the landlord did not answer")]
    Landlord(#[from] StoreError),
    /// The facade is closing.
    #[error("closed: no operation is begun any more")]
    Closed,
}

impl From<ChangeError> for SetupLinkError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Busy { operation } | ChangeError::KeyReused { operation } => Self::Busy { operation },
            ChangeError::Landlord(error) => Self::Landlord(error),
            ChangeError::Failed(failure) => Self::of(failure),
            ChangeError::Closed => Self::Closed,
            _ => Self::NotValid,
        }
    }
}

impl SetupLinkError {
    /// What a user can mend is told apart.
    fn of(failure: Failure) -> Self {
        match failure.cause.downcast_ref::<AdminError>() {
            Some(AdminError::Password(error)) => Self::Password(error.clone()),
            // The token is good and its admin is gone: it opens nothing.
            Some(AdminError::Unknown(_)) => Self::NotValid,
            _ => Self::Failed(Box::new(failure)),
        }
    }
}

/// What is stored of a call.
#[derive(Clone, Serialize, Deserialize)]
struct Request {
    tenant: TenantId,
    /// Read by the steps of a rotation.
    grace_ms: u64,
    link: LinkId,
    hash: [u8; 32],
    email: String,
}

/// The two links. It spawns nothing: whoever begins an operation drives it.
#[derive(Clone)]
pub struct SetupLinks {
    stores: OperationContext,
    engine: Engine,
    credentials: Arc<CredentialsSaga>,
    password: Arc<PasswordSaga>,
}

impl SetupLinks {
    /// Over these stores. `lifetime`: for how long the password form that follows is good.
    pub fn new(
        stores: OperationContext, engine: Engine, login: AppLogin, admins: Arc<dyn AdminStore>, lifetime: Duration,
    ) -> Self {
        let credentials = Arc::new(CredentialsSaga::new(stores.clone(), login, lifetime));
        let password = Arc::new(PasswordSaga::new(stores.clone(), admins));
        Self { stores, engine, credentials, password }
    }
    /// The sagas, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn sagas(&self) -> [Arc<dyn AnySaga>; 2] {
        [self.credentials.clone(), self.password.clone()]
    }

    /// Whose good link of this purpose the text is.
    async fn look(&self, purpose: &TokenPurpose, text: &str) -> Result<IssuedToken, SetupLinkError> {
        let found = self.stores.tokens.look(&Token::hash_of(text)).await?;
        found.filter(|issued| issued.purpose == *purpose).ok_or(SetupLinkError::NotValid)
    }

    /// Commits the intent of a credentials link: the tenant gets a new login. Waits, for ten seconds, for another change.
    pub(crate) async fn begin_credentials(&self, text: &str) -> Result<Begun, SetupLinkError> {
        let issued = self.look(&TokenPurpose::credentials(), text).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.begin(&*self.credentials, Subject::Tenant(issued.tenant), &issued, text).await {
                Err(SetupLinkError::Busy { .. }) if Instant::now() < until => sleep(Duration::from_millis(100)).await,
                begun => return begun,
            }
        }
    }

    async fn begin<S: Saga>(
        &self, saga: &S, subject: Subject, issued: &IssuedToken, text: &str,
    ) -> Result<Begun, SetupLinkError> {
        let tenant = self.stores.registry.find(issued.tenant.into()).await?.ok_or(SetupLinkError::NotValid)?;
        let request = Request {
            tenant: issued.tenant,
            grace_ms: GRACE.as_millis() as u64,
            link: issued.id,
            hash: Token::hash_of(text),
            email: issued.email.clone(),
        };
        let intent = Intent {
            key: Some(format!("setup/{}", issued.id)),
            reason: Some(String::from("setup link")),
            request: serde_json::to_value(request).map_err(StoreError::corrupt)?,
            intended: Engine::first_intent(saga),
            total: saga.steps().len() as u32,
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), saga.kind(), Lane::Change, subject)
        };
        if let Some(begun) = self.stores.known(&intent).await? {
            return Ok(begun);
        }
        match tenant.status() {
            TenantStatus::Active => Ok(self.stores.begin(&intent).await?),
            _ => Err(SetupLinkError::Refused(tenant)),
        }
    }

    /// Whether the link's work is done.
    pub(crate) fn is_used(record: &Record) -> bool {
        record.outputs.contains_key(link::USE)
    }

    /// Waits until the token is used, or the operation has settled without: the rest needs nobody's patience.
    pub(crate) async fn until_used(&self, id: OperationId) -> Result<Record, StoreError> {
        let mut pause = Duration::from_millis(10);
        loop {
            let gone = || StoreError::conflict("no such operation");
            let record = self.stores.journal.read(id).await?.ok_or_else(gone)?;
            if Self::is_used(&record) || record.is_settled() {
                return Ok(record);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(200));
        }
    }

    /// The password link that a credentials link leads to, the same for whoever asks.
    pub(crate) async fn follow_up(&self, record: &Record) -> Result<SetupLink, SetupLinkError> {
        if !Self::is_used(record) {
            return Err(unfinished(record));
        }
        let tenant = record.subject.tenant().ok_or(SetupLinkError::NotValid)?;
        let good = self.stores.tokens.of_tenant(tenant).await?;
        let issued = good.into_iter().find(|t| t.id.as_uuid() == record.id.as_uuid());
        let issued = issued.ok_or(SetupLinkError::NotValid)?;
        crate::operations::provision::link(&self.stores, issued).await?.ok_or(SetupLinkError::NotValid)
    }

    /// The tenant whose admin has a new password.
    pub(crate) async fn has_password(&self, record: &Record) -> Result<Tenant, SetupLinkError> {
        if !Self::is_used(record) {
            return Err(unfinished(record));
        }
        let request: Request = serde_json::from_value(record.request.clone()).map_err(StoreError::corrupt)?;
        self.stores.registry.find(request.tenant.into()).await?.ok_or(SetupLinkError::NotValid)
    }
}

/// Another node's worker, or an earlier one, has ended it so.
fn unfinished(record: &Record) -> SetupLinkError {
    use crate::error::FailureState;
    let after = if record.status.is_over() { FailureState::Undone } else { FailureState::Continuing };
    SetupLinkError::Failed(Box::new(record.told(after)))
}

impl std::fmt::Debug for SetupLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Setup(..)")
    }
}
