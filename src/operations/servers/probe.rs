//! The saga of a relocation: its steps, and the checks that they run against the old and the new address.
//!
//! `relocate.rs` drives it, and recovery continues it. The row gets the new address only after both addresses were
//! checked in the same step, so a worker never relies on a check that another worker has made.
use super::address::Address;
use super::relocate::{KIND, MOVE, Request};
use crate::cluster::pg::mark;
use crate::cluster::pg::session::{self, Purpose, Target};
use crate::cluster::{OperationContext, application_name};
use crate::error::{ClusterError, RelocateError, StepError, StoreError};
use crate::operation::{Lane, OperationStatus};
use crate::saga::{Execution, Saga, SagaStep};
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use async_trait::async_trait;
use serde_json::Value;
use sqlx::PgConnection;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for all queries to one address, after the login. The login itself may take another ten seconds.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// The ordered steps of a relocation.
pub(super) struct RelocateSaga {
    stores: OperationContext,
    steps: Vec<Box<dyn SagaStep<RelocateContext>>>,
}

impl RelocateSaga {
    pub(super) fn new(stores: OperationContext) -> Self {
        let steps = [Step::Park, Step::Move, Step::Resume];
        Self { stores, steps: steps.map(|s| Box::new(s) as Box<dyn SagaStep<RelocateContext>>).into() }
    }
}

impl Saga for RelocateSaga {
    type Context = RelocateContext;
    fn kind(&self) -> &'static str {
        KIND
    }
    fn steps(&self) -> &[Box<dyn SagaStep<RelocateContext>>] {
        &self.steps
    }
    /// The step after the change of the row. Until its intent is committed a failure undoes the relocation.
    fn pivot_index(&self) -> usize {
        2
    }
    fn context(&self, run: &Execution) -> Result<RelocateContext, StepError> {
        Ok(RelocateContext { stores: self.stores.clone(), request: run.request()? })
    }
}

/// State of one worker of a relocation. Each check opens a session of its own.
pub(super) struct RelocateContext {
    stores: OperationContext,
    request: Request,
}

#[derive(Clone, Copy)]
enum Step {
    /// Parks an open change of the server and raises the epoch in all stores, so that its worker can no longer write.
    Park,
    /// Checks both addresses and changes the row to the new one. Both are one step, so that a worker never relies on a
    /// check that an earlier worker made.
    Move,
    /// Resumes the parked change, which continues at the new address.
    Resume,
}

#[async_trait]
impl SagaStep<RelocateContext> for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Park => "change.park",
            Self::Move => MOVE,
            Self::Resume => "change.resume",
        }
    }
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Move)
    }
    async fn run(&self, run: &Execution, context: &mut RelocateContext) -> Result<Value, StepError> {
        match self {
            Self::Park => context.park(run).await?,
            Self::Move => return context.relocate(run).await.map(Value::Bool),
            Self::Resume => resume(run).await?,
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut RelocateContext) -> Result<(), StepError> {
        match self {
            Self::Park => resume(run).await,
            Self::Move => context.restore_row(run).await,
            Self::Resume => Ok(()),
        }
    }
}

/// Resumes the parked operation in the server's change lane, if there is one.
async fn resume(run: &Execution) -> Result<(), StepError> {
    let history = run.journal().history(run.subject()).await?;
    let parked = history.iter().find(|r| r.lane == Lane::Change && r.status == OperationStatus::Parked);
    if let Some(record) = parked {
        run.journal().unpark(record.id, record.failure().is_some()).await?;
    }
    Ok(())
}

impl RelocateContext {
    async fn park(&self, run: &Execution) -> Result<(), StepError> {
        if let Some(parked) = run.journal().park_change(run.subject(), run.fencing_token()).await? {
            self.stores.fence(parked.fencing_token()).await?;
        }
        Ok(())
    }

    async fn read_row(&self) -> Result<DatabaseServer, StepError> {
        let unknown = || to_step_error(RelocateError::Unknown { server: self.request.server.clone() });
        Ok(self.stores.servers.server(&self.request.server).await?.ok_or_else(unknown)?.server)
    }

    /// Checks both addresses and changes the row. Returns whether the system identifiers were compared and are equal.
    async fn relocate(&self, run: &Execution) -> Result<bool, StepError> {
        let row = self.read_row().await?;
        let mut moved = self.request.to.assign_to(&row);
        moved.system_identifier = self.examine_new(run, &moved).await?;
        let compared = row.system_identifier.is_some() && row.system_identifier == moved.system_identifier;
        // An earlier worker may have changed the row and died. The row then has the new address already, and the old
        // server was checked before that.
        if !self.request.old_is_fenced && !row.is_at(&moved.host, moved.port) {
            self.examine_old(run, &row).await?;
        }
        self.put_row(run, &row, &moved).await?;
        Ok(compared)
    }

    async fn put_row(&self, run: &Execution, row: &DatabaseServer, moved: &DatabaseServer) -> Result<(), StepError> {
        let put = self.stores.servers.put_server(Some(row), moved, Some(run.fencing_token())).await;
        // The row was changed concurrently, by a new setting for example. A retry checks both addresses again.
        put.map_err(|e| if matches!(e, StoreError::Conflict(_)) { StepError::retry(e) } else { e.into() })
    }

