//! The lifecycle operations, and the rules for which tenant each may run on.
//!
//! [`Lifecycle`](super::Lifecycle) checks these rules before an operation begins, and the operation's first step checks
//! them again. The rules are pure functions of the tenant's status, its deadline and the time.
use crate::error::ChangeError;
use crate::tenant::{Tenant, TenantStatus};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A lifecycle operation on an existing tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verb {
    /// Refuse the tenant's logins on the server; keep all data.
    Suspend,
    /// Admit a suspended tenant again, with the login of its current generation only.
    Activate,
    /// Refuse the tenant's logins and close its database; keep all data until a deadline.
    Archive {
        /// Seconds from the begin of the operation to the deadline, by the landlord's clock.
        keep_for: u64,
    },
    /// Open the database of an archived tenant and admit it again, before its deadline.
    Restore,
    /// Refuse the logins of a suspended or archived tenant again, after one of them was admitted outside tenantry. The
    /// status stays.
    CloseAgain,
    /// Destroy the tenant's database, roles and secrets.
    Purge {
        /// Destroy the data now. If `false`, the tenant must be archived and its deadline over.
        force: bool,
    },
}

impl Verb {
    /// The stored name of the operation's saga.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::Archive { .. } => "archive",
            Self::Restore => "restore",
            Self::CloseAgain => "close_again",
            Self::Purge { .. } => "purge",
        }
    }

    /// Whether the operation sets this status.
    pub(super) fn has_reached(self, status: TenantStatus) -> bool {
        use TenantStatus::*;
        match self {
            Self::Suspend => status == Suspended,
            Self::Activate | Self::Restore => status == Active,
            Self::Archive { .. } => status == Archived,
            // Another worker may have run it in part, so each worker runs all of it.
            Self::CloseAgain => false,
            Self::Purge { .. } => matches!(status, Purging | Deleted),
        }
    }

    /// Whether the operation closes a tenant that may have sessions.
    pub(super) fn is_closing(self) -> bool {
        matches!(self, Self::Suspend | Self::Archive { .. } | Self::CloseAgain | Self::Purge { .. })
    }

    /// Whether [`check`](Self::check) compares the tenant's deadline with the time.
    pub(super) fn is_bound_by_deadline(self) -> bool {
        matches!(self, Self::Restore | Self::Purge { force: false })
    }

    /// Fails unless the tenant's status and deadline allow the operation. Without `now` no deadline counts as over.
    pub(super) fn check(self, tenant: &Tenant, now: Option<OffsetDateTime>) -> Result<(), ChangeError> {
        use TenantStatus::*;
        let (found, until) = (tenant.status(), tenant.kept_until());
        let over = now.zip(until).is_some_and(|(now, until)| until <= now);
        let allowed = match self {
            Self::Suspend => found == Active,
            Self::Activate => found == Suspended,
            Self::Archive { .. } => matches!(found, Active | Suspended),
            Self::Restore => found == Archived,
            Self::CloseAgain => matches!(found, Suspended | Archived),
            Self::Purge { .. } => found != Deleted,
        };
        match (self, until) {
            _ if !allowed => Err(ChangeError::Status { found }),
            (Self::Purge { force: false }, _) if !over => Err(ChangeError::Kept { until }),
            (Self::Restore, Some(since)) if over => Err(ChangeError::Expired { since }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::TenantId;
    use time::macros::datetime;

    const BEFORE: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
    const AFTER: OffsetDateTime = datetime!(2026-01-03 00:00 UTC);

    fn tenant(status: TenantStatus) -> Tenant {
        let kept_until = (status == TenantStatus::Archived).then_some(datetime!(2026-01-02 00:00 UTC));
        Tenant::new(TenantId::new(), "acme".parse().unwrap(), status).with_kept_until(kept_until)
    }

    #[test]
    fn purge_requires_an_expired_archive_unless_forced() {
        let purge = Verb::Purge { force: false };
        for status in TenantStatus::ALL.into_iter().filter(|s| *s != TenantStatus::Deleted) {
            assert!(
                matches!(purge.check(&tenant(status), Some(BEFORE)), Err(ChangeError::Kept { .. })),
                "before a deadline: {status}"
            );
            let is_kept = purge.check(&tenant(status), Some(AFTER)).is_err();
            assert_eq!(is_kept, status != TenantStatus::Archived, "after the deadline: {status}");
            assert!(Verb::Purge { force: true }.check(&tenant(status), None).is_ok(), "a forced purge: {status}");
        }
    }

    #[test]
    fn close_again_is_allowed_for_suspended_and_archived_tenants_only() {
        for status in TenantStatus::ALL {
            let is_closed = matches!(status, TenantStatus::Suspended | TenantStatus::Archived);
            assert_eq!(Verb::CloseAgain.check(&tenant(status), None).is_ok(), is_closed, "{status}");
        }
    }

    #[test]
    fn restore_is_refused_after_the_deadline_or_from_another_status() {
        let archived = tenant(TenantStatus::Archived);
        assert!(Verb::Restore.check(&archived, Some(BEFORE)).is_ok());
        assert!(matches!(Verb::Restore.check(&archived, Some(AFTER)), Err(ChangeError::Expired { .. })));
        let suspended = tenant(TenantStatus::Suspended);
        assert!(matches!(Verb::Restore.check(&suspended, Some(BEFORE)), Err(ChangeError::Status { .. })));
    }
}
