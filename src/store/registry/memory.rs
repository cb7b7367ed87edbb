//! The three registry traits in memory, for tests of the layers above.
//!
//! One mutex protects all data, so every call is atomic. The rules and the errors are those of
//! [`PgTenantRegistry`](super::PgTenantRegistry).
use super::{Placement, RegistryWriter, Retirement, ServerLoad, ServerRegistry, TenantRegistry, rules};
use crate::directory::{DatabaseKind, DatabaseStatus, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::error::{NameConflict, Rows, StoreError};
use crate::names::{DatabaseName, Domain, RoleName, ServerName};
use crate::operation::{FencingToken, OperationId};
use crate::server::DatabaseServer;
use crate::tenant::{Tenant, TenantId, TenantRef, TenantStatus};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

mod placements;
mod retirements;
mod tenants;

/// A registry in memory with the semantics of [`PgTenantRegistry`](super::PgTenantRegistry). Times are stored as they
/// are given.
#[derive(Debug)]
pub struct MemoryRegistry(Mutex<State>);

#[derive(Debug)]
struct State {
    installation: Uuid,
    epochs: HashMap<OperationId, i64>,
    tenants: BTreeMap<TenantId, Tenant>,
    domains: BTreeMap<Domain, TenantId>,
    databases: Vec<TenantDatabase>,
    users: Vec<DatabaseUser>,
    /// Retry state of each retiring user. The landlord stores it in columns that [`DatabaseUser`] does not have.
    retirements: HashMap<(ServerName, RoleName), retirements::RetryState>,
    servers: BTreeMap<ServerName, DatabaseServer>,
    placements: BTreeMap<TenantId, Placement>,
    /// Operation of the current write; `None` outside any operation.
    writer: Option<OperationId>,
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self(Mutex::new(State {
            installation: Uuid::now_v7(),
            epochs: HashMap::new(),
            tenants: BTreeMap::new(),
            domains: BTreeMap::new(),
            databases: Vec::new(),
            users: Vec::new(),
            retirements: HashMap::new(),
            servers: BTreeMap::new(),
            placements: BTreeMap::new(),
            writer: None,
        }))
    }
}

impl MemoryRegistry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Locks the state. The lock is never held across an await. A poisoned lock is used anyway: every write decides
    /// before it changes anything, so a panic leaves the state unchanged.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the state for a write of this writer; `Fenced` if its epoch is not the stored one.
    fn lock_for(&self, writer: Option<FencingToken>) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state();
        state.writer = writer.map(|w| w.operation);
        let may_write = writer.is_none_or(|w| state.epochs.get(&w.operation) == Some(&w.epoch));
        if may_write { Ok(state) } else { Err(StoreError::Fenced) }
    }

    fn raise_epoch(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        let mut state = self.state();
        let stored = state.epochs.entry(operation).or_insert(epoch);
        if *stored > epoch {
            return Err(StoreError::Fenced);
        }
        *stored = epoch;
        Ok(())
    }
}

#[async_trait]
impl TenantRegistry for MemoryRegistry {
    async fn find(&self, tenant: TenantRef<'_>) -> Result<Option<Tenant>, StoreError> {
        Ok(self.state().find(&tenant).cloned())
    }
    async fn databases(&self, tenant: TenantId) -> Result<Vec<TenantDatabase>, StoreError> {
        Ok(self.state().databases(tenant))
    }
    async fn page(&self, after: Option<TenantId>, limit: u32) -> Result<Rows<Tenant>, StoreError> {
        let state = self.state();
        let rest = state.tenants.values().filter(|t| after.is_none_or(|a| t.id() > a));
        let not_deleted = rest.filter(|t| t.status() != TenantStatus::Deleted);
        Ok(not_deleted.take(usize::try_from(limit).unwrap_or(usize::MAX)).cloned().collect())
    }
}

