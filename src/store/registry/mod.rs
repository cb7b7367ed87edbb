//! The registry: the tenants, their directory entries and logins, the servers, and the placement of each tenant.
//!
//! The resolver and the web layer only read, through [`TenantRegistry`]; an application may implement it over its own
//! tables. Sagas and the facade write through [`RegistryWriter`] and [`ServerRegistry`]. [`PgTenantRegistry`]
//! implements all three over the landlord, and `PgChanges` reports changes to nodes that cache.
//!
//! Invariants: a write names the state that it expects, and changes nothing if it finds another. A worker writes only
//! under the newest epoch of its operation. An active primary entry and its active login change in one write. A server
//! never gets more placements than its capacity.
use crate::directory::{DatabaseKind, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{Rows, StoreError};
use crate::names::{DatabaseName, Domain, RoleName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use futures_core::stream::BoxStream;
use std::{collections::HashSet, sync::Arc, time::Duration};
use time::OffsetDateTime;

mod arc;
#[cfg(feature = "testing")]
mod memory;
mod postgres;
mod rules;
#[cfg(feature = "testing")]
pub use memory::MemoryRegistry;
pub(crate) use postgres::POLL;
pub use postgres::PgTenantRegistry;
#[cfg(not(feature = "testing"))]
pub(crate) use postgres::{Change, PgChanges};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use postgres::{Change, PgChanges};

/// The read access to tenants that the resolver and the web layer need.
///
/// Every call is one read of committed state. Dropping a call's future has no effect.
#[async_trait]
pub trait TenantRegistry: Send + Sync + 'static {
    /// Finds a tenant by id, slug or domain. An archived tenant is found, and so is a deleted one by its id. Text that
    /// is not a valid slug or domain matches no tenant: `None`.
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError>;
    /// The tenant's directory entries that are not `Dropped`, the primary one first.
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError>;
    /// At most `limit` tenants that are not `Deleted`, with an id above `after`, in ascending order of their ids. Rows
    /// that cannot be parsed are in [`Rows::unreadable`] and do not fail the call. The readable part is empty only
    /// after the last tenant.
    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Rows<Tenant>, StoreError>;
    /// The tenant's primary entry that is not `Dropped`, if there is one. Default: found among all entries.
    async fn primary(&self, tenant: TenantId) -> Result<Option<TenantDatabase>, StoreError> {
        let entries = self.databases(tenant).await?;
        Ok(entries.into_iter().find(|e| e.kind == DatabaseKind::Primary))
    }
    /// All tenants that are not `Deleted`. A tenant that is created while the stream runs may or may not appear. A row
    /// that cannot be parsed is an item with [`StoreError::Corrupt`], and the stream continues after it; any other error
    /// is the last item. Default: reads pages of 500.
    fn all(&self) -> BoxStream<'_, Result<Tenant, StoreError>> {
        Box::pin(async_stream::stream! {
            let (mut after, mut reported) = (None, HashSet::new());
            loop {
                let page = match self.page(after, 500).await {
                    Ok(page) => page,
                    Err(error) => {
                        yield Err(error);
                        break;
                    }
                };
                let Rows { readable, unreadable } = page;
                after = readable.last().map(Tenant::id);
                for tenant in readable {
                    yield Ok(tenant);
                }
                // The next page reads the rows after the last readable one again.
                for row in unreadable {
                    if reported.insert(row.id().to_owned()) {
                        yield Err(row.into());
                    }
                }
                if after.is_none() {
                    break;
                }
            }
        })
    }
}

#[async_trait]
impl<T: TenantRegistry + ?Sized> TenantRegistry for Arc<T> {
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        (**self).find(tenant).await
    }
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        (**self).databases(tenant).await
    }
    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Rows<Tenant>, StoreError> {
        (**self).page(after, limit).await
    }
    async fn primary(&self, tenant: TenantId) -> Result<Option<TenantDatabase>, StoreError> {
        (**self).primary(tenant).await
    }
    fn all(&self) -> BoxStream<'_, Result<Tenant, StoreError>> {
        (**self).all()
    }
}

