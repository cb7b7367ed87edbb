//! Making sure that a tenant's roles and database are present, closed, open, or absent.
//!
//! `LockedSession` calls these functions while it has the tenant's lock. Each may be repeated from any half-done state,
//! and each fails with an error instead of changing an object that this installation does not own.
use super::ddl::Locale;
use super::ownership::Ownership;
use super::{catalog, ddl, holders, refuse, retry, terminate};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Runs SQL that creates something. `false` if an object of that name exists; the session is usable then. The block
/// is tried before any catalog query, because in a normal provisioning the name is free and the query would be wasted.
pub(crate) async fn try_create(
    session: &mut PgConnection, block: ddl::Ddl, exists_code: &str, phase: &'static str,
) -> Result<bool, ClusterError> {
    match block.execute(session).await {
        Ok(()) => Ok(true),
        Err(e) if sqlstate::is(&e, exists_code) || sqlstate::unique_violation(&e).is_some() => {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(false)
        }
        Err(source) => Err(ClusterError::Sql { phase, source }),
    }
}

/// Creates the tenant's database in UTF8, closed to connections, if it is missing. A concurrent CREATE DATABASE raises 42P04 or
/// 23505; then the existing database is inspected. One that an interrupted DROP DATABASE has left invalid is dropped
/// and created again.
///
/// # Errors
/// `Foreign` if the admin role does not own the database.
pub(crate) async fn create_database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    if try_create_database(session, name).await? {
        return Ok(());
    }
    let foreign = || ClusterError::Foreign { kind: "database", name: name.to_string() };
    match catalog::find_database(session, name).await? {
        Some(found) if found.owner != by.admin.as_str() => Err(foreign()),
        Some(found) if found.connection_limit != -2 => Ok(()),
        missing_or_invalid => {
            if missing_or_invalid.is_some() {
                ddl::drop_database(name).run(session, "dropping a half-dropped database").await?;
            }
            if try_create_database(session, name).await? { Ok(()) } else { Err(foreign()) }
        }
    }
}

/// Creates the database with the encoding UTF8; `false` if it exists. It gets the cluster's locale, or `C` if that one
/// does not fit UTF8. The first attempt decides, so that a provisioning on any other cluster needs no catalog query.
async fn try_create_database(session: &mut PgConnection, name: &DatabaseName) -> Result<bool, ClusterError> {
    const PHASE: &str = "creating the database";
    let exists = sqlstate::DUPLICATE_DATABASE;
    match try_create(session, ddl::create_database(name, Locale::Cluster), exists, PHASE).await {
        Err(ClusterError::Sql { source, .. }) if sqlstate::is(&source, sqlstate::INVALID_PARAMETER_VALUE) => {
            try_create(session, ddl::create_database(name, Locale::C), exists, PHASE).await
        }
        created => created,
    }
}

/// Creates a login, or sets its password, limit and membership if it exists.
///
/// # Errors
/// `Foreign` if this installation did not create it.
pub(crate) async fn create_login(
    session: &mut PgConnection, login: &ddl::Login<'_>, by: &Ownership,
) -> Result<(), ClusterError> {
    const PHASE: &str = "creating a login";
    let create = ddl::create_login(login, &by.marker);
    if try_create(session, create.first, sqlstate::DUPLICATE_OBJECT, PHASE).await? {
        return create.password.run(session, PHASE).await;
    }
    match catalog::find_made_roles(session, &[login.name], &by.admin, &by.marker).await?.is_empty() {
        true => ddl::create_login(login, &by.marker).run(session, PHASE).await,
        false => ddl::renew_login(login, &by.admin).run(session, "renewing a login").await,
    }
}

/// Refuses those of `logins` that exist, and waits until their sessions have ended. For logins that are dropped next.
/// Returns the logins that exist.
///
/// A session that is still connecting to the database shows no login yet. It gets `patience` to show one, and is
/// terminated after that. Zero is right only if no other login of the tenant may connect either.
pub(crate) async fn refuse_logins<'a>(
    session: &mut PgConnection, database: &DatabaseName, logins: &[&'a RoleName], by: &Ownership, patience: Duration,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let mut refused = refuse::take_logins(session, logins, by).await?;
    if refused.logins.is_empty() {
        return Ok(refused.logins);
    }
    refuse::forbid_logins(session, &mut refused, None).await?;
    terminate::wait_for_connecting_sessions(session, database, patience).await?;
    terminate::terminate_role_sessions(session, &refused.logins).await?;
    Ok(refused.logins)
}

