//! Block (a): what a server needs once, made by an admin's session. Each part looks first, so it may be repeated.
use super::ownership::MARK;
use super::scram::Verifier;
use super::{catalog, ddl};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::server::ServerNames;
use crate::sqlstate;
use sqlx::{FromRow, PgConnection};

/// What the admin may do, and on what.
#[derive(Debug, FromRow)]
pub(crate) struct Admin {
    pub(crate) role: String,
    pub(crate) superuser: bool,
    pub(crate) create_role: bool,
    pub(crate) create_db: bool,
    pub(crate) version: i32,
}

pub(crate) async fn admin(session: &mut PgConnection) -> Result<Admin, ClusterError> {
    const ADMIN: &str = "SELECT current_user::text AS role, rolsuper AS superuser, rolcreaterole AS create_role, \
        rolcreatedb AS create_db, current_setting('server_version_num')::int AS version \
        FROM pg_catalog.pg_roles WHERE rolname = current_user";
    sqlx::query_as(ADMIN).fetch_one(session).await.map_err(ClusterError::sql("asking for the admin's rights"))
}

/// The three roles. One of these names with another marker belongs to somebody else.
pub(crate) async fn roles(
    session: &mut PgConnection, names: &ServerNames, verifiers: [&Verifier; 2], marker: &str,
) -> Result<(), ClusterError> {
    let all = [&names.admin, &names.blue, &names.green];
    let present = catalog::marked(session, all, marker).await?;
    let has = |role: &RoleName| present.contains(&role);
    if !has(&names.admin) {
        ddl::create_admin(&names.admin, marker).run(session, "creating the admin role").await?;
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

/// The maintenance database, owned by the admin role.
pub(crate) async fn maintenance(session: &mut PgConnection, names: &ServerNames) -> Result<(), ClusterError> {
    match catalog::database(session, &names.maintenance).await? {
        Some(found) if found.owner == names.admin.as_str() => return take_back(session, &names.admin).await,
        Some(_) => return Err(ClusterError::Foreign { kind: "database", name: names.maintenance.to_string() }),
        None => {}
    }
    // The membership is given for this statement and taken back: on 16 and later the admin keeps ADMIN alone.
    ddl::lend_admin(&names.admin, true).run(session, "lending the admin role").await?;
    let create = ddl::create_maintenance(&names.maintenance, &names.admin).execute(session).await;
    take_back(session, &names.admin).await?;
    match create {
        Err(e) if !sqlstate::is(&e, sqlstate::DUPLICATE_DATABASE) => {
            Err(ClusterError::Sql { phase: "creating the maintenance database", source: e })
        }
        _ => Ok(()),
    }
}

/// Also what a set-up that died had lent. Without SET and INHERIT a membership is but the creator's own, from 16 on.
async fn take_back(session: &mut PgConnection, admin: &RoleName) -> Result<(), ClusterError> {
    const LENT: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r \
        ON r.oid = m.member AND r.rolname = current_user \
        WHERE m.roleid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) \
          AND (coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::bool, true) \
            OR coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::bool, true)))";
    let lent = sqlx::query_scalar(LENT).bind(admin.as_str()).fetch_one(&mut *session).await;
    match lent.map_err(ClusterError::sql("looking for the admin's memberships"))? {
        true => ddl::lend_admin(admin, false).run(session, "taking the admin role back").await,
        false => Ok(()),
    }
}

/// Predefined roles, and what is not possible without each.
pub(super) const OPTIONAL: [(&str, &str); 3] = [
    ("pg_signal_backend", "sessions of the other provisioner login cannot be ended"),
    ("pg_read_all_stats", "what other roles' sessions do cannot be seen"),
    (RESERVED, "the provisioner has no connection reserved for it: on a full server no tenant can be suspended"),
];
/// It exists from 16 on, and has an effect where `reserved_connections` is set.
pub(super) const RESERVED: &str = "pg_use_reserved_connections";

/// Rights that a managed service may refuse: each that was refused, with what is then not possible.
pub(crate) async fn optional(session: &mut PgConnection, admin: &RoleName) -> Result<Vec<String>, ClusterError> {
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

/// Takes CONNECT and TEMPORARY on a database from PUBLIC, and gives them to `keep` and to every login that has a session
/// there; but to none of a tenant, which has no business there. Answers why it stayed open, if it did: without ownership the statement "succeeds" with a warning alone.
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
        .map_err(ClusterError::sql("asking who is connected"))?;
    let mut keep: Vec<String> = keep.iter().cloned().chain(inside).collect();
    keep.sort();
    keep.dedup();
    if let Err(e) = ddl::close_to_public(database, &keep).execute(session).await {
        let rollback = sqlx::query("ROLLBACK").execute(&mut *session).await;
        rollback.map_err(ClusterError::sql("rolling back"))?;
        let code = sqlstate::code(&e).unwrap_or_default().into_owned();
        return Ok(Some(format!("{database} stays open to PUBLIC: the admin may not change it ({code})")));
    }
    is_closed(session, database)
        .await
        .map(|closed| (!closed).then(|| format!("{database} stays open to PUBLIC: the admin role does not own it")))
}

/// Whether PUBLIC may not connect.
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

/// What tells one cluster from another, whatever the time zone of the session.
pub(super) const CLUSTER: &str = "SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text || ' ' \
    || pg_catalog.current_setting('port') || ' ' || pg_catalog.current_setting('data_checksums')";

/// Two connections that see the same are on the same cluster.
pub(crate) async fn cluster_of(session: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(CLUSTER).fetch_one(session).await
}

/// Blocks of the set-up that the provisioner itself runs, in its maintenance database.
pub(crate) async fn close_maintenance(session: &mut PgConnection, database: &DatabaseName) -> Result<(), ClusterError> {
    ddl::close_maintenance(database).run(session, "closing the maintenance database").await
}
