//! From a name to a working database: one saga.
use crate::cluster::OperationContext;
use crate::directory::{AppAccess, ConnectionSettings};
use crate::error::{Failure, FailureState, NameConflict, ProvisionError, StoreError};
use crate::names::ServerName;
use crate::operation::{Lane, OperationId, OperationStatus, Subject};
use crate::operations::step::AnyStep;
use crate::placement::{Candidate, PlacementRequest, least_loaded};
use crate::saga::{AnySaga, Engine, Observer, Outcome};
use crate::store::admin::{AdminStore, PgAdminStore};
use crate::store::journal::{Begun, Intent, Record};
use crate::store::tokens::{LinkDelivery, SetupLink};
use crate::tenant::{Tenant, TenantId};
use futures_util::future::try_join;
use sqlx::migrate::Migrator;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

mod cluster;
mod content;
mod context;
mod landlord;
mod link;
mod request;
mod saga;
pub(crate) use link::{issue, link};
pub use request::Provision;
pub(crate) use saga::ProvisionSaga;

/// The stored name of the saga.
pub(crate) const KIND: &str = "provision";

/// A tenant that works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Provisioned {
    /// The tenant, active.
    pub tenant: Tenant,
    /// The operation that made it.
    pub operation: OperationId,
    /// If an admin was named and nobody has confirmed the delivery of the link yet.
    pub link: Option<SetupLink>,
}

type Choose = Arc<dyn Fn(&PlacementRequest, &[Candidate]) -> Option<ServerName> + Send + Sync>;
type Name = Arc<dyn Fn(&PlacementRequest, TenantId) -> String + Send + Sync>;

/// How tenants are made. Plain data; the defaults suit a host that names nothing.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProvisionConfig {
    /// The host's migrations, and the name of its ledger; none by default.
    pub migrations: Option<&'static Migrator>,
    /// What the application's login may do.
    pub access: AppAccess,
    /// Whether the application's login may make temp tables; they let a tenant fill the disk.
    pub temp_tables: bool,
    /// Sessions that one login may have, of all nodes together; -1: no limit. 53300 beyond it. 43 by default: five
    /// connections on each of eight nodes, and three more. Without a limit one tenant can use up its server.
    pub connection_limit: i32,
    /// How sessions of the application are set up.
    pub settings: ConnectionSettings,
    /// For how long a setup link is good.
    pub link_lifetime: Duration,
    /// Who keeps the tenant's users.
    pub admins: Arc<dyn AdminStore>,
    /// Who takes setup links; without one they are in [`Provisioned::link`].
    pub delivery: Option<Arc<dyn LinkDelivery>>,
    pub(crate) before: Vec<Arc<dyn AnyStep>>,
    pub(crate) after: Vec<Arc<dyn AnyStep>>,
    pub(crate) place: Choose,
    pub(crate) database_name: Name,
}

impl Default for ProvisionConfig {
    /// No migrations, no steps, rows only, the least loaded server.
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
            before: vec![],
            after: vec![],
            place: Arc::new(least_loaded),
            database_name: Arc::new(|_, tenant| format!("t_{}", tenant.as_uuid().simple())),
        }
    }
}

/// The pools of all nodes, and three more: a person with psql, and sessions that are about to end.
pub(crate) fn connection_limit(per_tenant: u32, nodes: u32) -> i32 {
    i32::try_from(per_tenant.saturating_mul(nodes).saturating_add(3)).unwrap_or(i32::MAX)
}

/// Makes tenants. It spawns nothing: dropping one of its futures is like the death of the process, and recovery goes on.
#[derive(Clone)]
pub struct Provisioner {
    stores: OperationContext,
    engine: Engine,
    saga: Arc<ProvisionSaga>,
}

impl Provisioner {
    /// Over these stores.
    pub fn new(stores: OperationContext, engine: Engine, config: ProvisionConfig) -> Self {
        let saga = Arc::new(ProvisionSaga::new(stores.clone(), config));
        Self { stores, engine, saga }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }

