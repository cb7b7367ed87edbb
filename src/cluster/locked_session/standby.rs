//! The tenant's physical standbys. NOLOGIN and the memberships come there by themselves; that a session ends does not.
use super::{LAST_MOMENT, LockedSession, SETTLING, provisioner};
use crate::cluster::OperationContext;
use crate::cluster::pg::session::{self, Purpose};
use crate::cluster::pg::{catalog, standby, terminate};
use crate::directory::TenantDatabase;
use crate::error::{ClusterError, StepError};
use crate::names::TenantNames;
use crate::names::{DatabaseName, RoleName};
use crate::server::{DatabaseServer, TlsMode};
use crate::tenant::TenantId;
use futures_util::future::{join, join_all};
use secrecy::SecretString;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Where a standby of a tenant's server is, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Standby {
    host: String,
    port: u16,
    /// `None`: as [`DatabaseServer::tls_for`] says.
    tls: Option<TlsMode>,
    root_certificate: Option<String>,
}

impl OperationContext {
    /// Those of a tenant, by its directory entries.
    pub(crate) async fn standbys(&self, tenant: TenantId, database: &DatabaseName) -> Result<Vec<Standby>, StepError> {
        Ok(Standby::among(&self.registry.databases(tenant).await?, database))
    }
}

impl Standby {
    /// Those of this database.
    pub(crate) fn among(entries: &[TenantDatabase], database: &DatabaseName) -> Vec<Self> {
        entries.iter().filter(|e| e.is_standby_of(database)).map(Self::of).collect()
    }
    fn of(entry: &TenantDatabase) -> Self {
        let (host, root_certificate) = (entry.host.clone(), entry.settings.root_certificate.clone());
        Self { host, port: entry.port, tls: entry.settings.tls, root_certificate }
    }

    /// As the provisioner, whose logins and maintenance database are there as everything is.
    async fn open(
        &self, primary: &DatabaseServer, password: &SecretString, name: &str,
    ) -> Result<PgConnection, ClusterError> {
        let Self { host, port, tls, root_certificate } = self.clone();
        let tls = tls.unwrap_or_else(|| primary.tls_for(&host));
        let root_certificate = root_certificate.or_else(|| primary.root_certificate.clone());
        let server = DatabaseServer { host, port, tls, root_certificate, ..primary.clone() };
        provisioner(&server, &server.names.maintenance, password, name, Purpose::Cluster).await
    }

    fn failed(&self, source: ClusterError) -> ClusterError {
        ClusterError::Standby { host: self.host.clone(), port: self.port, source: Box::new(source) }
    }
}

/// What is to be refused on a standby.
struct Refusal<'a> {
    /// Where the primary's log stood when it refused.
    position: String,
    database: &'a DatabaseName,
    logins: Vec<&'a RoleName>,
    grace: Duration,
}

impl LockedSession {
    /// As [`refuse`](Self::refuse), which must have run, for the tenant's standbys. All of them are tried.
    pub(crate) async fn refuse_on_standbys(
        &mut self, standbys: &[Standby], names: &TenantNames, logins: &[RoleName],
    ) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        self.refuse_on(standbys, names, &all, Duration::ZERO).await
    }

    /// Nobody comes in by these logins on the standbys, which the primary refuses already, and nobody is left in. Whoever is
    /// in gets a last moment of the grace, if there is one. The sessions there are part of this hold's place among the
    /// workers.
    pub(super) async fn refuse_on(
        &mut self, standbys: &[Standby], names: &TenantNames, logins: &[&RoleName], grace: Duration,
    ) -> Result<(), StepError> {
        // The standby that took over is the primary now, and never replays again.
        let standbys: Vec<_> = standbys.iter().filter(|s| !self.server.is_at(&s.host, s.port)).collect();
        if standbys.is_empty() {
            return Ok(());
        }
        let Self { session, server, password, name, ownership, .. } = self;
        let logins = catalog::only_ours(session, logins, &ownership.admin).await?;
        let (position, database) = (standby::position(session).await?, &names.database);
        let refusal = Refusal { position, database, logins, grace: LAST_MOMENT.min(grace) };
        let refused = standbys.iter().map(async |standby| {
            let ended = async {
                let mut there = standby.open(server, password, name).await?;
                refusal.hold_on(&mut there).await?;
                session::close(there).await;
                Ok(())
            };
            ended.await.map_err(|error| standby.failed(error))
        });
        let all: Result<(), ClusterError> = join_all(refused).await.into_iter().collect();
        Ok(all?)
    }

    /// Waits for `grace` until the login has no session, on the primary and on those standbys that can be asked.
    pub(super) async fn drained(
        &mut self, login: &RoleName, grace: Duration, standbys: &[Standby],
    ) -> Result<(), StepError> {
        let Self { session, server, password, name, .. } = self;
        let until = Instant::now() + grace;
        let there = join_all(standbys.iter().map(async |standby| {
            // One that does not answer holds nobody up: it is told of when the login is refused.
            let opened = timeout_at(until.min(Instant::now() + SETTLING), standby.open(server, password, name)).await;
            let Ok(Ok(mut there)) = opened else { return };
            let left = until.saturating_duration_since(Instant::now());
            if let Err(error) = terminate::wait_until_idle(&mut there, login, left).await {
                tracing::debug!(host = standby.host, %error, "a standby is not asked any more who is in");
            }
            session::close(there).await;
        }));
        let (here, _) = join(terminate::wait_until_idle(session, login, grace), there).await;
        here?;
        Ok(())
    }
}

impl Refusal<'_> {
    /// In a session on the standby.
    async fn hold_on(&self, there: &mut PgConnection) -> Result<(), ClusterError> {
        let at_once = self.grace.is_zero();
        standby::awaited(there, &self.position, &self.logins, at_once).await?;
        if at_once {
            terminate::signal_role_sessions(there, &self.logins).await?;
        }
        terminate::wait_for_connecting_sessions(there, self.database, if at_once { Duration::ZERO } else { SETTLING })
            .await?;
        if !at_once {
            let until = Instant::now() + self.grace;
            for login in &self.logins {
                terminate::wait_until_idle(there, login, until.saturating_duration_since(Instant::now())).await?;
            }
        }
        terminate::terminate_role_sessions(there, &self.logins).await
    }
}
