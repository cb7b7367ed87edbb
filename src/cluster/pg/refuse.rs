//! Refusing logins: NOLOGIN, so that no new session is accepted, and a signal to every existing session.
//!
//! `ensure` and `LockedSession` call [`take_logins`] and then [`forbid_logins`], and read back the result afterwards.
//!
//! The module treats a tenant's login as hostile. It can keep its own row in `pg_authid` locked, which makes NOLOGIN
//! wait, but it cannot lock a row in `pg_auth_members`. So the membership that allows terminating its sessions is
//! granted first, in a statement of its own. Then its sessions are terminated and NOLOGIN is set, in a loop.
use super::ownership::Ownership;
use super::retry::{retry_contended, try_once};
use super::{catalog, ddl, membership, terminate};
use crate::error::ClusterError;
use crate::names::GroupRoles;
use crate::names::RoleName;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long to try NOLOGIN on a login whose row the tenant keeps locked. Then its group roles are revoked instead.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pause between two attempts, so that a signalled session can end.
const PAUSE: Duration = Duration::from_millis(5);

/// Logins that are being refused.
#[derive(Debug)]
pub(crate) struct RefusedLogins<'a> {
    /// The logins that exist.
    pub(crate) logins: Vec<&'a RoleName>,
    /// Roles whose comment had been changed and was restored.
    pub(crate) restored: Vec<String>,
    /// Logins that may still log in, because a session of the tenant keeps their row locked. Their rights on the
    /// database were revoked.
    pub(crate) locked: Vec<&'a RoleName>,
}

/// Makes the admin role a member of those of `logins` that exist, so that it may terminate their sessions, and restores
/// changed comments.
///
/// # Errors
/// `Unmanaged` if the admin role has no ADMIN option on a login; `Privileged` if a login could undo the refusal. The
/// other logins are refused before the error is returned.
pub(crate) async fn take_logins<'a>(
    session: &mut PgConnection, logins: &[&'a RoleName], by: &Ownership,
) -> Result<RefusedLogins<'a>, ClusterError> {
    let found = catalog::find_roles(session, logins, &by.admin).await?;
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
                tracing::warn!(role = %login, found = facts.comment, "restored the changed comment of a role");
                refused.restored.push(login.to_string());
            }
            refused.logins.push(login);
        }
    }
    // Refuse the other logins before the error is returned, so that one obstacle does not leave them all open.
    match obstacle {
        Some(obstacle) => {
            forbid_logins(session, &mut refused, None).await?;
            Err(obstacle)
        }
        None => Ok(refused),
    }
}

/// Sets NOLOGIN on all of them and signals their sessions, without waiting for the sessions to end. If the tenant keeps
/// a login's row locked for longer than [`PATIENCE`], it revokes `groups` from the login, which then has no right on
/// its database.
///
/// # Errors
/// `LockedLogin` if a row stays locked and `groups` is `None`.
pub(crate) async fn forbid_logins(
    session: &mut PgConnection, refused: &mut RefusedLogins<'_>, groups: Option<&GroupRoles>,
) -> Result<(), ClusterError> {
    let deadline = Instant::now() + PATIENCE;
    let mut open = refused.logins.clone();
    loop {
        terminate::signal_role_sessions(session, &refused.logins).await?;
        let mut still_open = vec![];
        for login in open {
            if !try_once(session, ddl::forbid_login(login), "refusing a login").await? {
                still_open.push(login);
            }
        }
        open = still_open;
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        sleep(PAUSE).await;
    }
    for login in &open {
        let Some(groups) = groups else { return Err(ClusterError::LockedLogin { role: login.to_string() }) };
        retry_contended(session, || ddl::revoke_groups(login, groups), "revoking the rights of a login").await?;
    }
    refused.locked = open;
    // Sessions can have connected between the last signal and NOLOGIN.
    terminate::signal_role_sessions(session, &refused.logins).await
}

/// Refuses new sessions of a login and leaves its existing sessions alone; `false` if the login does not exist.
pub(crate) async fn forbid_new_sessions(
    session: &mut PgConnection, login: &RoleName, by: &Ownership,
) -> Result<bool, ClusterError> {
    if take_logins(session, &[login], by).await?.logins.is_empty() {
        return Ok(false);
    }
    retry_contended(session, || ddl::forbid_login(login), "refusing a login").await?;
    Ok(true)
}
