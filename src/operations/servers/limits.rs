//! Sets the CONNECTION LIMIT of every application login to the value that this installation is configured with.
//!
//! `set_up` does this for its server, and [`Tenantry::run`](crate::Tenantry::run) once a day for all servers. With a
//! login without a limit one tenant can take every connection of its server; then no worker can connect to suspend it.
use super::Servers;
use crate::cluster::OperationContext;
use crate::directory::{DatabaseUser, UserStatus};
use crate::error::{StepError, StoreError, chain};
use crate::names::{RoleName, ServerName};
use crate::pool::budget::login_limit::CountSessions;
use crate::server::{DatabaseServer, LoginSessions, ServerStatus};
use crate::tenant::TenantId;
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Tenants that one read of the registry returns.
const PAGE_SIZE: u32 = 200;
/// Concurrent reads of tenants' logins from the registry.
const CONCURRENCY: usize = 4;

/// Number of logins that one pass covered, changed and left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitReport {
    /// Logins that the pass covered.
    pub seen: u32,
    /// Logins whose limit was different and was changed.
    pub changed: u32,
    /// Logins that may still have another limit, because they could not be altered or their server did not answer. The
    /// log has the reason, and the next pass tries again.
    pub left: u32,
}

impl Servers {
    /// Sets the CONNECTION LIMIT that [`limit_logins`](Self::limit_logins) gives to every application login; -1 removes
    /// the limits. Default: limits are left unchanged.
    pub fn with_connection_limit(self, limit: i32) -> Self {
        Self { connection_limit: Some(limit), ..self }
    }

    /// Gives every login of every tenant the CONNECTION LIMIT of this installation. This covers pending, active and
    /// retiring logins, also of suspended and archived tenants. Only logins with another limit are altered, and NOLOGIN
    /// stays set.
    ///
    /// # Errors
    /// If the landlord does not answer. A server that does not answer is logged, and its logins count in
    /// [`LimitReport::left`].
    ///
    /// # Cancel safety
    /// A dropped future leaves some logins unchanged. Any number of nodes may call this concurrently.
    pub async fn limit_logins(&self) -> Result<LimitReport, StoreError> {
        self.limit_logins_of(None).await
    }

    pub(super) async fn limit_logins_of(&self, only: Option<&ServerName>) -> Result<LimitReport, StoreError> {
        let mut report = LimitReport::default();
        let Some(limit) = self.connection_limit else { return Ok(report) };
        let servers = self.read_occupied_servers(only).await?;
        if servers.is_empty() {
            return Ok(report);
        }
        let registry = &self.stores.registry;
        let (mut after, mut reported) = (None, HashSet::new());
        loop {
            let mut page = registry.page(after, PAGE_SIZE).await?;
            // The next page reads the rows after the last readable one again.
            page.unreadable.retain(|row| reported.insert(row.id().to_owned()));
            report.left += page.unreadable.len() as u32;
            let page = page.log_unreadable();
            let Some(last) = page.last() else { return Ok(report) };
            after = Some(last.id());
            let users = stream::iter(page).map(|tenant| async move { registry.users(tenant.id()).await });
            let users: Vec<_> = users.buffer_unordered(CONCURRENCY).collect().await;
            let mut readable: Vec<DatabaseUser> = vec![];
            for users in users {
                match users {
                    Ok(users) => readable.extend(users),
                    Err(error @ StoreError::Corrupt(_)) => {
                        report.left += 1;
                        tracing::warn!(error = %chain(&error), "the logins of a tenant keep their connection limits");
                    }
                    Err(error) => return Err(error),
                }
            }
            for (server, logins) in group_by_server(readable.into_iter(), &servers) {
                report.add(logins.len(), self.limit_on(server, &logins, limit).await);
            }
        }
    }

    /// The ready servers that have tenants; with `only`, at most that one.
    async fn read_occupied_servers(
        &self, only: Option<&ServerName>,
    ) -> Result<HashMap<ServerName, DatabaseServer>, StoreError> {
        let all = self.stores.servers.servers().await?.log_unreadable().into_iter();
        let all = all.filter(|load| load.tenants > 0 && load.server.status == ServerStatus::Ready);
        let selected = all.filter(|load| only.is_none_or(|name| *name == load.server.name));
        Ok(selected.map(|load| (load.server.name.clone(), load.server)).collect())
    }

    /// Alters the logins of one server in one session. Returns how many were changed and how many could not be.
    async fn limit_on(
        &self, server: &DatabaseServer, logins: &[DatabaseUser], limit: i32,
    ) -> Result<(u32, u32), StepError> {
        let Some(first) = logins.first() else { return Ok((0, 0)) };
        let mut locked = self.stores.open_retirement_session(first.tenant, server.clone()).await?;
        let names: Vec<RoleName> = logins.iter().map(|login| login.role.clone()).collect();
        let limited = locked.limit_logins(&names, limit).await?;
        Ok((limited.changed, limited.left))
    }
}

impl LimitReport {
    fn add(&mut self, seen: usize, limited: Result<(u32, u32), StepError>) {
        let seen = u32::try_from(seen).unwrap_or(u32::MAX);
        let (changed, left) = limited.unwrap_or_else(|error| {
            tracing::warn!(%error, logins = seen, "connection limits on a server were not checked; the next pass retries");
            (0, seen)
        });
        self.seen += seen;
        self.changed += changed;
        self.left += left;
    }
}

/// Groups logins by their server. Dropped logins, temporary ones, which have a lower limit of their own, and logins on
/// other servers than these are left out.
fn group_by_server(
    users: impl Iterator<Item = DatabaseUser>, servers: &HashMap<ServerName, DatabaseServer>,
) -> Vec<(&DatabaseServer, Vec<DatabaseUser>)> {
    let mut logins: HashMap<ServerName, Vec<DatabaseUser>> = HashMap::new();
    for user in users.filter(|user| user.status != UserStatus::Dropped && !user.is_temporary()) {
        logins.entry(user.server.clone()).or_default().push(user);
    }
    logins.into_iter().filter_map(|(name, logins)| Some((servers.get(&name)?, logins))).collect()
}

#[async_trait]
impl CountSessions for OperationContext {
    async fn login_sessions(&self, tenant: TenantId, login: &str) -> Option<LoginSessions> {
        let counted = async {
            let Some(location) = self.find_location(tenant).await? else { return Ok(None) };
            let mut locked = self.open_retirement_session(tenant, location.server).await?;
            locked.login_sessions(login).await
        };
        match counted.await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%tenant, login, %error, "the sessions of a login could not be counted");
                None
            }
        }
    }
}
