//! "Ensure present" and "ensure absent": look, then do what is missing. Each may be repeated from any half-done state.
use super::{catalog, ddl, end};
use crate::database::{GroupRoles, TenantNames};
use crate::error::ClusterError;
use crate::ident::{DatabaseName, RoleName};
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// What every marker begins with, of whichever installation.
pub(crate) const MARK: &str = "tenantry ";

/// What makes an object ours beside its name.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    /// The comment on each role: installation and tenant.
    pub(crate) marker: String,
    /// The owner of each database.
    pub(crate) admin: RoleName,
}

/// Nothing of these names may be there: what is found later under them is then ours.
pub(crate) async fn survey(
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
async fn made(
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
pub(crate) async fn groups(session: &mut PgConnection, roles: &GroupRoles, by: &Ownership) -> Result<(), ClusterError> {
    const PHASE: &str = "creating roles";
    let all = [&roles.owner, &roles.app];
    if made(session, ddl::create_groups(&all, &by.marker), sqlstate::DUPLICATE_OBJECT, PHASE).await? {
        return Ok(());
    }
    let present = catalog::ours(session, all, &by.marker, true).await?;
    let missing: Vec<&RoleName> = all.into_iter().filter(|r| !present.contains(r)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    ddl::create_groups(&missing, &by.marker).run(session, PHASE).await
}

/// b2. A racing CREATE gives 42P04 or 23505: then it is looked at.
pub(crate) async fn database(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    const PHASE: &str = "creating the database";
    if made(session, ddl::create_database(name), sqlstate::DUPLICATE_DATABASE, PHASE).await? {
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
pub(crate) async fn login(
    session: &mut PgConnection, login: &ddl::Login<'_>, by: &Ownership,
) -> Result<(), ClusterError> {
    const PHASE: &str = "creating a login";
    if made(session, ddl::create_login(login, &by.marker), sqlstate::DUPLICATE_OBJECT, PHASE).await? {
        return Ok(());
    }
    match catalog::ours(session, [login.name], &by.marker, true).await?.is_empty() {
        true => ddl::create_login(login, &by.marker).run(session, PHASE).await,
        false => ddl::renew_login(login, &by.admin).run(session, "renewing a login").await,
    }
}

/// c1 and c2 for those of `logins` that are ours: nobody comes in, and nobody is left in. Returns which they are.
pub(crate) async fn refused<'a>(
    session: &mut PgConnection, database: &DatabaseName, logins: &[&'a RoleName], by: &Ownership,
) -> Result<Vec<&'a RoleName>, ClusterError> {
    let present = catalog::ours(session, logins.iter().copied(), &by.marker, false).await?;
    if present.is_empty() {
        return Ok(present);
    }
    for login in &present {
        ddl::refuse_login(login, &by.admin).run(session, "refusing a login").await?;
    }
    // Who is in goes at once: another tenant's login can stretch the moment of connecting, and so the wait for it.
    end::signal_roles(session, &present).await?;
    end::connecting(session, database, Duration::ZERO).await?;
    end::of_roles(session, &present).await?;
    Ok(present)
}

/// c1 alone: nobody comes in by it any more, and whoever is in stays. `false`: it is not there. `is_ours`: that was seen
/// just now, in this session.
pub(crate) async fn locked_out(
    session: &mut PgConnection, login: &RoleName, is_ours: bool, by: &Ownership,
) -> Result<bool, ClusterError> {
    if !is_ours && catalog::ours(session, [login], &by.marker, false).await?.is_empty() {
        return Ok(false);
    }
    ddl::refuse_login(login, &by.admin).run(session, "refusing a login").await?;
    Ok(true)
}

/// d1 and d2: nobody comes into it, whatever the login, and nobody of ours is left in. A superuser's session (a backup)
/// may stay. The logins must have been refused before.
pub(crate) async fn closed(
    session: &mut PgConnection, database: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    if !is_ours(session, database, by).await? {
        return Ok(());
    }
    ddl::close_database(database).run(session, "closing the database").await?;
    match end::of_database(session, database).await {
        Err(ClusterError::InUse { by, .. }) => {
            tracing::warn!(%database, sessions = by, "stay in a database that is closed to everybody else");
            Ok(())
        }
        ended => ended,
    }
}

/// The way back, for the database and one login.
pub(crate) async fn opened(
    session: &mut PgConnection, database: &DatabaseName, login: &RoleName, by: &Ownership,
) -> Result<(), ClusterError> {
    if !is_ours(session, database, by).await? {
        return Err(ClusterError::Foreign { kind: "database", name: format!("{database} (it is missing)") });
    }
    present(session, login, by).await?;
    ddl::restore(database, login, &by.admin).run(session, "opening the database").await
}

async fn present(session: &mut PgConnection, login: &RoleName, by: &Ownership) -> Result<(), ClusterError> {
    match catalog::ours(session, [login], &by.marker, true).await?.is_empty() {
        true => Err(ClusterError::Foreign { kind: "role", name: format!("{login} (it is missing)") }),
        false => Ok(()),
    }
}

/// The way back, for one login.
pub(crate) async fn admitted(session: &mut PgConnection, login: &RoleName, by: &Ownership) -> Result<(), ClusterError> {
    present(session, login, by).await?;
    ddl::admit_login(login, &by.admin).run(session, "admitting a login").await
}

/// The way back for those that were made.
pub(crate) async fn made_admitted(
    session: &mut PgConnection, logins: &[RoleName], by: &Ownership,
) -> Result<(), ClusterError> {
    for login in catalog::ours(session, logins, &by.marker, false).await? {
        ddl::admit_login(login, &by.admin).run(session, "admitting a login").await?;
    }
    Ok(())
}

/// c3 and d4: alone. `Ok(false)`: something depends on it (2BP01).
pub(crate) async fn role_absent(
    session: &mut PgConnection, role: &RoleName, by: &Ownership,
) -> Result<bool, ClusterError> {
    if catalog::ours(session, [role], &by.marker, false).await?.is_empty() {
        return Ok(true);
    }
    dropped(session, role).await
}

/// The same for a role that was seen to be ours under this very lock.
pub(crate) async fn dropped(session: &mut PgConnection, role: &RoleName) -> Result<bool, ClusterError> {
    match ddl::drop_role(role).execute(session).await {
        Ok(()) => Ok(true),
        Err(e) if sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => Ok(true),
        Err(e) if sqlstate::is(&e, sqlstate::DEPENDENT_OBJECTS) => Ok(false),
        Err(source) => Err(ClusterError::Sql { phase: "dropping a role", source }),
    }
}

/// Whether a database of this name is there and the admin role owns it.
pub(crate) async fn is_ours(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<bool, ClusterError> {
    Ok(catalog::database(session, name).await?.is_some_and(|found| found.owner == by.admin.as_str()))
}

/// d1 to d3. The logins must have been refused before. 55006: somebody was faster than d1, so back to d2.
pub(crate) async fn database_absent(
    session: &mut PgConnection, name: &DatabaseName, by: &Ownership,
) -> Result<(), ClusterError> {
    const LIMIT: Duration = Duration::from_secs(60);
    let until = Instant::now() + LIMIT;
    loop {
        // Another's database of this name is not ours to drop, and so nothing of ours is there.
        let Some(found) = catalog::database(session, name).await? else { return Ok(()) };
        if found.owner != by.admin.as_str() {
            return Ok(());
        }
        if found.connection_limit != -2 {
            ddl::close_database(name).run(session, "closing the database").await?;
            end::of_database(session, name).await?;
        }
        match ddl::drop_database(name).execute(session).await {
            Ok(()) => return Ok(()),
            Err(e) if sqlstate::is(&e, sqlstate::OBJECT_IN_USE) && Instant::now() < until => {
                sleep(Duration::from_millis(50)).await;
            }
            Err(e) if sqlstate::is(&e, sqlstate::INVALID_CATALOG_NAME) => return Ok(()),
            Err(source) => return Err(ClusterError::Sql { phase: "dropping the database", source }),
        }
    }
}
