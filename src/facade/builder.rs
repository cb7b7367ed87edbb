//! [`Builder`]: collects the application's configuration and assembles a [`Tenantry`].
//!
//! An application starts with [`Tenantry::builder`], calls setters, and ends with [`Builder::build`].
//!
//! Invariants:
//! - Setters never fail; `build` refuses a value that is out of range and a setting that would have no effect.
//! - `build` only reads. It spawns no task and writes nothing.
//! - Heartbeats, lease renewals and change notifications use a small pool of their own, never the application's.
use super::Tenantry;
use crate::directory::{AppAccess, ConnectionSettings};
use crate::error::{BuildError, KeyError, VaultError};
use crate::names::ServerName;
use crate::operations::provision::{ProvisionConfig, connection_limit};
use crate::operations::step::{Compensate, Forward, Step, Undoable};
use crate::placement::{Candidate, PlacementRequest};
use crate::resolver::{ConnectionResolver, PoolSettings};
use crate::saga::Settings;
use crate::server::{AddressPolicy, TlsMode};
use crate::store::admin::AdminStore;
use crate::store::registry::{self, RegistryWriter};
use crate::store::schema::{self, LandlordPool};
use crate::store::tokens::LinkDelivery;
use crate::store::vault::{KeyProvider, PgVault, VaultWriter};
use crate::tenant::TenantId;
use sqlx::migrate::Migrator;
use std::{sync::Arc, time::Duration};

mod assemble;
mod check;

/// How long a session may be idle in a transaction while others wait for it, until the doctor reports it. Longer than any
/// pause of a healthy application between two statements, and shorter than the patience of its users.
const BLOCKING_AFTER: Duration = Duration::from_secs(60);

/// The configuration of a [`Tenantry`]. [`build`](Self::build) checks it.
#[must_use = "a builder does nothing until build()"]
pub struct Builder {
    landlord: sqlx::PgPool,
    keys: Option<Arc<dyn KeyProvider>>,
    config: ProvisionConfig,
    settings: Settings,
    workers: usize,
    max_connections: Option<u32>,
    max_connections_per_tenant: u32,
    max_nodes: u32,
    share_connections: bool,
    require_head: bool,
    /// Whether the application has called `temp_tables(false)`.
    forbids_temp_tables: bool,
    acquire_timeout: Option<Duration>,
    pool: Option<PoolSettings>,
    change_poll_interval: Duration,
    landlord_timeout: Duration,
    registry: Option<Arc<dyn RegistryWriter>>,
    vault: Option<Arc<dyn VaultWriter>>,
    resolver: Option<Arc<dyn ConnectionResolver>>,
    accepts_pg_environment: bool,
    addresses: AddressPolicy,
    blocking_after: Duration,
    /// Whether the program is a tool of an operator, which does not have the application's settings.
    is_tool: bool,
}

