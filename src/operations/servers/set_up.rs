use super::address::check_stored;
use super::context::{Work, marker};
use super::saga::ServerSetupSaga;
use super::steps::{REPORTED, ServerSetupStep};
use super::{Server, ServerSetupReport, Servers, described, server_name};
use crate::cluster::pg::bootstrap::{self, Admin};
use crate::cluster::pg::script::{self, Landlord};
use crate::cluster::pg::{catalog, scram, session, terminate};
use crate::error::{ClusterError, Failure, FailureState, ServerSetupError, StoreError};
use crate::names::{InvalidName, ServerName};
use crate::operation::{Lane, OperationId, OperationStatus, Subject};
use crate::rt;
use crate::saga::{Engine, Observer, Outcome};
use crate::secret::CredentialId;
use crate::server::{DatabaseServer, ServerNames, ServerStatus, TlsMode};
use crate::store::journal::{Begun, Claim, Intent, Progress, Record};
use futures_core::future::BoxFuture;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use std::future::IntoFuture;
use uuid::Uuid;

/// Setting a server up: setters, then `.await`, or [`script`](Self::script) for a DBA.
///
/// # Cancel safety
/// Dropping the future is like the death of the process: the same call, made again, goes on.
#[must_use = "it does nothing until it is awaited"]
pub struct ServerSetup {
    servers: Servers,
    name: String,
    admin: PgConnectOptions,
    address: Option<(String, u16)>,
    prefix: Option<String>,
    tls: Option<TlsMode>,
    root_certificate: Option<String>,
    capacity: Option<u32>,
    weight: Option<u32>,
    max_connections: Option<u32>,
    labels: Option<serde_json::Value>,
    close_shared: bool,
}