#[async_trait]
impl RegistryWriter for MemoryRegistry {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        self.raise_epoch(operation, epoch)
    }
    async fn create(&self, tenant: &Tenant, domains: &[Domain], writer: FencingToken) -> Result<(), StoreError> {
        rules::check_creation(tenant)?;
        self.lock_for(Some(writer))?.create(tenant, domains)
    }
    async fn publish(
        &self, expected: TenantStatus, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError> {
        rules::check_publication(expected, entry)?;
        self.lock_for(Some(writer))?.publish(expected, entry)
    }
    async fn discard(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        self.lock_for(Some(writer))?.discard(tenant)
    }
    async fn update(&self, expected: &Tenant, tenant: &Tenant, writer: Option<FencingToken>) -> Result<(), StoreError> {
        rules::check_update(expected, tenant)?;
        self.lock_for(writer)?.update(expected, tenant)
    }
    async fn domains(&self, tenant: TenantId) -> Result<Vec<Domain>, StoreError> {
        Ok(self.state().domains(tenant))
    }
    async fn add_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        self.lock_for(writer)?.add_domain(tenant, domain)
    }
    async fn remove_domain(
        &self, tenant: TenantId, domain: &Domain, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        self.lock_for(writer)?.domains.retain(|d, owner| d != domain || *owner != tenant);
        Ok(())
    }
    async fn put_database(
        &self, expected: Option<Generation>, entry: &TenantDatabase, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        rules::check_replacement(expected, entry)?;
        self.lock_for(writer)?.put_database(expected, entry)
    }
    async fn replace_login(
        &self, expected: Generation, entry: &TenantDatabase, writer: FencingToken,
    ) -> Result<(), StoreError> {
        rules::check_replacement(Some(expected), entry)?;
        self.lock_for(Some(writer))?.replace_login(expected, entry)
    }
    async fn record_schema(&self, tenant: TenantId, state: &str, writer: FencingToken) -> Result<(), StoreError> {
        self.lock_for(Some(writer))?.record_schema(tenant, state);
        Ok(())
    }
    async fn users(&self, tenant: TenantId) -> Result<Vec<DatabaseUser>, StoreError> {
        let mut users: Vec<_> = self.state().users.iter().filter(|u| u.tenant == tenant).cloned().collect();
        users.sort_by(|a, b| (a.generation, &a.server, &a.role).cmp(&(b.generation, &b.server, &b.role)));
        Ok(users)
    }
    async fn put_user(
        &self, expected: Option<UserStatus>, user: &DatabaseUser, writer: FencingToken,
    ) -> Result<(), StoreError> {
        self.lock_for(Some(writer))?.put_user(expected, user)
    }
    async fn put_retiring(&self, user: &DatabaseUser, after: Duration, writer: FencingToken) -> Result<(), StoreError> {
        rules::check_retiring(user)?;
        self.lock_for(Some(writer))?.put_retiring(user, after)
    }
    async fn retiring(&self, limit: u32) -> Result<Rows<Retirement>, StoreError> {
        Ok(self.state().retiring(limit).into())
    }
    async fn retiring_after(
        &self, after: Option<(&ServerName, &RoleName)>, limit: u32,
    ) -> Result<Rows<Retirement>, StoreError> {
        let mut all = self.state().retiring(u32::MAX);
        let key = |found: &Retirement| (found.user.server.clone(), found.user.role.clone());
        all.sort_by_key(key);
        let follows =
            |found: &Retirement| after.is_none_or(|(server, role)| key(found) > (server.clone(), role.clone()));
        Ok(all.into_iter().filter(follows).take(limit as usize).collect::<Vec<_>>().into())
    }
    async fn take_retirements(&self, limit: u32, hold: Duration) -> Result<Rows<Retirement>, StoreError> {
        Ok(self.state().take_retirements(limit, hold).into())
    }
    async fn settle_retirement(
        &self, user: &DatabaseUser, left: Option<(&str, Duration)>, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        self.lock_for(writer)?.settle_retirement(user, left);
        Ok(())
    }
}

#[async_trait]
impl ServerRegistry for MemoryRegistry {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), StoreError> {
        self.raise_epoch(operation, epoch)
    }
    async fn installation(&self) -> Result<Uuid, StoreError> {
        Ok(self.state().installation)
    }
    async fn server(&self, name: &ServerName) -> Result<Option<ServerLoad>, StoreError> {
        let state = self.state();
        Ok(state.servers.get(name).map(|server| state.load(server)))
    }
    async fn servers(&self) -> Result<Rows<ServerLoad>, StoreError> {
        let state = self.state();
        Ok(state.servers.values().map(|server| state.load(server)).collect())
    }
    async fn put_server(
        &self, expected: Option<&DatabaseServer>, server: &DatabaseServer, writer: Option<FencingToken>,
    ) -> Result<(), StoreError> {
        rules::check_server_change(expected, server)?;
        self.lock_for(writer)?.put_server(expected, server)
    }
    async fn remove_server(&self, name: &ServerName, writer: Option<FencingToken>) -> Result<(), StoreError> {
        self.lock_for(writer)?.remove_server(name)
    }
    async fn placement(&self, tenant: TenantId) -> Result<Option<Placement>, StoreError> {
        Ok(self.state().placements.get(&tenant).cloned())
    }
    async fn placements_on(
        &self, server: &ServerName, after: Option<&DatabaseName>, limit: u32,
    ) -> Result<Rows<Placement>, StoreError> {
        Ok(self.state().placements_on(server, after, limit).into())
    }
    async fn reserve(&self, placement: &Placement, writer: FencingToken) -> Result<(), StoreError> {
        self.lock_for(Some(writer))?.reserve(placement)
    }
    async fn release(&self, tenant: TenantId, writer: FencingToken) -> Result<(), StoreError> {
        self.lock_for(Some(writer))?.placements.remove(&tenant);
        Ok(())
    }
}