impl Builder {
    pub(super) fn new(landlord: sqlx::PgPool) -> Self {
        Self {
            landlord,
            keys: None,
            config: ProvisionConfig::default(),
            settings: Settings::default(),
            workers: 8,
            max_connections: None,
            max_connections_per_tenant: 5,
            max_nodes: 8,
            share_connections: false,
            require_head: false,
            forbids_temp_tables: false,
            acquire_timeout: None,
            pool: None,
            change_poll_interval: registry::POLL,
            landlord_timeout: schema::DEADLINE,
            registry: None,
            vault: None,
            resolver: None,
            accepts_pg_environment: false,
            addresses: AddressPolicy::default(),
            blocking_after: BLOCKING_AFTER,
            is_tool: false,
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
    /// Adds a step of the application to provisioning, after the tenant has become active. It is follow-up work: it runs
    /// after the delivery of the setup link in an operation of its own, is retried until it succeeds, and blocks no
    /// other operation of the tenant. It runs only while the tenant is active.
    pub fn after_activation(mut self, step: impl Step) -> Self {
        self.config.after.push(Arc::new(Forward(step)));
        self
    }
    /// Receives the setup links of provisionings, for example to mail them. The delivery is follow-up work, as a step
    /// [`after_activation`](Self::after_activation). Without it a link is in the result of the
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
    /// Reserves a domain of the application with everything below it: no tenant can then register it as a custom domain.
    /// Reserve each suffix of `Identify::subdomain_of`. Call it once per domain; by
    /// default none is reserved. A domain that a tenant already has stays, and a registry of the application's own must
    /// check its own calls.
    pub fn reserve_domain(mut self, domain: impl AsRef<str>) -> Self {
        self.config.reserved = self.config.reserved.with(domain.as_ref());
        self
    }
    /// Minimum TLS mode for database servers on other machines; by default the mode of each server's row counts alone. A
    /// row or an entry with a weaker mode is refused before anything is sent. Loopback addresses
    /// and socket directories need none, because that traffic stays on the machine. Use
    /// [`TlsMode::VerifyFull`] unless a server has no certificate for its name.
    pub fn require_tls(mut self, minimum: TlsMode) -> Self {
        self.addresses.min_tls = minimum;
        self
    }
    /// Hosts to which this process may connect for tenants: names and addresses as they are in the servers' rows and in
    /// entries, or `*.` with a domain for all hosts below it. By default every host is allowed. Everything else is
    /// refused before anything is sent. See the manual on the [threat model](crate::manual::threat_model): without this,
    /// a role that can write to the landlord can lead passwords of tenants to any host by a directory entry.
    pub fn allowed_hosts(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.addresses.hosts = Some(hosts.into_iter().map(Into::into).collect());
        self
    }
    /// Whether rows of servers without an authentication code are refused in every case; `false` by default, so that the
    /// rows of an older version can be used until [`Tenantry::rekey`] or [`set_up`](crate::servers::Servers::set_up)
    /// gives them one. After that they are refused too. Turn it on for a new installation, and after the upgrade of an
    /// old one: without it, a role that can write to the landlord can make it look like one of an older version.
    pub fn require_signed_servers(mut self, yes: bool) -> Self {
        self.addresses.signed_only = yes;
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
        (self.config.temp_tables, self.forbids_temp_tables) = (yes, !yes);
        self
    }
    /// Settings of the application's sessions in tenants that are created from now on.
    pub fn connection_settings(mut self, settings: ConnectionSettings) -> Self {
        self.config.settings = settings;
        self
    }
    /// Whether only tenants that have run every migration of this program resolve; `false` by default. Until the others
    /// are migrated they fail with [`ResolveError::Behind`](crate::error::ResolveError::Behind), which a web layer
    /// answers with 503. Migrations that this program does not have are allowed: a newer program has run them. Needs
    /// [`tenant_migrations`](Self::tenant_migrations).
    ///
    /// A tenant that has passed is checked again after a minute, and when this node is notified of a change of it. So a
    /// tenant whose database is replaced by hand by an older backup is refused within a minute; to have it refused at
    /// once, suspend it, restore the backup, and activate it.
    pub fn require_head(mut self, yes: bool) -> Self {
        self.require_head = yes;
        self
    }
    /// Maximum connections of this process to one server, over all its tenants; 90 by default.
    pub fn max_connections(mut self, per_server: u32) -> Self {
        self.max_connections = Some(per_server);
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
    /// A new value reaches existing logins with the next [`set_up`](crate::servers::Servers::set_up), or within a day
    /// while a node [`run`](Tenantry::run)s.
    pub fn max_nodes(mut self, n: u32) -> Self {
        self.max_nodes = n;
        self
    }
    /// Maximum time that a query waits for a connection; 10 s by default.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = Some(limit);
        self
    }
    /// Changes the settings of the connections and of the resolver's cache that few applications change. A second call
    /// continues with the result of the first.
    ///
    /// ```no_run
    /// # fn example(builder: tenantry::Builder) -> tenantry::Builder {
    /// use std::time::Duration;
    ///
    /// builder.max_connections(60).pool(|pool| pool.max_opening(8).release_timeout(Duration::from_secs(10)))
    /// # }
    /// ```
    pub fn pool(mut self, change: impl FnOnce(PoolSettings) -> PoolSettings) -> Self {
        self.pool = Some(change(self.pool.take().unwrap_or_else(PoolSettings::new)));
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
    /// Maximum time of one statement on the landlord; 10 s by default, from 100 ms to 10 min. The statements take
    /// milliseconds, so the default only ends one that waits for a lock or for a server that does not answer. The call
    /// then fails with a transient error, and the statement is cancelled on the server. Waiting for a connection of the
    /// landlord's pool, which includes opening one, is limited by this time too, or by the pool's own `acquire_timeout`
    /// if that is shorter.
    ///
    /// A statement is found on the server by its text, its age and the login, so use the same time on all nodes: the
    /// node with the shortest one also cancels the same statement of other nodes. [`schema::install`](crate::schema)
    /// has limits of its own.
    ///
    /// The pool is the application's, so its sessions keep the application's `application_name` and timeouts, except
    /// that a transaction of this crate sets its `statement_timeout`. Sessions that this crate opens itself have names
    /// that begin with `tenantry`.
    pub fn landlord_timeout(mut self, limit: Duration) -> Self {
        self.landlord_timeout = limit;
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
    /// How long a session may be idle in a transaction while others wait for it, before the doctor reports it. For tests,
    /// which cannot fake the age of a session.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn blocking_after(mut self, duration: Duration) -> Self {
        self.blocking_after = duration;
        self
    }
    /// Declares that this program has the application's migrations at most, and none of its other settings. A set-up then
    /// leaves the limits of existing logins as they are, and the doctor does not compare tenants with the defaults.
    #[cfg(feature = "cli")]
    pub(crate) fn for_tool(mut self) -> Self {
        self.is_tool = true;
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
    /// Replaces the built-in vault, which uses a table of the landlord. [`keys`](Self::keys) belongs to the built-in
    /// one, so [`build`](Self::build) refuses both.
    pub fn vault(mut self, vault: impl VaultWriter) -> Self {
        self.vault = Some(Arc::new(vault));
        self
    }
    /// Replaces the built-in [`PooledResolver`](crate::resolver::PooledResolver). [`build`](Self::build) refuses the
    /// settings of the built-in one together with it: `max_connections`, `share_connections`, `acquire_timeout`,
    /// `pool` and `require_head`. Set what corresponds to them on the own resolver.
    /// [`Tenantry::pool_stats`] and the metrics show the built-in pools only, so they stay empty.
    /// [`max_connections_per_tenant`](Self::max_connections_per_tenant) is allowed, because the CONNECTION LIMIT of the
    /// tenants' logins follows from it.
    pub fn resolver(mut self, resolver: impl ConnectionResolver) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }
    /// Accepts what `PGOPTIONS`, `PGSSLCERT` and `PGSSLKEY` set on every connection that this crate opens: settings of
    /// the session, and a client's certificate and key.
    ///
    /// Without this call [`build`](Self::build) and [`set_up`](crate::servers::Servers::set_up) fail if one of them is
    /// set, because sqlx reads it and cannot unset it. No other `PG*` variable and no password file changes these
    /// connections. The landlord's pool and a server admin's options are the application's own and are used as they
    /// are.
    pub fn accept_pg_environment(mut self) -> Self {
        self.accepts_pg_environment = true;
        self
    }

    /// Checks the settings, the landlord's schema and the keys, and assembles the facade. It spawns no task and writes
    /// nothing.
    ///
    /// # Errors
    /// The schema is not installed, a key is missing or wrong, two steps of the application have the same name, or a
    /// setting is out of range or would have no effect. A variable of
    /// [`accept_pg_environment`](Self::accept_pg_environment) is set.
    pub async fn build(self) -> Result<Tenantry, BuildError> {
        self.check()?;
        schema::check_on(&self.landlord_pool()).await?;
        let vault = self.open_vault().await?;
        Ok(self.assemble(vault))
    }

    /// These keys, unless the builder has a key provider or a vault.
    #[cfg(feature = "testing")]
    pub(crate) fn default_keys(self, keys: &(impl KeyProvider + Clone)) -> Self {
        if self.keys.is_some() || self.vault.is_some() { self } else { self.keys(keys.clone()) }
    }

    async fn open_vault(&self) -> Result<Arc<dyn VaultWriter>, BuildError> {
        let vault = match (&self.vault, &self.keys) {
            (Some(vault), _) => vault.clone(),
            (None, Some(keys)) => Arc::new(PgVault::over(self.landlord_pool(), keys.clone())),
            (None, None) => return Err(BuildError::NoKeys),
        };
        match vault.check_keys().await {
            Ok(()) => Ok(vault),
            Err(VaultError::Key(KeyError::Unknown(key))) => Err(BuildError::KeyMissing(key)),
            Err(VaultError::Key(KeyError::WrongBytes(key))) => Err(BuildError::KeyWrong(key)),
            Err(error) => Err(error.into()),
        }
    }

    /// Maximum connections to one server: the one that was set, or the default.
    fn max_connections_or_default(&self) -> u32 {
        self.max_connections.unwrap_or(90)
    }

    /// The application's pool, with the deadline of this builder.
    pub(super) fn landlord_pool(&self) -> LandlordPool {
        LandlordPool::new(self.landlord.clone()).with_deadline(self.landlord_timeout)
    }

    fn connection_limit(&self) -> i32 {
        connection_limit(self.max_connections_per_tenant.min(self.max_connections_or_default()), self.max_nodes)
    }
}
