//! "Ensure present" and "ensure absent": look, then do what is missing. Each may be repeated from any half-done state.
use super::ownership::Ownership;
use super::{catalog, ddl, holders, refuse, retry, terminate};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use crate::names::{GroupRoles, TenantNames};
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Nothing of these names may be there: what is found later under them is then ours.
pub(crate) async fn precheck(
    session: &mut PgConnection, names: &TenantNames, login: &RoleName,
) -> Result<(), ClusterError> {
    let roles = [&names.roles.owner, &names.roles.app, &names.migrator, login];
    match catalog::taken(session, roles, &names.database).await? {
        Some((kind, name)) => Err(ClusterError::Foreign { kind, name }),
        None => Ok(()),
    }
}

/// Whether a block was refused because something of that name is there; the session is then usable again. It is tried
/// before anybody looks: a provisioning that nothing has disturbed finds nothing.
async fn try_create(
    session: &mut PgConnection, block: ddl::Ddl, is_there: &str, phase: &'static str,
) -> Result<bool, ClusterError> {
    match block.execute(session).await {
        Ok(()) => Ok(true),
        Err(e) if sqlstate::is(&e, is_there) || sqlstate::unique_violation(&e).is_some() => {
            ddl::roll_back().run(session, "rolling back").await?;
            Ok(false)
        }
        Err(source) => Err(ClusterError::Sql { phase, source }),
    }
}

/// b1.
pub(crate) async fn create_group_roles(
    session: &mut PgConnection, roles: &GroupRoles, by: &Ownership,
) -> Result<(), ClusterError> {
    const PHASE: &str = "creating roles";
    let all = [&roles.owner, &roles.app];
    if try_create(session, ddl::create_groups(&all, &by.marker), sqlstate::DUPLICATE_OBJECT, PHASE).await? {
        return Ok(());
    }
    let present = catalog::only_made(session, &all, &by.admin, &by.marker).await?;
    let missing: Vec<&RoleName> = all.into_iter().filter(|r| !present.contains(r)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ddl::create_groups(&missing, &by.marker).run(session, PHASE).await
}

/// b2. A racing CREATE gives 42P04 or 23505: then it is looked at.
pub(crate) async fn create_database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    const PHASE: &str = "creating the database";
    if try_create(session, ddl::create_database(name), sqlstate::DUPLICATE_DATABASE, PHASE).await? {
        return Ok(());
    }
    match catalog::database(session, name).await? {
        Some(found) if found.owner != by.admin.as_str() => {
            Err(ClusterError::Foreign { kind: "database", name: name.to_string() })
        }
        Some(found) if found.connection_limit != -2 => Ok(()),
        half => {
            if half.is_some() {
                ddl::drop_database(name).run(session, "dropping a half-dropped database").await?;
            }
            ddl::create_database(name).run(session, PHASE).await
        }
    }
}

/// b5 and b7: the login is as described afterwards, whatever an earlier worker did to it.
pub(crate) async fn create_login(
    session: &mut PgConnection, login: &ddl::Login<'_>, by: &Ownership,
) -> Result<(), ClusterError> {
    const PHASE: &str = "creating a login";
    if try_create(session, ddl::create_login(login, &by.marker), sqlstate::DUPLICATE_OBJECT, PHASE).await? {
        return Ok(());
    }
    match catalog::only_made(session, &[login.name], &by.admin, &by.marker).await?.is_empty() {
        true => ddl::create_login(login, &by.marker).run(session, PHASE).await,
        false => ddl::renew_login(login, &by.admin).run(session, "renewing a login").await,
    }
}

/// Shuts those of `logins` that exist out, and waits until their sessions have ended: for logins that are dropped next.
/// Returns which they are.
pub(crate) async fn refuse_logins<'a>(
    session: &mut PgConnection, database: &DatabaseName, logins: &[&'a RoleName], by: &Ownership,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let mut refused = refuse::take_logins(session, logins, by).await?;
    if refused.logins.is_empty() {
        return Ok(refused.logins);
    }
    refuse::forbid_logins(session, &mut refused, None).await?;
    terminate::wait_for_connecting_sessions(session, database, Duration::ZERO).await?;
    terminate::terminate_role_sessions(session, &refused.logins).await?;
    Ok(refused.logins)
}

