use crate::error::ChangeError;
use crate::tenant::{Tenant, TenantStatus};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// What is to be done with a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verb {
    /// Refuse it on the server, keep everything.
    Suspend,
    /// Let a suspended one in again, with the login of its current generation alone.
    Activate,
    /// Refuse it and close its database; keep everything until a deadline.
    Archive {
        /// Seconds from the operation's begin to the deadline, by the landlord's clock.
        keep_for: u64,
    },
    /// Let an archived one in again, before its deadline.
    Restore,
    /// Destroy it.
    Purge {
        /// Its data may go now; without it the deadline of an archive must be over.
        force: bool,
    },
}

impl Verb {
    /// One of each kind.
    pub(super) const KINDS: [Self; 5] =
        [Self::Suspend, Self::Activate, Self::Archive { keep_for: 0 }, Self::Restore, Self::Purge { force: true }];

    /// The stored name of its saga.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Activate => "activate",
            Self::Archive { .. } => "archive",
            Self::Restore => "restore",
            Self::Purge { .. } => "purge",
        }
    }

    /// Whether an operation of this verb may have brought the tenant here.
    pub(super) fn has_reached(self, status: TenantStatus) -> bool {
        use TenantStatus::*;
        match self {
            Self::Suspend => status == Suspended,
            Self::Activate | Self::Restore => status == Active,
            Self::Archive { .. } => status == Archived,
            Self::Purge { .. } => matches!(status, Purging | Deleted),
        }
    }

    /// Whether it refuses a tenant that may be in.
    pub(super) fn shuts_out(self) -> bool {
        matches!(self, Self::Suspend | Self::Archive { .. } | Self::Purge { .. })
    }

    /// Whether [`check`](Self::check) looks at a deadline.
    pub(super) fn asks_the_time(self) -> bool {
        matches!(self, Self::Restore | Self::Purge { force: false })
    }

    /// Whether the tenant's status and deadline allow it. Without `now` no deadline is over.
    pub(super) fn check(self, tenant: &Tenant, now: Option<OffsetDateTime>) -> Result<(), ChangeError> {
        use TenantStatus::*;
        let (found, until) = (tenant.status(), tenant.kept_until());
        let over = now.zip(until).is_some_and(|(now, until)| until <= now);
        let allowed = match self {
            Self::Suspend => found == Active,
            Self::Activate => found == Suspended,
            Self::Archive { .. } => matches!(found, Active | Suspended),
            Self::Restore => found == Archived,
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
        let kept = (status == TenantStatus::Archived).then_some(datetime!(2026-01-02 00:00 UTC));
        Tenant::new(TenantId::new(), "acme".parse().unwrap(), status).with_kept_until(kept)
    }

    #[test]
    fn nothing_is_destroyed_before_its_time_unless_forced() {
        let purge = Verb::Purge { force: false };
        for status in TenantStatus::ALL.into_iter().filter(|s| *s != TenantStatus::Deleted) {
            assert!(matches!(purge.check(&tenant(status), Some(BEFORE)), Err(ChangeError::Kept { .. })), "{status}");
            let kept = purge.check(&tenant(status), Some(AFTER)).is_err();
            assert_eq!(kept, status != TenantStatus::Archived, "{status}");
            assert!(Verb::Purge { force: true }.check(&tenant(status), None).is_ok(), "{status}");
        }
    }

    #[test]
    fn a_restore_comes_before_the_deadline_or_not_at_all() {
        let archived = tenant(TenantStatus::Archived);
        assert!(Verb::Restore.check(&archived, Some(BEFORE)).is_ok());
        assert!(matches!(Verb::Restore.check(&archived, Some(AFTER)), Err(ChangeError::Expired { .. })));
        let suspended = tenant(TenantStatus::Suspended);
        assert!(matches!(Verb::Restore.check(&suspended, Some(BEFORE)), Err(ChangeError::Status { .. })));
    }
}
