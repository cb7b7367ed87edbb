//! Ending a tenant's sessions on the physical standbys of its server.
//!
//! Suspension and rotation call this after they have refused the logins on the primary. NOLOGIN and revoked memberships
//! arrive on a standby by replication; terminated sessions do not, so a worker opens a session there and signals them.
use super::{LAST_MOMENT, LockedSession, SETTLING, open_provisioner_session};
use crate::cluster::OperationContext;
use crate::cluster::pg::session::{self, Purpose};
use crate::cluster::pg::{catalog, standby, terminate};
use crate::directory::TenantDatabase;
use crate::error::{ClusterError, StepError};
use crate::names::TenantNames;
use crate::names::{DatabaseName, RoleName};
use crate::server::{AddressPolicy, DatabaseServer, TlsMode};
use crate::tenant::TenantId;
use futures_util::future::{join, join_all};
use secrecy::SecretString;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The address of a standby of a tenant's server, and the TLS settings for it.
#[derive(Clone, Debug)]
pub(crate) struct Standby {
    host: String,
    port: u16,
    /// `None`: the mode that [`DatabaseServer::tls_for`] selects for the host.
    tls: Option<TlsMode>,
    /// In PEM. `None`: the primary's certificate.
    root_certificate: Option<String>,
    /// What the application requires of the address.
    policy: AddressPolicy,
}

impl OperationContext {
    /// Reads the standbys of a tenant's database from its directory entries.
    pub(crate) async fn standbys(&self, tenant: TenantId, database: &DatabaseName) -> Result<Vec<Standby>, StepError> {
        Ok(self.standbys_among(&self.registry.databases(tenant).await?, database))
    }
    /// Selects the entries that are standbys of this database.
    pub(crate) fn standbys_among(&self, entries: &[TenantDatabase], database: &DatabaseName) -> Vec<Standby> {
        let policy = self.verified.policy();
        let standbys = entries.iter().filter(|entry| entry.is_standby_of(database));
        standbys.map(|entry| Standby::of(entry, policy.clone())).collect()
    }
}

impl Standby {
    fn of(entry: &TenantDatabase, policy: AddressPolicy) -> Self {
        let (host, root_certificate) = (entry.host.clone(), entry.settings.root_certificate.clone());
        Self { host, port: entry.port, tls: entry.settings.tls, root_certificate, policy }
    }

    /// Opens a session as the provisioner, whose login and maintenance database exist there by replication.
    async fn open(
        &self, primary: &DatabaseServer, password: &SecretString, name: &str,
    ) -> Result<PgConnection, ClusterError> {
        let Self { host, port, tls, root_certificate, policy } = self.clone();
        let tls = tls.unwrap_or_else(|| primary.tls_for(&host));
        policy.check(&host, tls)?;
        let root_certificate = root_certificate.or_else(|| primary.root_certificate.clone());
        let server = DatabaseServer { host, port, tls, root_certificate, ..primary.clone() };
        open_provisioner_session(&server, &server.names.maintenance, password, name, Purpose::Cluster).await
    }

    fn to_error(&self, source: ClusterError) -> ClusterError {
        ClusterError::Standby { host: self.host.clone(), port: self.port, source: Box::new(source) }
    }
}

/// Logins that the primary has refused and whose sessions on a standby are to end.
struct Refusal<'a> {
    /// WAL position of the primary after it had refused the logins.
    position: String,
    database: &'a DatabaseName,
    logins: Vec<&'a RoleName>,
    /// Time for the sessions to end before they are terminated; zero terminates them at once.
    grace: Duration,
}

impl LockedSession {
    /// Waits until the standbys refuse these logins and the migrator too, and terminates their sessions there.
    /// [`refuse`](Self::refuse) must have run on the primary. All standbys are tried, also after one has failed.
    pub(crate) async fn refuse_on_standbys(
        &mut self, standbys: &[Standby], names: &TenantNames, logins: &[RoleName],
    ) -> Result<(), StepError> {
        let all: Vec<&RoleName> = logins.iter().chain([&names.migrator]).collect();
        self.refuse_on(standbys, names, &all, Duration::ZERO).await
    }

