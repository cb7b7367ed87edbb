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

/// What one worker of a lifecycle operation holds.
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

    /// The tenant as it stands now.
    pub(super) async fn tenant(&self) -> Result<Tenant, StepError> {
        let gone = || StepError::fail("the tenant is gone");
        self.stores.registry.find(self.tenant.into()).await?.ok_or_else(gone)
    }

    /// Its names on a server; `None` if it has no place there, and so nothing of ours.
    pub(super) async fn names(&mut self) -> Result<Option<TenantNames>, StepError> {
        Ok(self.sessions.try_location().await?.map(|place| place.names.clone()))
    }

    /// This worker's hold of the tenant's server.
    pub(super) async fn locked_session(&mut self, run: &Execution) -> Result<&mut LockedSession, StepError> {
        self.sessions.locked_session(run).await
    }

    /// Every login that was ever made for the tenant: one that is said to be dropped may still exist.
    pub(super) async fn logins(&self) -> Result<Vec<RoleName>, StepError> {
        let users = self.stores.registry.users(self.tenant).await?;
        Ok(users.into_iter().map(|u| u.role).collect())
    }

    /// The group role that a login acts as which is let in again.
    pub(super) fn acts_as(&self, names: &TenantNames) -> RoleName {
        ddl::acts_as(&names.roles, self.access).clone()
    }

    /// Logins of operations of ours that are open now and were not parked: they may be in while the tenant is shut out.
    pub(super) async fn exempt(&self, run: &Execution) -> Result<Vec<RoleName>, StepError> {
        let history = run.journal().history(run.subject()).await?;
        let open = history.iter().filter(|r| !r.status.is_over() && r.status != OperationStatus::Parked);
        Ok(open.filter(|r| r.id != run.operation()).flat_map(journal::logins).collect())
    }

    /// The login of the current generation.
    pub(super) async fn current(&self) -> Result<Option<RoleName>, StepError> {
        let users = self.stores.registry.users(self.tenant).await?;
        Ok(users.into_iter().find(|u| u.status == UserStatus::Active).map(|u| u.role))
    }
}
