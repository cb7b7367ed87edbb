//! State of one worker of a repair: its session on the tenant's server, or on the server that is its subject.
//!
//! The engine makes a new [`RepairContext`] for each worker and after each error.
use super::{RepairTools, Request};
use crate::cluster::pg::ddl;
use crate::cluster::{LockedSession, TenantLocation, TenantSessions};
use crate::directory::AppAccess;
use crate::doctor::action::Repair;
use crate::doctor::finding::Finding;
use crate::error::StepError;
use crate::names::{RoleName, TenantNames};
use crate::operation::Subject;
use crate::saga::Execution;
use crate::store::registry::TenantRegistry;
use crate::tenant::{TenantId, TenantStatus};

/// What the steps of a repair need, and the sessions of its worker.
pub(crate) struct RepairContext {
    pub(super) tools: RepairTools,
    /// The finding whose repair is done.
    pub(super) finding: Finding,
    /// `None` unless the subject is a tenant.
    pub(super) sessions: Option<TenantSessions>,
    /// The session on the server that is the subject.
    server: Option<LockedSession>,
}

impl RepairContext {
    pub(super) fn new(tools: RepairTools, run: &Execution) -> Result<Self, StepError> {
        let Request { finding, .. } = run.request()?;
        let sessions = match run.subject() {
            Subject::Tenant(_) => Some(TenantSessions::new(tools.stores.clone(), run)?),
            _ => None,
        };
        Ok(Self { tools, finding, sessions, server: None })
    }

    /// The repair of the finding.
    pub(super) fn repair(&self) -> Result<Repair, StepError> {
        self.finding.repair.clone().ok_or_else(|| StepError::fail("the finding of this operation has no repair"))
    }

    /// Takes the lock of the subject, if the repair changes something on a server, so that no other worker changes it
    /// between the examination and the repair.
    pub(super) async fn take_lock(&mut self, run: &Execution) -> Result<(), StepError> {
        match run.subject() {
            Subject::Tenant(_) if self.repair()?.is_landlord_only() => Ok(()),
            Subject::Tenant(_) => self.locked_session(run).await.map(drop),
            Subject::Server(_) => self.server_session(run).await.map(drop),
            _ => Ok(()),
        }
    }

    /// The tenant that is the subject.
    pub(super) fn tenant(&self, run: &Execution) -> Result<TenantId, StepError> {
        run.subject().tenant().ok_or_else(|| StepError::fail("the subject of this repair is not a tenant"))
    }

    /// The location of the tenant that is the subject.
    pub(super) async fn location(&mut self) -> Result<TenantLocation, StepError> {
        let none = || StepError::fail("the subject of this repair is not a tenant");
        Ok(self.sessions.as_mut().ok_or_else(none)?.location().await?.clone())
    }

    /// This worker's session on the tenant's server, which has the tenant's lock.
    pub(super) async fn locked_session(&mut self, run: &Execution) -> Result<&mut LockedSession, StepError> {
        let none = || StepError::fail("the subject of this repair is not a tenant");
        self.sessions.as_mut().ok_or_else(none)?.locked_session(run).await
    }

    /// This worker's session on the server that is the subject, which has the server's lock.
    pub(super) async fn server_session(&mut self, run: &Execution) -> Result<&mut LockedSession, StepError> {
        if self.server.is_none() {
            let Subject::Server(name) = run.subject() else {
                return Err(StepError::fail("the subject of this repair is not a server"));
            };
            let unknown = || StepError::fail("the server is no longer registered");
            let load = self.tools.stores.servers.server(name).await?.ok_or_else(unknown)?;
            self.server = Some(self.tools.stores.open_on_server(run, load.server).await?);
        }
        self.server.as_mut().ok_or_else(|| StepError::retry("the session on the server was not opened"))
    }

    /// The group role as which the application's logins act; `app` if this program does not know it.
    pub(super) fn group_role(&self, names: &TenantNames) -> RoleName {
        ddl::acts_as(&names.roles, self.tools.expected.access.unwrap_or(AppAccess::App)).clone()
    }

    /// Fails unless the tenant is active: a suspension may have parked this operation since the examination, and an
    /// administrator may have resumed it while the tenant is still suspended.
    pub(super) async fn require_active(&self, run: &Execution) -> Result<(), StepError> {
        let id = self.tenant(run)?;
        let unknown = || StepError::fail(format!("tenant {id} is not in the registry"));
        let tenant = self.tools.stores.registry.find(id.into()).await?.ok_or_else(unknown)?;
        match tenant.status() {
            TenantStatus::Active => Ok(()),
            found => Err(StepError::fail(format!("the tenant is {found}, so its database and logins stay closed"))),
        }
    }
}
