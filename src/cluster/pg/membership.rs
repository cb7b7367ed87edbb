//! Memberships of the admin role in a tenant's roles, which allow it to terminate their sessions and to act as their
//! owner.
//!
//! `refuse` uses them for logins that it refuses, and `LockedSession` for clean-ups. A worker that dies leaves its
//! membership behind, and recovery revokes it. So that recovery does not revoke it from a running worker, each worker
//! that needs a membership takes a shared advisory lock on the role's name, which is released when its session ends.
//! The lock is only a hint: nothing waits long for it. A worker continues without it, and recovery leaves a locked
//! membership in place.
use super::{ddl, retry};
use crate::error::ClusterError;
use crate::names::RoleName;
use crate::sqlstate;
use sqlx::PgConnection;
use std::time::Duration;
use tokio::time::sleep;

/// Attempts to take the shared lock. Recovery has it exclusively only while it runs one REVOKE.
const TRIES: u32 = 20;
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Makes the admin role a member of this role. [`give_back`] reverts it, and so does admitting or dropping the role.
///
/// # Errors
/// 42501 if the admin role has no ADMIN option on the role.
pub(crate) async fn take(session: &mut PgConnection, role: &RoleName, admin: &RoleName) -> Result<(), ClusterError> {
    const SHARE: &str = "SELECT pg_try_advisory_lock_shared(hashtextextended('tenantry membership ' || $1, 0))";
    for _ in 0..TRIES {
        let shared = sqlx::query_scalar(SHARE).bind(role.as_str()).fetch_one(&mut *session).await;
        if shared.map_err(ClusterError::sql("locking a membership"))? {
            break;
        }
        sleep(PAUSE).await;
    }
    retry::retry_contended(session, || ddl::grant_to_admin(role, admin), "granting a membership").await
}

/// Revokes the membership, unless another worker needs it.
pub(crate) async fn give_back(
    session: &mut PgConnection, role: &RoleName, admin: &RoleName,
) -> Result<(), ClusterError> {
    const LOCK: &str = "SELECT pg_try_advisory_lock(hashtextextended('tenantry membership ' || $1, 0))";
    const UNLOCK: &str = "SELECT pg_advisory_unlock(hashtextextended('tenantry membership ' || $1, 0))";
    let locked = sqlx::query_scalar(LOCK).bind(role.as_str()).fetch_one(&mut *session).await;
    if !locked.map_err(ClusterError::sql("locking a membership"))? {
        return Ok(());
    }
    let revoked = ddl::revoke_from_admin(role, admin).execute(session).await;
    sqlx::query(UNLOCK)
        .bind(role.as_str())
        .execute(session)
        .await
        .map_err(ClusterError::sql("unlocking a membership"))?;
    match revoked {
        // Another worker has revoked it or dropped the role in the meantime.
        Err(e) if sqlstate::is_contended(&e) || sqlstate::is(&e, sqlstate::UNDEFINED_OBJECT) => Ok(()),
        revoked => revoked.map_err(ClusterError::sql("revoking a membership")),
    }
}

/// Revokes the memberships that dead workers have left, in the group roles, logins and migrators of this admin role's
/// databases.
pub(crate) async fn give_back_abandoned(session: &mut PgConnection, admin: &RoleName) -> Result<(), ClusterError> {
    const LEFT: &str = "WITH groups AS (SELECT g.oid FROM pg_database d JOIN pg_roles a ON a.oid = d.datdba \
            JOIN pg_roles g ON g.rolname IN (d.datname || '_app', d.datname || '_owner') WHERE a.rolname = $1) \
        SELECT DISTINCT r.rolname::text FROM pg_roles a JOIN pg_auth_members m ON m.member = a.oid \
            JOIN pg_roles r ON r.oid = m.roleid \
        WHERE a.rolname = $1 AND pg_has_role(a.oid, r.oid, 'USAGE') \
          AND (r.oid IN (SELECT oid FROM groups) \
            OR EXISTS (SELECT FROM pg_auth_members l JOIN groups g ON g.oid = l.roleid WHERE l.member = r.oid))";
    let left: Vec<String> = sqlx::query_scalar(LEFT)
        .bind(admin.as_str())
        .fetch_all(&mut *session)
        .await
        .map_err(ClusterError::sql("looking for memberships that dead workers left"))?;
    for role in left.iter().filter_map(|role| role.parse::<RoleName>().ok()) {
        give_back(session, &role, admin).await?;
    }
    Ok(())
}
