//! The steps of a relocation, and what they ask both addresses.
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

/// For all questions to one address after the login; a login has ten seconds of its own.
const ANSWERS: Duration = Duration::from_secs(10);

/// The plain list of its steps.
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
    /// The address has changed.
    fn pivot_index(&self) -> usize {
        2
    }
    fn context(&self, run: &Execution) -> Result<RelocateContext, StepError> {
        Ok(RelocateContext { stores: self.stores.clone(), request: run.request()? })
    }
}

pub(super) struct RelocateContext {
    stores: OperationContext,
    request: Request,
}

#[derive(Clone, Copy)]
enum Step {
    /// An open change of the server stops: its worker can write nothing any more.
    Park,
    /// Both addresses are examined, and the row gets the new one, in one step: an examination is never older than the
    /// worker that relies on it.
    Move,
    /// The parked change continues, at the new address.
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
            Self::Move => context.put_back(run).await,
            Self::Resume => Ok(()),
        }
    }
}

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
        let unknown = || refuse(RelocateError::Unknown { server: self.request.server.clone() });
        Ok(self.stores.servers.server(&self.request.server).await?.ok_or_else(unknown)?.server)
    }

    /// Answers whether the system identifiers were compared.
    async fn relocate(&self, run: &Execution) -> Result<bool, StepError> {
        let row = self.read_row().await?;
        let mut moved = self.request.to.assign_to(&row);
        moved.system_identifier = self.examine_new(run, &moved).await?;
        let compared = row.system_identifier.is_some() && row.system_identifier == moved.system_identifier;
        // The worker before this one may have changed the row and died.
        if !self.request.old_is_fenced && !row.is_at(&moved.host, moved.port) {
            self.examine_old(run, &row).await?;
        }
        self.put(run, &row, &moved).await?;
        Ok(compared)
    }

    async fn put(&self, run: &Execution, row: &DatabaseServer, moved: &DatabaseServer) -> Result<(), StepError> {
        let put = self.stores.servers.put_server(Some(row), moved, Some(run.fencing_token())).await;
        // A setting was changed in between: everything is examined again.
        put.map_err(|e| if matches!(e, StoreError::Conflict(_)) { StepError::retry(e) } else { e.into() })
    }

    /// Only where the outcome of the write is unknown does the row have the new address here.
    async fn put_back(&self, run: &Execution) -> Result<(), StepError> {
        let Some(load) = self.stores.servers.server(&self.request.server).await? else { return Ok(()) };
        match Address::of(&load.server) == self.request.to && self.request.to != self.request.from {
            true => self.put(run, &load.server, &self.request.from.assign_to(&load.server)).await,
            false => Ok(()),
        }
    }

    /// The system identifier at the new address, after everything that speaks against it was looked for.
    async fn examine_new(&self, run: &Execution, moved: &DatabaseServer) -> Result<Option<i64>, StepError> {
        let (host, port) = (moved.host.clone(), moved.port);
        let opened = self.open(run, moved).await?;
        let mut session =
            opened.map_err(|e| refuse(RelocateError::Unreachable { host: host.clone(), port, source: Box::new(e) }))?;
        let installation = self.stores.servers.installation().await?;
        let asked = limit_time(async {
            let marked = mark::is_marked(&mut session, installation, &moved.name).await?;
            let recovers = mark::is_in_recovery(&mut session).await?;
            Ok((marked, recovers, mark::system_identifier(&mut session).await?))
        });
        let unexamined = |e| refuse(RelocateError::Unexamined { host: host.clone(), port, source: Box::new(e) });
        let (marked, recovers, identifier) = asked.await.map_err(unexamined)?;
        session::close(session).await;
        match (marked, recovers) {
            (false, _) => {
                let (server, database) = (moved.name.clone(), moved.names.maintenance.clone());
                Err(refuse(RelocateError::NoMark { server, host, port, database }))
            }
            (true, true) => Err(refuse(RelocateError::Standby { host, port })),
            (true, false) => self.compare(moved, identifier).map_err(refuse),
        }
    }

    /// Equal identifiers prove nothing: a promoted standby has its primary's. Different ones are a reason to stop.
    fn compare(&self, moved: &DatabaseServer, found: Option<i64>) -> Result<Option<i64>, RelocateError> {
        match (moved.system_identifier, found) {
            _ if self.request.replaced => Ok(found),
            (Some(stored), Some(found)) if stored != found => Err(RelocateError::OtherCluster { stored, found }),
            (Some(_), None) => Err(RelocateError::IdentifierUnseen { host: moved.host.clone(), port: moved.port }),
            (_, found) => Ok(found),
        }
    }

    /// Nothing must answer at the old address that takes writes. What cannot be reached does not answer; what answers and
    /// cannot be judged counts as writable.
    async fn examine_old(&self, run: &Execution, row: &DatabaseServer) -> Result<(), StepError> {
        let (host, port) = (row.host.clone(), row.port);
        let unseen = |e| refuse(RelocateError::OldUnseen { host: host.clone(), port, source: Box::new(e) });
        let mut session = match self.open(run, row).await? {
            Ok(session) => session,
            Err(error) if is_silence(&error) => return Ok(()),
            Err(error) => return Err(unseen(error)),
        };
        let recovers = limit_time(mark::is_in_recovery(&mut session)).await;
        session::close(session).await;
        match recovers.map_err(unseen)? {
            true => Ok(()),
            false => Err(refuse(RelocateError::OldAnswers { host, port })),
        }
    }

    /// As the provisioner, in the maintenance database. The epoch is asked for afterwards.
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

fn refuse(error: RelocateError) -> StepError {
    StepError::fail(error)
}

async fn limit_time<T>(asked: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    let late = |_| ClusterError::Deadline { phase: "asking a cluster", limit: ANSWERS };
    timeout(ANSWERS, asked).await.map_err(late)?
}

/// Whether nothing answered: the port is closed, the host is not there, or no answer came in time. A session that was cut
/// while it began is an answer.
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