/// The write access to tenants. Every call is atomic and idempotent: repeating a call whose result still stands
/// succeeds and changes nothing. Every call names the state that it expects. Another state is [`StoreError::Conflict`],
/// and so is a tenant that does not exist.
///
/// [`FencingToken`] names the operation that writes. The operation writes under the epoch that it last passed to
/// [`fence`](Self::fence). A write under another epoch, or of an operation that never called `fence`, is
/// [`StoreError::Fenced`]. Where the writer is optional, `None` is a change outside any operation.
///
/// A refused call changes nothing. After [`StoreError::Unavailable`], or after the call's future was dropped, the call
/// may have taken effect or not. Repeating it is correct in both cases.
///
/// `testing::conformance::registry_writer` (feature `testing`) checks an implementation against all this.
#[async_trait]
pub trait RegistryWriter: TenantRegistry {
    /// From now on, only writes of `operation` with this epoch succeed. Waits for writes that have begun, so no write
    /// of an older worker lands after this call. An epoch lower than the stored one is `Fenced` and changes nothing.
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
    /// Creates a tenant, whose status must be `Provisioning`, with its domains. `Taken` if another tenant has the slug
    /// or one of the domains.
    async fn create(&self, tenant: &Tenant, domains: &[Domain], writer: FencingToken) -> Result<(), StoreError>;
    /// Writes the entry and its login, as [`put_database`](Self::put_database) does, and changes the tenant's status
    /// from `expected` to `Active`, all in one write. This is the pivot step of a provisioning. No other call changes a
    /// tenant from `Provisioning` to `Active`.
    async fn publish(
        &self, expected: TenantStatus, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError>;
    /// Removes a tenant that is still `Provisioning`, with its domains, tokens, users and entries, without a trace. An
    /// absent tenant is `Ok`, and any other status is `Conflict`. The caller must release the placement first. A
    /// registry that also stores the placements refuses while there is one.
    async fn discard(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError>;
    /// Changes slug, name, status, deadline and metadata from `expected` to `tenant`. The status must stay the same or
    /// follow [`TenantStatus::can_become`]. `Provisioning` to `Active` is refused: only [`publish`](Self::publish) does
    /// that, so that no tenant is active without an entry. Only a tenant that is archived, or was, can have a deadline.
    ///
    /// A change to `Deleted` is the soft delete. In the same write it frees the slug and the domains, including domains
    /// that another call adds at this moment, sets the entries and users to `Dropped`, and stores the time.
    async fn update(&self, expected: &Tenant, tenant: &Tenant, writer: Option<FencingToken>) -> Result<(), StoreError>;
    /// The tenant's domains, in ascending order.
    async fn domains(&self, tenant: TenantId) -> Result<Vec<Domain>, StoreError>;
    /// Adds a domain. `Taken` if another tenant has it.
    async fn add_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Removes a domain. An absent one is `Ok`. A domain of another tenant is not touched.
    async fn remove_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Adds a directory entry (`expected` is `None`), or replaces the entry of the same kind, host, port and database
    /// whose generation is `expected`. To retire an entry, replace it with one of status `Dropped`. A second primary in
    /// use, a lower generation, and an entry of a deleted tenant that is not `Dropped` are `Conflict`.
    ///
    /// For an active primary on a registered server, the same write changes the logins. The entry's login must be one
    /// of the tenant's users there, else `Conflict`; it becomes `Active`, and the login that was active for this
    /// database becomes `Retiring`. So a rotation switches logins in one call, and the login in use is always `Active`.
    async fn put_database(
        &self, expected: Option<Generation>, entry: &TenantDatabase, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Switches the login of an entry, for a rotation. Works as [`put_database`](Self::put_database) with
    /// `Some(expected)`, with two differences: the stored status must be that of `entry`, and only login, credential
    /// and generation change. So changes that the application made to the entry after the rotation read it are kept.
    async fn replace_login(
        &self, expected: Generation, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError>;
    /// Stores a new [`schema_state`](TenantDatabase::schema_state) in the tenant's primary entry that is not `Dropped`,
    /// after migrations were applied. A tenant without such an entry is `Ok`. All nodes must learn of a changed value
    /// as they learn of any other change of the entry.
    ///
    /// The default implementation replaces the whole entry with [`put_database`](Self::put_database). A store that
    /// changes only this value does not conflict with another change of the entry.
    async fn record_schema(&self, tenant: TenantId, state: &str, writer: FencingToken) -> Result<(), StoreError> {
        let Some(mut entry) = self.primary(tenant).await? else { return Ok(()) };
        if entry.schema_state == state {
            return Ok(());
        }
        entry.schema_state = state.into();
        self.put_database(Some(entry.generation), &entry, Some(writer)).await
    }
    /// The tenant's logins of any status, oldest generation first.
    async fn users(&self, tenant: TenantId) -> Result<Vec<DatabaseUser>, StoreError>;
    /// Adds a login's row (`expected` is `None`), or replaces the row whose status is `expected`. Server and role
    /// identify the row. A second active login of one database, and a login of another tenant, are `Conflict`. The row
    /// of a deleted tenant's login can be replaced, because a login that is recorded as `Dropped` may turn out to exist
    /// still.
    async fn put_user(
        &self, expected: Option<UserStatus>, user: &DatabaseUser, writer: FencingToken,
    ) -> Result<(), StoreError>;
    /// Adds the row of a login that is dropped when `after` has passed, by the store's clock. Its status is `Retiring`.
    /// The row may be stored before the role exists. A repeated call with an equal login succeeds, and may leave the
    /// time as it is.
    ///
    /// The default implementation makes two writes. Between them the login is due already, so
    /// [`take_retirements`](Self::take_retirements) may take it; it is `Dropped` then. Read the row again after the role
    /// was created.
    async fn put_retiring(&self, user: &DatabaseUser, after: Duration, writer: FencingToken) -> Result<(), StoreError> {
        self.put_user(None, user, writer).await?;
        let reason = user.reason.as_deref().unwrap_or_default();
        self.settle_retirement(user, Some((reason, after)), Some(writer)).await
    }
    /// At most `limit` logins of all tenants that wait to be dropped (`Retiring`), those that wait longest first. One
    /// read.
    async fn retiring(&self, limit: u32) -> Result<Rows<Retirement>, StoreError>;
    /// At most `limit` logins of all tenants that wait to be dropped, in the order of server and login, those that follow
    /// `after`. The order is the store's own. For a caller that reads all of them in pages: a page is empty only if no
    /// login that can be parsed follows.
    async fn retiring_after(
        &self, after: Option<(&ServerName, &RoleName)>, limit: u32,
    ) -> Result<Rows<Retirement>, StoreError>;
    /// Takes at most `limit` logins that are due to be dropped. No other call gets them for the duration `hold`; after
    /// that they are due again. A login that [`put_user`](Self::put_user) made `Retiring` is due at once. A login that
    /// [`put_database`](Self::put_database) made `Retiring` is due after its operation has called
    /// [`settle_retirement`](Self::settle_retirement) with a reason and a delay.
    async fn take_retirements(&self, limit: u32, hold: Duration) -> Result<Rows<Retirement>, StoreError>;
    /// Records an attempt to drop a login. `left` is `None` if the login is dropped: it becomes `Dropped`. Otherwise
    /// `left` contains the reason why the login still exists and the delay until the next attempt. A login that is not
    /// `Retiring` stays as it is: `Ok`.
    async fn settle_retirement(
        &self, user: &DatabaseUser, left: Option<(&str, Duration)>, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
}

/// A login that was replaced, or retired by a call, and waits to be dropped.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Retirement {
    /// The login. Its `reason` says why it still exists.
    pub user: DatabaseUser,
    /// Number of attempts to drop it.
    pub attempts: u32,
    /// Time of the next attempt, by the store's clock. `None` while an operation works on it.
    pub retry_at: Option<OffsetDateTime>,
    /// Operation that retired it; `None` if that is unknown.
    pub by: Option<OperationId>,
    /// Status that it had before; `None` if that is unknown.
    pub before: Option<UserStatus>,
}
impl Retirement {
    /// Creates a retirement, for an application's own implementation of [`RegistryWriter`].
    pub fn new(user: DatabaseUser, attempts: u32, retry_at: Option<OffsetDateTime>) -> Self {
        Self { user, attempts, retry_at, by: None, before: None }
    }
    /// Sets the operation that retired the login, and the status that the login had before.
    pub fn retired(self, by: Option<OperationId>, before: Option<UserStatus>) -> Self {
        Self { by, before, ..self }
    }
}

/// The placement of a tenant: the committed intent that names its server and its database, and through it every role of
/// the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placement {
    /// Tenant that is placed.
    pub tenant: TenantId,
    /// Server on which it is placed.
    pub server: ServerName,
    /// Name of its database there.
    pub database: DatabaseName,
}
impl Placement {
    /// Creates a placement. Nothing is stored.
    pub fn new(tenant: TenantId, server: ServerName, database: DatabaseName) -> Self {
        Self { tenant, server, database }
    }
}

/// A server with the number of its tenants.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerLoad {
    /// The server's row.
    pub server: DatabaseServer,
    /// Tenants that are placed on the server, including those whose provisioning has not finished.
    pub tenants: u32,
}

/// Stores the servers and the placements of tenants. Atomicity, idempotency, writers and cancel safety are as in
/// [`RegistryWriter`]. An application may use different stores for the two traits, so no call here checks whether a
/// tenant exists.
#[async_trait]
pub trait ServerRegistry: Send + Sync + 'static {
    /// As [`RegistryWriter::fence`].
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError>;
    /// Id of the installation, which marks the objects that it creates on servers. It never changes.
    async fn installation(&self) -> Result<uuid::Uuid, StoreError>;
    /// Reads one server. `None` if the name is not registered.
    async fn server(&self, name: &ServerName) -> Result<Option<ServerLoad>, StoreError>;
    /// All servers, in ascending order of their names. A row that cannot be parsed does not fail the call.
    async fn servers(&self) -> Result<Rows<ServerLoad>, StoreError>;
    /// Adds a server (`expected` is `None`), or replaces the stored one, which must equal `expected`. `created_at` is
    /// neither compared nor changed. Placements stay, even if the new capacity is lower than their number.
    async fn put_server(
        &self, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
    ) -> Result<(), StoreError>;
    /// Removes a server without placements. `Conflict` if a tenant is placed on it. An absent one is `Ok`.
    async fn remove_server(&self, name: &ServerName, writer: Option<FencingToken>) -> Result<(), StoreError>;
    /// The tenant's placement, if it has one.
    async fn placement(&self, tenant: TenantId) -> Result<Option<Placement>, StoreError>;
    /// The tenant's placement and its server, if it has one. `Corrupt` if the server is not registered. The default
    /// implementation makes two reads. A store that makes only one saves a round trip in each operation.
    async fn placement_and_server(&self, tenant: TenantId) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
        let Some(placement) = self.placement(tenant).await? else { return Ok(None) };
        let unknown =
            || StoreError::corrupt(format!("the server {} of a placement is not registered", placement.server));
        let load = self.server(&placement.server).await?.ok_or_else(unknown)?;
        Ok(Some((placement, load.server)))
    }
    /// At most `limit` placements on this server whose database name is above `after`, in the store's ascending order of
    /// these names, which may be any order that stays the same. Rows that cannot be parsed are in [`Rows::unreadable`] and
    /// do not fail the call. The readable part is empty only after the last placement, and for an unknown server. For
    /// work that covers all tenants of a server in pages.
    async fn placements_on(
        &self, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
    ) -> Result<Rows<Placement>, StoreError>;
    /// Places the tenant on the server. `Taken` with
    /// [`NameConflict::ServerFull`](crate::error::NameConflict::ServerFull) if the server is full, draining or not
    /// ready; `Taken` with [`NameConflict::Database`](crate::error::NameConflict::Database) if another tenant has the
    /// database name there; `Conflict` if the server is unknown.
    ///
    /// Repeating the call with the same placement is `Ok`, whatever the server's state is now. With another placement
    /// it is `Conflict`. The check of the capacity and the placement are one write, so concurrent calls never exceed
    /// the capacity.
    async fn reserve(&self, placement: &Placement, writer: FencingToken) -> Result<(), StoreError>;
    /// Removes the tenant's placement. The caller must have removed everything of the tenant on the server. An absent
    /// placement is `Ok`.
    async fn release(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError>;
}
