//! Provisioning: creates a tenant with its database, roles, login, migrations, first admin and setup link.
//!
//! The facade begins the saga through [`Provisioner`]. A failure before the pivot step, which publishes the
//! tenant, undoes everything that the operation has made. After it the engine retries until the saga is done. No secret
//! is generated twice: it is stored before its first use, so a worker that takes over uses the same one. The
//! delivery of the setup link and the application's steps after activation are an operation of their own, which the last
//! step begins; see `follow_up.rs`.
use crate::cluster::OperationContext;
use crate::directory::{AppAccess, ConnectionSettings};
use crate::error::{Failure, FailureState, NameConflict, ProvisionError, StoreError};
use crate::names::{ReservedDomains, ServerName};
use crate::operation::{OperationId, OperationState, OperationStatus, Subject};
use crate::operations::step::AnyStep;
use crate::operations::verb::CallVerb;
use crate::placement::{Candidate, PlacementRequest, least_loaded};
use crate::saga::{AnySaga, Outcome, Recoverer, Saga, Started};
use crate::store::admin::{AdminStore, PgAdminStore};
use crate::store::journal::Record;
use crate::store::tokens::{LinkDelivery, SetupLink};
use crate::tenant::{Tenant, TenantId};
use async_trait::async_trait;
use futures_util::future::try_join;
use sqlx::migrate::Migrator;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

mod context;
mod follow_up;
mod request;
mod saga;
mod steps;
pub use crate::saga::CallOptions;
use crate::saga::{Engine, EpochFence, Settings};
use context::ProvisionContext;
use follow_up::FollowUpContext;
pub use request::Provision;
use steps::link;
pub(crate) use steps::link::{issue_token, link};

/// A tenant that is ready for use, with the operation that created it and its setup link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Provisioned {
    /// The tenant, with status active.
    pub tenant: Tenant,
    /// The operation that created the tenant.
    pub operation: OperationId,
    /// The setup link for the first admin. `None` if the request named no admin, or if the link's delivery was
    /// confirmed.
    pub link: Option<SetupLink>,
    /// The follow-up work, if it is still open: the delivery of the setup link and the application's steps after
    /// activation. `None` if it is done, or if there is none. The call waits for its first attempts, but not longer than
    /// ten seconds. Afterwards [`run`](crate::Tenantry::run) repeats it, unless it is parked;
    /// [`operations()`](crate::Tenantry::operations) shows, resumes, skips and abandons it. The tenant can be used in any
    /// case.
    pub follow_up: Option<OperationState>,
}

/// How long a provisioning waits for its follow-up work: long enough for a slow mail server, and short enough for the
/// HTTP request that usually waits for the provisioning.
const FOLLOW_UP_WAIT: Duration = Duration::from_secs(10);

/// Chooses the server of a new tenant; `None` refuses the request for lack of room.
type ChooseServer = Arc<dyn Fn(&PlacementRequest, &[Candidate]) -> Option<ServerName> + Send + Sync>;
/// Chooses the name of a new tenant's database.
type NameDatabase = Arc<dyn Fn(&PlacementRequest, TenantId) -> String + Send + Sync>;

/// How tenants are provisioned. The defaults suit an application without migrations, steps or an admin store of its
/// own.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProvisionConfig {
    /// The application's migrations, which also name the ledger table. Default: none.
    pub migrations: Option<&'static Migrator>,
    /// Rights of the application's login. Default: [`AppAccess::App`].
    pub access: AppAccess,
    /// Whether the application's login may create temporary tables. Default: `false`, because they let a tenant fill
    /// the server's disk.
    pub temp_tables: bool,
    /// CONNECTION LIMIT of the application's login: most sessions over all nodes; -1 for no limit. PostgreSQL refuses a
    /// session beyond it with SQLSTATE 53300. Default: 43, for five connections on each of eight nodes and three more.
    /// Without a limit one tenant can take every connection of its server.
    pub connection_limit: i32,
    /// Settings of the application's sessions, stored in the tenant's directory entry.
    pub settings: ConnectionSettings,
    /// Lifetime of a setup link. Default: 72 hours.
    pub link_lifetime: Duration,
    /// Store of the tenant's users, to which the first admin is added. Default: [`PgAdminStore`].
    pub admins: Arc<dyn AdminStore>,
    /// Receiver of setup links. Default: none, and the link is in [`Provisioned::link`].
    pub delivery: Option<Arc<dyn LinkDelivery>>,
    pub(crate) reserved: ReservedDomains,
    pub(crate) before: Vec<Arc<dyn AnyStep>>,
    pub(crate) after: Vec<Arc<dyn AnyStep>>,
    pub(crate) place: ChooseServer,
    pub(crate) database_name: NameDatabase,
}

