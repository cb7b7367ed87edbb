//! The registry in the landlord's tables. Each write is one autocommitted statement. If it changed nothing, a read
//! finds out why, and the result of that read becomes the error.
//!
//! Invariants: only row locks and unique constraints decide between concurrent writes. All parts of one statement see
//! the same snapshot, so a statement locks the rows that its decision depends on before it changes anything. The lock
//! order prevents deadlocks: epoch, tenant, entry, user; and epoch, server, placement.
use super::{Placement, RegistryWriter, Retirement, ServerLoad, ServerRegistry, TenantRegistry};
use crate::directory::{DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{Rows, StoreError};
use crate::names::{DatabaseName, Domain, ReservedDomains, RoleName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::store::schema::LandlordPool;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

mod changes;
mod databases;
mod domains;
mod placements;
mod polls;
mod read;
mod rows;
mod servers;
mod tenants;
mod users;
mod write;
pub(crate) use changes::POLL;
pub use changes::{Change, PgChanges};

/// The registry in the landlord's tables, over the application's pool.
///
/// Every write is one autocommitted statement: no transaction is open while the caller awaits anything else. A call
/// whose future is dropped may have taken effect or not. Repeating it is correct in both cases.
#[derive(Clone, Debug)]
pub struct PgTenantRegistry(LandlordPool, ReservedDomains);

impl PgTenantRegistry {
    /// Uses the pool of a landlord on which [`schema::install`](crate::store::schema::install) has run.
    pub fn new(landlord: PgPool) -> Self {
        Self::over(LandlordPool::new(landlord))
    }
    pub(crate) fn over(landlord: LandlordPool) -> Self {
        Self(landlord, ReservedDomains::default())
    }
    /// Refuses to add these domains, or domains below them, to a tenant.
    pub(crate) fn with_reserved(self, reserved: ReservedDomains) -> Self {
        Self(self.0, reserved)
    }
}

#[async_trait]
impl TenantRegistry for PgTenantRegistry {
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        read::find(&self.0, tenant).await
    }
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        databases::list(&self.0, tenant).await
    }
    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Rows<Tenant>, StoreError> {
        read::page(&self.0, after, limit).await
    }
}

#[async_trait]
impl RegistryWriter for PgTenantRegistry {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        write::fence(&self.0, operation, epoch).await
    }
    async fn create(&self, tenant: &Tenant, domains: &[Domain], writer: FencingToken) -> Result<(), StoreError> {
        tenants::create(&self.0, tenant, domains, writer).await
    }
    async fn publish(
        &self, expected: TenantStatus, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError> {
        databases::publish(&self.0, expected, entry, writer).await
    }
    async fn discard(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        tenants::discard(&self.0, tenant, writer).await
    }
    async fn update(&self, expected: &Tenant, tenant: &Tenant, writer: Option<FencingToken>) -> Result<(), StoreError> {
        tenants::update(&self.0, expected, tenant, writer).await
    }
    async fn domains(&self, tenant: TenantId) -> Result<Vec<Domain>, StoreError> {
        domains::list(&self.0, tenant).await
    }
    async fn add_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        self.1.check(domain).map_err(|rule| StoreError::invalid("domain", rule))?;
        domains::add(&self.0, tenant, domain, writer).await
    }
    async fn remove_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        domains::remove(&self.0, tenant, domain, writer).await
    }
    async fn put_database(
        &self, expected: Option<Generation>, entry: &TenantDatabase, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        databases::put(&self.0, expected, entry, writer).await
    }
    async fn replace_login(
        &self, expected: Generation, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError> {
        databases::replace_login(&self.0, expected, entry, writer).await
    }
    async fn record_schema(&self, tenant: TenantId, state: &str, writer: FencingToken) -> Result<(), StoreError> {
        databases::record_schema(&self.0, tenant, state, writer).await
    }
    async fn users(&self, tenant: TenantId) -> Result<Vec<DatabaseUser>, StoreError> {
        users::list(&self.0, tenant).await
    }
    async fn put_user(
        &self, expected: Option<UserStatus>, user: &DatabaseUser, writer: FencingToken,
    ) -> Result<(), StoreError> {
        users::put(&self.0, expected, user, writer).await
    }
    async fn put_retiring(&self, user: &DatabaseUser, after: Duration, writer: FencingToken) -> Result<(), StoreError> {
        users::put_retiring(&self.0, user, after, writer).await
    }
    async fn retiring(&self, limit: u32) -> Result<Rows<Retirement>, StoreError> {
        users::list_retiring(&self.0, limit).await
    }
    async fn retiring_after(
        &self, after: Option<(&ServerName, &RoleName)>, limit: u32,
    ) -> Result<Rows<Retirement>, StoreError> {
        users::page_retiring(&self.0, after, limit).await
    }
    async fn take_retirements(&self, limit: u32, hold: Duration) -> Result<Rows<Retirement>, StoreError> {
        users::take(&self.0, limit, hold).await
    }
    async fn settle_retirement(
        &self, user: &DatabaseUser, left: Option<(&str, Duration)>, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        users::settle(&self.0, user, left, writer).await
    }
}

#[async_trait]
impl ServerRegistry for PgTenantRegistry {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        write::fence(&self.0, operation, epoch).await
    }
    async fn installation(&self) -> Result<Uuid, StoreError> {
        read::installation_id(&self.0).await
    }
    async fn server(&self, name: &ServerName) -> Result<Option<ServerLoad>, StoreError> {
        servers::find(&self.0, name).await
    }
    async fn servers(&self) -> Result<Rows<ServerLoad>, StoreError> {
        servers::list(&self.0).await
    }
    async fn put_server(
        &self, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        servers::put(&self.0, expected, server, writer).await
    }
    async fn remove_server(&self, name: &ServerName, writer: Option<FencingToken>) -> Result<(), StoreError> {
        servers::remove(&self.0, name, writer).await
    }
    async fn placement(&self, tenant: TenantId) -> Result<Option<Placement>, StoreError> {
        placements::find(&self.0, tenant).await
    }
    async fn placement_and_server(&self, tenant: TenantId) -> Result<Option<(Placement, DatabaseServer)>, StoreError> {
        placements::find_with_server(&self.0, tenant).await
    }
    async fn placements_on(
        &self, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
    ) -> Result<Rows<Placement>, StoreError> {
        placements::page(&self.0, server, after, limit).await
    }
    async fn reserve(&self, placement: &Placement, writer: FencingToken) -> Result<(), StoreError> {
        placements::reserve(&self.0, placement, writer).await
    }
    async fn release(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        placements::release(&self.0, tenant, writer).await
    }
}
