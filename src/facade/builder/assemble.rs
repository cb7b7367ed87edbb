//! Assembles a [`Tenantry`] from a checked [`Builder`]: the stores, the engine, the operations, the connection pools.
//!
//! A new operation is added to [`OperationSet`]; recovery knows the kinds of sagas that are listed there.
use super::Builder;
use crate::cluster::OperationContext;
use crate::doctor::{Examiner, Expected, RepairTools, Repairs};
use crate::error::StoreError;
use crate::facade::{Inner, Operations, Pool, Tenantry, Tokens};
use crate::operation::OperationId;
use crate::operations::lifecycle::Lifecycle;
use crate::operations::migrate::Migration;
use crate::operations::provision::Provisioner;
use crate::operations::rekey::Rekey;
use crate::operations::restore_entry::EntryRestoration;
use crate::operations::rotate::{AppLogin, Rotation};
use crate::operations::servers::Servers;
use crate::operations::temporary_login::TemporaryLogins;
use crate::resolver::{ConnectionResolver, PooledResolver, RequireHead};
use crate::saga::{AnySaga, Engine, EpochFence, Recoverer};
use crate::setup_link::SetupLinks;
use crate::store::journal::{PgJournal, WorkerLock};
use crate::store::nodes::{Node, Nodes, PgNodes};
use crate::store::registry::{PgTenantRegistry, RegistryWriter};
use crate::store::schema::LandlordPool;
use crate::store::tokens::PgTokenStore;
use crate::store::vault::VaultWriter;
use async_trait::async_trait;
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the password link is valid that a credentials link redirects to.
const PASSWORD_LINK_LIFETIME: Duration = Duration::from_secs(3600);
/// The `application_name` of the background connections in `pg_stat_activity`.
const BACKGROUND_APPLICATION: &str = "tenantry background";

impl Builder {
    pub(super) fn assemble(mut self, vault: Arc<dyn VaultWriter>) -> Tenantry {
        self.config.connection_limit = self.connection_limit();
        let stores = Stores::new(&self, vault.clone());
        let stop = CancellationToken::new();
        let engine = Engine::new(stores.journal.clone(), self.epoch_fences(), self.settings, stop.clone());
        let nodes: Arc<dyn Nodes> = Arc::new(PgNodes::over(stores.nodes.clone()));
        let examiner = self.examiner(&stores, nodes.clone());
        let operations = OperationSet::new(&self, &stores.context, &engine, &examiner);
        let recoverer = Recoverer::new(engine.clone(), operations.sagas()).with_workers(self.workers);
        let pool = self.build_pool(&stores);
        let resolver = self.choose_resolver(&pool);
        let servers = follow_relocations(operations.servers, resolver.clone(), pool.resolver.clone());
        Tenantry {
            inner: Arc::new(Inner {
                servers,
                tokens: Tokens::new(stores.context.clone(), operations.setup.clone(), self.config.link_lifetime),
                link_events: Default::default(),
                #[cfg(any(feature = "axum", feature = "actix"))]
                link_attempts: Default::default(),
                operations: Operations::new(stores.context.clone(), recoverer.clone()),
                nodes,
                node: Node::here(),
                background: stores.background,
                landlord: self.landlord_pool(),
                stores: stores.context,
                engine,
                provisioner: operations.provisioner,
                lifecycle: operations.lifecycle,
                migration: operations.migration,
                rotation: operations.rotation,
                temporary_logins: operations.temporary_logins,
                rekey: operations.rekey,
                restore_entry: operations.restore_entry,
                repairs: operations.repairs,
                examiner,
                setup: operations.setup,
                recoverer,
                registry: stores.registry,
                vault,
                resolver,
                pool,
                tasks: TaskTracker::new(),
                stop,
                running: Default::default(),
                change_poll_interval: self.change_poll_interval,
                worker_lock: stores.worker_lock,
            }),
        }
    }

    /// The doctor's examinations, with what this program expects of tenants.
    fn examiner(&self, stores: &Stores, nodes: Arc<dyn Nodes>) -> Examiner {
        Examiner::new(stores.context.clone(), self.landlord_pool(), nodes, self.expected())
    }