/// Makes the database refuse all connections. The tenant's logins must have been refused before: a session of the
/// tenant may keep the database's row locked, and the statement is only retried for a moment.
pub(crate) async fn close_database(
    session: &mut PgConnection, database: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    if find_own_database(session, database, by).await?.is_some_and(|found| found.is_open) {
        retry::retry_contended(session, || ddl::close_database(database), "closing the database").await?;
    }
    Ok(())
}

/// Verifies that this role of the installation exists.
///
/// # Errors
/// `Missing` if it does not.
pub(crate) async fn verify_role_exists(
    session: &mut PgConnection, login: &RoleName, by: &Ownership,
) -> Result<(), ClusterError> {
    match catalog::find_own_roles(session, &[login], &by.admin).await?.is_empty() {
        true => Err(ClusterError::Missing { kind: "role", name: login.to_string() }),
        false => Ok(()),
    }
}

/// Admits one refused login.
///
/// # Errors
/// `Missing` if it does not exist.
pub(crate) async fn admit_login(
    session: &mut PgConnection, login: &RoleName, acts_as: &RoleName, by: &Ownership,
) -> Result<(), ClusterError> {
    verify_role_exists(session, login, by).await?;
    ddl::admit_login(login, acts_as, &by.admin).run(session, "admitting a login").await
}

/// Drops a role, if it exists. `Some` if an object depends on it (2BP01), with PostgreSQL's detail message.
///
/// # Errors
/// `Foreign` if the role is not one of this installation.
pub(crate) async fn drop_own_role(
    session: &mut PgConnection, role: &RoleName, by: &Ownership,
) -> Result<Option<String>, ClusterError> {
    if catalog::find_own_roles(session, &[role], &by.admin).await?.is_empty() {
        return Ok(None);
    }
    drop_role(session, role).await
}

/// As [`drop_own_role`], without the check, for a role that the caller has checked under the same lock.
pub(crate) async fn drop_role(session: &mut PgConnection, role: &RoleName) -> Result<Option<String>, ClusterError> {
    match ddl::drop_role(role).execute(session).await {
        Ok(()) => Ok(None),
        Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => Ok(None),
        Err(e) if sqlstate::is(&e, sqlstate::DEPENDENT_OBJECTS) => Ok(Some(sqlstate::detail(&e))),
        Err(source) => Err(ClusterError::Sql { phase: "dropping a role", source }),
    }
}

/// Reads the database, if one of this name exists.
///
/// # Errors
/// `WrongOwner` if the admin role does not own it and so can neither close, open nor drop it.
pub(crate) async fn find_own_database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<Option<catalog::DatabaseFacts>, ClusterError> {
    match catalog::find_database(session, name).await? {
        Some(found) if found.owner != by.admin.as_str() => {
            let (database, owner, admin) = (name.to_string(), found.owner, by.admin.to_string());
            Err(ClusterError::WrongOwner { database, owner, admin })
        }
        found => Ok(found),
    }
}

/// Closes the database, terminates its sessions and drops it. The logins must have been refused before.
///
/// On 55006 (a session connected before the database was closed) it tries again for up to 60 seconds. On 55P03 (a
/// session or a prepared transaction of any tenant locks the database's object) it signals those sessions and returns
/// `Some` with the error; likewise if another session has just changed the database's row. The caller then rolls back
/// prepared transactions and calls it again.
pub(crate) async fn drop_database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<Option<sqlx::Error>, ClusterError> {
    const LIMIT: Duration = Duration::from_secs(60);
    let deadline = Instant::now() + LIMIT;
    loop {
        let Some(found) = find_own_database(session, name, by).await? else { return Ok(None) };
        if found.connection_limit != -2 {
            close_database(session, name, by).await?;
            terminate::terminate_database_sessions(session, name).await?;
        }
        ddl::shorten_lock_timeout().run(session, "setting the lock timeout").await?;
        let dropped = ddl::drop_database(name).execute(session).await;
        ddl::restore_lock_timeout().run(session, "resetting the lock timeout").await?;
        match dropped {
            Ok(()) => return Ok(None),
            Err(e) if sqlstate::is(&e, sqlstate::INVALID_CATALOG_NAME) => return Ok(None),
            Err(e) if sqlstate::is(&e, sqlstate::OBJECT_IN_USE) && Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(e) if sqlstate::is_contended(&e) => {
                holders::terminate_holders(session, name, &by.admin).await?;
                return Ok(Some(e));
            }
            Err(source) => return Err(ClusterError::Sql { phase: "dropping the database", source }),
        }
    }
}
