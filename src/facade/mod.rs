//! The facade: assembles the pieces, adds nothing.
use crate::cluster::OperationContext;
use crate::error::{ChangeError, ResolveError, StoreError};
use crate::operation::OperationId;
use crate::operations::lifecycle::Lifecycle;
use crate::operations::migrate::{Migration, MigrationStatus};
use crate::operations::provision::{Provision, Provisioner};
use crate::operations::rekey::Rekey;
use crate::operations::rotate::Rotation;
use crate::operations::servers::Servers;
use crate::pool::{PoolStats, TenantPool};
use crate::resolver::{ConnectionResolver, PooledResolver};
use crate::saga::{Engine, Observer, Outcome, Recoverer};
use crate::setup_link::SetupLinks;
use crate::store::journal::Record;
use crate::store::nodes::{Node, Nodes};
use crate::store::registry::{RegistryWriter, TenantRegistry};
use crate::store::tokens::Events;
use crate::store::vault::{CredentialVault, VaultWriter};
use crate::tenant::{TenantId, TenantRef};
use std::{fmt, future::Future, sync::Arc, sync::atomic::AtomicBool};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod background;
mod batch;
mod builder;
mod call;
mod links;
mod operations;
mod rotate;
mod tokens;
mod verbs;
pub use background::HealthIssue;
pub use batch::{Batch, BatchReport, BatchVerb};
pub use builder::Builder;
pub use call::Call;
pub use operations::Operations;
pub use rotate::{RekeyVault, Rotate, RotateServer, Rotations};
pub use tokens::Tokens;
pub use verbs::{Activate, Archive, CallVerb, Migrate, Purge, Restore, Suspend};

/// Everything assembled over one landlord. A handle: cloning it is one `Arc`.
///
/// ```no_run
/// # async fn example(landlord: sqlx::PgPool, admin: sqlx::postgres::PgConnectOptions) -> Result<(), Box<dyn std::error::Error>> {
/// use tenantry::{Tenantry, vault::LocalKeyring};
///
/// tenantry::schema::install(&landlord).await?;
/// let tenantry = Tenantry::builder(landlord)
///     .keys(LocalKeyring::from_env("TENANTRY_KEYS")?)
///     .tenant_migrations(&sqlx::migrate!("examples/tenant_migrations"))
///     .build()
///     .await?;
/// tenantry.servers().set_up("main", admin).await?;
///
/// tenantry.provision("acme").name("Acme Ltd").await?;
/// let db = tenantry.resolve("acme").await?;
/// sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind("hello").execute(&db).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tenantry {
    inner: Arc<Inner>,
}

struct Inner {
    landlord: sqlx::PgPool,
    background: sqlx::PgPool,
    stores: OperationContext,
    engine: Engine,
    provisioner: Provisioner,
    lifecycle: Lifecycle,
    migration: Migration,
    rotation: Rotation,
    rekey: Rekey,
    setup: SetupLinks,
    recoverer: Recoverer,
    operations: Operations,
    servers: Servers,
    tokens: Tokens,
    link_events: Events,
    registry: Arc<dyn RegistryWriter>,
    vault: Arc<dyn VaultWriter>,
    resolver: Arc<dyn ConnectionResolver>,
    pool: Pool,
    nodes: Arc<dyn Nodes>,
    /// The same each time that it runs: its part of the connections stays its own.
    node: Node,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: AtomicBool,
    change_poll_interval: std::time::Duration,
}

/// The budgets of this process; idle if the host resolves by itself.
struct Pool {
    resolver: PooledResolver,
    /// Connections of all nodes together, if they are divided.
    shared: Option<u32>,
    /// Whether the landlord tells of all changes: the registry is its own.
    told: bool,
}

impl Tenantry {
    /// Over the host's own pool to its landlord database.
    pub fn builder(landlord: sqlx::PgPool) -> Builder {
        Builder::new(landlord)
    }

    /// A new tenant: from a name to a working database.
    pub fn provision(&self, slug: impl Into<String>) -> Call<Provision> {
        Call::new(self, Provision::new(slug))
    }
    /// Refuses a tenant, on the server and so on every node, within a second; keeps everything. On a standby it holds as soon
    /// as that has replayed it: the call waits for that, and one that does not answer is tried until it does, while the
    /// tenant is suspended already.
    pub fn suspend<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Suspend> {
        Call::new(self, Suspend::new(tenant.into()))
    }
    /// Lets a suspended tenant in again.
    pub fn activate<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Activate> {
        Call::new(self, Activate::new(tenant.into()))
    }
    /// Refuses a tenant as [`suspend`](Self::suspend) does, closes its database, and keeps its data until a deadline.
    pub fn archive<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Archive> {
        Call::new(self, Archive::new(tenant.into()))
    }
    /// Lets an archived tenant in again, before its deadline: it is active then, also if it was suspended before.
    pub fn restore<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Restore> {
        Call::new(self, Restore::new(tenant.into()))
    }
    /// Destroys a tenant: database, roles, secrets, tokens. History stays, the slug is free again. Refused unless it is
    /// forced or the deadline of an archive is over. A provisioning that is under way is stopped and removed; the host's
    /// steps of it are not compensated, for that undo the operation instead.
    pub fn purge<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Purge> {
        Call::new(self, Purge::new(tenant.into()))
    }