impl Default for ProvisionConfig {
    /// No migrations, no steps of the application, no right to change the schema, and the least loaded server.
    fn default() -> Self {
        Self {
            migrations: None,
            access: AppAccess::App,
            temp_tables: false,
            connection_limit: connection_limit(5, 8),
            settings: ConnectionSettings::default(),
            link_lifetime: Duration::from_secs(72 * 3600),
            admins: Arc::new(PgAdminStore::default()),
            delivery: None,
            reserved: ReservedDomains::default(),
            before: vec![],
            after: vec![],
            place: Arc::new(least_loaded),
            database_name: Arc::new(|_, tenant| format!("t_{}", tenant.as_uuid().simple())),
        }
    }
}

/// CONNECTION LIMIT for a login: enough for the pools of all nodes and three more sessions, for a person with psql and
/// for connections that are about to close.
pub(crate) fn connection_limit(per_tenant: u32, nodes: u32) -> i32 {
    i32::try_from(per_tenant.saturating_mul(nodes).saturating_add(3)).unwrap_or(i32::MAX)
}

/// Begins provisionings and drives them, for a program without the facade. It is not the *provisioner*, the login on a
/// database server. It spawns no task: if one of its futures is dropped, the work stops there, and recovery continues
/// it after the lease.
#[derive(Clone)]
pub struct Provisioner {
    stores: OperationContext,
    engine: Engine,
    saga: Arc<Saga<ProvisionContext>>,
    follow_up: Arc<Saga<FollowUpContext>>,
    reserved: ReservedDomains,
}

impl Provisioner {
    /// Creates it over these stores. Its leases, retries and deadlines are those of a facade with default settings.
    /// When a worker takes an operation over, every store of `stores` is first told the new epoch, so that it rejects
    /// writes of the old worker. This also covers stores outside the landlord.
    pub fn new(stores: OperationContext, config: ProvisionConfig) -> Self {
        let fences: Vec<Arc<dyn EpochFence>> = vec![Arc::new(stores.clone())];
        let engine = Engine::new(stores.journal.clone(), fences, Settings::default(), CancellationToken::new());
        Self::with_engine(stores, engine, config)
    }
    /// Creates a provisioner that begins and drives its operations with this engine.
    #[doc(hidden)]
    pub fn with_engine(stores: OperationContext, engine: Engine, config: ProvisionConfig) -> Self {
        let reserved = config.reserved.clone();
        let config = Arc::new(config);
        let saga = Arc::new(saga::define(stores.clone(), config.clone()));
        let follow_up = Arc::new(follow_up::define(stores.clone(), config));
        Self { stores, engine, saga, follow_up, reserved }
    }
    /// The sagas of the provisioning and of its follow-up work, for a `Recoverer`.
    #[doc(hidden)]
    pub fn sagas(&self) -> [Arc<dyn AnySaga>; 2] {
        [self.saga.clone(), self.follow_up.clone()]
    }

    /// Begins a provisioning and drives it to its end, then drives its follow-up work until it ends or waits. If an
    /// operation with the same key exists already, waits for that one instead.
    ///
    /// # Errors
    /// The variants differ by what the caller can do about them. [`ProvisionError::Failed`] is an operation that began
    /// and failed; it says whether the operation was undone.
    ///
    /// # Cancel safety
    /// A future dropped before the intent is committed leaves nothing. After the commit recovery continues the
    /// operation.
    pub async fn provision(&self, request: Provision, options: &CallOptions) -> Result<Provisioned, ProvisionError> {
        match request.begin(self, options).await? {
            Started::New(operation) => {
                let outcome = operation.drive(&self.engine, &options.observer).await?;
                if let Some(id) = outcome.record.follow_up() {
                    let recoverer = Recoverer::new(self.engine.clone(), vec![self.follow_up.clone()]);
                    recoverer.resume(id).await?;
                }
                self.answer(outcome).await
            }
            Started::Joined(record) => self.watch(record.id).await,
        }
    }

    /// Fails early for a request that cannot succeed, before anything is written. It does not run for a request with a
    /// key: there an earlier call of the same request may have taken the slug. Between concurrent requests the registry
    /// decides later.
    async fn check_early(&self, request: &request::Request) -> Result<(), ProvisionError> {
        let taken = self.stores.registry.find((&request.slug).into()).await?;
        if taken.is_some() {
            return Err(ProvisionError::SlugTaken { slug: request.slug.clone(), operation: None });
        }
        if let Some(server) = &request.server
            && self.stores.servers.server(server).await?.is_none()
        {
            return Err(ProvisionError::UnknownServer { server: server.clone() });
        }
        Ok(())
    }

