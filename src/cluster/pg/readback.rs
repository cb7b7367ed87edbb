//! Reading back which roles can connect to a tenant's database, after its logins were refused.
//!
//! A suspension succeeds only by what these queries find, not by the success of the statements before. REVOKE and ALTER
//! can succeed and leave another way to connect, for example a grant to PUBLIC.
use super::catalog;
use crate::error::ClusterError;
use crate::names::TenantNames;
use crate::names::{DatabaseName, RoleName};
use crate::server::DatabaseServer;
use sqlx::{FromRow, PgConnection};

/// Roles that may connect although the tenant is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exempt<'a> {
    /// Its provisioner logins and allowed roles are exempt.
    pub(crate) server: &'a DatabaseServer,
    /// Logins of other open operations of this crate.
    pub(crate) logins: &'a [RoleName],
}

/// A role that can log in and may connect to the database.
#[derive(Debug, FromRow)]
struct Entrant {
    name: String,
    is_superuser: bool,
    /// Whether it is a member of the admin role.
    is_provisioner: bool,
}

/// Verifies that only superusers and exempt roles can connect to the tenant's database; returns those superusers.
///
/// # Errors
/// `StillOpen` names every other role that can connect, or PUBLIC. `Privileged` names a role of the tenant that is
/// superuser or has CREATEROLE, whether or not it can log in.
pub(crate) async fn verify_closed(
    session: &mut PgConnection, names: &TenantNames, logins: &[&RoleName], exempt: Exempt<'_>,
) -> Result<Vec<String>, ClusterError> {
    verify_unprivileged(session, names, logins, exempt.server).await?;
    let (entrants, is_public) = find_entrants(session, &names.database, &exempt.server.names.admin).await?;
    let server = exempt.server;
    let own = [&server.names.blue, &server.names.green];
    let is_exempt = |entrant: &Entrant| {
        let is = |role: &RoleName| role.as_str() == entrant.name;
        let provisioner = entrant.is_provisioner && own.into_iter().any(is);
        provisioner || server.allowed_roles.iter().any(is) || exempt.logins.iter().any(is)
    };
    let (superusers, others): (Vec<_>, Vec<_>) = entrants.into_iter().partition(|e| e.is_superuser);
    let mut roles: Vec<String> = others.into_iter().filter(|e| !is_exempt(e)).map(|e| e.name).collect();
    if is_public {
        roles = vec![String::from("PUBLIC")];
    }
    match roles.is_empty() {
        true => Ok(superusers.into_iter().map(|e| e.name).collect()),
        false => Err(ClusterError::StillOpen { database: names.database.to_string(), roles: roles.join(", ") }),
    }
}

/// The roles that can log in and connect, and whether PUBLIC can connect. No role and `false` for a closed or absent
/// database.
async fn find_entrants(
    session: &mut PgConnection, database: &DatabaseName, admin: &RoleName,
) -> Result<(Vec<Entrant>, bool), ClusterError> {
    const ENTRANTS: &str = "SELECT r.rolname::text AS name, r.rolsuper AS is_superuser, \
            EXISTS (SELECT FROM pg_roles a WHERE a.rolname = $2 AND pg_has_role(r.oid, a.oid, 'MEMBER')) \
                AS is_provisioner \
        FROM pg_database d JOIN pg_roles r ON r.rolcanlogin AND has_database_privilege(r.oid, d.oid, 'CONNECT') \
        WHERE d.datname = $1 AND d.datallowconn ORDER BY 1";
    const PUBLIC: &str = "SELECT EXISTS (SELECT FROM pg_database \
        WHERE datname = $1 AND datallowconn AND has_database_privilege('public', oid, 'CONNECT'))";
    let public = sqlx::query_scalar(PUBLIC).bind(database.as_str()).fetch_one(&mut *session).await;
    let public = public.map_err(ClusterError::sql("reading back whether PUBLIC may connect"))?;
    let found = sqlx::query_as(ENTRANTS).bind(database.as_str()).bind(admin.as_str()).fetch_all(session).await;
    Ok((found.map_err(ClusterError::sql("reading back which roles may connect"))?, public))
}

/// Verifies that no role of the tenant is superuser or has CREATEROLE. Such a role could undo the refusal.
async fn verify_unprivileged(
    session: &mut PgConnection, names: &TenantNames, logins: &[&RoleName], server: &DatabaseServer,
) -> Result<(), ClusterError> {
    let mut all = logins.to_vec();
    all.extend([&names.roles.owner, &names.roles.app, &names.migrator]);
    let found = catalog::find_roles(session, &all, &server.names.admin).await?;
    match found.into_iter().find(|r| r.is_privileged) {
        Some(role) => Err(ClusterError::Privileged { role: role.name }),
        None => Ok(()),
    }
}

/// Whether this role can log in and connect to the database. A retired login must not be able to.
pub(crate) async fn can_enter(
    session: &mut PgConnection, database: &DatabaseName, role: &RoleName,
) -> Result<bool, ClusterError> {
    const CAN: &str = "SELECT EXISTS (SELECT FROM pg_database d, pg_roles r WHERE d.datname = $1 AND r.rolname = $2 \
        AND d.datallowconn AND r.rolcanlogin AND has_database_privilege(r.oid, d.oid, 'CONNECT'))";
    let can = sqlx::query_scalar(CAN).bind(database.as_str()).bind(role.as_str()).fetch_one(session).await;
    can.map_err(ClusterError::sql("reading back whether a login may connect"))
}
