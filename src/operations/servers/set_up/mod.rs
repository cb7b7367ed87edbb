//! Setting up a server: the builder that the caller awaits, and the script for a DBA as an alternative.
//!
//! [`Servers::set_up`](super::Servers::set_up) returns a [`ServerSetup`]. It checks the server admin's rights before it
//! writes anything, then begins and drives the set-up saga, which needs the server admin's password. The password is
//! never stored, so recovery skips a set-up, and the same call undoes what a dead process left and begins again.
use super::address::check_address;
use super::{HIDDEN, Server, ServerSetupReport, Servers, invalid, new_server, server_name};
use crate::cluster::pg::bootstrap;
use crate::cluster::pg::script::{self, Landlord};
use crate::cluster::pg::{catalog, scram};
use crate::error::{BeginError, ClusterError, Failure, FailureState, ServerSetupError, StoreError};
use crate::json;
use crate::names::{InvalidName, MAX_CERTIFICATES, ServerName, check_host, check_text, check_visible};
use crate::operation::{OperationStatus, Subject};
use crate::saga::{CallOptions, Observer, Outcome, Started};
use crate::secret::CredentialId;
use crate::server::{DatabaseServer, ServerNames, ServerStatus, TlsMode};
use crate::store::journal::{Intent, Record};
use futures_core::future::BoxFuture;
use secrecy::SecretString;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use std::{future::IntoFuture, sync::Arc};

mod admin;
mod context;
mod saga;
mod steps;
mod take_over;
use context::{Work, marker};
use steps::{REPORTED, ServerSetupStep};
use take_over::Obstacle;