    /// A program without the tenants' migrations is probably a tool and not the application. It does not know the
    /// application's other settings either, and must not make every tenant follow its defaults.
    fn expected(&self) -> Expected {
        let is_application = self.config.migrations.is_some() && !self.is_tool;
        Expected {
            access: is_application.then_some(self.config.access),
            temp_tables: is_application.then_some(self.config.temp_tables),
            connection_limit: is_application.then_some(self.config.connection_limit),
            migrations: self.config.migrations,
            max_connections: self.max_connections_or_default(),
            shares_connections: self.share_connections,
            deadline: self.settings.deadline,
            blocking_after: self.blocking_after,
        }
    }

    /// The built-in stores check a worker's epoch in the landlord's own tables. A store of the application's own does
    /// not see these, so the engine must report each takeover to it; otherwise it would accept writes of a worker that
    /// has lost its lease.
    fn epoch_fences(&self) -> Vec<Arc<dyn EpochFence>> {
        let mut fences: Vec<Arc<dyn EpochFence>> = vec![];
        fences.extend(self.registry.clone().map(|r| Arc::new(RegistryFence(r)) as Arc<dyn EpochFence>));
        fences.extend(self.vault.clone().map(|v| Arc::new(VaultFence(v)) as Arc<dyn EpochFence>));
        fences
    }

    /// The resolver that the application calls: its own, or the one over the pools.
    fn choose_resolver(&self, pool: &Pool) -> Arc<dyn ConnectionResolver> {
        match (&self.resolver, self.require_head, self.config.migrations) {
            (Some(resolver), ..) => resolver.clone(),
            (None, true, Some(migrations)) => Arc::new(RequireHead::new(pool.resolver.clone(), migrations)),
            (None, ..) => Arc::new(pool.resolver.clone()),
        }
    }

    fn build_pool(&self, stores: &Stores) -> Pool {
        let context = &stores.context;
        let resolver = PooledResolver::builder(stores.registry.clone(), context.vault.clone())
            .servers(context.servers.clone())
            .pool(|defaults| self.pool.clone().unwrap_or(defaults))
            .address_policy(self.addresses.clone())
            .max_connections(self.max_connections_or_default())
            .max_connections_per_tenant(self.max_connections_per_tenant)
            .count_sessions(Arc::new(context.clone()));
        let resolver = match self.acquire_timeout {
            Some(limit) => resolver.acquire_timeout(limit).build(),
            None => resolver.build(),
        };
        if self.share_connections {
            // Until this node has claimed its share.
            resolver.resize(0);
        }
        let shared = self.share_connections.then_some(self.max_connections_or_default());
        Pool { resolver, shared, has_complete_changes: self.registry.is_none() }
    }
}

/// The stores over one landlord.
struct Stores {
    registry: Arc<dyn RegistryWriter>,
    journal: Arc<PgJournal>,
    background: PgPool,
    /// The background pool with the deadline of a statement.
    nodes: LandlordPool,
    worker_lock: WorkerLock,
    context: OperationContext,
}

impl Stores {
    fn new(builder: &Builder, vault: Arc<dyn VaultWriter>) -> Self {
        let landlord = || builder.landlord_pool();
        let own = Arc::new(PgTenantRegistry::over(landlord()).with_reserved(builder.config.reserved.clone()));
        let registry = builder.registry.clone().unwrap_or_else(|| own.clone());
        let background = background_pool(&builder.landlord);
        let nodes = LandlordPool::new(background.clone()).with_deadline(builder.landlord_timeout);
        // A renewal that is too late must be repeated before the lease expires.
        let renewals = nodes.clone().with_deadline(builder.landlord_timeout.min(builder.settings.lease / 3));
        let worker_lock = WorkerLock::new(builder.landlord.clone());
        let journal = PgJournal::over(landlord()).renewing_over(renewals);
        let journal = Arc::new(journal.with_worker_lock(worker_lock.clone()));
        let tokens = Arc::new(PgTokenStore::over(landlord()));
        let context = OperationContext::new(registry.clone(), own, vault, tokens, journal.clone());
        let context = context.with_workers(builder.workers).with_address_policy(builder.addresses.clone());
        Self { registry, journal, background, nodes, worker_lock, context }
    }
}

