//! Setting up a server once, in the session of the server admin: a superuser, or a login with CREATEDB and CREATEROLE.
//!
//! `Servers::set_up` calls these functions in order: the three roles, the maintenance database, the optional rights,
//! and closing shared databases. Each looks at the catalogs first, so a set-up that died may be repeated.
use super::ownership::MARK;
use super::scram::Verifier;
use super::{catalog, ddl};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::ServerNames;
use crate::sqlstate;
use sqlx::{FromRow, PgConnection};

/// The rights of the server admin, and the server's version.
#[derive(Debug, FromRow)]
pub(crate) struct Admin {
    pub(crate) role: String,
    pub(crate) superuser: bool,
    pub(crate) create_role: bool,
    pub(crate) create_db: bool,
    /// `server_version_num`, for example 160002.
    pub(crate) version: i32,
}

/// Reads the rights of the session's current user.
pub(crate) async fn read_admin_rights(session: &mut PgConnection) -> Result<Admin, ClusterError> {
    const ADMIN: &str = "SELECT current_user::text AS role, rolsuper AS superuser, rolcreaterole AS create_role, \
        rolcreatedb AS create_db, current_setting('server_version_num')::int AS version \
        FROM pg_catalog.pg_roles WHERE rolname = current_user";
    sqlx::query_as(ADMIN).fetch_one(session).await.map_err(ClusterError::sql("reading the server admin's rights"))
}

/// Makes sure that the admin role and the two provisioner logins exist, with these verifiers.
///
/// # Errors
/// `Foreign` names a role that exists with another marker. Then nothing was changed.
pub(crate) async fn ensure_roles(
    session: &mut PgConnection, names: &ServerNames, verifiers: [&Verifier; 2], marker: &str,
) -> Result<(), ClusterError> {
    let all = [&names.admin, &names.blue, &names.green];
    let present = catalog::find_marked_roles(session, all, marker).await?;
    let has = |role: &RoleName| present.contains(&role);
    match has(&names.admin) {
        true => ddl::renew_admin(&names.admin).run(session, "renewing the admin role").await?,
        false => ddl::create_admin(&names.admin, marker).run(session, "creating the admin role").await?,
    }
    for (login, verifier) in [&names.blue, &names.green].into_iter().zip(verifiers) {
        let statement = match has(login) {
            true => ddl::renew_provisioner(login, &names.admin, verifier),
            false => ddl::create_provisioner(login, &names.admin, verifier, marker),
        };
        statement.run(session, "creating the provisioner's logins").await?;
    }
    Ok(())
}

/// Makes sure that the maintenance database exists and is owned by the admin role.
///
/// # Errors
/// `Foreign` if the database has another owner.
pub(crate) async fn ensure_maintenance(session: &mut PgConnection, names: &ServerNames) -> Result<(), ClusterError> {
    match catalog::find_database(session, &names.maintenance).await? {
        Some(found) if found.owner == names.admin.as_str() => return revoke_lent_admin(session, &names.admin).await,
        Some(_) => return Err(ClusterError::Foreign { kind: "database", name: names.maintenance.to_string() }),
        None => {}
    }
    // CREATE DATABASE … OWNER needs the membership, so it is granted for this statement and revoked. From 16 on the
    // server admin then keeps only the ADMIN option, which the creator of a role gets.
    ddl::lend_admin(&names.admin).run(session, "lending the admin role").await?;
    let create = ddl::create_maintenance(&names.maintenance, &names.admin).execute(session).await;
    revoke_lent_admin(session, &names.admin).await?;
    match create {
        Err(e) if !sqlstate::is(&e, sqlstate::DUPLICATE_DATABASE) => {
            Err(ClusterError::Sql { phase: "creating the maintenance database", source: e })
        }
        _ => Ok(()),
    }
}

/// Revokes the membership in the admin role that this set-up, or an earlier one that died, has granted. From 16 on the
/// creator of a role has a membership without SET and INHERIT, which is not counted.
async fn revoke_lent_admin(session: &mut PgConnection, admin: &RoleName) -> Result<(), ClusterError> {
    const LENT: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r \
        ON r.oid = m.member AND r.rolname = current_user \
        WHERE m.roleid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) \
          AND (coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::bool, true) \
            OR coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::bool, true)))";
    let lent = sqlx::query_scalar(LENT).bind(admin.as_str()).fetch_one(&mut *session).await;
    match lent.map_err(ClusterError::sql("looking for the server admin's memberships"))? {
        true => ddl::take_admin_back(admin).run(session, "taking the admin role back").await,
        false => Ok(()),
    }
}

/// Predefined roles that the admin role should have, each with the consequence of not having it.
pub(super) const OPTIONAL: [(&str, &str); 3] = [
    ("pg_signal_backend", "sessions of the other provisioner login cannot be ended"),
    ("pg_read_all_stats", "what other roles' sessions do cannot be seen"),
    (RESERVED, "the provisioner has no connection reserved for it: on a full server no tenant can be suspended"),
];
/// Exists from PostgreSQL 16 on, and has an effect if `reserved_connections` is set.
pub(super) const RESERVED: &str = "pg_use_reserved_connections";