/// A call that sets up a server. Configure it by its methods, then `.await` it, or get a [`script`](Self::script) for a
/// DBA instead.
///
/// # Cancel safety
/// If the future is dropped, the set-up stops there. Make the same call again to complete it.
#[must_use = "a set-up does nothing until it is awaited"]
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
    options: CallOptions,
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
            options: CallOptions::new(),
        }
    }
    /// Sets the reason that is stored with the operation, and what it repairs.
    pub(crate) fn options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }
    /// Sets the address under which the application reaches the server. Default: host and port of the server admin's
    /// connection.
    ///
    /// The directory of a Unix socket, which begins with `/`, is accepted as `host` for an application that runs on the
    /// server's machine only. It is never taken from the admin's connection: a node on another machine could not
    /// connect.
    pub fn address(mut self, host: impl Into<String>, port: u16) -> Self {
        self.address = Some((host.into(), port));
        self
    }
    /// Sets the prefix of the names of the roles and of the maintenance database. Default: `tenantry`. A second
    /// installation on the same server needs another prefix. The prefix of a ready server cannot be changed.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }
    /// Sets how connections are encrypted. Default: `verify-full`, or `prefer` on loopback.
    pub fn tls(mut self, mode: TlsMode) -> Self {
        self.tls = Some(mode);
        self
    }
    /// Sets the certificate authorities to trust, as PEM, in addition to the system's. Default: those of the server
    /// admin's connection, if that has the address of the server. A file is read once and its text is stored.
    pub fn root_certificate(mut self, pem: impl Into<String>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }
    /// Sets the maximum number of tenants. Default: 1000. On PostgreSQL 16 and later at most 3000 under one prefix.
    pub fn capacity(mut self, tenants: u32) -> Self {
        self.capacity = Some(tenants);
        self
    }
    /// Sets the weight for placement, at least 1. A server of weight 2 gets twice as many tenants as one of weight 1.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight.max(1));
        self
    }
    /// Sets how many connections tenants may have to the server, over all nodes of this installation. Default: 90.
    ///
    /// Each node that runs [`Tenantry::run`](crate::Tenantry::run) takes an equal part of it, and never more than
    /// [`Builder::max_connections`](crate::Builder::max_connections). A node that does not run counts itself as the
    /// only one. With [`Builder::share_connections`](crate::Builder::share_connections) the limit also holds while a
    /// node joins. Sessions of operations come in addition.
    pub fn max_connections(mut self, n: u32) -> Self {
        self.max_connections = Some(n.max(1));
        self
    }
    /// Sets labels, any JSON of at most 64 KiB and 100 levels, which the application's placement function reads.
    pub fn labels(mut self, labels: serde_json::Value) -> Self {
        self.labels = Some(labels);
        self
    }
    /// Sets whether the set-up also revokes CONNECT on `postgres` and `template1` from PUBLIC. Default: `false`,
    /// because other applications on the server may rely on it; but then every tenant's login can enter these
    /// databases.
    pub fn close_shared(mut self, yes: bool) -> Self {
        self.close_shared = yes;
        self
    }

    /// Returns the SQL of the set-up, for a DBA to run with psql, instead of running it. It first registers the server
    /// and stores the passwords of the provisioner's logins, so that the script holds only their SCRAM verifiers. Call
    /// [`confirm`](Self::confirm) after the DBA has run the script.
    pub async fn script(self) -> Result<String, ServerSetupError> {
        let server = self.describe_server().await?;
        let work = self.work(server.clone(), None);
        let outcome = self.drive(&work, ServerSetupStep::BEFORE_SCRIPT).await?;
        self.to_record(outcome)?;
        let (blue, green) = self.open_passwords(&server).await?;
        let verifiers = (scram::derive_verifier(&blue).await, scram::derive_verifier(&green).await);
        let marker = marker(self.servers.stores.servers.installation().await?);
        let landlord = self.identify_landlord().await?;
        let verifiers = [&verifiers.0, &verifiers.1];
        Ok(script::build_script(&server.names, verifiers, &marker, Some(&landlord), self.close_shared))
    }

    /// The landlord's database, the role of its pool, and the cluster that it is on.
    async fn identify_landlord(&self) -> Result<Landlord, ServerSetupError> {
        let refused = |e: ClusterError| match e.is_transient() {
            true => StoreError::unavailable(e),
            false => StoreError::refused(e),
        };
        let read = async |session: &mut PgConnection| {
            let cluster = bootstrap::read_cluster_id(session).await?;
            let (role, _, database) = catalog::read_identity(session).await.map_err(refused)?;
            Ok::<_, StoreError>(Landlord { database, role, cluster })
        };
        self.servers.landlord.transaction("BEGIN READ ONLY", read).await.map_err(ServerSetupError::Landlord)
    }

    /// Completes the set-up after a DBA has run the [`script`](Self::script): checks both logins and makes the server
    /// ready.
    pub async fn confirm(self) -> Result<ServerSetupReport, ServerSetupError> {
        let server = self.describe_server().await?;
        let work = self.work(server.clone(), None);
        let outcome = self.drive(&work, ServerSetupStep::AFTER_SCRIPT).await?;
        self.report_and_limit_logins(&server.name, outcome).await
    }

    async fn run(self) -> Result<ServerSetupReport, ServerSetupError> {
        for _ in 0..2 {
            let server = self.describe_server().await?;
            // Check the server admin's rights before anything is written: a retry cannot provide a missing right.
            let admin = self.check_admin(&server).await?;
            let work = self.work(server.clone(), Some(admin));
            match self.drive(&work, ServerSetupStep::WHOLE).await {
                // It may have changed the server's row.
                Err(Obstacle::EndedAnother) => {}
                Err(Obstacle::Error(error)) => return Err(error),
                Ok(outcome) => return self.report_and_limit_logins(&server.name, outcome).await,
            }
        }
        Err(Obstacle::EndedAnother.into())
    }

    fn work(&self, server: DatabaseServer, admin: Option<PgConnectOptions>) -> Work {
        let (stores, landlord) = (self.servers.stores.clone(), self.servers.landlord.clone());
        Work { stores, landlord, server, admin, close_shared: self.close_shared }
    }

    /// The stored row with the settings of this call, or a new row.
    async fn describe_server(&self) -> Result<DatabaseServer, ServerSetupError> {
        self.check_environment()?;
        let name = server_name(&self.name)?;
        let (stored, is_trusted) = self.servers.stores.verified.read_unchecked(&name).await?.unzip();
        let is_trusted = is_trusted.unwrap_or(true);
        let names = self.choose_names(stored.as_ref())?;
        let (host, port) = self.choose_address(stored.as_ref().filter(|_| is_trusted))?;
        self.check_texts(&host)?;
        if let Some(stored) = stored.as_ref().filter(|_| is_trusted) {
            check_address(stored, &host, port)?;
        }
        let root_certificate = self.choose_root_certificate(&host, port).await?;
        let mut server = match stored {
            Some(stored) if stored.names == names => {
                // Only a server that was never ready gets another address here. A TLS mode that was strong enough for
                // the old address may be too weak for the new one.
                // Nothing about the address is taken from a row that is not trusted.
                let keeps_tls = stored.host == host && is_trusted;
                let tls = if keeps_tls { stored.tls } else { TlsMode::default_for(&host) };
                let root_certificate = stored.root_certificate.clone().filter(|_| is_trusted);
                DatabaseServer { host, port, tls, root_certificate, ..stored }
            }
            _ => new_server(&name, &host, port, names, None),
        };
        server.tls = self.tls.unwrap_or(server.tls);
        server.root_certificate = root_certificate.or(server.root_certificate);
        server.capacity = self.capacity.unwrap_or(server.capacity);
        server.weight = self.weight.unwrap_or(server.weight);
        server.max_connections = self.max_connections.unwrap_or(server.max_connections);
        server.labels = self.labels.clone().unwrap_or(server.labels);
        Ok(server)
    }

    /// The names of the roles and of the maintenance database. A ready server keeps its names, because the databases of
    /// its tenants belong to roles with these names.
    fn choose_names(&self, stored: Option<&DatabaseServer>) -> Result<ServerNames, ServerSetupError> {
        let fixed = stored.filter(|s| s.status == ServerStatus::Ready).map(|s| &s.names);
        let prefix = match (&self.prefix, fixed) {
            (None, Some(fixed)) => return Ok(fixed.clone()),
            (prefix, _) => prefix.as_deref().unwrap_or("tenantry"),
        };
        let invalid = |source| invalid("prefix", prefix)(source);
        let names = check_visible(prefix).and_then(|()| ServerNames::with_prefix(prefix)).map_err(invalid)?;
        match fixed {
            Some(fixed) if *fixed != names => Err(invalid(InvalidName::Shape(OTHER_PREFIX))),
            _ => Ok(names),
        }
    }

    /// Fails if the host, the certificates or the labels cannot be stored.
    fn check_texts(&self, host: &str) -> Result<(), ServerSetupError> {
        check_host(host).map_err(invalid("host", host))?;
        if let Some(pem) = &self.root_certificate {
            check_text(pem, 1, MAX_CERTIFICATES).map_err(invalid("root certificate", HIDDEN))?;
        }
        if let Some(labels) = &self.labels {
            json::check(labels, json::MAX_METADATA).map_err(invalid("labels", &labels.to_string()))?;
        }
        Ok(())
    }

    /// Begins the set-up and drives it to its end. If a set-up of a dead process is open, undoes that one first.
    async fn drive(&self, work: &Work, steps: &[ServerSetupStep]) -> Result<Outcome, Obstacle> {
        let engine = &self.servers.engine;
        let saga = Arc::new(saga::define(work.clone(), steps));
        for _ in 0..2 {
            let subject = Subject::Server(work.server.name.clone());
            let intent = engine.intent(&saga, subject, &serde_json::Value::Null, &self.options);
            let intent = intent.map_err(ServerSetupError::from)?;
            // The saga needs the server admin's password, which is not stored, so recovery cannot continue it.
            let intent = Intent { recoverable: false, ..intent };
            match engine.begin(&saga, &intent, async { Ok(()) }).await {
                Ok(Started::New(operation)) => {
                    return Ok(operation.drive(engine, &Observer::none()).await.map_err(ServerSetupError::from)?);
                }
                Ok(Started::Joined(record)) => return Err(busy(&record).into()),
                Err(BeginError::Busy { operation, .. }) => self.end_idle(work, &*saga, operation).await?,
                Err(error) => return Err(ServerSetupError::from(error).into()),
            }
        }
        Err(Obstacle::EndedAnother)
    }

    /// Builds the report, and sets the CONNECTION LIMIT of all logins on the server: logins that an earlier version of
    /// this crate created have none, and the configured limit may have changed.
    async fn report_and_limit_logins(
        &self, name: &ServerName, outcome: Outcome,
    ) -> Result<ServerSetupReport, ServerSetupError> {
        let mut report = self.report(name, outcome).await?;
        let limited = self.servers.limit_logins_of(Some(name)).await?;
        if limited.left > 0 {
            let note = format!(
                "{} logins keep another CONNECTION LIMIT; the log has the reason; run() retries daily",
                limited.left
            );
            report.left_open.push(note);
        }
        Ok(report)
    }

    async fn report(&self, name: &ServerName, outcome: Outcome) -> Result<ServerSetupReport, ServerSetupError> {
        let record = self.to_record(outcome)?;
        let unknown = || ServerSetupError::Unknown { server: name.clone() };
        let load = self.servers.stores.servers.server(name).await?.ok_or_else(unknown)?;
        let notes = REPORTED.iter().filter_map(|s| record.outputs.get(*s));
        let left_open = notes.filter_map(|v| serde_json::from_value::<Vec<String>>(v.clone()).ok()).flatten().collect();
        Ok(ServerSetupReport { server: Server::from(load), left_open })
    }

    /// The record of an operation that is done, or the caller's error.
    fn to_record(&self, outcome: Outcome) -> Result<Record, ServerSetupError> {
        match (outcome.failure, outcome.record.status) {
            (Some(failure), _) => Err(error_of_failure(failure)),
            (None, OperationStatus::Done) => Ok(outcome.record),
            (None, _) => {
                let state = outcome.record.failure_state();
                Err(ServerSetupError::Failed(outcome.record.to_failure(state)))
            }
        }
    }

    /// The stored passwords of the provisioner's two logins.
    async fn open_passwords(&self, server: &DatabaseServer) -> Result<(SecretString, SecretString), ServerSetupError> {
        let vault = &self.servers.stores.vault;
        let id = |role| CredentialId::provisioner(&server.name, role, server.secret_version);
        let blue = vault.open(&id(&server.names.blue)).await.map_err(StoreError::from)?;
        Ok((blue, vault.open(&id(&server.names.green)).await.map_err(StoreError::from)?))
    }
}

/// The rule that a call with another prefix for a ready server breaks.
const OTHER_PREFIX: &str =
    "the prefix that the server was set up with; to change it, remove() the server and set it up again";

fn busy(record: &Record) -> ServerSetupError {
    ServerSetupError::Busy { operation: record.id, status: record.status }
}

/// The caller's error for a failed set-up. A name that another owner has is reported as [`ServerSetupError::Foreign`],
/// since the caller can choose another prefix.
fn error_of_failure(failure: Failure) -> ServerSetupError {
    if failure.state == FailureState::Undone && failure.cause.is::<ServerSetupError>() {
        return match failure.cause.downcast() {
            Ok(error) => *error,
            Err(cause) => ServerSetupError::Failed(Failure { cause, ..failure }),
        };
    }
    match failure.cause.downcast_ref::<ClusterError>() {
        Some(ClusterError::Blocked { phase, by }) => ServerSetupError::Blocked { phase, by: by.clone() },
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
