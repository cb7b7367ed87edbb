//! State of one worker of a relocation, and its checks of the old and the new address.
//!
//! The row gets the new address only after both addresses were checked in the same step, so a worker never relies on a
//! check that another worker has made. Each check opens a session of its own.
use super::Request;
use crate::cluster::pg::mark;
use crate::cluster::pg::session::{self, Purpose, Target};
use crate::cluster::{OperationContext, application_name};
use crate::error::{ClusterError, RelocateError, StepError, StoreError};
use crate::operations::servers::address::Address;
use crate::saga::Execution;
use crate::secret::CredentialId;
use crate::server::DatabaseServer;
use sqlx::PgConnection;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit for all queries to one address, after the login. The login itself may take another ten seconds.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// The stores, and the request of the operation.
pub(in crate::operations::servers) struct RelocateContext {
    stores: OperationContext,
    request: Request,
}

impl RelocateContext {
    pub(super) fn new(stores: OperationContext, run: &Execution) -> Result<Self, StepError> {
        Ok(Self { stores, request: run.request()? })
    }

    pub(super) async fn park(&self, run: &Execution) -> Result<(), StepError> {
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
    pub(super) async fn relocate(&self, run: &Execution) -> Result<bool, StepError> {
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

    /// Undo of the step that changes the row: restores the old address. The row has the new address here only if the
    /// outcome of the write was unknown.
    pub(super) async fn restore_row(&self, run: &Execution) -> Result<(), StepError> {
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
        // The request comes from the journal, which is not authenticated.
        self.stores.verified.policy().check(&host, moved.tls).map_err(StoreError::Untrusted)?;
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
