//! What [`Builder::build`] refuses before it reads anything: values out of range, and settings that would have no effect.
//!
//! A setting without an effect is refused and not ignored, because its caller relies on it: on a limit of connections
//! that does not hold, or on a check of migrations that does not run.
use super::Builder;
use crate::connect::find_inherited_variable;
use crate::directory::AppAccess;
use crate::error::{BuildError, InheritedVariable};
use crate::names::check_text;
use std::time::Duration;

/// Maximum bytes of the name of a step. Every event of an operation contains it.
const MAX_STEP: usize = 100;

/// Valid values of [`Builder::change_poll_interval`]. One read takes about a millisecond, so a shorter interval would
/// load the landlord. While changes are reported, cached entries are valid for a minute, so a longer one would be
/// useless.
const POLL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// Valid values of [`Builder::landlord_timeout`]. A shorter one would cancel statements of a landlord that works; with a
/// longer one a call would hang for longer than anything waits for it.
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// Why a setting of the built-in resolver is refused if the application has its own.
const OWN_RESOLVER: &str = "it is a setting of the built-in resolver";

impl Builder {
    pub(super) fn check(&self) -> Result<(), BuildError> {
        self.check_steps()?;
        self.check_ranges()?;
        self.check_contradictions()?;
        match find_inherited_variable() {
            Some(variable) if !self.accepts_pg_environment => Err(InheritedVariable::new(variable).into()),
            _ => Ok(()),
        }
    }

    fn check_steps(&self) -> Result<(), BuildError> {
        let steps: Vec<_> = self.config.before.iter().chain(&self.config.after).map(|s| s.name()).collect();
        if let Some((_, name)) = steps.iter().enumerate().find(|(at, name)| steps[..*at].contains(name)) {
            return Err(BuildError::DuplicateStep(name));
        }
        // The journal stores its own entries among the outputs of steps, under keys that begin with `$`.
        let is_valid = |name: &str| check_text(name, 1, MAX_STEP).is_ok() && !name.starts_with('$');
        match steps.iter().all(|name| is_valid(name)) {
            true => Ok(()),
            false => Err(BuildError::Setting("Step::NAME", "must have 1 to 100 bytes, no NUL and no $ at its start")),
        }
    }

    fn check_ranges(&self) -> Result<(), BuildError> {
        let range = [
            ("lease", self.settings.lease >= Duration::from_secs(1), "must be at least 1 s"),
            ("deadline", self.settings.deadline >= self.settings.lease, "must not be shorter than the lease"),
            ("attempts", self.settings.attempts >= 1, "must be at least 1"),
            ("workers", self.workers >= 1, "must be at least 1"),
            ("max_connections", self.max_connections != Some(0), "must be at least 1"),
            ("max_connections_per_tenant", self.max_connections_per_tenant >= 1, "must be at least 1"),
            ("max_nodes", self.max_nodes >= 1, "must be at least 1"),
            ("landlord_timeout", TIMEOUT_RANGE.contains(&self.landlord_timeout), "must be from 100 ms to 10 min"),
            ("change_poll_interval", POLL_RANGE.contains(&self.change_poll_interval), "must be from 100 ms to 1 min"),
            ("reserve_domain", !self.config.reserved.has_empty(), "must not be empty"),
            ("backoff", self.settings.backoff <= self.settings.backoff_limit, "must not exceed its longest pause"),
        ];
        match range.into_iter().find(|(_, is_valid, _)| !is_valid) {
            Some((setting, _, rule)) => Err(BuildError::Setting(setting, rule)),
            None => Ok(()),
        }
    }

    fn check_contradictions(&self) -> Result<(), BuildError> {
        let (own_resolver, own_vault) = (self.resolver.is_some(), self.vault.is_some());
        let has_no_migrations = self.config.migrations.is_none();
        let forbids_owner = self.forbids_temp_tables && self.config.access == AppAccess::Owner;
        let pairs = [
            ("require_head", "resolver", self.require_head && own_resolver, OWN_RESOLVER),
            ("share_connections", "resolver", self.share_connections && own_resolver, OWN_RESOLVER),
            ("max_connections", "resolver", self.max_connections.is_some() && own_resolver, OWN_RESOLVER),
            ("acquire_timeout", "resolver", self.acquire_timeout.is_some() && own_resolver, OWN_RESOLVER),
            ("pool", "resolver", self.pool.is_some() && own_resolver, OWN_RESOLVER),
            ("temp_tables", "app_access", forbids_owner, "an owner may always create temporary tables"),
            ("keys", "vault", self.keys.is_some() && own_vault, "an own vault has its own keys"),
        ];
        match pairs.into_iter().find(|(_, _, contradict, _)| *contradict) {
            Some((setting, with, _, reason)) => Err(BuildError::Contradiction { setting, with, reason }),
            None if self.require_head && has_no_migrations => {
                Err(BuildError::Setting("require_head", "needs tenant_migrations(), which a tenant is compared with"))
            }
            None => Ok(()),
        }
    }
}