    /// Ends the sessions of these logins on the standbys, after the primary has refused the logins. Sessions get at
    /// most two seconds of `grace` to end before they are terminated. The sessions that this opens are covered by the
    /// worker permit of this locked session.
    pub(super) async fn refuse_on(
        &mut self, standbys: &[Standby], names: &TenantNames, logins: &[&RoleName], grace: Duration,
    ) -> Result<(), StepError> {
        // After a failover the former standby is the primary. It replays nothing any more, so waiting for it would time
        // out.
        let standbys: Vec<_> = standbys.iter().filter(|s| !self.server.is_at(&s.host, s.port)).collect();
        if standbys.is_empty() {
            return Ok(());
        }
        let Self { session, server, password, name, ownership, .. } = self;
        let logins = catalog::find_own_roles(session, logins, &ownership.admin).await?;
        let (position, database) = (standby::read_flush_position(session).await?, &names.database);
        let refusal = Refusal { position, database, logins, grace: LAST_MOMENT.min(grace) };
        let results = standbys.iter().map(async |standby| {
            let refuse = async {
                let mut standby_session = standby.open(server, password, name).await?;
                refusal.enforce(&mut standby_session).await?;
                session::close(standby_session).await;
                Ok(())
            };
            refuse.await.map_err(|error| standby.to_error(error))
        });
        let all: Result<(), ClusterError> = join_all(results).await.into_iter().collect();
        Ok(all?)
    }

    /// Waits up to `grace` until the login has no session, on the primary and on the standbys that can be reached.
    /// Returns whether it has none there.
    pub(crate) async fn wait_for_drain(
        &mut self, login: &RoleName, grace: Duration, standbys: &[Standby],
    ) -> Result<bool, StepError> {
        let Self { session, server, password, name, .. } = self;
        let deadline = Instant::now() + grace;
        let on_standbys = join_all(standbys.iter().map(async |standby| {
            // A standby that does not answer must not delay the rotation. `refuse_on` reports it later as an error.
            let open_by = deadline.min(Instant::now() + SETTLING);
            let opened = timeout_at(open_by, standby.open(server, password, name)).await;
            let Ok(Ok(mut standby_session)) = opened else { return true };
            let left = deadline.saturating_duration_since(Instant::now());
            let is_idle = terminate::wait_until_idle(&mut standby_session, login, left).await.unwrap_or_else(|error| {
                tracing::debug!(host = standby.host, %error, "stopped waiting for sessions on a standby");
                true
            });
            session::close(standby_session).await;
            is_idle
        }));
        let (on_primary, on_standbys) = join(terminate::wait_until_idle(session, login, grace), on_standbys).await;
        Ok(on_primary? && on_standbys.into_iter().all(|is_idle| is_idle))
    }
}

impl Refusal<'_> {
    /// Waits, in a session on the standby, until it has replayed the refusal, and then ends the sessions of the logins.
    async fn enforce(&self, session: &mut PgConnection) -> Result<(), ClusterError> {
        let at_once = self.grace.is_zero();
        standby::wait_for_refusal(session, &self.position, &self.logins, at_once).await?;
        if at_once {
            terminate::signal_role_sessions(session, &self.logins).await?;
        }
        terminate::wait_for_connecting_sessions(
            session,
            self.database,
            if at_once { Duration::ZERO } else { SETTLING },
        )
        .await?;
        if !at_once {
            let deadline = Instant::now() + self.grace;
            for login in &self.logins {
                terminate::wait_until_idle(session, login, deadline.saturating_duration_since(Instant::now())).await?;
            }
        }
        terminate::terminate_role_sessions(session, &self.logins).await
    }
}
