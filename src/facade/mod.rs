//! The facade: [`Tenantry`] joins the stores, sagas, pools and the resolver of one landlord behind one handle.
//!
//! An application builds it with [`Builder`], spawns [`Tenantry::run`] and calls methods such as `provision` and
//! `suspend`.
//!
//! Invariants:
//! - The facade has no logic of operations: each call commits an intent and hands the operation to its saga.
//! - An operation that this process begins runs in a task of the facade, so a caller that drops its future does not
//!   stop it.
//! - After [`Tenantry::close`] no call begins an operation.
use crate::cluster::OperationContext;
use crate::doctor::{Examiner, Repairs};
use crate::error::{ResolveError, StoreError, chain};
use crate::operation::OperationId;
use crate::operations::lifecycle::{Activate, Archive, Lifecycle, Purge, Restore, Suspend};
use crate::operations::migrate::Migration;
use crate::operations::provision::{Provision, Provisioner};
use crate::operations::rekey::Rekey;
use crate::operations::restore_entry::EntryRestoration;
use crate::operations::rotate::Rotation;
use crate::operations::servers::Servers;
use crate::operations::temporary_login::TemporaryLogins;
use crate::pool::{PoolStats, TenantPool};
use crate::resolver::{ConnectionResolver, PooledResolver};
use crate::saga::{Engine, Observer, Outcome, Recoverer, Started};
use crate::setup_link::SetupLinks;
use crate::store::journal::WorkerLock;
use crate::store::nodes::{Node, Nodes};
use crate::store::registry::{RegistryWriter, TenantRegistry};
use crate::store::schema::LandlordPool;
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
mod doctor;
mod follow;
mod health;
mod links;
mod migrate;
mod operations;
mod rotate;
mod temporary_login;
mod tokens;
mod verbs;
pub use batch::{Batch, BatchReport, BatchVerb};
pub use builder::Builder;
pub use call::Call;
pub use health::HealthIssue;
pub use operations::Operations;
pub use tokens::Tokens;

/// The entry point of this crate: all operations, the resolver and the background tasks over one landlord database.
/// Cloning it clones one `Arc`.
///
/// ```no_run
/// # use sqlx::{PgPool, postgres::PgConnectOptions};
/// # async fn example(landlord: PgPool, admin: PgConnectOptions) -> Result<(), Box<dyn std::error::Error>> {
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
    landlord: LandlordPool,
    background: sqlx::PgPool,
    stores: OperationContext,
    engine: Engine,
    provisioner: Provisioner,
    lifecycle: Lifecycle,
    migration: Migration,
    rotation: Rotation,
    temporary_logins: TemporaryLogins,
    rekey: Rekey,
    restore_entry: EntryRestoration,
    repairs: Repairs,
    examiner: Examiner,
    setup: SetupLinks,
    recoverer: Recoverer,
    operations: Operations,
    servers: Servers,
    tokens: Tokens,
    link_events: Events,
    #[cfg(any(feature = "axum", feature = "actix"))]
    link_attempts: crate::setup_link::LinkAttempts,
    registry: Arc<dyn RegistryWriter>,
    vault: Arc<dyn VaultWriter>,
    resolver: Arc<dyn ConnectionResolver>,
    pool: Pool,
    nodes: Arc<dyn Nodes>,
    /// Identity of this process among the nodes. It stays the same when `run` is called again, so that the new call
    /// keeps this node's share of the connections.
    node: Node,
    tasks: TaskTracker,
    stop: CancellationToken,
    running: AtomicBool,
    change_poll_interval: std::time::Duration,
    /// Shows other nodes that this process lives.
    worker_lock: WorkerLock,
}

/// The connection pools of this process. They stay empty if the application gave the builder a resolver of its own.
struct Pool {
    resolver: PooledResolver,
    /// Maximum connections to each server over all nodes; `None` if the nodes do not share connections.
    shared: Option<u32>,
    /// Whether the landlord's change notifications cover every change. True for the built-in registry. A registry of
    /// the application's own may change without a notification.
    has_complete_changes: bool,
}

impl Tenantry {
    /// Starts a configuration. `landlord` is the application's own pool to the landlord database;
    /// [`close`](Self::close) does not close it.
    pub fn builder(landlord: sqlx::PgPool) -> Builder {
        Builder::new(landlord)
    }

