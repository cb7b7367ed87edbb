//! Who the tenants are and where their databases are: reading (any landlord) and writing (ours, or a host's own).
use crate::directory::{DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::StoreError;
use crate::names::{DatabaseName, Domain, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use futures_core::{future::BoxFuture, stream::BoxStream};
use std::{sync::Arc, time::Duration};
use time::OffsetDateTime;

mod arc;
#[cfg(feature = "testing")]
mod memory;
mod postgres;
mod rules;
#[cfg(feature = "testing")]
pub use memory::MemoryRegistry;
pub(crate) use postgres::POLL;
pub use postgres::{Change, PgChanges, PgTenantRegistry};

/// The minimum that resolver and web need: three reads.
///
/// Every call is one read of committed state. Dropping a call's future has no effect.
#[async_trait]
pub trait TenantRegistry: Send + Sync + 'static {
    /// By id, slug or domain. `None` is "no such tenant"; an archived one is `Some`, and so is a deleted one when asked
    /// for by id. Text that can be no slug or domain is nobody's: `None`.
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError>;
    /// Directory entries that are in use (not `Dropped`), primary first.
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError>;
    /// At most `limit` tenants (not `Deleted`) with an id above `after`, ascending.
    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError>;
}

#[async_trait]
impl<T: TenantRegistry + ?Sized> TenantRegistry for Arc<T> {
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        (**self).find(tenant).await
    }
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        (**self).databases(tenant).await
    }
    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Vec<Tenant>, StoreError> {
        (**self).page(after, limit).await
    }
}

/// Conveniences for every registry, `dyn` ones too. Not implementable by hosts: the blanket covers all.
pub trait TenantRegistryExt: TenantRegistry {
    /// The primary entry, if there is one.
    fn primary(&self, tenant: TenantId) -> BoxFuture<'_, Result<Option<TenantDatabase>, StoreError>> {
        Box::pin(async move {
            let entries = self.databases(tenant).await?;
            Ok(entries.into_iter().find(|e| e.kind == crate::directory::DatabaseKind::Primary))
        })
    }
    /// Every tenant, by pages of 500: a tenant that is made while the stream runs may be missed or seen.
    fn all(&self) -> BoxStream<'_, Result<Tenant, StoreError>> {
        Box::pin(async_stream::try_stream! {
            let mut after = None;
            loop {
                let page = self.page(after, 500).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id());
                for tenant in page {
                    yield tenant;
                }
            }
        })
    }
}
impl<T: TenantRegistry + ?Sized> TenantRegistryExt for T {}