impl ServerSetup {
    pub(super) fn new(servers: Servers, name: String, admin: PgConnectOptions) -> Self {
        Self {
            servers,
            name,
            admin,
            address: None,
            prefix: None,
            tls: None,
            root_certificate: None,
            capacity: None,
            weight: None,
            max_connections: None,
            labels: None,
            close_shared: false,
        }
    }
    /// Where the application reaches it, if that is not where its admin does.
    pub fn address(mut self, host: impl Into<String>, port: u16) -> Self {
        self.address = Some((host.into(), port));
        self
    }
    /// What the names of the roles and of the maintenance database begin with: `tenantry` by default. A second
    /// installation on one server needs another. A server that is ready keeps the one it has.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }
    /// How connections are encrypted: `verify-full` by default, `prefer` on loopback.
    pub fn tls(mut self, mode: TlsMode) -> Self {
        self.tls = Some(mode);
        self
    }
    /// The authorities to trust, PEM; the system's by default.
    pub fn root_certificate(mut self, pem: impl Into<String>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }
    /// Most tenants; 1000 by default. On 16 and later at most 3000 under one prefix.
    pub fn capacity(mut self, tenants: u32) -> Self {
        self.capacity = Some(tenants);
        self
    }
    /// A server of weight 2 gets twice the tenants of one of weight 1.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight.max(1));
        self
    }
    /// Connections that this installation may hold there in all; 90 by default.
    pub fn max_connections(mut self, n: u32) -> Self {
        self.max_connections = Some(n.max(1));
        self
    }
    /// The host's own words, for placement.
    pub fn labels(mut self, labels: serde_json::Value) -> Self {
        self.labels = Some(labels);
        self
    }
    /// Whether `postgres` and `template1` are closed to PUBLIC too. Other applications of the server may live on that
    /// right; left open, every tenant's login can enter them.
    pub fn close_shared(mut self, yes: bool) -> Self {
        self.close_shared = yes;
        self
    }

    /// Instead of doing it: the SQL for a DBA, who runs it with psql. Seals the two secrets and registers the server
    /// first, so the script holds nothing but their verifiers; [`confirm`](Self::confirm) then looks whether it ran.
    pub async fn script(self) -> Result<String, ServerSetupError> {
        let server = self.described().await?;
        let work = self.work(server.clone(), None);
        let outcome = self.drive(ServerSetupSaga::new(work, ServerSetupStep::BEFORE_SCRIPT)).await?;
        self.ended(outcome)?;
        let (blue, green) = self.passwords(&server).await?;
        let verifiers = (scram::verifier(&blue).await, scram::verifier(&green).await);
        let marker = marker(self.servers.stores.servers.installation().await?);
        let landlord = self.landlord().await?;
        let verifiers = [&verifiers.0, &verifiers.1];
        Ok(script::script(&server.names, verifiers, &marker, Some(&landlord), self.close_shared))
    }

    async fn landlord(&self) -> Result<Landlord, ServerSetupError> {
        let unavailable = |e| ServerSetupError::Landlord(StoreError::unavailable(e));
        let mut session = self.servers.landlord.acquire().await.map_err(unavailable)?;
        let cluster = bootstrap::cluster_of(&mut session).await.map_err(unavailable)?;
        let (role, _, database) = catalog::identity(&mut session)
            .await
            .map_err(|e| ServerSetupError::Landlord(StoreError::unavailable(e)))?;
        Ok(Landlord { database, role, cluster })
    }

    /// After a DBA has run the [`script`](Self::script): probes both logins and makes the server ready.
    pub async fn confirm(self) -> Result<ServerSetupReport, ServerSetupError> {
        let server = self.described().await?;
        let work = self.work(server.clone(), None);
        let outcome = self.drive(ServerSetupSaga::new(work, ServerSetupStep::AFTER_SCRIPT)).await?;
        self.report_and_limit_logins(&server.name, outcome).await
    }

    async fn run(self) -> Result<ServerSetupReport, ServerSetupError> {
        let server = self.described().await?;
        // Before anything is written: what the admin lacks will not come by trying.
        let admin = self.check(&server).await?;
        let work = self.work(server.clone(), Some(admin));
        let outcome = self.drive(ServerSetupSaga::new(work, ServerSetupStep::WHOLE)).await?;
        self.report_and_limit_logins(&server.name, outcome).await
    }

    fn work(&self, server: DatabaseServer, admin: Option<PgConnectOptions>) -> Work {
        let (stores, landlord) = (self.servers.stores.clone(), self.servers.landlord.clone());
        Work { stores, landlord, server, admin, close_shared: self.close_shared }
    }

    /// What is stored already, with what this call names changed.
    async fn described(&self) -> Result<DatabaseServer, ServerSetupError> {
        let name = server_name(&self.name)?;
        let stored = self.servers.stores.servers.server(&name).await?.map(|l| l.server);
        let names = self.names(stored.as_ref())?;
        let own = || (self.admin.get_host().to_owned(), self.admin.get_port());
        let (host, port) = self.address.clone().unwrap_or_else(own);
        if let Some(stored) = &stored {
            check_stored(stored, &host, port)?;
        }
        let mut server = match stored {
            Some(stored) if stored.names == names => {
                // Only a server that was never ready gets another address here. A TLS mode that was good enough for the old
                // one may be too weak for the new one.
                let tls = if stored.host == host { stored.tls } else { TlsMode::default_for(&host) };
                DatabaseServer { host, port, tls, ..stored }
            }
            _ => described(&name, &host, port, names, None),
        };
        server.tls = self.tls.unwrap_or(server.tls);
        server.root_certificate = self.root_certificate.clone().or(server.root_certificate);
        server.capacity = self.capacity.unwrap_or(server.capacity);
        server.weight = self.weight.unwrap_or(server.weight);
        server.max_connections = self.max_connections.unwrap_or(server.max_connections);
        server.labels = self.labels.clone().unwrap_or(server.labels);
        Ok(server)
    }

    /// Under other names its tenants would be nobody's.
    fn names(&self, stored: Option<&DatabaseServer>) -> Result<ServerNames, ServerSetupError> {
        let kept = stored.filter(|s| s.status == ServerStatus::Ready).map(|s| &s.names);
        let prefix = match (&self.prefix, kept) {
            (None, Some(kept)) => return Ok(kept.clone()),
            (prefix, _) => prefix.as_deref().unwrap_or("tenantry"),
        };
        let invalid = |source| ServerSetupError::Invalid { field: "prefix", value: prefix.into(), source };
        let names = ServerNames::with_prefix(prefix).map_err(invalid)?;
        match kept {
            Some(kept) if *kept != names => Err(invalid(InvalidName::Shape(OTHER_PREFIX))),
            _ => Ok(names),
        }
    }

    async fn check(&self, server: &DatabaseServer) -> Result<PgConnectOptions, ServerSetupError> {
        let options = session::tls(server, self.admin.clone());
        let options = options.application_name("tenantry set-up").options([("search_path", "pg_catalog")]);
        let options = options.disable_statement_logging();
        let failed = |source| self.unreachable(server, source);
        let mut session: PgConnection = rt::poll_batched(options.connect()).await.map_err(failed)?;
        let admin =
            bootstrap::admin(&mut session).await.map_err(|e| ServerSetupError::Landlord(StoreError::unavailable(e)))?;
        session::close(session).await;
        rights(admin)?;
        Ok(options)
    }

    fn unreachable(&self, server: &DatabaseServer, source: sqlx::Error) -> ServerSetupError {
        ServerSetupError::Connect(Box::new(ClusterError::Connect {
            role: self.admin.get_username().into(),
            host: server.host.clone(),
            port: server.port,
            database: self.admin.get_database().unwrap_or_default().into(),
            source,
        }))
    }

    async fn drive(&self, saga: ServerSetupSaga) -> Result<Outcome, ServerSetupError> {
        let engine = &self.servers.engine;
        let subject = Subject::Server(saga.server().name.clone());
        for _ in 0..2 {
            let intent = Intent {
                intended: Engine::first_intent(&saga),
                total: saga.len(),
                worker: Uuid::now_v7().to_string(),
                lease: engine.settings().lease,
                // It needs the admin's password, which is stored nowhere: only the same call goes on with it.
                recoverable: false,
                ..Intent::new(OperationId::new(), super::saga::KIND, Lane::Change, subject.clone())
            };
            match engine.journal().begin(&intent).await? {
                Begun::New(record) => return Ok(engine.drive(&saga, *record, true, &Observer::none()).await?),
                Begun::Joined(record) => return Err(ServerSetupError::Busy { operation: record.id }),
                Begun::KeyReused(id) | Begun::Busy(id) => self.clear(&saga, id).await?,
            }
        }
        Err(StoreError::unavailable("another set-up of this server keeps beginning").into())
    }

    /// Ends what a dead call left open: its steps are found done by the new one.
    async fn clear(&self, saga: &ServerSetupSaga, id: OperationId) -> Result<(), ServerSetupError> {
        let engine = &self.servers.engine;
        // Another kind of change is for recovery, or for its own caller.
        if engine.journal().read(id).await?.is_some_and(|r| r.kind != super::saga::KIND && !r.status.is_over()) {
            return Err(ServerSetupError::Busy { operation: id });
        }
        let worker = Uuid::now_v7().to_string();
        match engine.journal().claim(id, &worker, engine.settings().lease).await? {
            Claim::Taken(record) => {
                self.end_sessions(saga, id).await?;
                let undoing = Progress::turn(&record, engine.settings().lease);
                engine.journal().record(record.fencing_token(), &undoing).await?;
                let record = Record { status: OperationStatus::Undoing, ..*record };
                engine.drive(saga, record, false, &Observer::none()).await?;
                Ok(())
            }
            Claim::Held(_) => Err(ServerSetupError::Busy { operation: id }),
            Claim::Over(_) => Ok(()),
        }
    }

    /// A worker that only stopped must not wake up behind the next one.
    async fn end_sessions(&self, saga: &ServerSetupSaga, id: OperationId) -> Result<(), ServerSetupError> {
        let Some(admin) = saga.admin() else { return Ok(()) };
        let mut session =
            rt::poll_batched(admin.connect()).await.map_err(|source| self.unreachable(saga.server(), source))?;
        let ended = terminate::terminate_worker_sessions(&mut session, &format!("tenantry/{id}/")).await;
        session::close(session).await;
        ended.map_err(|e| ServerSetupError::Landlord(StoreError::unavailable(e)))
    }

    /// Logins that an earlier version made have no limit, and other settings may count now.
    async fn report_and_limit_logins(
        &self, name: &ServerName, outcome: Outcome,
    ) -> Result<ServerSetupReport, ServerSetupError> {
        let mut report = self.report(name, outcome).await?;
        let limited = self.servers.limit_logins_of(Some(name)).await?;
        if limited.left > 0 {
            let kept =
                format!("{} logins keep another CONNECTION LIMIT: see the log; it is tried again daily", limited.left);
            report.left_open.push(kept);
        }
        Ok(report)
    }

    async fn report(&self, name: &ServerName, outcome: Outcome) -> Result<ServerSetupReport, ServerSetupError> {
        let record = self.ended(outcome)?;
        let unknown = || ServerSetupError::Unknown { server: name.clone() };
        let load = self.servers.stores.servers.server(name).await?.ok_or_else(unknown)?;
        let notes = REPORTED.iter().filter_map(|s| record.outputs.get(*s));
        let left_open = notes.filter_map(|v| serde_json::from_value::<Vec<String>>(v.clone()).ok()).flatten().collect();
        Ok(ServerSetupReport { server: Server::from(load), left_open })
    }

    fn ended(&self, outcome: Outcome) -> Result<Record, ServerSetupError> {
        match (outcome.failure, outcome.record.status) {
            (Some(failure), _) => Err(typed(failure)),
            (None, OperationStatus::Done) => Ok(outcome.record),
            (None, _) => Err(ServerSetupError::Failed(outcome.record.told(FailureState::Undone))),
        }
    }

    async fn passwords(&self, server: &DatabaseServer) -> Result<(SecretString, SecretString), ServerSetupError> {
        let vault = &self.servers.stores.vault;
        let id = |role| CredentialId::provisioner(&server.name, role, server.secret_version);
        let closed = |e| ServerSetupError::Landlord(StoreError::unavailable(e));
        let blue = vault.open(&id(&server.names.blue)).await.map_err(closed)?;
        Ok((blue, vault.open(&id(&server.names.green)).await.map_err(closed)?))
    }
}

