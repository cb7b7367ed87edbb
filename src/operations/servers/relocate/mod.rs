//! Changes the address of a server: after a standby was promoted, the cluster was moved, or a successor replaced it.
//!
//! Only the server's row holds the address, so a relocation is one compare-and-set of that row. Before it the worker
//! checks the new address, and that no writable server answers at the old one.
//!
//! A relocation is an operation in the preempt lane of the server. It parks an open change of the server (set-up,
//! rotation of the provisioner's passwords) and resumes it at the end, so a change that waits for a lost server does
//! not block the relocation. In the transaction that changes the address the landlord raises the epoch of every open
//! operation on a tenant of the server. A worker that still has a session on the old server can then no longer write to
//! the landlord, and the next worker reads the new address.
//!
//! If the process dies before that write, recovery finds the old address in the row and checks both addresses again. If
//! it dies after the write, recovery finds the new address, checks it once more and resumes the parked change.
use super::address::Address;
use super::{HIDDEN, Server, Servers, server_name};
use crate::error::{BeginError, EXCERPT, FailureState, RelocateError, ServerSetupError, StoreError, shorten};
use crate::names::{MAX_CERTIFICATES, ServerName, check_host, check_text};
use crate::operation::{OperationStatus, Subject};
use crate::saga::{AnySaga, CallOptions, NewOperation, Observer, Outcome, Started};
use crate::server::TlsMode;
use crate::store::journal::Record;
use crate::store::registry::ServerLoad;
use futures_core::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::future::IntoFuture;
use std::sync::Arc;

mod context;
mod saga;
mod steps;
pub(super) use context::RelocateContext;
pub(super) use saga::define;
use steps::MOVE;

/// The request as the journal stores it. It holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) server: ServerName,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) old_is_fenced: bool,
    pub(super) replaced: bool,
}

/// A relocated server, and what was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Relocated {
    /// The server at its new address.
    pub server: Server,
    /// Whether the system identifier at the new address was read and equals the stored one. `false` if the provisioner
    /// may not read it, if none was stored, or if [`Relocate::replaced`] was set and the identifiers differ.
    pub is_same_cluster_seen: bool,
}

/// A relocation of a server to configure and then `.await`. See [`Servers::relocate`].
///
/// # Cancel safety
/// If the future is dropped after the operation has begun, recovery completes the operation after its lease.
#[must_use = "a relocation does nothing until it is awaited"]
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
    /// Changes the address of a server for every tenant on it. Resolvers on all nodes, operations and setup links then
    /// use the new address. Call it after a failover, once the standby is promoted.
    ///
    /// The worker logs in at the new address as the provisioner, with the stored password, and looks for the mark that
    /// [`set_up`](Self::set_up) left in the maintenance database. A server that was last set up by a version without
    /// marks has none: call `set_up` once while it answers. If it no longer answers, a DBA writes the mark into the
    /// maintenance database at the new address, as the admin role: `CREATE TABLE public.tenantry_mark (installation
    /// uuid, server text)` with one row, the id in `tenantry.installation` and the server's name.
    ///
    /// If the standby replicated asynchronously, the last commits of the old server are missing at the new address.
    /// Suspend or archive again the tenants that were suspended or archived shortly before the failover.
    ///
    /// # Errors
    /// See [`RelocateError`]; each variant names what to do next. Connecting to an address may take ten seconds, and
    /// the checks there another ten.
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
    /// The saga of relocations, for a `Recoverer`.
    #[doc(hidden)]
    pub fn relocation_saga(&self) -> Arc<dyn AnySaga> {
        self.relocation.clone()
    }
}

impl Relocate {
    /// Declares that no client can write to the old server any more, so that the old address is not checked. Needed if
    /// something answers there that cannot be checked, or if both addresses lead to the same server.
    pub fn old_is_fenced(mut self) -> Self {
        self.old_is_fenced = true;
        self
    }
    /// Declares that the cluster at the new address replaces the old one and has another system identifier, as after
    /// pg_upgrade or a restore from a dump. Default: a different identifier fails the relocation.
    pub fn replaced(mut self) -> Self {
        self.replaced = true;
        self
    }
    /// Sets how connections to the new address are encrypted. Default: unchanged if the host stays the same; otherwise
    /// `verify-full`, or `prefer` on loopback.
    pub fn tls(mut self, mode: TlsMode) -> Self {
        self.tls = Some(mode);
        self
    }
    /// Sets the certificate authorities to trust at the new address, as PEM. Default: those of the old address.
    pub fn root_certificate(mut self, pem: impl Into<String>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    async fn run(self) -> Result<Relocated, RelocateError> {
        let request = self.request().await?;
        let operation = self.servers.begin_relocation(&request).await?;
        let outcome = operation.drive(&self.servers.engine, &Observer::none()).await?;
        let record = to_result(outcome)?;
        if let Some(moved) = &self.servers.with_move_callback {
            moved().await;
        }
        let server = self.servers.load(&request.server).await?.into();
        let is_compared = record.outputs.get(MOVE).and_then(|output| output.as_bool());
        Ok(Relocated { server, is_same_cluster_seen: is_compared.unwrap_or_default() })
    }

    /// Fails if the new address has a value that no server can have.
    fn check(&self) -> Result<(), RelocateError> {
        let invalid = |field, value: &str| {
            let value = shorten(value, EXCERPT);
            move |source| RelocateError::Invalid { field, value, source }
        };
        check_host(&self.host).map_err(invalid("host", &self.host))?;
        let pem = self.root_certificate.as_deref().unwrap_or_default();
        check_text(pem, 0, MAX_CERTIFICATES).map_err(invalid("root certificate", HIDDEN))
    }

    async fn request(&self) -> Result<Request, RelocateError> {
        self.check()?;
        let server = server_name(&self.name).map_err(|error| match error {
            ServerSetupError::Invalid { field, value, source } => RelocateError::Invalid { field, value, source },
            _ => StoreError::conflict("the server's name could not be parsed").into(),
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

    async fn begin_relocation(&self, request: &Request) -> Result<NewOperation, RelocateError> {
        let subject = Subject::Server(request.server.clone());
        let intent = self.engine.intent(&self.relocation, subject, request, &CallOptions::new())?;
        match self.engine.begin(&self.relocation, &intent, async { Ok::<(), BeginError>(()) }).await? {
            Started::New(operation) => Ok(operation),
            Started::Joined(record) => Err(RelocateError::Busy { operation: record.id, status: record.status }),
        }
    }
}

/// Converts the outcome to the caller's result. A check that failed inside the operation, which was then undone,
/// becomes the error of the call.
fn to_result(outcome: Outcome) -> Result<Record, RelocateError> {
    let record = outcome.record;
    let Some(mut failure) = outcome.failure else {
        return match record.status {
            OperationStatus::Done => Ok(record),
            _ => Err(RelocateError::Failed(record.to_failure(record.failure_state()))),
        };
    };
    if failure.state != FailureState::Undone {
        return Err(RelocateError::Failed(failure));
    }
    match failure.cause.downcast::<RelocateError>() {
        Ok(error) => Err(*error),
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