    /// Every archived tenant whose deadline is over: [`purge`](Self::purge)d. For the host's own schedule.
    pub fn purge_due(&self) -> Batch<Purge> {
        Batch::new(self)
    }
    /// Runs the tenant's migrations as far as this program has them.
    pub fn migrate<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Migrate> {
        Call::new(self, Migrate::new(tenant.into()))
    }
    /// Every active tenant that is not at head: [`migrate`](Self::migrate)d. Whoever is at head already is left alone,
    /// so a batch that was cut short goes on where it stopped.
    pub fn migrate_all(&self) -> Batch<Migrate> {
        Batch::new(self)
    }
    /// Where a tenant stands against the migrations of this program.
    pub async fn migration_status<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Result<MigrationStatus, ChangeError> {
        self.inner.migration.status(tenant.into()).await
    }

    /// How the budget of each server stands in this process, by host and port.
    pub fn pool_stats(&self) -> Vec<((String, u16), PoolStats)> {
        self.inner.pool.resolver.stats()
    }
    /// The tenant's handle: what is cached first, else the cold path. Opens no connection.
    ///
    /// # Cancel safety
    /// Dropping the future stops no other waiter.
    pub fn resolve<'a>(
        &self, tenant: impl Into<TenantRef<'a>>,
    ) -> impl Future<Output = Result<TenantPool, ResolveError>> + Send {
        let tenant = tenant.into();
        async move {
            match self.inner.resolver.cached(&tenant) {
                Some(pool) => Ok(pool),
                None => self.inner.resolver.resolve(tenant).await,
            }
        }
    }
    /// Resolves, then runs `work` with the tenant as [`TenantPool::current`].
    pub async fn with_tenant<'a, F, Fut, R, E>(&self, tenant: impl Into<TenantRef<'a>>, work: F) -> Result<R, E>
    where
        F: FnOnce(TenantPool) -> Fut,
        Fut: Future<Output = Result<R, E>>,
        E: From<ResolveError>,
    {
        let pool = self.resolve(tenant).await?;
        crate::pool::scope(pool.clone(), work(pool)).await
    }

    /// Operations by id: what they intend, did, and say.
    pub fn operations(&self) -> &Operations {
        &self.inner.operations
    }
    /// The PostgreSQL servers that tenants live on.
    pub fn servers(&self) -> &Servers {
        &self.inner.servers
    }
    /// Setup links.
    pub fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }
    /// Who the tenants are, for reading.
    pub fn registry(&self) -> Arc<dyn TenantRegistry> {
        self.inner.registry.clone()
    }
    /// Who the tenants are, for changes by hand: rename, metadata, domains.
    pub fn registry_writer(&self) -> Arc<dyn RegistryWriter> {
        self.inner.registry.clone()
    }
    /// The secrets, for reading.
    pub fn vault(&self) -> Arc<dyn CredentialVault> {
        self.inner.vault.clone()
    }
    /// The resolver, for a web layer.
    pub fn resolver(&self) -> Arc<dyn ConnectionResolver> {
        self.inner.resolver.clone()
    }
    /// The stores and servers that operations work on, for pieces of the host's own.
    pub fn workshop(&self) -> OperationContext {
        self.inner.stores.clone()
    }
    /// The live nodes.
    pub fn nodes(&self) -> Arc<dyn Nodes> {
        self.inner.nodes.clone()
    }

    /// Refuses new work, lets running operations reach a step boundary (recovery on another node goes on from there),
    /// closes the tenants' connections. Idempotent. The landlord pool is the host's and stays open.
    ///
    /// # Cancel safety
    /// A second call goes on with it.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.rotation.close();
        self.inner.resolver.close().await;
        self.inner.background.close().await;
    }

    /// Drives an operation that this process holds, in a task of the facade: a caller that hangs up drops its future,
    /// and must not leave a lease to wait for.
    fn launch(&self, record: Record, observer: Observer) -> oneshot::Receiver<Result<Outcome, StoreError>> {
        let (tell, told) = oneshot::channel();
        let inner = self.inner.clone();
        let observer = self.following(record.subject.tenant(), observer);
        self.inner.tasks.spawn(async move {
            let driven = match inner.recoverer.saga(&record.kind) {
                Some(saga) => saga.drive(&inner.engine, record, true, &observer).await,
                None => Err(StoreError::conflict("no saga of this kind")),
            };
            if let Ok(Outcome { record, .. }) = &driven
                && let Some(tenant) = record.subject.tenant()
            {
                inner.resolver.invalidate(tenant);
            }
            // Nobody may be watching any more.
            let _ = tell.send(driven);
        });
        told
    }

    /// This process need not hear of a new login to go over to it.
    fn following(&self, tenant: Option<TenantId>, observer: Observer) -> Observer {
        let (Some(tenant), weak) = (tenant, Arc::downgrade(&self.inner)) else { return observer };
        Observer::new(move |event| {
            if event.step == crate::operations::rotate::FLIP
                && let Some(inner) = weak.upgrade()
            {
                inner.resolver.invalidate(tenant);
                let pool = inner.pool.resolver.clone();
                inner.tasks.spawn(async move { pool.follow(tenant).await });
            }
            observer.see(event);
        })
    }

    async fn watch(
        &self, id: OperationId, started: Option<oneshot::Receiver<Result<Outcome, StoreError>>>, observer: &Observer,
    ) -> Result<Outcome, StoreError> {
        match started {
            Some(told) => told.await.unwrap_or_else(|_| Err(StoreError::unavailable("the operation's task has ended"))),
            None => self.inner.operations.follow(id, observer).await.map(Outcome::of),
        }
    }

    fn is_closed(&self) -> bool {
        self.inner.stop.is_cancelled()
    }
}

impl fmt::Debug for Tenantry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tenantry(..)")
    }
}
