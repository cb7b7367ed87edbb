//! [`Builder`]: collects the application's configuration and assembles a [`Tenantry`].
//!
//! An application starts with [`Tenantry::builder`], calls setters, and ends with [`Builder::build`].
//!
//! Invariants:
//! - Setters never fail; `build` refuses a value that is out of range and steps that contradict each other.
//! - `build` only reads. It spawns no task and writes nothing.
//! - Heartbeats, lease renewals and change notifications use a small pool of their own, never the application's.
use super::{Operations, Tenantry, Tokens};
use crate::cluster::OperationContext;
use crate::directory::{AppAccess, ConnectionSettings};
use crate::error::{BuildError, KeyError, VaultError};
use crate::names::ServerName;
use crate::operations::lifecycle::Lifecycle;
use crate::operations::migrate::Migration;
use crate::operations::provision::{ProvisionConfig, Provisioner, connection_limit};
use crate::operations::rekey::Rekey;
use crate::operations::rotate::{AppLogin, Rotation};
use crate::operations::servers::Servers;
use crate::operations::step::{Compensate, Forward, Step, Undoable};
use crate::placement::{Candidate, PlacementRequest};
use crate::resolver::{ConnectionResolver, PooledResolver};
use crate::saga::{Engine, EpochFence, Recoverer, Settings};
use crate::setup_link::SetupLinks;
use crate::store::admin::AdminStore;
use crate::store::journal::PgJournal;
use crate::store::nodes::{Node, PgNodes};
use crate::store::registry::{self, PgTenantRegistry, RegistryWriter};
use crate::store::schema;
use crate::store::tokens::{LinkDelivery, PgTokenStore};
use crate::store::vault::{KeyProvider, PgVault, VaultWriter};
use crate::tenant::TenantId;
use sqlx::migrate::Migrator;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The configuration of a [`Tenantry`]. [`build`](Self::build) checks it.
#[must_use = "a builder does nothing until build()"]
pub struct Builder {
    landlord: sqlx::PgPool,
    keys: Option<Arc<dyn KeyProvider>>,
    config: ProvisionConfig,
    settings: Settings,
    workers: usize,
    max_connections: u32,
    max_connections_per_tenant: u32,
    max_nodes: u32,
    share_connections: bool,
    require_head: bool,
    acquire_timeout: Duration,
    change_poll_interval: Duration,
    registry: Option<Arc<dyn RegistryWriter>>,
    vault: Option<Arc<dyn VaultWriter>>,
    resolver: Option<Arc<dyn ConnectionResolver>>,
}

