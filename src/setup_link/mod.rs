//! Setup links: the operations that a user starts by following a link from an e-mail.
//!
//! A *credentials link* rotates the tenant's database login and leads to a *password link*, which sets the password of
//! the tenant's admin.
//!
//! The facade issues links for the application (`issue.rs`); operations issue and deliver their own links. For each
//! request the web layer finds the link once (`find.rs`), and the facade follows it: it begins or joins the operation
//! (`join.rs`) and drives it. The first step of the operation claims the token (`link.rs`).
//!
//! Invariants:
//! - An operation claims the token, does the work, and only then uses the token up. A crash in between neither loses
//!   the link nor does the work twice.
//! - A second POST with the same link joins the open operation. One with another password is refused while that
//!   operation is open: see `setup_link/join.rs`.
use crate::cluster::OperationContext;
use crate::error::{BeginError, ChangeError, Failure, StoreError};
use crate::operation::{OperationId, Subject};
use crate::operations::rotate::{AppLogin, GRACE, RotateContext};
use crate::saga::{AnySaga, CallOptions, Engine, Saga, Started};
use crate::store::admin::{AdminError, AdminStore, PasswordError};
use crate::store::journal::Record;
use crate::store::tokens::{LinkId, SetupLink, Token};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

mod credentials;
mod find;
mod issue;
mod join;
mod link;
mod normalized;
mod password;
#[cfg(any(feature = "axum", feature = "actix"))]
mod rate_limiter;
mod session;
pub(crate) use find::{FoundLink, look_up};
pub(crate) use issue::{find_undelivered, issue};
pub(crate) use normalized::NormalizedPassword;
use password::PasswordContext;
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use rate_limiter::LinkAttempts;

/// How long a request waits for another operation of its tenant or of its link.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An error from following a setup link. The link stays valid, except after [`NotValid`](Self::NotValid).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupLinkError {
    /// The link is unknown, expired, revoked, used or mistyped. The error does not say which.
    #[error("this link is not valid; ask for a new one")]
    NotValid,
    /// The password breaks a rule of the admin store.
    #[error(transparent)]
    Password(PasswordError),
    /// The tenant is not active, so its links cannot be followed.
    #[error("tenant {} is {}; its setup links work only while it is active", .0.slug(), .0.status())]
    Refused(Tenant),
    /// Another operation of the tenant did not end within ten seconds.
    #[error("operation {operation} of the same tenant is still running; try again when it has ended")]
    #[non_exhaustive]
    Busy {
        /// The other operation.
        operation: OperationId,
    },
    /// Another request is using this password link, and its operation has sealed another password or none yet. Only one
    /// password can be set.
    #[error("operation {operation} is using this link; try again in a few seconds")]
    #[non_exhaustive]
    InUse {
        /// The operation that uses the link.
        operation: OperationId,
    },
    /// The operation began and failed.
    #[error(transparent)]
    Failed(Box<Failure>),
    /// The landlord database is unreachable or refused a statement.
    #[error(transparent)]
    Landlord(#[from] StoreError),
    /// [`Tenantry::close`](crate::Tenantry::close) was called.
    #[error("tenantry is closed in this process; no operation can begin")]
    Closed,
}

impl From<ChangeError> for SetupLinkError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Busy { operation, .. } | ChangeError::KeyReused { operation } => Self::Busy { operation },
            ChangeError::Landlord(error) => Self::Landlord(error),
            ChangeError::Failed(failure) => Self::from_failure(failure),
            ChangeError::Closed => Self::Closed,
            _ => Self::NotValid,
        }
    }
}

impl From<BeginError> for SetupLinkError {
    fn from(error: BeginError) -> Self {
        ChangeError::from(error).into()
    }
}

impl SetupLinkError {
    /// How long to wait before the same call may succeed. `None` if it cannot succeed until something is changed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { .. } | Self::InUse { .. } => Some(Duration::from_secs(1)),
            Self::Failed(failure) => failure.retry_after,
            Self::Landlord(error) => error.retry_after(),
            _ => None,
        }
    }
    /// Separates the failures that the user can correct from the others.
    fn from_failure(failure: Failure) -> Self {
        match failure.cause.downcast_ref::<AdminError>() {
            Some(AdminError::Password(error)) => Self::Password(error.clone()),
            // The token is valid, but its admin was removed from the tenant: there is no password to set.
            Some(AdminError::Unknown(_)) => Self::NotValid,
            _ => Self::Failed(Box::new(failure)),
        }
    }
}

/// The request of an operation, as the journal stores it. It contains neither the token's text nor a password.
#[derive(Clone, Serialize, Deserialize)]
struct Request {
    tenant: TenantId,
    /// Grace period of the old login in milliseconds. The rotation steps of the credentials link read it.
    grace_ms: u64,
    link: LinkId,
    hash: [u8; 32],
    email: String,
}