const OTHER_PREFIX: &str = "the prefix that the server was set up with; remove() the server to give it another";

fn rights(admin: Admin) -> Result<(), ServerSetupError> {
    if admin.version < 150_000 {
        return Err(ServerSetupError::Version { found: (admin.version / 10_000).to_string() });
    }
    let lacks = |right| Err(ServerSetupError::Rights { role: admin.role.clone(), right });
    match admin {
        Admin { superuser: true, .. } => Ok(()),
        Admin { create_role: false, .. } => lacks("CREATEROLE"),
        Admin { create_db: false, .. } => lacks("CREATEDB"),
        _ => Ok(()),
    }
}

/// A name that is somebody else's is no failure of the operation's, but of the call's.
fn typed(failure: Failure) -> ServerSetupError {
    if failure.state == FailureState::Undone && failure.cause.is::<ServerSetupError>() {
        return match failure.cause.downcast() {
            Ok(error) => *error,
            Err(cause) => ServerSetupError::Failed(Failure { cause, ..failure }),
        };
    }
    match failure.cause.downcast_ref::<ClusterError>() {
        Some(ClusterError::Foreign { kind, name }) => ServerSetupError::Foreign { kind, name: name.clone() },
        _ => ServerSetupError::Failed(failure),
    }
}

impl IntoFuture for ServerSetup {
    type Output = Result<ServerSetupReport, ServerSetupError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