    /// Waits until the operation has ended, is parked or waits for a retry, whichever worker drives it. It polls the
    /// journal.
    pub async fn watch(&self, id: OperationId) -> Result<Provisioned, ProvisionError> {
        let record = self.stores.wait(id).await?;
        self.answer(Outcome::from_record(record)).await
    }

    async fn answer(&self, outcome: Outcome) -> Result<Provisioned, ProvisionError> {
        let record = outcome.record;
        if let Some(failure) = outcome.failure {
            return Err(error_of_failure(failure));
        }
        match record.status {
            OperationStatus::Done => self.read_result(&record).await,
            _ => Err(error_of_record(&record)),
        }
    }

    /// The result of an operation that is done.
    async fn read_result(&self, record: &Record) -> Result<Provisioned, ProvisionError> {
        let missing = || StoreError::conflict("the tenant was provisioned but is no longer in the registry");
        let id = record.subject.tenant().ok_or_else(missing)?;
        let issued = record.outputs.get(link::ISSUE).is_some_and(|issued| !issued.is_null());
        let link = async { if issued { link::find_undelivered(&self.stores, id, record.id).await } else { Ok(None) } };
        // The delivery of the link is part of the follow-up work, so the link is read after it.
        let follow_up = self.wait_for_follow_up(record).await?;
        let (tenant, link) = try_join(self.stores.registry.find(id.into()), link).await?;
        Ok(Provisioned { tenant: tenant.ok_or_else(missing)?, operation: record.id, link, follow_up })
    }

    /// Waits a limited time until the follow-up work has ended or waits for something. Returns its state if it is open.
    async fn wait_for_follow_up(&self, record: &Record) -> Result<Option<OperationState>, StoreError> {
        let Some(id) = record.follow_up() else { return Ok(None) };
        let work = match tokio::time::timeout(FOLLOW_UP_WAIT, self.stores.wait(id)).await {
            Ok(settled) => Some(settled?),
            Err(_) => self.stores.journal.read(id).await?,
        };
        Ok(work.filter(|work| !work.status.is_over()).map(|work| work.state()))
    }
}

#[async_trait]
impl CallVerb for Provision {
    type Driver = Provisioner;
    type Answer = Provisioned;
    type Error = ProvisionError;
    async fn begin(self, driver: &Provisioner, options: &CallOptions) -> Result<Started, ProvisionError> {
        let request = self.parse(&driver.reserved)?;
        let subject = Subject::Tenant(TenantId::new());
        let intent = driver.engine.intent(&driver.saga, subject, &request, options)?;
        let check = async {
            match options.key {
                Some(_) => Ok(()),
                None => driver.check_early(&request).await,
            }
        };
        driver.engine.begin(&driver.saga, &intent, check).await
    }
    async fn answer(driver: &Provisioner, outcome: Outcome) -> Result<Provisioned, ProvisionError> {
        driver.answer(outcome).await
    }
}

/// The error that the caller gets if this process drove the operation. `failure.cause` is then the original error, so
/// it can be downcast.
fn error_of_failure(mut failure: Failure) -> ProvisionError {
    if failure.state != FailureState::Undone {
        return ProvisionError::Failed(failure);
    }
    if let Some(StoreError::Taken(taken)) = failure.cause.downcast_ref::<StoreError>()
        && let Some(error) = name_taken_error(taken.clone(), Some(failure.operation))
    {
        return error;
    }
    match failure.cause.downcast::<ProvisionError>() {
        Ok(error) => *error,
        Err(cause) => {
            failure.cause = cause;
            ProvisionError::Failed(failure)
        }
    }
}

/// The error that the caller gets if another process drove the operation: the journal stores the cause as text only.
fn error_of_record(record: &Record) -> ProvisionError {
    let state = record.failure_state();
    let taken = record.failure().and_then(|f| f.taken);
    if let (Some(taken), FailureState::Undone) = (taken, state)
        && let Some(error) = name_taken_error(taken, Some(record.id))
    {
        return error;
    }
    ProvisionError::Failed(record.to_failure(state))
}

/// The caller's error for a slug or a domain that another tenant has; `None` for other conflicts.
fn name_taken_error(taken: NameConflict, operation: Option<OperationId>) -> Option<ProvisionError> {
    match taken {
        NameConflict::Slug(slug) => Some(ProvisionError::SlugTaken { slug, operation }),
        NameConflict::Domain(domain) => Some(ProvisionError::DomainTaken { domain, operation }),
        NameConflict::Database(..) | NameConflict::ServerFull(_) => None,
    }
}
