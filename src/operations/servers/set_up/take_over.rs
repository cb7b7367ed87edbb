//! What a set-up does about an open operation of its server, which would make it wait for ever.
//!
//! A set-up that a dead process left is undone. A rotation of the provisioner's passwords, or a relocation, that could
//! not log in is ended after its logins were repaired: the set-up is the one call that has the server admin's session.
//!
//! Invariant: an operation that a worker is driving is left alone. Another one is claimed before anything is repaired,
//! so a worker that was only stopped cannot change a password afterwards.
use super::admin::error_on_server;
use super::context::{Work, connect_admin, marker};
use super::{ServerSetup, busy};
use crate::cluster::pg::{bootstrap, scram, session, terminate};
use crate::error::{ServerSetupError, StoreError};
use crate::operation::{FencingToken, OperationId, OperationStatus};
use crate::saga::{AnySaga, Engine, Observer};
use crate::server::DatabaseServer;
use crate::store::journal::{Claim, Progress, Record};

/// The reason why a set-up was not driven.
pub(super) enum Obstacle {
    /// Another operation of the server was open and has been ended. It may have changed the server's row.
    EndedAnother,
    Error(ServerSetupError),
}
impl From<ServerSetupError> for Obstacle {
    fn from(error: ServerSetupError) -> Self {
        Self::Error(error)
    }
}
impl From<Obstacle> for ServerSetupError {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Error(error) => error,
            Obstacle::EndedAnother => {
                StoreError::contended("other operations on this server began concurrently").into()
            }
        }
    }
}

impl ServerSetup {
    /// Ends the open operation of the server, unless a worker is driving it.
    ///
    /// # Errors
    /// `EndedAnother` if it was no set-up. `Busy` if a worker is driving it, if it could not be ended, or if this
    /// version of the program does not know it.
    pub(super) async fn end_idle(&self, work: &Work, saga: &dyn AnySaga, id: OperationId) -> Result<(), Obstacle> {
        let record = self.servers.engine.journal().read(id).await.map_err(ServerSetupError::from)?;
        let Some(record) = record.filter(|record| !record.status.is_over()) else { return Ok(()) };
        if record.kind == saga.kind() {
            return Ok(self.undo_abandoned(work, saga, record).await?);
        }
        let sagas = [self.servers.saga(), self.servers.relocation_saga()];
        let other = sagas.iter().find(|saga| saga.kind() == record.kind && work.admin.is_some());
        let other = other.ok_or_else(|| busy(&record))?;
        if record.status == OperationStatus::Parked {
            let resumed = self.servers.engine.journal().resume_parked(id).await;
            resumed.map_err(ServerSetupError::from)?;
        }
        let Some(claimed) = self.claim_idle(&record).await? else { return Err(Obstacle::EndedAnother) };
        self.terminate_sessions(work, id).await?;
        self.repair_logins(work, claimed.fencing_token()).await?;
        let driven = other.drive(&self.servers.engine, claimed, &Observer::none()).await;
        let ended = driven.map_err(ServerSetupError::from)?.record;
        match ended.status.is_over() {
            true => Err(Obstacle::EndedAnother),
            false => Err(busy(&ended).into()),
        }
    }

    /// Undoes a set-up that a dead process left open. What that one created on the server stays, and the new set-up
    /// uses it.
    async fn undo_abandoned(&self, work: &Work, saga: &dyn AnySaga, record: Record) -> Result<(), ServerSetupError> {
        let engine = &self.servers.engine;
        // An earlier undo has failed. This call has the admin's session, and the obstacle may be gone.
        if record.status == OperationStatus::Parked {
            engine.journal().undo_parked(record.id).await?;
        }
        let Some(record) = self.claim_idle(&record).await? else { return Ok(()) };
        self.terminate_sessions(work, record.id).await?;
        let undoing = Progress::start_undo(&record, engine.settings().lease);
        engine.journal().record(record.fencing_token(), &undoing).await?;
        let record = Record { status: OperationStatus::Undoing, ..record };
        saga.drive(engine, record, &Observer::none()).await?;
        Ok(())
    }

    /// Claims an operation that no worker drives. One that is parked or waits for its next attempt is claimed in the
    /// name of its last worker, because the waiting time does not apply to that one. `None` if it has ended.
    async fn claim_idle(&self, record: &Record) -> Result<Option<Record>, ServerSetupError> {
        let (journal, lease) = (self.servers.engine.journal(), self.servers.engine.settings().lease);
        let worker = if record.is_settled() { record.worker.clone() } else { Engine::new_worker() };
        match journal.claim(record.id, &worker, lease).await? {
            Claim::Taken(claimed) => Ok(Some(*claimed)),
            Claim::Held(record) => Err(busy(&record)),
            Claim::Over(_) => Ok(None),
        }
    }

    /// Terminates the sessions of the open operation, so that a worker that was only suspended cannot continue behind
    /// this one.
    async fn terminate_sessions(&self, work: &Work, id: OperationId) -> Result<(), ServerSetupError> {
        let Some(admin) = &work.admin else { return Ok(()) };
        let mut session = connect_admin(admin).await.map_err(error_on_server)?;
        let terminated = terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{id}/")).await;
        session::close(session).await;
        terminated.map_err(error_on_server)
    }

    /// Gives both logins the passwords of the version in the server's row. A rotation continues from there, in either
    /// direction: before its flip that is the old version, after it the new one.
    async fn repair_logins(&self, work: &Work, by: FencingToken) -> Result<(), ServerSetupError> {
        let Some(admin) = &work.admin else { return Ok(()) };
        let DatabaseServer { names, .. } = &work.server;
        let stored = self.servers.find(work.server.name.as_str()).await?.server;
        let (blue, green) = self.open_passwords(&stored).await?;
        let (blue, green) = (scram::derive_verifier(&blue).await, scram::derive_verifier(&green).await);
        let marker = marker(self.servers.stores.servers.installation().await?);
        let mut session = connect_admin(admin).await.map_err(error_on_server)?;
        self.servers.engine.journal().check(by).await?;
        let repaired = bootstrap::ensure_roles(&mut session, names, [&blue, &green], &marker).await;
        session::close(session).await;
        repaired.map_err(error_on_server)
    }
}
