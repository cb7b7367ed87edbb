//! Begins temporary logins and reads their results. The facade makes an [`IssueLogin`].
use super::context::TemporaryLoginContext;
use super::passwords::Passwords;
use super::{LIFETIME, LONGEST_LIFETIME, RECORD, RecordedLogin, Request, SHORTEST_LIFETIME, TemporaryLogin, saga};
use crate::cluster::{GeneratedPassword, OperationContext, require_done};
use crate::error::{ChangeError, StoreError};
use crate::operation::{OperationId, Subject};
use crate::operations::managed::{find_primary, require_managed};
use crate::operations::rotate::Rotation;
use crate::operations::verb::{CallVerb, require_active};
use crate::saga::{AnySaga, CallOptions, Engine, NewOperation, Outcome, Saga, Started};
use crate::server::{DatabaseServer, TlsMode};
use crate::store::journal::{Begun, Record};
use crate::tenant::{TenantId, TenantRef};
use async_trait::async_trait;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Type parameter of `Call` for [`temporary_login`](crate::Tenantry::temporary_login); not used directly.
pub struct IssueLogin {
    tenant: TenantRef<'static>,
    pub(crate) lifetime: Duration,
    pub(crate) read_only: bool,
}
impl IssueLogin {
    pub(crate) fn new(tenant: TenantRef<'_>) -> Self {
        Self { tenant: tenant.into_owned(), lifetime: LIFETIME, read_only: true }
    }
}

#[async_trait]
impl CallVerb for IssueLogin {
    type Driver = TemporaryLogins;
    type Answer = TemporaryLogin;
    type Error = ChangeError;
    async fn begin(self, driver: &TemporaryLogins, options: &CallOptions) -> Result<Started, ChangeError> {
        let lifetime = self.lifetime;
        if !(SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) {
            return Err(ChangeError::Lifetime { lifetime });
        }
        let TemporaryLogins { stores, engine, saga, .. } = driver;
        let found = stores.registry.find(self.tenant).await?.ok_or(ChangeError::Unknown)?;
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let request = Request { tenant: found.id(), lifetime_ms, read_only: self.read_only };
        let intent = engine.intent(saga, Subject::Tenant(found.id()), &request, options)?;
        let password = Arc::new(GeneratedPassword::generate().await);
        let check = async {
            require_active(&found)?;
            require_managed(stores, found.id()).await
        };
        Ok(match engine.commit(&intent, check).await? {
            Begun::New(record) => {
                driver.passwords.lend(record.id, &password);
                // The cell is empty: a call begins once.
                let _ = driver.own.set((record.id, password));
                Started::New(NewOperation::new(saga.clone(), record, None))
            }
            Begun::Joined(record) => Started::Joined(record),
        })
    }
    async fn answer(driver: &TemporaryLogins, outcome: Outcome) -> Result<TemporaryLogin, ChangeError> {
        let record = require_done(outcome)?;
        let lost = ChangeError::PasswordNotStored { operation: record.id };
        let (_, password) = driver.own.get().filter(|(operation, _)| *operation == record.id).ok_or(lost)?;
        driver.read_login(&record, password).await
    }
}

/// Begins temporary logins and ends them. If one of its futures is dropped, the work stops there, and recovery undoes it
/// after the lease.
#[derive(Clone)]
pub struct TemporaryLogins {
    pub(super) stores: OperationContext,
    engine: Engine,
    pub(super) rotation: Rotation,
    saga: Arc<Saga<TemporaryLoginContext>>,
    passwords: Passwords,
    /// The operation that this call has begun, and its password.
    own: Arc<OnceLock<(OperationId, Arc<GeneratedPassword>)>>,
}

impl TemporaryLogins {
    /// Creates the driver over these stores. `rotation` has the queue that drops the logins, and their rights.
    pub(crate) fn new(stores: OperationContext, engine: Engine, rotation: Rotation) -> Self {
        let passwords = Passwords::default();
        let saga = Arc::new(saga::define(stores.clone(), rotation.login().access, passwords.clone()));
        Self { stores, engine, rotation, saga, passwords, own: Arc::default() }
    }
    /// The saga, for a [`Recoverer`](crate::saga::Recoverer).
    pub(crate) fn saga(&self) -> Arc<dyn AnySaga> {
        self.saga.clone()
    }
    /// A driver for one call, which keeps the password of that call.
    pub(crate) fn for_one_call(&self) -> Self {
        Self { own: Arc::default(), ..self.clone() }
    }

    async fn read_login(&self, record: &Record, password: &GeneratedPassword) -> Result<TemporaryLogin, ChangeError> {
        let id: TenantId = record.subject.tenant().ok_or(ChangeError::Unknown)?;
        let tenant = self.stores.registry.find(id.into()).await?.ok_or(ChangeError::Unknown)?;
        let RecordedLogin { server, database, login, expires_at } = read_recorded(record)?;
        let unknown = || ChangeError::UnknownServer { server: server.to_string() };
        let server = self.stores.servers.server(&server).await?.ok_or_else(unknown)?.server;
        let request: Request = serde_json::from_value(record.request.clone()).map_err(StoreError::corrupt)?;
        let tls = self.read_tls(id, &server).await?;
        Ok(TemporaryLogin {
            operation: record.id,
            tenant,
            host: server.host,
            port: server.port,
            database,
            login,
            password: password.password.clone(),
            expires_at,
            read_only: request.read_only,
            tls,
            root_certificate: server.root_certificate,
        })
    }
    /// The encryption that the application's own connections have.
    async fn read_tls(&self, tenant: TenantId, server: &DatabaseServer) -> Result<TlsMode, StoreError> {
        let entries = self.stores.registry.databases(tenant).await?;
        let located = find_primary(&entries).map(|entry| server.locate(entry.clone()));
        Ok(located.and_then(|entry| entry.settings.tls).unwrap_or(server.tls))
    }
}

/// The login that the operation has recorded.
pub(super) fn read_recorded(record: &Record) -> Result<RecordedLogin, StoreError> {
    let value = record.outputs.get(RECORD).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(StoreError::corrupt)
}
