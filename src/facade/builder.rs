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

/// Collects what a host decides; `build()` refuses contradictions.
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
    /// Wraps the data keys of all secrets. Needed, unless [`vault`](Self::vault) is given.
    pub fn keys(mut self, keys: impl KeyProvider) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }
    /// Run in each new tenant database, as its owner.
    pub fn tenant_migrations(mut self, migrator: &'static Migrator) -> Self {
        self.config.migrations = Some(migrator);
        self
    }
    /// A step of the host's that can be undone. Steps run in the order of these calls.
    pub fn before_activation(mut self, step: impl Compensate) -> Self {
        self.config.before.push(Arc::new(Undoable(step)));
        self
    }
    /// A step of the host's that is retried until it succeeds.
    pub fn after_activation(mut self, step: impl Step) -> Self {
        self.config.after.push(Arc::new(Forward(step)));
        self
    }
    /// The only receiver of setup links.
    pub fn link_delivery(mut self, delivery: impl LinkDelivery) -> Self {
        self.config.delivery = Some(Arc::new(delivery));
        self
    }
    /// For how long a setup link is good; 72 hours by default.
    pub fn link_lifetime(mut self, lifetime: Duration) -> Self {
        self.config.link_lifetime = lifetime;
        self
    }
    /// Who keeps the tenants' users; by default table `tenant_users` in each tenant's database.
    pub fn admin_store(mut self, admins: impl AdminStore) -> Self {
        self.config.admins = Arc::new(admins);
        self
    }
    /// Pure: no I/O, asked before anything is made. `None` is [`ProvisionError::NoRoom`](crate::error::ProvisionError).
    pub fn placement(
        mut self, choose: impl Fn(&PlacementRequest, &[Candidate]) -> Option<ServerName> + Send + Sync + 'static,
    ) -> Self {
        self.config.place = Arc::new(choose);
        self
    }
    /// How tenant databases are called: at most 50 bytes, unique on their server. By default `t_` and the tenant's id,
    /// because every tenant can list the names of all databases.
    pub fn database_name(
        mut self, name: impl Fn(&PlacementRequest, TenantId) -> String + Send + Sync + 'static,
    ) -> Self {
        self.config.database_name = Arc::new(name);
        self
    }
    /// What the application's logins may do; rows only by default.
    pub fn app_access(mut self, access: AppAccess) -> Self {
        self.config.access = access;
        self
    }
    /// Whether the application may make temp tables; they let a tenant fill the disk. Not by default.
    pub fn temp_tables(mut self, yes: bool) -> Self {
        self.config.temp_tables = yes;
        self
    }
    /// How sessions to new tenants are set up.
    pub fn connection_settings(mut self, settings: ConnectionSettings) -> Self {
        self.config.settings = settings;
        self
    }
    /// Only tenants that have the newest of this program's migrations resolve; not by default. The others are
    /// [`Behind`](crate::error::ResolveError::Behind), which a web layer answers with 503, until they are migrated.
    pub fn require_head(mut self, yes: bool) -> Self {
        self.require_head = yes;
        self
    }
    /// Most connections of this process to one server, over all its tenants; 90 by default.
    pub fn max_connections(mut self, per_server: u32) -> Self {
        self.max_connections = per_server;
        self
    }
    /// Makes [`max_connections`](Self::max_connections) that of all nodes together: each live one has an equal part of it.
    /// Nothing is opened before [`Tenantry::run`] has been given this node's part. One that joins gets its part within
    /// seconds, as the others give it back; what a node held that died, or was silent for 15 s, is divided again then. The
    /// parts add up to no more than the whole at any time, unless a silent node still lives.
    pub fn share_connections(mut self, yes: bool) -> Self {
        self.share_connections = yes;
        self
    }
    /// Most connections of this process to one tenant; 5 by default.
    pub fn max_connections_per_tenant(mut self, n: u32) -> Self {
        self.max_connections_per_tenant = n;
        self
    }
    /// Most nodes that run at once, those of a rolling deploy counted twice; 8 by default, which is four nodes and four that
    /// replace them. PostgreSQL itself limits each tenant's login to
    /// [`max_connections_per_tenant`](Self::max_connections_per_tenant) × `max_nodes` + 3 sessions (43 by default; three
    /// are for a person with psql and for connections that are about to close), so that a tenant whose password leaks, or
    /// that runs SQL of its own, cannot use up the server. With more nodes than this a tenant may be refused with
    /// [`AcquireError::LoginLimit`](crate::pool::AcquireError). A change reaches the logins that exist by the next
    /// [`set_up`](Servers::set_up), or within a day while a node [`run`](Tenantry::run)s. All nodes need the same value.
    pub fn max_nodes(mut self, n: u32) -> Self {
        self.max_nodes = n;
        self
    }
    /// How long a query waits for a connection; 10 s by default.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }
    /// How often this node, while it [`run`](Tenantry::run)s, reads which tenants other nodes have changed; 2 s by default,
    /// from 100 ms to 1 min. Notifications report a change within milliseconds, but every database of the landlord's cluster
    /// shares one queue for them, and a full queue delivers nothing. With 2 s a suspension shows on every node within five.
    pub fn change_poll_interval(mut self, every: Duration) -> Self {
        self.change_poll_interval = every;
        self
    }
    /// For how long a worker holds an operation without a sign of life; 30 s by default, at least 1 s. What a dead
    /// worker left is picked up after it.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }
    /// First and longest wait between tries; 200 ms and 1 min by default.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.settings.backoff, self.settings.backoff_limit) = (first, longest);
        self
    }
    /// How long after its begin an operation that can still be undone is undone, whatever it waits for; 1 h by default.
    /// It bounds host steps and migrations too.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }
    /// Tries of a step before an operation is undone or left to recovery; 4 by default.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }
    /// Operations of this process at work on one server at once; 8 by default.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }
    /// Another registry than the landlord's own tables.
    pub fn registry(mut self, registry: impl RegistryWriter) -> Self {
        self.registry = Some(Arc::new(registry));
        self
    }
    /// Another vault than the landlord's own table.
    pub fn vault(mut self, vault: impl VaultWriter) -> Self {
        self.vault = Some(Arc::new(vault));
        self
    }
    /// Another resolver than the pooled one.
    pub fn resolver(mut self, resolver: impl ConnectionResolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Checks schema, keys and contradictions. Starts nothing and writes nothing.
    ///
    /// # Errors
    /// A schema that is not installed, a missing or wrong key, two steps of one name, a setting out of range.
    pub async fn build(self) -> Result<Tenantry, BuildError> {
        self.check()?;
        schema::check(&self.landlord).await?;
        let vault = self.open_vault().await?;
        Ok(self.assemble(vault))
    }

    fn check(&self) -> Result<(), BuildError> {
        let steps: Vec<_> = self.config.before.iter().chain(&self.config.after).map(|s| s.name()).collect();
        if let Some(twice) = steps.iter().enumerate().find(|(at, name)| steps[..*at].contains(name)) {
            return Err(BuildError::StepTwice(twice.1));
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
            ("backoff", self.settings.backoff <= self.settings.backoff_limit, "must not exceed its limit"),
        ];
        match range.into_iter().find(|(_, holds, _)| !holds) {
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
        // The landlord's own tables share the operations' epochs; only a host's stores must be told of a takeover.
        let mut fences: Vec<Arc<dyn EpochFence>> = vec![];
        fences.extend(self.registry.clone().map(|r| Arc::new(RegistryFence(r)) as Arc<dyn EpochFence>));
        fences.extend(self.vault.map(|v| Arc::new(VaultFence(v)) as Arc<dyn EpochFence>));
        let own_registry = self.registry.is_none();
        let registry = self.registry.unwrap_or_else(|| own.clone());
        let tokens = Arc::new(PgTokenStore::new(self.landlord.clone()));
        let background = background(&self.landlord);
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
        let setup = SetupLinks::new(stores.clone(), engine.clone(), login, self.config.admins.clone(), FORM);
        let provisioner = Provisioner::new(stores.clone(), engine.clone(), self.config);
        let lifecycle = Lifecycle::new(stores.clone(), engine.clone(), login.access);
        let mut sagas = vec![provisioner.saga(), migration.saga(), rotation.saga(), rekey.saga(), servers.saga()];
        sagas.push(servers.relocation());
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
            told: own_registry,
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

/// A relocation by this process is followed at once, whether or not anything tells it of changes.
fn follow_relocations(servers: Servers, resolver: Arc<dyn ConnectionResolver>, pooled: PooledResolver) -> Servers {
    servers.on_move(move || {
        resolver.invalidate_all();
        let pooled = pooled.clone();
        Box::pin(async move { pooled.check_servers().await })
    })
}

/// Signs of life and news go over connections of their own, three at most: a host that has used up its pool must not lose
/// its leases for that.
fn background(landlord: &sqlx::PgPool) -> sqlx::PgPool {
    let options = landlord.connect_options().as_ref().clone().application_name(BACKGROUND);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(3).idle_timeout(Duration::from_secs(60));
    pool.acquire_timeout(Duration::from_secs(10)).connect_lazy_with(options)
}

/// A read takes about a millisecond; answers count for a minute while changes are reported.
const POLL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// For how long the password form is good to which a credentials link leads.
const FORM: Duration = Duration::from_secs(3600);
/// What `pg_stat_activity` shows of them.
const BACKGROUND: &str = "tenantry background";

struct RegistryFence(Arc<dyn RegistryWriter>);
#[async_trait::async_trait]
impl EpochFence for RegistryFence {
    async fn fence(&self, operation: crate::OperationId, epoch: i64) -> Result<(), crate::error::StoreError> {
        self.0.fence(operation, epoch).await
    }
}
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