/// Changes. Every call is atomic and idempotent (repeating one whose result still stands succeeds and changes nothing),
/// and names the state that it expects: another state is [`StoreError::Conflict`], as is a tenant that is not there.
///
/// `FencingToken` names the operation that writes. It writes under the very epoch that `fence` has seen last: under any other,
/// or for an operation that was never fenced, a write is [`StoreError::Fenced`]. Where a writer is optional, `None` is a
/// change by hand, outside any operation.
///
/// What is refused changes nothing. [`StoreError::Unavailable`] leaves open whether it took effect, and so does dropping
/// a call's future: repeating the call is right either way.
///
/// `testing::conformance::registry_writer` (feature `testing`) holds an implementation to all this.
#[async_trait]
pub trait RegistryWriter: TenantRegistry {
    /// From now on only writes of `operation` with this epoch succeed. Waits for writes that have begun: none of an
    /// older worker lands afterwards. Never lowers an epoch; a lower one than is known already is `Fenced`.
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
    /// A new tenant, which must be `Provisioning`, with its domains. `NameConflict` if the slug or a domain is somebody's.
    async fn create(&self, tenant: &Tenant, domains: &[Domain], writer: FencingToken) -> Result<(), StoreError>;
    /// Writes the entry with its login, as [`put_database`](Self::put_database) does, and changes the tenant's status
    /// from `expected` to `Active`, all in one: a provisioning's point of no return, and the only way out of it.
    async fn publish(
        &self, expected: TenantStatus, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError>;
    /// Removes a tenant that is still `Provisioning`, with its domains, tokens, users and entries, as if it had never
    /// been. Absent already: `Ok`. Any other status: `Conflict`. Its placement must be released before; a registry that
    /// keeps the placements too refuses while there is one.
    async fn discard(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError>;
    /// Slug, name, status, deadline and metadata from `expected` to `tenant`. The status must be the same or one that
    /// [`TenantStatus::can_become`] allows, but for `Provisioning` to `Active`, which is [`publish`](Self::publish)'s:
    /// nobody is active without an entry. Only what is archived, or was, has a deadline. To `Deleted` it also frees slug and domains (those that are added at this
    /// moment too), drops entries and users, and stamps the time: the soft delete.
    async fn update(&self, expected: &Tenant, tenant: &Tenant, writer: Option<FencingToken>) -> Result<(), StoreError>;
    /// The tenant's domains, sorted.
    async fn domains(&self, tenant: TenantId) -> Result<Vec<Domain>, StoreError>;
    /// Adds one. `NameConflict` if it is another tenant's.
    async fn add_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Removes one; absent already is `Ok`, another tenant's is left alone.
    async fn remove_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Adds (`expected` is `None`) or replaces (the entry of this kind, host, port and database that has the expected
    /// generation) a directory entry. Retiring one is a replacement with status `Dropped`. A second primary in use, a
    /// generation that goes back, and any other entry of a deleted tenant are `Conflict`.
    ///
    /// An active primary on a server of ours brings its login with it: among the tenant's users there (`Conflict` if
    /// it is not) it becomes `Active`, and the one that was active for this database `Retiring`, in the same write. So
    /// the flip of a rotation is one call, and at no time is the login in use called anything but active.
    async fn put_database(
        &self, expected: Option<Generation>, entry: &TenantDatabase, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// The flip of a rotation: as [`put_database`](Self::put_database) with `Some(expected)`, but of an entry that is
    /// there in the status of `entry` it changes login, credential and generation alone, so that what a host has changed
    /// since `entry` was read stays. By default `put_database` itself, over which a host's change of that moment is lost.
    async fn replace_login(
        &self, expected: Generation, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError> {
        self.put_database(Some(expected), entry, Some(writer)).await
    }
    /// The tenant's logins, whatever their status, oldest generation first.
    async fn users(&self, tenant: TenantId) -> Result<Vec<DatabaseUser>, StoreError>;
    /// Adds (`None`) or replaces (the one in the expected status) a login's row, which is found by server and role. A
    /// second active login of one database, and another tenant's login, are `Conflict`. The row of a deleted tenant's
    /// login can still be replaced: what is said to be gone and is not must be nameable.
    async fn put_user(
        &self, expected: Option<UserStatus>, user: &DatabaseUser, writer: FencingToken,
    ) -> Result<(), StoreError>;
    /// At most `limit` logins of all tenants that wait to be dropped (`Retiring`), longest waiting first. One read.
    async fn retiring(&self, limit: u32) -> Result<Vec<Retirement>, StoreError>;
    /// Takes at most `limit` of those whose time has come: nobody else gets them for `hold`, and after that they are due
    /// again. A login that [`put_user`](Self::put_user) made `Retiring` is due at once; one that a flip by
    /// [`put_database`](Self::put_database) made so is due when its operation has settled it and left it.
    async fn take_retirements(&self, limit: u32, hold: Duration) -> Result<Vec<Retirement>, StoreError>;
    /// What became of one: `left` says why it is still there and for how long it is left alone; `None`: it is gone, and
    /// becomes `Dropped`. Counts as an attempt. A login that is not `Retiring` any more is left as it is: `Ok`.
    async fn settle_retirement(
        &self, user: &DatabaseUser, left: Option<(&str, Duration)>, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
}

/// A login that was replaced and waits to be dropped.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Retirement {
    /// Which, and why it is still there.
    pub user: DatabaseUser,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again, by the store's clock; `None` while an operation is at it.
    pub retry_at: Option<OffsetDateTime>,
    /// Which operation has retired it.
    pub by: Option<OperationId>,
    /// What it was before.
    pub before: Option<UserStatus>,
}
impl Retirement {
    /// For a registry of the host's own.
    pub fn new(user: DatabaseUser, attempts: u32, retry_at: Option<OffsetDateTime>) -> Self {
        Self { user, attempts, retry_at, by: None, before: None }
    }
    /// By whom it was retired, and what it was before.
    pub fn retired(self, by: Option<OperationId>, before: Option<UserStatus>) -> Self {
        Self { by, before, ..self }
    }
}

/// A tenant's place: the committed intent that names its database, and through it every role of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// Whose.
    pub tenant: TenantId,
    /// On which server.
    pub server: ServerName,
    /// Under which name.
    pub database: DatabaseName,
}
impl Placement {
    /// A place.
    pub fn new(tenant: TenantId, server: ServerName, database: DatabaseName) -> Self {
        Self { tenant, server, database }
    }
}

/// A server with the number of its tenants.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerLoad {
    /// The server.
    pub server: DatabaseServer,
    /// Tenants that have a place there, half-made ones included.
    pub tenants: u32,
}

/// The servers and who lives where. Atomicity, idempotency, writers and cancel safety are as in [`RegistryWriter`]; a
/// host may keep the two in different places, so nothing here asks whether a tenant exists.
#[async_trait]
pub trait ServerRegistry: Send + Sync + 'static {
    /// As [`RegistryWriter::fence`].
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
    /// Marks what this installation makes on servers; the same for its whole life.
    async fn installation(&self) -> Result<uuid::Uuid, StoreError>;
    /// One server.
    async fn server(&self, name: &ServerName) -> Result<Option<ServerLoad>, StoreError>;
    /// All servers, by name.
    async fn servers(&self) -> Result<Vec<ServerLoad>, StoreError>;
    /// Adds (`expected` is `None`) or replaces (the stored one must equal `expected` but for `created_at`, which stays
    /// what the store has made it). Places are untouched, whatever the capacity is now.
    async fn put_server(
        &self, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Removes one that nobody has a place on, else `Conflict`. Absent already: `Ok`.
    async fn remove_server(&self, name: &ServerName, writer: Option<FencingToken>) -> Result<(), StoreError>;
    /// The tenant's place, if it has one.
    async fn placement(&self, tenant: TenantId) -> Result<Option<Placement>, StoreError>;
    /// The tenant's place and its server, if it has one; `Corrupt` if the server is not registered any more. By default
    /// two reads; a store that can answer in one saves each operation a round trip.
    async fn place(&self, tenant: TenantId) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
        let Some(placement) = self.placement(tenant).await? else { return Ok(None) };
        let unknown = || StoreError::corrupt("the tenant's server is not registered any more");
        let load = self.server(&placement.server).await?.ok_or_else(unknown)?;
        Ok(Some((placement, load.server)))
    }
    /// Gives the tenant a place if the server is ready, not draining and has room, else `NameConflict(Room)`; `NameConflict(Database)`
    /// if the name is another tenant's there; `Conflict` if the server is unknown. A second call with the same place is
    /// `Ok`, whatever has become of the server, with another one `Conflict`. Counting and placing are one: racing calls
    /// never exceed the capacity.
    async fn reserve(&self, placement: &Placement, writer: FencingToken) -> Result<(), StoreError>;
    /// Ends the tenant's place; call it when nothing of the tenant is left there. Absent already: `Ok`.
    async fn release(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError>;
}