/// Grants the predefined roles that a managed service may refuse. Returns a message for each refusal, with its
/// consequence.
pub(crate) async fn grant_optional_roles(
    session: &mut PgConnection, admin: &RoleName,
) -> Result<Vec<String>, ClusterError> {
    let mut refused = vec![];
    for (group, without) in OPTIONAL {
        match ddl::grant_predefined(group, admin).execute(session).await {
            Ok(()) => {}
            Err(e) if group == RESERVED && sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => {}
            Err(e) if sqlstate::is(&e, sqlstate::INSUFFICIENT_PRIVILEGE) => {
                refused.push(format!("{group} was refused (42501): {without}"));
            }
            Err(source) => return Err(ClusterError::Sql { phase: "granting a predefined role", source }),
        }
    }
    Ok(refused)
}

/// A message if the cluster's locale does not fit the encoding UTF8, so that tenants' databases get the locale `C`.
pub(crate) async fn describe_unfit_locale(session: &mut PgConnection) -> Result<Option<String>, ClusterError> {
    // SQL_ASCII fits every locale. `C` and `POSIX` fit every encoding. A name such as `de_DE.utf8` fits UTF8.
    const UNFIT: &str = "SELECT datctype::text FROM pg_catalog.pg_database WHERE datname = 'template0' \
        AND pg_catalog.pg_encoding_to_char(encoding) NOT IN ('UTF8', 'SQL_ASCII') \
        AND datctype NOT IN ('C', 'POSIX') AND datctype !~* 'utf-?8'";
    let unfit: Option<String> = sqlx::query_scalar(UNFIT)
        .fetch_optional(session)
        .await
        .map_err(ClusterError::sql("reading the cluster's locale"))?;
    Ok(unfit.map(|locale| {
        format!(
            "the cluster's locale {locale} does not fit UTF8, so tenants' databases get the locale C: texts are sorted \
             by their bytes, and only ASCII letters change their case"
        )
    }))
}

/// Revokes CONNECT and TEMPORARY on a database from PUBLIC, and grants them to `keep` and to every login that has a
/// session there, except logins of tenants. Returns the reason if the database stayed open. It reads the rights back,
/// because REVOKE by a role that is not the owner succeeds with only a warning.
///
/// # Errors
/// `Sql` with a contended state if another session has locked the database's row. The session's transaction is failed
/// then.
pub(crate) async fn close_to_public(
    session: &mut PgConnection, database: &str, keep: &[String],
) -> Result<Option<String>, ClusterError> {
    const INSIDE: &str = "SELECT DISTINCT usename::text FROM pg_catalog.pg_stat_activity \
        WHERE datname = $1 AND usename IS NOT NULL AND NOT \
        pg_catalog.starts_with(coalesce(pg_catalog.shobj_description(usesysid, 'pg_authid'), ''), $2)";
    let inside: Vec<String> = sqlx::query_scalar(INSIDE)
        .bind(database)
        .bind(MARK)
        .fetch_all(&mut *session)
        .await
        .map_err(ClusterError::sql("listing the roles that are connected"))?;
    let mut keep: Vec<String> = keep.iter().cloned().chain(inside).collect();
    keep.sort();
    keep.dedup();
    if let Err(e) = ddl::close_to_public(database, &keep).execute(session).await {
        if sqlstate::is_contended(&e) {
            return Err(ClusterError::Sql { phase: "closing a shared database to PUBLIC", source: e });
        }
        let rollback = sqlx::query("ROLLBACK").execute(&mut *session).await;
        rollback.map_err(ClusterError::sql("rolling back"))?;
        let code = sqlstate::code(&e).unwrap_or_default().into_owned();
        return Ok(Some(format!("{database} stays open to PUBLIC: the server admin may not change it ({code})")));
    }
    is_closed(session, database).await.map(|is_closed| {
        (!is_closed).then(|| format!("{database} stays open to PUBLIC: the admin role does not own it"))
    })
}

/// Whether PUBLIC has no CONNECT right on the database. `false` if the database does not exist.
pub(crate) async fn is_closed(session: &mut PgConnection, database: &str) -> Result<bool, ClusterError> {
    const OPEN: &str = "SELECT pg_catalog.has_database_privilege('public', oid, 'CONNECT') \
        FROM pg_catalog.pg_database WHERE datname = $1";
    let open: Option<bool> = sqlx::query_scalar(OPEN)
        .bind(database)
        .fetch_optional(session)
        .await
        .map_err(ClusterError::sql("reading a database's rights"))?;
    Ok(open == Some(false))
}

/// A text that identifies the running cluster and does not depend on the session's time zone or date style.
pub(super) const CLUSTER: &str = "SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text || ' ' \
    || pg_catalog.current_setting('port') || ' ' || pg_catalog.current_setting('data_checksums')";

/// Reads a text that is equal for two connections if they are on the same running cluster.
pub(crate) async fn read_cluster_id(session: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(CLUSTER).fetch_one(session).await
}

/// Revokes the rights of PUBLIC on the maintenance database. Run it as the provisioner, in that database.
pub(crate) async fn close_maintenance(session: &mut PgConnection, database: &DatabaseName) -> Result<(), ClusterError> {
    ddl::close_maintenance(database).run(session, "closing the maintenance database").await
}
