//! Shuts logins out of a server: no new session, every session told to end. Layers above read back what this has reached.
//!
//! A tenant's login is hostile. It can hold its own row of `pg_authid` locked, so that NOLOGIN waits for it; it cannot
//! hold a row of `pg_auth_members` locked. So the membership that allows ending its sessions is granted first and alone,
//! then its sessions are ended, then it gets NOLOGIN, the last two in a loop.
use super::ownership::Ownership;
use super::retry::{retry_contended, try_once};
use super::{catalog, ddl, membership, terminate};
use crate::error::ClusterError;
use crate::names::GroupRoles;
use crate::names::RoleName;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long NOLOGIN may wait for a row that a tenant holds locked, before its group roles are revoked instead.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two tries: a session that was told to end needs a moment.
const PAUSE: Duration = Duration::from_millis(5);

/// Logins that are being shut out.
#[derive(Debug)]
pub(crate) struct RefusedLogins<'a> {
    /// Those that exist.
    pub(crate) logins: Vec<&'a RoleName>,
    /// Roles whose comment was not ours; it was written again.
    pub(crate) restored: Vec<String>,
    /// Logins that may still log in because a session of the tenant holds their row locked. Their rights on the database
    /// are gone.
    pub(crate) locked: Vec<&'a RoleName>,
}

/// Makes the admin role a member of those of `logins` that exist, so that it may end their sessions, and restores comments
/// that are not ours.
///
/// # Errors
/// `Unmanaged` for a login that exists and on which the admin role has no ADMIN option; `Privileged` for one that could undo whatever
/// is refused to it.
pub(crate) async fn take_logins<'a>(
    session: &mut PgConnection, logins: &[&'a RoleName], by: &Ownership,
) -> Result<RefusedLogins<'a>, ClusterError> {
    let found = catalog::roles(session, logins, &by.admin).await?;
    let mut refused = RefusedLogins { logins: vec![], restored: vec![], locked: vec![] };
    let mut obstacle = None;
    for login in logins {
        let Some(facts) = found.iter().find(|f| f.name == login.as_str()) else { continue };
        if facts.is_privileged {
            obstacle = Some(ClusterError::Privileged { role: facts.name.clone() });
        } else if !facts.is_ours {
            let (role, admin) = (facts.name.clone(), by.admin.to_string());
            obstacle = Some(ClusterError::Unmanaged { role, admin });
        } else {
            membership::take(session, login, &by.admin).await?;
            if facts.comment.as_deref() != Some(&by.marker) {
                retry_contended(session, || ddl::restore_comment(login, &by.marker), "restoring a comment").await?;
                tracing::warn!(role = %login, found = facts.comment, "the comment of a role was changed; it is restored");
                refused.restored.push(login.to_string());
            }
            refused.logins.push(login);
        }
    }
    // What can be shut out is shut out before the caller learns what cannot.
    match obstacle {
        Some(obstacle) => {
            forbid_logins(session, &mut refused, None).await?;
            Err(obstacle)
        }
        None => Ok(refused),
    }
}

/// Sets NOLOGIN on all of them and signals their sessions, without waiting for the sessions to end. Where the tenant holds
/// a row locked for longer than [`PATIENCE`], `groups` are revoked from the login: then it has no right on its database.
///
/// # Errors
/// `LockedLogin` where there are no groups to revoke.
pub(crate) async fn forbid_logins(
    session: &mut PgConnection, refused: &mut RefusedLogins<'_>, groups: Option<&GroupRoles>,
) -> Result<(), ClusterError> {
    let until = Instant::now() + PATIENCE;
    let mut open = refused.logins.clone();
    loop {
        terminate::signal_role_sessions(session, &refused.logins).await?;
        let mut still = vec![];
        for login in open {
            if !try_once(session, ddl::forbid_login(login), "refusing a login").await? {
                still.push(login);
            }
        }
        open = still;
        if open.is_empty() || Instant::now() >= until {
            break;
        }
        sleep(PAUSE).await;
    }
    for login in &open {
        let Some(groups) = groups else { return Err(ClusterError::LockedLogin { role: login.to_string() }) };
        retry_contended(session, || ddl::revoke_groups(login, groups), "revoking the rights of a login").await?;
    }
    refused.locked = open;
    // Sessions that came in between the last signal and NOLOGIN.
    terminate::signal_role_sessions(session, &refused.logins).await
}

/// Refuses new sessions of a login and leaves those that it has; `false` if it does not exist.
pub(crate) async fn forbid_new_sessions(
    session: &mut PgConnection, login: &RoleName, by: &Ownership,
) -> Result<bool, ClusterError> {
    if take_logins(session, &[login], by).await?.logins.is_empty() {
        return Ok(false);
    }
    retry_contended(session, || ddl::forbid_login(login), "refusing a login").await?;
    Ok(true)
}