/// Closes the database: no role enters it, whatever its rights. A tenant's session may hold the database's row locked: the
/// logins must have been refused before, so that such a session is about to end.
pub(crate) async fn close_database(
    session: &mut PgConnection, database: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    if find_own_database(session, database, by).await?.is_some_and(|found| found.is_open) {
        retry::retry_contended(session, || ddl::close_database(database), "closing the database").await?;
    }
    Ok(())
}

/// Opens the database and lets one login in again.
pub(crate) async fn open_database(
    session: &mut PgConnection, database: &DatabaseName, login: &RoleName, acts_as: &RoleName, by: &Ownership,
) -> Result<(), ClusterError> {
    let missing = || ClusterError::Missing { kind: "database", name: database.to_string() };
    let found = find_own_database(session, database, by).await?.ok_or_else(missing)?;
    verify_role_exists(session, login, by).await?;
    ddl::restore(database, found.own_limit(), login, acts_as, &by.admin).run(session, "opening the database").await
}

async fn verify_role_exists(session: &mut PgConnection, login: &RoleName, by: &Ownership) -> Result<(), ClusterError> {
    match catalog::only_ours(session, &[login], &by.admin).await?.is_empty() {
        true => Err(ClusterError::Missing { kind: "role", name: login.to_string() }),
        false => Ok(()),
    }
}

/// Lets one refused login in again.
pub(crate) async fn admit_login(
    session: &mut PgConnection, login: &RoleName, acts_as: &RoleName, by: &Ownership,
) -> Result<(), ClusterError> {
    verify_role_exists(session, login, by).await?;
    ddl::admit_login(login, acts_as, &by.admin).run(session, "admitting a login").await
}

/// Lets those refused logins in again that were made.
pub(crate) async fn admit_existing_logins(
    session: &mut PgConnection, logins: &[&RoleName], acts_as: &RoleName, by: &Ownership,
) -> Result<(), ClusterError> {
    for login in catalog::only_ours(session, logins, &by.admin).await? {
        ddl::admit_login(login, acts_as, &by.admin).run(session, "admitting a login").await?;
    }
    Ok(())
}

/// Drops a role, alone. `Some`: something depends on it (2BP01), with what PostgreSQL says of it.
pub(crate) async fn drop_own_role(
    session: &mut PgConnection, role: &RoleName, by: &Ownership,
) -> Result<Option<String>, ClusterError> {
    if catalog::only_ours(session, &[role], &by.admin).await?.is_empty() {
        return Ok(None);
    }
    drop_role(session, role).await
}

/// The same for a role that was seen to be ours under this very lock.
pub(crate) async fn drop_role(session: &mut PgConnection, role: &RoleName) -> Result<Option<String>, ClusterError> {
    match ddl::drop_role(role).execute(session).await {
        Ok(()) => Ok(None),
        Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => Ok(None),
        Err(e) if sqlstate::is(&e, sqlstate::DEPENDENT_OBJECTS) => Ok(Some(sqlstate::detail(&e))),
        Err(source) => Err(ClusterError::Sql { phase: "dropping a role", source }),
    }
}

/// The database, if one of this name exists: the admin role must own it.
///
/// # Errors
/// `WrongOwner`: it cannot be closed, opened or dropped by us.
pub(crate) async fn find_own_database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<Option<catalog::DatabaseFacts>, ClusterError> {
    match catalog::database(session, name).await? {
        Some(found) if found.owner != by.admin.as_str() => {
            let (database, owner, admin) = (name.to_string(), found.owner, by.admin.to_string());
            Err(ClusterError::WrongOwner { database, owner, admin })
        }
        found => Ok(found),
    }
}

/// Closes the database, ends its sessions and drops it. The logins must have been refused before. 55006: a session was
/// faster than the closing. 55P03: a session or a prepared transaction, of any tenant, holds the database's object locked;
/// sessions are signalled. `Some` holds the server's error when another session holds or has just changed the database: the
/// caller rolls back prepared transactions and tries again.
pub(crate) async fn drop_database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<Option<sqlx::Error>, ClusterError> {
    const LIMIT: Duration = Duration::from_secs(60);
    let until = Instant::now() + LIMIT;
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
            Err(e) if sqlstate::is(&e, sqlstate::OBJECT_IN_USE) && Instant::now() < until => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(e) if sqlstate::is_contended(&e) => {
                holders::end_holders(session, name, &by.admin).await?;
                return Ok(Some(e));
            }
            Err(source) => return Err(ClusterError::Sql { phase: "dropping the database", source }),
        }
    }
}