    /// Begins and drives it to its end. With a key that is known, waits for that operation instead.
    ///
    /// # Errors
    /// Typed by what the caller can do; what began and failed is [`ProvisionError::Failed`], which says what is left.
    ///
    /// # Cancel safety
    /// Before the intent's commit nothing has happened; after it recovery goes on.
    pub async fn provision(&self, request: Provision, observer: &Observer) -> Result<Provisioned, ProvisionError> {
        match self.begin(request).await? {
            Begun::New(record) => {
                let outcome = self.engine.drive(&*self.saga, *record, true, observer).await?;
                self.answer(outcome).await
            }
            Begun::Joined(record) => self.watch(record.id).await,
            Begun::KeyReused(operation) | Begun::Busy(operation) => Err(ProvisionError::KeyReused { operation }),
        }
    }

    /// Commits the intent, under which the caller then holds the operation, or finds the one that has its key.
    pub async fn begin(&self, request: Provision) -> Result<Begun, ProvisionError> {
        let asked = request.parse()?;
        if asked.key.is_none() {
            self.refuse_early(&asked.request).await?;
        }
        let stored = serde_json::to_value(&asked.request).map_err(ProvisionError::Input)?;
        let intent = Intent {
            key: asked.key,
            reason: asked.reason,
            request: stored,
            intended: Engine::first_intent(&*self.saga),
            total: self.saga.len(),
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Change, Subject::Tenant(TenantId::new()))
        };
        match self.engine.journal().begin(&intent).await? {
            Begun::KeyReused(operation) | Begun::Busy(operation) => Err(ProvisionError::KeyReused { operation }),
            begun => Ok(begun),
        }
    }

    /// What cannot succeed is refused before anything is written. With a key the key decides first: the slug may be
    /// taken by this very request. A race is decided later, by the registry itself.
    async fn refuse_early(&self, request: &request::Request) -> Result<(), ProvisionError> {
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

    /// Waits until the operation has ended or waits itself, whoever drives it.
    pub async fn watch(&self, id: OperationId) -> Result<Provisioned, ProvisionError> {
        let record = self.stores.wait(id).await?;
        self.answer(Outcome::of(record)).await
    }

    /// What an operation's end means to its caller.
    pub async fn answer(&self, outcome: Outcome) -> Result<Provisioned, ProvisionError> {
        let record = outcome.record;
        if let Some(failure) = outcome.failure {
            return Err(typed(failure));
        }
        match record.status {
            OperationStatus::Done => self.done(&record).await,
            OperationStatus::Undone => Err(told(&record, FailureState::Undone)),
            OperationStatus::Undoing => Err(told(&record, FailureState::Undoing)),
            OperationStatus::Parked => Err(told(&record, FailureState::Parked)),
            OperationStatus::Running => Err(told(&record, FailureState::Continuing)),
        }
    }

    async fn done(&self, record: &Record) -> Result<Provisioned, ProvisionError> {
        let gone = || StoreError::conflict("the tenant was made and is gone again");
        let id = record.subject.tenant().ok_or_else(gone)?;
        let issued = record.outputs.get(link::ISSUE).is_some_and(|issued| !issued.is_null());
        let link = async { if issued { link::undelivered(&self.stores, id, record.id).await } else { Ok(None) } };
        let (tenant, link) = try_join(self.stores.registry.find(id.into()), link).await?;
        Ok(Provisioned { tenant: tenant.ok_or_else(gone)?, operation: record.id, link })
    }
}

/// A failure of this process: its cause is at hand.
fn typed(mut failure: Failure) -> ProvisionError {
    if failure.state != FailureState::Undone {
        return ProvisionError::Failed(failure);
    }
    if let Some(StoreError::Taken(taken)) = failure.cause.downcast_ref::<StoreError>()
        && let Some(error) = name_taken(taken.clone(), Some(failure.operation))
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

/// A failure of another worker: its cause is what the journal kept.
fn told(record: &Record, after: FailureState) -> ProvisionError {
    let taken = record.failure().and_then(|f| f.taken);
    if let (Some(taken), FailureState::Undone) = (taken, after)
        && let Some(error) = name_taken(taken, Some(record.id))
    {
        return error;
    }
    ProvisionError::Failed(record.told(after))
}

fn name_taken(taken: NameConflict, operation: Option<OperationId>) -> Option<ProvisionError> {
    match taken {
        NameConflict::Slug(slug) => Some(ProvisionError::SlugTaken { slug, operation }),
        NameConflict::Domain(domain) => Some(ProvisionError::DomainTaken { domain, operation }),
        NameConflict::Database(..) | NameConflict::ServerFull(_) => None,
    }
}