impl Builder {
    pub(super) fn new(landlord: sqlx::PgPool) -> Self {
        Self {
            landlord,
            keys: None,
            config: ProvisionConfig::default(),
            settings: Settings::default(),
            workers: 8,
            max_connections: 90,
            max_connections_per_tenant: 5,
            max_nodes: 8,
            share_connections: false,
            require_head: false,
            acquire_timeout: Duration::from_secs(10),
            change_poll_interval: registry::POLL,
            registry: None,
            vault: None,
            resolver: None,
        }
    }
    /// Key provider that wraps the data keys of all secrets. Required unless [`vault`](Self::vault) is given.
    pub fn keys(mut self, keys: impl KeyProvider) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }
    /// Migrations that run in each tenant database, as the owner of the database. By default there are none.
    pub fn tenant_migrations(mut self, migrator: &'static Migrator) -> Self {
        self.config.migrations = Some(migrator);
        self
    }
    /// Adds a step of the application to provisioning, before the tenant becomes active. It must be undoable, because a
    /// provisioning that fails is undone. Steps run in the order of these calls.
    pub fn before_activation(mut self, step: impl Compensate) -> Self {
        self.config.before.push(Arc::new(Undoable(step)));
        self
    }
    /// Adds a step of the application to provisioning, after the tenant has become active. It is retried until it
    /// succeeds.
    pub fn after_activation(mut self, step: impl Step) -> Self {
        self.config.after.push(Arc::new(Forward(step)));
        self
    }
    /// Receives the setup links of provisionings, for example to mail them. Without it a link is in the result of the
    /// call: see [`Provisioned::link`](crate::provision::Provisioned::link).
    pub fn link_delivery(mut self, delivery: impl LinkDelivery) -> Self {
        self.config.delivery = Some(Arc::new(delivery));
        self
    }
    /// How long a setup link is valid; 72 hours by default.
    pub fn link_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.link_lifetime = lifetime;
        self
    }
    /// Store of the tenants' users; by default table `tenant_users` in each tenant's database.
    pub fn admin_store(mut self, admins: impl AdminStore) -> Self {
        self.config.admins = Arc::new(admins);
        self
    }
    /// Chooses the server for a new tenant; by default the least loaded one. The function must not do I/O: it is called
    /// before anything is created. `None` fails the call with [`ProvisionError::NoRoom`](crate::error::ProvisionError).
    pub fn placement(
        mut self, choose: impl Fn(&PlacementRequest, &[Candidate]) -> Option<ServerName> + Send + Sync + 'static,
    ) -> Self {
        self.config.place = Arc::new(choose);
        self
    }
    /// Names a new tenant's database: at most 50 bytes, unique on its server. The default is `t_` and the tenant's id.
    /// A name should not identify the tenant, because PostgreSQL shows the names of all databases to every login.
    pub fn database_name(
        mut self, name: impl Fn(&PlacementRequest, TenantId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.config.database_name = Arc::new(name);
        self
    }
    /// Rights of the tenants' application logins; by default they may only read and write rows.
    pub fn app_access(mut self, access: AppAccess) -> Self {
        self.config.access = access;
        self
    }
    /// Whether the application may create temporary tables; `false` by default, because a tenant can fill the server's
    /// disk with them.
    pub fn temp_tables(mut self, yes: bool) -> Self {
        self.config.temp_tables = yes;
        self
    }
    /// Settings of the application's sessions in tenants that are created from now on.
    pub fn connection_settings(mut self, settings: ConnectionSettings) -> Self {
        self.config.settings = settings;
        self
    }
    /// Whether only tenants with the newest migration of this program resolve; `false` by default. Until the others are
    /// migrated they fail with [`ResolveError::Behind`](crate::error::ResolveError::Behind), which a web layer answers
    /// with 503.
    pub fn require_head(mut self, yes: bool) -> Self {
        self.require_head = yes;
        self
    }
    /// Maximum connections of this process to one server, over all its tenants; 90 by default.
    pub fn max_connections(mut self, per_server: u32) -> Self {
        self.max_connections = per_server;
        self
    }
    /// Whether [`max_connections`](Self::max_connections) is the limit of all nodes together; `false` by default. Each
    /// live node then gets an equal share of it.
    ///
    /// A node opens no connection before [`Tenantry::run`] has claimed its share. A node that joins gets its share
    /// within seconds, as the other nodes give it back. The share of a node that sent no heartbeat for 15 s is divided
    /// again. At no time do the shares add up to more than the limit, except while a node without heartbeats still has
    /// connections.
    pub fn share_connections(mut self, yes: bool) -> Self {
        self.share_connections = yes;
        self
    }
    /// Maximum connections of this process to one tenant; 5 by default.
    pub fn max_connections_per_tenant(mut self, n: u32) -> Self {
        self.max_connections_per_tenant = n;
        self
    }
    /// Maximum number of nodes that run at once; 8 by default. A rolling deploy counts twice: the default is enough for
    /// four nodes and the four that replace them. All nodes need the same value.
    ///
    /// It sets the connection limit that PostgreSQL enforces for each tenant's login:
    /// [`max_connections_per_tenant`](Self::max_connections_per_tenant) × `max_nodes` + 3 sessions, 43 by default.
    /// Three are for a person with psql and for connections that are about to close. Without the limit a tenant that
    /// runs its own SQL, or whose password has leaked, could use up the server's connections. If more nodes run than
    /// this, a query may fail with [`AcquireError::LoginLimit`](crate::pool::AcquireError::LoginLimit).
    ///
    /// A new value reaches existing logins with the next [`set_up`](Servers::set_up), or within a day while a node
    /// [`run`](Tenantry::run)s.
    pub fn max_nodes(mut self, n: u32) -> Self {
        self.max_nodes = n;
        self
    }
    /// Maximum time that a query waits for a connection; 10 s by default.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }
    /// How often this node, while it [`run`](Tenantry::run)s, reads which tenants other nodes have changed; 2 s by
    /// default, from 100 ms to 1 min.
    ///
    /// Notifications usually report a change within milliseconds. But all databases of the landlord's PostgreSQL
    /// cluster share one notification queue, and a full queue delivers nothing. With the default every node knows of a
    /// change within 5 s even then.
    pub fn change_poll_interval(mut self, every: Duration) -> Self {
        self.change_poll_interval = every;
        self
    }
    /// How long a worker owns an operation without renewing its lease; 30 s by default, at least 1 s. After that
    /// another worker may take the operation over.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }
    /// First and longest pause between two attempts of a step; 200 ms and 1 min by default. The pause doubles with each
    /// attempt.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.settings.backoff, self.settings.backoff_limit) = (first, longest);
        self
    }
    /// Maximum age of an operation that has not reached its pivot step; 1 h by default. An older one is undone,
    /// whatever it is waiting for. This bounds migrations and steps of the application too.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }
    /// Number of attempts of a step before the operation is undone or left to recovery; 4 by default.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }
    /// Maximum operations of this process that work on one server at once; 8 by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }
    /// Replaces the built-in tenant registry, which uses tables of the landlord.
    pub fn registry(mut self, registry: impl RegistryWriter) -> Self {
        self.registry = Some(Arc::new(registry));
        self
    }
    /// Replaces the built-in vault, which uses a table of the landlord.
    pub fn vault(mut self, vault: impl VaultWriter) -> Self {
        self.vault = Some(Arc::new(vault));
        self
    }
    /// Replaces the built-in [`PooledResolver`].
    pub fn resolver(mut self, resolver: impl ConnectionResolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Checks the settings, the landlord's schema and the keys, and assembles the facade. It spawns no task and writes
    /// nothing.
    ///
    /// # Errors
    /// The schema is not installed, a key is missing or wrong, two steps of the application have the same name, or a
    /// setting is out of range.
    pub async fn build(self) -> Result<Tenantry, BuildError> {
        self.check()?;
        schema::check(&self.landlord).await?;
        let vault = self.open_vault().await?;
        Ok(self.assemble(vault))
    }

    fn check(&self) -> Result<(), BuildError> {
        let steps: Vec<_> = self.config.before.iter().chain(&self.config.after).map(|s| s.name()).collect();
        if let Some(duplicate) = steps.iter().enumerate().find(|(at, name)| steps[..*at].contains(name)) {
            return Err(BuildError::DuplicateStep(duplicate.1));
        }
        let range = [
            ("lease", self.settings.lease >= Duration::from_secs(1), "must be at least 1 s"),
            ("deadline", self.settings.deadline >= self.settings.lease, "must not be shorter than the lease"),
            ("attempts", self.settings.attempts >= 1, "must be at least 1"),
            ("workers", self.workers >= 1, "must be at least 1"),
            ("max_connections", self.max_connections >= 1, "must be at least 1"),
            ("max_connections_per_tenant", self.max_connections_per_tenant >= 1, "must be at least 1"),
            ("max_nodes", self.max_nodes >= 1, "must be at least 1"),
            ("change_poll_interval", POLL_RANGE.contains(&self.change_poll_interval), "must be from 100 ms to 1 min"),
            ("backoff", self.settings.backoff <= self.settings.backoff_limit, "must not exceed its longest pause"),
        ];
        match range.into_iter().find(|(_, is_valid, _)| !is_valid) {
            Some((setting, _, rule)) => Err(BuildError::Setting(setting, rule)),
            None => Ok(()),
        }
    }

    async fn open_vault(&self) -> Result<Arc<dyn VaultWriter>, BuildError> {
        let vault = match (&self.vault, &self.keys) {
            (Some(vault), _) => vault.clone(),
            (None, Some(keys)) => Arc::new(PgVault::new(self.landlord.clone(), keys.clone())),
            (None, None) => return Err(BuildError::NoKeys),
        };
        match vault.check_keys().await {
            Ok(()) => Ok(vault),
            Err(VaultError::Key(KeyError::Unknown(key))) => Err(BuildError::KeyMissing(key)),
            Err(VaultError::Key(KeyError::WrongBytes(key))) => Err(BuildError::KeyWrong(key)),
            Err(error) => Err(error.into()),
        }
    }

    fn connection_limit(&self) -> i32 {
        connection_limit(self.max_connections_per_tenant.min(self.max_connections), self.max_nodes)
    }

    fn assemble(mut self, vault: Arc<dyn VaultWriter>) -> Tenantry {
        let limit = self.connection_limit();
        self.config.connection_limit = limit;
        let own = Arc::new(PgTenantRegistry::new(self.landlord.clone()));
        // The built-in stores check a worker's epoch in the landlord's own tables. A store of the application's own
        // does not see these, so the engine must report each takeover to it; otherwise it would accept writes of a
        // worker that has lost its lease.
        let mut fences: Vec<Arc<dyn EpochFence>> = vec![];
        fences.extend(self.registry.clone().map(|r| Arc::new(RegistryFence(r)) as Arc<dyn EpochFence>));
        fences.extend(self.vault.map(|v| Arc::new(VaultFence(v)) as Arc<dyn EpochFence>));
        let has_complete_changes = self.registry.is_none();
        let registry = self.registry.unwrap_or_else(|| own.clone());
        let tokens = Arc::new(PgTokenStore::new(self.landlord.clone()));
        let background = background_pool(&self.landlord);
        let journal = Arc::new(PgJournal::new(self.landlord.clone()).renewing_on(background.clone()));
        let stores = OperationContext::new(registry.clone(), own, vault.clone(), tokens.clone(), journal.clone());
        let stores = stores.with_workers(self.workers);
        let stop = CancellationToken::new();
        let engine = Engine::new(journal.clone(), fences, self.settings, stop.clone());
        let (link_lifetime, head) = (self.config.link_lifetime, self.config.migrations);
        let migration = Migration::new(stores.clone(), engine.clone(), self.config.migrations);
        let login = AppLogin::new(self.config.access, limit);
        let rotation = Rotation::new(stores.clone(), engine.clone(), login);
        let rekey = Rekey::new(stores.clone(), engine.clone());
        let servers = Servers::new(stores.clone(), engine.clone(), self.landlord.clone());
        let servers = servers.with_connection_limit(limit);
        let admins = self.config.admins.clone();
        let setup = SetupLinks::new(stores.clone(), engine.clone(), login, admins, PASSWORD_LINK_LIFETIME);
        let provisioner = Provisioner::new(stores.clone(), engine.clone(), self.config);
        let lifecycle = Lifecycle::new(stores.clone(), engine.clone(), login.access);
        let mut sagas = vec![provisioner.saga(), migration.saga(), rotation.saga(), rekey.saga(), servers.saga()];
        sagas.push(servers.relocation_saga());
        sagas.extend(lifecycle.sagas());
        sagas.extend(setup.sagas());
        let recoverer = Recoverer::new(engine.clone(), sagas).with_workers(self.workers);
        let mut pooled = PooledResolver::builder(registry.clone(), vault.clone()).servers(stores.servers.clone());
        if let (true, Some(migrations)) = (self.require_head, head) {
            pooled = pooled.require_head(migrations);
        }
        let pooled = pooled
            .max_connections(self.max_connections)
            .max_connections_per_tenant(self.max_connections_per_tenant)
            .acquire_timeout(self.acquire_timeout)
            .count_sessions(Arc::new(stores.clone()))
            .build();
        let shared = self.share_connections && self.resolver.is_none();
        if shared {
            pooled.resize(0);
        }
        let pool = super::Pool {
            resolver: pooled.clone(),
            shared: shared.then_some(self.max_connections),
            has_complete_changes,
        };
        let resolver = self.resolver.unwrap_or_else(|| Arc::new(pooled));
        let servers = follow_relocations(servers, resolver.clone(), pool.resolver.clone());
        Tenantry {
            inner: Arc::new(super::Inner {
                servers,
                tokens: Tokens::new(stores.clone(), link_lifetime),
                link_events: Default::default(),
                operations: Operations::new(journal, recoverer.clone()),
                nodes: Arc::new(PgNodes::new(background.clone())),
                node: Node::here(),
                background,
                landlord: self.landlord,
                stores,
                engine,
                provisioner,
                lifecycle,
                migration,
                rotation,
                rekey,
                setup,
                recoverer,
                registry,
                vault,
                resolver,
                pool,
                tasks: TaskTracker::new(),
                stop,
                running: Default::default(),
                change_poll_interval: self.change_poll_interval,
            }),
        }
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
fn background_pool(landlord: &sqlx::PgPool) -> sqlx::PgPool {
    let options = landlord.connect_options().as_ref().clone().application_name(BACKGROUND_APPLICATION);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(3).idle_timeout(Duration::from_secs(60));
    pool.acquire_timeout(Duration::from_secs(10)).connect_lazy_with(options)
}

/// Valid values of [`Builder::change_poll_interval`]. One read takes about a millisecond, so a shorter interval would
/// load the landlord. While changes are reported, cached entries are valid for a minute, so a longer one would be
/// useless.
const POLL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// How long the password link is valid that a credentials link redirects to.
const PASSWORD_LINK_LIFETIME: Duration = Duration::from_secs(3600);
/// The `application_name` of the background connections in `pg_stat_activity`.
const BACKGROUND_APPLICATION: &str = "tenantry background";

/// Passes epochs on to the application's own registry.
struct RegistryFence(Arc<dyn RegistryWriter>);
#[async_trait::async_trait]
impl EpochFence for RegistryFence {
    async fn fence(&self, operation: crate::OperationId, epoch: i64) -> Result<(), crate::error::StoreError> {
        self.0.fence(operation, epoch).await
    }
}
/// Passes epochs on to the application's own vault.
struct VaultFence(Arc<dyn VaultWriter>);
#[async_trait::async_trait]
impl EpochFence for VaultFence {
    async fn fence(&self, operation: crate::OperationId, epoch: i64) -> Result<(), crate::error::StoreError> {
        match self.0.fence(operation, epoch).await {
            Err(VaultError::Store(error)) => Err(error),
            Err(error) => Err(crate::error::StoreError::unavailable(error)),
            Ok(()) => Ok(()),
        }
    }
}