    /// Creates a tenant with this slug: its roles, its database, its migrations and its registry entries.
    ///
    /// The delivery of the setup link and the application's steps after activation are follow-up work, an operation of
    /// its own. The call waits for its first attempts, but does not fail because of it: see
    /// [`Provisioned::follow_up`](crate::provision::Provisioned::follow_up).
    pub fn provision(&self, slug: impl Into<String>) -> Call<Provision> {
        Call::new(self, &self.inner.provisioner, Provision::new(slug))
    }
    /// Refuses the tenant's logins and ends its sessions. All data stays.
    ///
    /// The tenant's own PostgreSQL server refuses the logins, so the suspension is effective on every node within a
    /// second. A standby refuses them when it has replayed the change, and the call waits for that. The operation
    /// retries a standby that does not answer; the tenant is already suspended on the primary during that time.
    pub fn suspend<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Suspend> {
        Call::new(self, &self.inner.lifecycle, Suspend::new(tenant.into()))
    }
    /// Allows a suspended tenant's logins again.
    pub fn activate<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Activate> {
        Call::new(self, &self.inner.lifecycle, Activate::new(tenant.into()))
    }
    /// Refuses the tenant's logins as [`suspend`](Self::suspend) does, closes its database to every role, and keeps the
    /// data until a deadline: see [`Call::keep_for`].
    pub fn archive<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Archive> {
        Call::new(self, &self.inner.lifecycle, Archive::new(tenant.into()))
    }
    /// Makes an archived tenant active again. Fails after the deadline of the archive. A tenant that was suspended
    /// before it was archived becomes active too.
    pub fn restore<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Restore> {
        Call::new(self, &self.inner.lifecycle, Restore::new(tenant.into()))
    }
    /// Destroys the tenant's database, roles, secrets and tokens. The history of its operations stays, and the slug can
    /// be used again.
    ///
    /// Fails with [`ChangeError::Kept`](crate::error::ChangeError::Kept) unless it is forced or the deadline of the archive has passed. A provisioning
    /// that is still running is stopped and what it made is removed. The application's own steps of that provisioning
    /// are not compensated; to compensate them, undo the provisioning with [`Operations::undo`] instead.
    pub fn purge<'a>(&self, tenant: impl Into<TenantRef<'a>>) -> Call<Purge> {
        Call::new(self, &self.inner.lifecycle, Purge::new(tenant.into()))
    }

    /// [`purge`](Self::purge)s every archived tenant whose deadline has passed. [`run`](Self::run) does not call it:
    /// the application decides when.
    pub fn purge_due(&self) -> Batch<Purge> {
        Batch::new(self)
    }
    /// The state of this process's connection pool to each server, by host and port.
    pub fn pool_stats(&self) -> Vec<((String, u16), PoolStats)> {
        self.inner.pool.resolver.stats()
    }
    /// Returns the tenant's connection pool, from the cache or by reading the registry and the vault. Opens no
    /// connection, unless the builder's [`require_head`](Builder::require_head) is on.
    ///
    /// # Cancel safety
    /// Concurrent calls for one tenant share one load. Dropping the future of one call does not stop the others.
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
    /// Resolves the tenant, then runs `work`. Within `work`, [`TenantPool::current`] returns the tenant's pool.
    pub async fn with_tenant<'a, F, Fut, R, E>(&self, tenant: impl Into<TenantRef<'a>>, work: F) -> Result<R, E>
    where
        F: FnOnce(TenantPool) -> Fut,
        Fut: Future<Output = Result<R, E>>,
        E: From<ResolveError>,
    {
        let pool = self.resolve(tenant).await?;
        crate::pool::run_with_current(pool.clone(), work(pool)).await
    }

    /// Operations by id: their state and events, and calls to resume or undo them.
    pub fn operations(&self) -> &Operations {
        &self.inner.operations
    }
    /// The PostgreSQL servers on which the tenant databases are.
    pub fn servers(&self) -> &Servers {
        &self.inner.servers
    }
    /// Setup links: issuing, looking up, revoking and listing their events.
    pub fn tokens(&self) -> &Tokens {
        &self.inner.tokens
    }
    /// The tenant registry, read-only.
    pub fn registry(&self) -> Arc<dyn TenantRegistry> {
        self.inner.registry.clone()
    }
    /// The tenant registry, for changes that are not operations: rename, metadata, domains.
    pub fn registry_writer(&self) -> Arc<dyn RegistryWriter> {
        self.inner.registry.clone()
    }
    /// The vault with the tenants' secrets, read-only.
    pub fn vault(&self) -> Arc<dyn CredentialVault> {
        self.inner.vault.clone()
    }
    /// The resolver that [`resolve`](Self::resolve) uses, for a web layer.
    pub fn resolver(&self) -> Arc<dyn ConnectionResolver> {
        self.inner.resolver.clone()
    }
    /// The stores and servers that operations use, for an application that composes its own operations.
    pub fn operation_context(&self) -> OperationContext {
        self.inner.stores.clone()
    }
    /// The registry of live nodes: every process that runs [`run`](Self::run) over the same landlord.
    pub fn nodes(&self) -> Arc<dyn Nodes> {
        self.inner.nodes.clone()
    }

    /// Shuts the facade down. It refuses new operations, waits until each running operation has reached a step
    /// boundary, and closes the tenants' connections. Recovery on another node continues the operations. The
    /// application's own landlord pool stays open. Calling it again does nothing more.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the facade closed for new operations. Another call completes the shutdown.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.worker_lock.close().await;
        self.inner.resolver.close().await;
        self.inner.background.close().await;
    }

    /// Drives a new operation in a task of the facade, and returns the channel of its outcome; `None` for one that
    /// another caller has begun. If the caller's own future drove it, a dropped request would leave the operation idle
    /// until its lease expires.
    fn launch(&self, started: Started, observer: Observer) -> Option<oneshot::Receiver<Result<Outcome, StoreError>>> {
        let Started::New(operation) = started else { return None };
        let (sender, receiver) = oneshot::channel();
        let inner = self.inner.clone();
        let observer = self.refresh_pool_after_flip(operation.record().subject.tenant(), observer);
        self.inner.tasks.spawn(async move {
            let result = operation.drive(&inner.engine, &observer).await;
            if let Ok(Outcome { record, .. }) = &result
                && let Some(tenant) = record.subject.tenant()
            {
                inner.resolver.invalidate(tenant);
                // The caller of a migration must not get a session of the old schema on this node.
                if record.kind == crate::operations::migrate::KIND {
                    inner.pool.resolver.refresh_if_cached(tenant).await;
                }
            }
            let follow_up = result.as_ref().ok().and_then(|outcome| outcome.record.follow_up());
            // The send fails if the caller has dropped its future. The result is in the journal.
            let _ = sender.send(result);
            if let Some(id) = follow_up.filter(|_| !inner.stop.is_cancelled())
                && let Err(error) = inner.recoverer.resume(id).await
            {
                tracing::warn!(operation = %id, error = %chain(&error), "follow-up work waits for recovery");
            }
        });
        Some(receiver)
    }

    /// Makes this process switch to a new login as soon as a rotation's flip step reports it. Waiting for the
    /// landlord's notification would leave it on the old login for longer.
    fn refresh_pool_after_flip(&self, tenant: Option<TenantId>, observer: Observer) -> Observer {
        let (Some(tenant), weak) = (tenant, Arc::downgrade(&self.inner)) else { return observer };
        Observer::new(move |event| {
            if event.step == crate::operations::rotate::FLIP
                && let Some(inner) = weak.upgrade()
            {
                inner.resolver.invalidate(tenant);
                let pool = inner.pool.resolver.clone();
                inner.tasks.spawn(async move { pool.refresh_if_cached(tenant).await });
            }
            observer.notify(event);
        })
    }

    /// Waits for the end of an operation. `started` is the result channel if this process drives the operation. Without
    /// it the journal is read until the operation has settled, and the operation is taken over if its worker has died.
    async fn watch(
        &self, id: OperationId, started: Option<oneshot::Receiver<Result<Outcome, StoreError>>>, observer: &Observer,
    ) -> Result<Outcome, StoreError> {
        match started {
            Some(result) => result.await.unwrap_or_else(|_| {
                Err(StoreError::unavailable("the task that drove the operation ended without a result; read its state"))
            }),
            None => self.follow(id, observer).await.map(Outcome::from_record),
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