/// The operations of both setup links. It spawns no task: the caller that begins an operation must drive it.
#[derive(Clone)]
pub(crate) struct SetupLinks {
    stores: OperationContext,
    engine: Engine,
    admins: Arc<dyn AdminStore>,
    credentials: Arc<Saga<RotateContext>>,
    password: Arc<Saga<PasswordContext>>,
}

impl SetupLinks {
    /// Creates the drivers of both operations over these stores. `lifetime` is how long the password link is valid that
    /// a credentials link leads to.
    pub(crate) fn new(
        stores: OperationContext, engine: Engine, login: AppLogin, admins: Arc<dyn AdminStore>, lifetime: Duration,
    ) -> Self {
        let credentials = Arc::new(credentials::define(stores.clone(), login, lifetime));
        let password = Arc::new(password::define(stores.clone(), admins.clone()));
        Self { stores, engine, admins, credentials, password }
    }
    /// The sagas of both links, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn sagas(&self) -> [Arc<dyn AnySaga>; 2] {
        [self.credentials.clone(), self.password.clone()]
    }

    /// Begins the operation of a credentials link, or joins it. While another operation of the tenant is unfinished it
    /// tries again for ten seconds; then the error is `Busy`.
    pub(crate) async fn begin_credentials(&self, link: &FoundLink<'_>) -> Result<Started, SetupLinkError> {
        let mut link = link.clone();
        let deadline = Instant::now() + BUSY_TIMEOUT;
        loop {
            match self.begin(&self.credentials, Subject::Tenant(link.issued.tenant), &link).await {
                Err(SetupLinkError::Busy { .. }) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(100)).await
                }
                begun => return begun,
            }
            link.reload_tenant(&self.stores).await?;
        }
    }

    async fn begin<C: Send + 'static>(
        &self, saga: &Arc<Saga<C>>, subject: Subject, link: &FoundLink<'_>,
    ) -> Result<Started, SetupLinkError> {
        let FoundLink { issued, tenant, text } = link;
        let request = Request {
            tenant: issued.tenant,
            grace_ms: GRACE.as_millis() as u64,
            link: issued.id,
            hash: Token::hash_of(text),
            email: issued.email.clone(),
        };
        let options = CallOptions::new().link_key(issued.id.as_uuid()).reason("setup link");
        let intent = self.engine.intent(saga, subject, &request, &options)?;
        let check = async {
            match tenant.status() {
                TenantStatus::Active => Ok(()),
                _ => Err(SetupLinkError::Refused(tenant.clone())),
            }
        };
        self.engine.begin(saga, &intent, check).await
    }

    /// Whether the operation has used its token up: the work for which the link was issued is done.
    pub(crate) fn is_used(record: &Record) -> bool {
        record.outputs.contains_key(link::USE)
    }

    /// Waits until the operation has used its token up or has settled. The steps after that, such as dropping the old
    /// login, do not matter to the user. It polls the journal every 10 to 200 ms.
    pub(crate) async fn wait_until_used(&self, id: OperationId) -> Result<Record, StoreError> {
        let mut pause = Duration::from_millis(10);
        loop {
            let missing = || StoreError::conflict(format!("operation {id} is not in the journal"));
            let record = self.stores.journal.read(id).await?.ok_or_else(missing)?;
            if Self::is_used(&record) || record.is_settled() {
                return Ok(record);
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(200));
        }
    }

    /// Reads the password link that the operation of a credentials link has issued. Every caller that joined the
    /// operation gets the same link.
    pub(crate) async fn read_password_link(&self, record: &Record) -> Result<SetupLink, SetupLinkError> {
        if !Self::is_used(record) {
            return Err(to_failure(record));
        }
        let tenant = record.subject.tenant().ok_or(SetupLinkError::NotValid)?;
        let valid = self.stores.tokens.of_tenant(tenant).await?;
        let issued = valid.into_iter().find(|t| t.id.as_uuid() == record.id.as_uuid());
        let issued = issued.ok_or(SetupLinkError::NotValid)?;
        crate::operations::provision::link(&self.stores, issued).await?.ok_or(SetupLinkError::NotValid)
    }

    /// Reads the tenant whose admin's password the operation of a password link has set.
    pub(crate) async fn read_tenant(&self, record: &Record) -> Result<Tenant, SetupLinkError> {
        if !Self::is_used(record) {
            return Err(to_failure(record));
        }
        let request: Request = serde_json::from_value(record.request.clone()).map_err(StoreError::corrupt)?;
        self.stores.registry.find(request.tenant.into()).await?.ok_or(SetupLinkError::NotValid)
    }
}

/// The error of an operation that settled without using its token up, as the journal records it. Used when another
/// worker drove the operation.
fn to_failure(record: &Record) -> SetupLinkError {
    SetupLinkError::Failed(Box::new(record.to_failure(record.failure_state())))
}

impl std::fmt::Debug for SetupLinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetupLinks(..)")
    }
}
