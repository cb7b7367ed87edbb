//! A server gets another address: a standby was promoted, the cluster moved, or it was replaced by its successor.
//!
//! The server's row is the only place where the address is kept, so a relocation is one compare-and-set of that row. Before
//! it the new address is examined and the old one must not answer as a writable server.
//!
//! A relocation is an operation in the preempting lane of the server. It parks an open change of the server (set-up,
//! rotation of the provisioner's passwords) and resumes it at the end, so a change that waits for a server that is gone
//! does not keep the server from being relocated. In the transaction that changes the address the landlord raises the
//! epoch of every open operation about a tenant of the server: a worker that still has a session on the old server can
//! report nothing any more, and the next worker reads the new address.
//!
//! If the process dies before that write, the address is the old one; recovery examines both addresses again. If it dies
//! after it, recovery finds the address changed, examines it once more and resumes the parked change.
use super::address::Address;
use super::{Server, Servers, server_name};
use crate::error::{FailureState, RelocateError, ServerSetupError, StoreError};
use crate::names::ServerName;
use crate::operation::{Lane, OperationId, OperationStatus, Subject};
use crate::saga::{AnySaga, Engine, Observer, Outcome, Saga};
use crate::server::TlsMode;
use crate::store::journal::{Begun, Intent, Record};
use crate::store::registry::ServerLoad;
use futures_core::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::future::IntoFuture;
use std::sync::Arc;
use uuid::Uuid;

/// The stored name of the saga.
pub(super) const KIND: &str = "relocate_server";

/// The stored name of the step that changes the row.
pub(super) const MOVE: &str = "server.move";

/// What is stored of a call. It holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) server: ServerName,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) old_is_fenced: bool,
    pub(super) replaced: bool,
}

/// What a relocation did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Relocated {
    /// The server at its new address.
    pub server: Server,
    /// Whether the system identifier was read and compared. `false`: the provisioner may not read it, or none was stored.
    pub is_same_cluster_seen: bool,
}

/// The relocation of a server: setters, then `.await`.
///
/// # Cancel safety
/// Dropping the future is like the death of the process: recovery brings the operation to its end after its lease.
#[must_use = "it does nothing until it is awaited"]
pub struct Relocate {
    servers: Servers,
    name: String,
    host: String,
    port: u16,
    tls: Option<TlsMode>,
    root_certificate: Option<String>,
    old_is_fenced: bool,
    replaced: bool,
}

impl Servers {
    /// Changes the address of a server for every tenant on it: resolvers on all nodes, operations and links go to the new
    /// one. Call it after a failover, once the standby is promoted.
    ///
    /// It logs in at the new address as the provisioner, with the stored secret, and looks for the mark that
    /// [`set_up`](Self::set_up) left in the maintenance database. A server that was last set up by a version without marks
    /// has none: call `set_up` once while it answers. If it does not any more, a DBA writes the mark into the maintenance
    /// database at the new address, as the admin role: `CREATE TABLE public.tenantry_mark (installation uuid, server
    /// text)` with one row, the id in `tenantry.installation` and the server's name.
    ///
    /// What the old server committed last is missing at the new address if the standby replicated asynchronously. Suspend or
    /// archive again what was suspended or archived in its last moments.
    ///
    /// # Errors
    /// See [`RelocateError`]; each names what to do next. The old address is asked for at most ten seconds.
    ///
    /// ```no_run
    /// # async fn example(tenantry: tenantry::Tenantry) -> Result<(), tenantry::error::RelocateError> {
    /// let moved = tenantry.servers().relocate("main", "db2.internal", 5432).await?;
    /// assert_eq!(moved.server.host, "db2.internal");
    /// # Ok(()) }
    /// ```
    pub fn relocate(&self, name: impl Into<String>, host: impl Into<String>, port: u16) -> Relocate {
        Relocate {
            servers: self.clone(),
            name: name.into(),
            host: host.into(),
            port,
            tls: None,
            root_certificate: None,
            old_is_fenced: false,
            replaced: false,
        }
    }
    /// The saga of relocations, for a [`Recoverer`](crate::saga::Recoverer).
    pub fn relocation(&self) -> Arc<dyn AnySaga> {
        self.relocation.clone()
    }
}