    /// Undo of [`Step::Move`]: restores the old address. The row has the new address here only if the outcome of the
    /// write was unknown.
    async fn restore_row(&self, run: &Execution) -> Result<(), StepError> {
        let Some(load) = self.stores.servers.server(&self.request.server).await? else { return Ok(()) };
        match Address::of(&load.server) == self.request.to && self.request.to != self.request.from {
            true => self.put_row(run, &load.server, &self.request.from.assign_to(&load.server)).await,
            false => Ok(()),
        }
    }

    /// Checks the new address: it must answer, have this installation's mark for the server, not be a standby, and have
    /// the expected system identifier. Returns that identifier.
    async fn examine_new(&self, run: &Execution, moved: &DatabaseServer) -> Result<Option<i64>, StepError> {
        let (host, port) = (moved.host.clone(), moved.port);
        let opened = self.open(run, moved).await?;
        let unreachable =
            |e| to_step_error(RelocateError::Unreachable { host: host.clone(), port, source: Box::new(e) });
        let mut session = opened.map_err(unreachable)?;
        let installation = self.stores.servers.installation().await?;
        let answers = limit_time(async {
            let marked = mark::is_marked(&mut session, installation, &moved.name).await?;
            let is_standby = mark::is_in_recovery(&mut session).await?;
            Ok((marked, is_standby, mark::system_identifier(&mut session).await?))
        });
        let unexamined = |e| to_step_error(RelocateError::Unexamined { host: host.clone(), port, source: Box::new(e) });
        let (marked, is_standby, identifier) = answers.await.map_err(unexamined)?;
        session::close(session).await;
        match (marked, is_standby) {
            (false, _) => {
                let (server, database) = (moved.name.clone(), moved.names.maintenance.clone());
                Err(to_step_error(RelocateError::NoMark { server, host, port, database }))
            }
            (true, true) => Err(to_step_error(RelocateError::Standby { host, port })),
            (true, false) => self.compare(moved, identifier).map_err(to_step_error),
        }
    }

    /// Fails if the stored and the found system identifier differ. Equal identifiers do not prove that this is the
    /// right server, because a standby has the identifier of its primary.
    fn compare(&self, moved: &DatabaseServer, found: Option<i64>) -> Result<Option<i64>, RelocateError> {
        match (moved.system_identifier, found) {
            _ if self.request.replaced => Ok(found),
            (Some(stored), Some(found)) if stored != found => Err(RelocateError::OtherCluster { stored, found }),
            (Some(_), None) => Err(RelocateError::IdentifierUnseen { host: moved.host.clone(), port: moved.port }),
            (_, found) => Ok(found),
        }
    }

    /// Fails if a server that takes writes still answers at the old address. A server that cannot be reached passes. A
    /// server that answers but cannot be checked counts as writable.
    async fn examine_old(&self, run: &Execution, row: &DatabaseServer) -> Result<(), StepError> {
        let (host, port) = (row.host.clone(), row.port);
        let unseen = |e| to_step_error(RelocateError::OldUnseen { host: host.clone(), port, source: Box::new(e) });
        let mut session = match self.open(run, row).await? {
            Ok(session) => session,
            Err(error) if is_silence(&error) => return Ok(()),
            Err(error) => return Err(unseen(error)),
        };
        let is_standby = limit_time(mark::is_in_recovery(&mut session)).await;
        session::close(session).await;
        match is_standby.map_err(unseen)? {
            true => Ok(()),
            false => Err(to_step_error(RelocateError::OldAnswers { host, port })),
        }
    }

    /// Opens a session of the provisioner in the maintenance database, and then checks that this worker's epoch is the
    /// newest. The outer error is the epoch's, the inner one the server's.
    async fn open(
        &self, run: &Execution, server: &DatabaseServer,
    ) -> Result<Result<PgConnection, ClusterError>, StepError> {
        let role = &server.login;
        let password =
            self.stores.vault.open(&CredentialId::provisioner(&server.name, role, server.secret_version)).await?;
        let (database, name) = (&server.names.maintenance, application_name(run));
        let purpose = Purpose::Cluster;
        let target = Target { server, database, role, password: &password, application_name: &name, purpose };
        let opened = target.open().await;
        run.check().await?;
        Ok(opened)
    }
}

fn to_step_error(error: RelocateError) -> StepError {
    StepError::fail(error)
}

async fn limit_time<T>(queries: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    let timed_out = |_| ClusterError::Deadline { phase: "querying a cluster", limit: QUERY_LIMIT };
    timeout(QUERY_LIMIT, queries).await.map_err(timed_out)?
}

/// Whether no server answered: the port is closed, the host does not exist, or there was no answer in time. A
/// connection that a server or a firewall cut while it was being opened counts as an answer.
fn is_silence(error: &ClusterError) -> bool {
    match error {
        ClusterError::Deadline { .. } => true,
        ClusterError::Connect { source: sqlx::Error::Io(error), .. } => {
            let cut = [
                ErrorKind::ConnectionReset,
                ErrorKind::ConnectionAborted,
                ErrorKind::BrokenPipe,
                ErrorKind::UnexpectedEof,
                ErrorKind::PermissionDenied,
            ];
            !cut.contains(&error.kind())
        }
        _ => false,
    }
}
