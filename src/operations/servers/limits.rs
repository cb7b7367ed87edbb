//! Reconciles the CONNECTION LIMIT of every login with what this installation says.
//!
//! `set_up` runs it for its server, [`Tenantry::run`](crate::Tenantry::run) once a day for all. A login without a limit
//! lets one tenant take every connection of its server, and then it cannot be suspended.
use super::Servers;
use crate::cluster::OperationContext;
use crate::directory::{DatabaseUser, UserStatus};
use crate::error::{StepError, StoreError};
use crate::names::{RoleName, ServerName};
use crate::pool::budget::refusal::CountSessions;
use crate::server::{DatabaseServer, LoginSessions, ServerStatus};
use crate::tenant::TenantId;
use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::collections::HashMap;

/// Tenants that are looked at together.
const PAGE: u32 = 200;
/// Reads of the registry at once.
const AT_ONCE: usize = 4;

/// What one pass over the logins did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitReport {
    /// Logins that were looked at.
    pub seen: u32,
    /// Logins that had another limit, and have the right one now.
    pub changed: u32,
    /// Logins that may still have another limit: they could not be altered, or their server did not answer. The log says
    /// why; the next pass tries again.
    pub left: u32,
}

impl Servers {
    /// The same with this CONNECTION LIMIT for every login of an application; -1 takes limits away. Without it limits are
    /// left as they are.
    pub fn with_connection_limit(self, limit: i32) -> Self {
        Self { connection_limit: Some(limit), ..self }
    }

    /// Gives every login of every tenant (pending, active or retiring, of suspended and archived tenants too) the
    /// CONNECTION LIMIT of this installation. A login that may not log in stays so. Only what differs is altered.
    ///
    /// # Errors
    /// The landlord did not answer. A server that does not answer is logged and counted in [`LimitReport::left`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves some logins as they were. Any number of nodes may do this at once.
    pub async fn limit_logins(&self) -> Result<LimitReport, StoreError> {
        self.limit_logins_of(None).await
    }

    pub(super) async fn limit_logins_of(&self, only: Option<&ServerName>) -> Result<LimitReport, StoreError> {
        let mut report = LimitReport::default();
        let Some(limit) = self.connection_limit else { return Ok(report) };
        let servers = self.inhabited(only).await?;
        if servers.is_empty() {
            return Ok(report);
        }
        let registry = &self.stores.registry;
        let mut after = None;
        loop {
            let page = registry.page(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = Some(last.id());
            let users = stream::iter(page).map(|tenant| async move { registry.users(tenant.id()).await });
            let users: Vec<Vec<DatabaseUser>> = users.buffer_unordered(AT_ONCE).try_collect().await?;
            for (server, logins) in by_server(users.into_iter().flatten(), &servers) {
                report.add(logins.len(), self.limit_on(server, &logins, limit).await);
            }
        }
    }

    async fn inhabited(&self, only: Option<&ServerName>) -> Result<HashMap<ServerName, DatabaseServer>, StoreError> {
        let all = self.stores.servers.servers().await?.into_iter();
        let all = all.filter(|load| load.tenants > 0 && load.server.status == ServerStatus::Ready);
        let these = all.filter(|load| only.is_none_or(|name| *name == load.server.name));
        Ok(these.map(|load| (load.server.name.clone(), load.server)).collect())
    }

    /// How many were changed and left, on one session.
    async fn limit_on(
        &self, server: &DatabaseServer, logins: &[DatabaseUser], limit: i32,
    ) -> Result<(u32, u32), StepError> {
        let Some(first) = logins.first() else { return Ok((0, 0)) };
        let mut locked = self.stores.retirer(first.tenant, server.clone()).await?;
        let names: Vec<RoleName> = logins.iter().map(|login| login.role.clone()).collect();
        let limited = locked.limit_logins(&names, limit).await?;
        Ok((limited.changed, limited.left))
    }
}

impl LimitReport {
    fn add(&mut self, seen: usize, limited: Result<(u32, u32), StepError>) {
        let seen = u32::try_from(seen).unwrap_or(u32::MAX);
        let (changed, left) = limited.unwrap_or_else(|error| {
            tracing::warn!(%error, logins = seen, "connection limits are not looked at on a server; the next pass tries again");
            (0, seen)
        });
        self.seen += seen;
        self.changed += changed;
        self.left += left;
    }
}

fn by_server(
    users: impl Iterator<Item = DatabaseUser>, servers: &HashMap<ServerName, DatabaseServer>,
) -> Vec<(&DatabaseServer, Vec<DatabaseUser>)> {
    let mut logins: HashMap<ServerName, Vec<DatabaseUser>> = HashMap::new();
    for user in users.filter(|user| user.status != UserStatus::Dropped) {
        logins.entry(user.server.clone()).or_default().push(user);
    }
    logins.into_iter().filter_map(|(name, logins)| Some((servers.get(&name)?, logins))).collect()
}

#[async_trait]
impl CountSessions for OperationContext {
    async fn login_sessions(&self, tenant: TenantId, login: &str) -> Option<LoginSessions> {
        let counted = async {
            let Some(place) = self.place(tenant).await? else { return Ok(None) };
            let mut locked = self.retirer(tenant, place.server).await?;
            locked.login_sessions(login).await
        };
        match counted.await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%tenant, login, %error, "the sessions of a login cannot be counted");
                None
            }
        }
    }
}
