//! State of one worker of a lifecycle operation.
//!
//! The engine makes a new [`LifecycleContext`] for each worker and after each error. Its steps read the tenant, its
//! logins and its placement from the stores each time, because they may change between steps.
use crate::cluster::pg::ddl;
use crate::cluster::{LockedSession, OperationContext, TenantSessions};
use crate::directory::{AppAccess, UserStatus};
use crate::error::StepError;
use crate::names::RoleName;
use crate::names::TenantNames;
use crate::operation::OperationStatus;
use crate::saga::Execution;
use crate::store::journal;
use crate::tenant::{Tenant, TenantId};

/// Stores and sessions of one worker of a lifecycle operation.
pub(crate) struct LifecycleContext {
    pub(super) stores: OperationContext,
    pub(super) tenant: TenantId,
    access: AppAccess,
    sessions: TenantSessions,
}

impl LifecycleContext {
    pub(super) fn new(stores: OperationContext, access: AppAccess, run: &Execution) -> Result<Self, StepError> {
        let sessions = TenantSessions::new(stores.clone(), run)?;
        Ok(Self { stores, tenant: sessions.tenant(), access, sessions })
    }

    /// Reads the tenant from the registry.
    pub(super) async fn tenant(&self) -> Result<Tenant, StepError> {
        let unknown = || StepError::fail(format!("tenant {} is not in the registry", self.tenant));
        self.stores.registry.find(self.tenant.into()).await?.ok_or_else(unknown)
    }

    /// The tenant's database and role names. `None` if the tenant has no placement, and so nothing on any server.
    pub(super) async fn names(&mut self) -> Result<Option<TenantNames>, StepError> {
        Ok(self.sessions.try_location().await?.map(|location| location.names.clone()))
    }

    /// This worker's session on the tenant's server, which holds the tenant's lock.
    pub(super) async fn locked_session(&mut self, run: &Execution) -> Result<&mut LockedSession, StepError> {
        self.sessions.locked_session(run).await
    }

    /// Every login that was ever stored for the tenant, dropped ones included: a login that the registry calls dropped
    /// may still exist on the server.
    pub(super) async fn logins(&self) -> Result<Vec<RoleName>, StepError> {
        let users = self.stores.registry.users(self.tenant).await?;
        Ok(users.into_iter().map(|u| u.role).collect())
    }

    /// The group role that an admitted login acts as.
    pub(super) fn acts_as(&self, names: &TenantNames) -> RoleName {
        ddl::acts_as(&names.roles, self.access).clone()
    }

    /// Logins of other operations on this tenant that are open and not parked. They may have sessions although the
    /// tenant is closed.
    pub(super) async fn exempt_logins(&self, run: &Execution) -> Result<Vec<RoleName>, StepError> {
        let history = run.journal().history(run.subject()).await?;
        let open = history.iter().filter(|r| !r.status.is_over() && r.status != OperationStatus::Parked);
        Ok(open.filter(|r| r.id != run.operation()).flat_map(journal::temporary_logins).collect())
    }

    /// The login of the current generation, if the tenant has one.
    pub(super) async fn current_login(&self) -> Result<Option<RoleName>, StepError> {
        let users = self.stores.registry.users(self.tenant).await?;
        Ok(users.into_iter().find(|u| u.status == UserStatus::Active).map(|u| u.role))
    }
}