/// All operations that this program can drive.
struct OperationSet {
    provisioner: Provisioner,
    lifecycle: Lifecycle,
    migration: Migration,
    rotation: Rotation,
    temporary_logins: TemporaryLogins,
    rekey: Rekey,
    restore_entry: EntryRestoration,
    repairs: Repairs,
    servers: Servers,
    setup: SetupLinks,
}

impl OperationSet {
    fn new(builder: &Builder, stores: &OperationContext, engine: &Engine, examiner: &Examiner) -> Self {
        let config = &builder.config;
        let login = AppLogin::new(config.access, config.connection_limit);
        let (stores, engine) = (|| stores.clone(), || engine.clone());
        let (landlord, expected) = (builder.landlord_pool(), builder.expected());
        let tools = RepairTools { examiner: examiner.clone(), stores: stores(), landlord, expected };
        let servers = Servers::over(stores(), engine(), builder.landlord_pool());
        let servers = if builder.accepts_pg_environment { servers.accepting_pg_environment() } else { servers };
        let rotation = Rotation::new(stores(), engine(), login);
        let servers = match builder.is_tool {
            true => servers,
            false => servers.with_connection_limit(config.connection_limit),
        };
        Self {
            provisioner: Provisioner::with_engine(stores(), engine(), config.clone()),
            lifecycle: Lifecycle::new(stores(), engine(), login.access),
            migration: Migration::new(stores(), engine(), config.migrations),
            temporary_logins: TemporaryLogins::new(stores(), engine(), rotation.clone()),
            rotation,
            rekey: Rekey::new(stores(), engine()),
            restore_entry: EntryRestoration::new(stores(), engine(), login, config.settings.clone()),
            repairs: Repairs::new(tools, engine()),
            servers,
            setup: SetupLinks::new(stores(), engine(), login, config.admins.clone(), PASSWORD_LINK_LIFETIME),
        }
    }

    fn sagas(&self) -> Vec<Arc<dyn AnySaga>> {
        let mut sagas = vec![
            self.migration.saga(),
            self.rotation.saga(),
            self.temporary_logins.saga(),
            self.rekey.saga(),
            self.restore_entry.saga(),
            self.repairs.saga(),
            self.servers.saga(),
            self.servers.relocation_saga(),
        ];
        sagas.extend(self.provisioner.sagas());
        sagas.extend(self.lifecycle.sagas());
        sagas.extend(self.setup.sagas());
        sagas
    }
}

/// Makes this process check the servers' addresses right after it has relocated a server. Otherwise a process that does
/// not [`run`](Tenantry::run), and so gets no notifications, would keep connecting to the old address.
fn follow_relocations(servers: Servers, resolver: Arc<dyn ConnectionResolver>, pooled: PooledResolver) -> Servers {
    servers.with_move_callback(move || {
        resolver.invalidate_all();
        let pooled = pooled.clone();
        Box::pin(async move { pooled.check_servers().await })
    })
}

/// A pool of at most three connections for heartbeats, lease renewals and change notifications. On the application's
/// own pool they would wait when the application has used up its connections, and the node's workers would lose their
/// leases.
fn background_pool(landlord: &PgPool) -> PgPool {
    let options = landlord.connect_options().as_ref().clone().application_name(BACKGROUND_APPLICATION);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(3).idle_timeout(Duration::from_secs(60));
    pool.acquire_timeout(Duration::from_secs(10)).connect_lazy_with(options)
}

/// Passes epochs on to the application's own registry.
struct RegistryFence(Arc<dyn RegistryWriter>);
#[async_trait]
impl EpochFence for RegistryFence {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        self.0.fence(operation, epoch).await
    }
}

/// Passes epochs on to the application's own vault.
struct VaultFence(Arc<dyn VaultWriter>);
#[async_trait]
impl EpochFence for VaultFence {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        Ok(self.0.fence(operation, epoch).await?)
    }
}