impl Relocate {
    /// The caller vouches that no client can write to the old server any more, so the old address is not asked. Needed
    /// where something answers there that cannot be judged, and where both addresses lead to one server.
    pub fn old_is_fenced(mut self) -> Self {
        self.old_is_fenced = true;
        self
    }
    /// The cluster at the new address is the old one's successor with another system identifier: pg_upgrade, or a restore
    /// from a dump.
    pub fn replaced(mut self) -> Self {
        self.replaced = true;
        self
    }
    /// How connections to the new address are encrypted. By default as before if the host stays the same, else
    /// `verify-full`, and `prefer` on loopback.
    pub fn tls(mut self, mode: TlsMode) -> Self {
        self.tls = Some(mode);
        self
    }
    /// The authorities to trust at the new address, PEM; those of the old one by default.
    pub fn root_certificate(mut self, pem: impl Into<String>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    async fn run(self) -> Result<Relocated, RelocateError> {
        let request = self.request().await?;
        let record = self.servers.begin_relocation(&request).await?;
        let saga = &*self.servers.relocation;
        let outcome = self.servers.engine.drive(saga, record, true, &Observer::none()).await?;
        let record = to_result(outcome)?;
        if let Some(moved) = &self.servers.on_move {
            moved().await;
        }
        let server = self.servers.load(&request.server).await?.into();
        let seen = record.outputs.get(MOVE).and_then(|output| output.as_bool());
        Ok(Relocated { server, is_same_cluster_seen: seen.unwrap_or_default() })
    }

    async fn request(&self) -> Result<Request, RelocateError> {
        let server = server_name(&self.name).map_err(|error| match error {
            ServerSetupError::Invalid { value, source, .. } => RelocateError::Invalid { value, source },
            _ => StoreError::conflict("the server's name was not read").into(),
        })?;
        let row = self.servers.load(&server).await?.server;
        if row.status != crate::server::ServerStatus::Ready {
            return Err(RelocateError::NotReady { server });
        }
        let default = if row.host == self.host { row.tls } else { TlsMode::default_for(&self.host) };
        let to = Address {
            host: self.host.clone(),
            port: self.port,
            tls: self.tls.unwrap_or(default),
            root_certificate: self.root_certificate.clone().or_else(|| row.root_certificate.clone()),
        };
        let (old_is_fenced, replaced) = (self.old_is_fenced, self.replaced);
        Ok(Request { server, from: Address::of(&row), to, old_is_fenced, replaced })
    }
}

impl Servers {
    async fn load(&self, server: &ServerName) -> Result<ServerLoad, RelocateError> {
        let unknown = || RelocateError::Unknown { server: server.clone() };
        self.stores.servers.server(server).await?.ok_or_else(unknown)
    }

    async fn begin_relocation(&self, request: &Request) -> Result<Record, RelocateError> {
        let subject = Subject::Server(request.server.clone());
        let intent = Intent {
            request: serde_json::to_value(request).map_err(StoreError::corrupt)?,
            intended: Engine::first_intent(&*self.relocation),
            total: self.relocation.steps().len() as u32,
            worker: Uuid::now_v7().to_string(),
            lease: self.engine.settings().lease,
            ..Intent::new(OperationId::new(), KIND, Lane::Preempt, subject)
        };
        match self.engine.journal().begin(&intent).await? {
            Begun::New(record) => Ok(*record),
            Begun::Joined(record) => Err(RelocateError::Busy { operation: record.id }),
            Begun::KeyReused(operation) | Begun::Busy(operation) => Err(RelocateError::Busy { operation }),
        }
    }
}

/// A refusal was decided inside the operation, before anything was written; it is the call's own error.
fn to_result(outcome: Outcome) -> Result<Record, RelocateError> {
    let record = outcome.record;
    let Some(mut failure) = outcome.failure else {
        return match record.status {
            OperationStatus::Done => Ok(record),
            OperationStatus::Undone => Err(RelocateError::Failed(record.told(FailureState::Undone))),
            _ => Err(RelocateError::Failed(record.told(FailureState::Continuing))),
        };
    };
    if failure.state != FailureState::Undone {
        return Err(RelocateError::Failed(failure));
    }
    match failure.cause.downcast::<RelocateError>() {
        Ok(refused) => Err(*refused),
        Err(cause) => {
            failure.cause = cause;
            Err(RelocateError::Failed(failure))
        }
    }
}

impl IntoFuture for Relocate {
    type Output = Result<Relocated, RelocateError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
