//! Retiring logins of [`MemoryRegistry`](super::MemoryRegistry): when each is tried again, and what retired it.
#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::*;
use time::OffsetDateTime;

/// Attempts to drop a login, the time of the next one, and the login's state before it was retired.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryState {
    attempts: u32,
    retry_at: Option<OffsetDateTime>,
    by: Option<OperationId>,
    before: Option<UserStatus>,
}

impl State {
    fn retry_state_mut(&mut self, user: &DatabaseUser) -> &mut RetryState {
        self.retirements.entry((user.server.clone(), user.role.clone())).or_default()
    }
    /// Starts the retirement of a login. `is_due` makes it due at once. Otherwise it is due only after its operation
    /// has settled it.
    pub(super) fn start_retirement(&mut self, user: &DatabaseUser, before: Option<UserStatus>, is_due: bool) {
        let by = self.writer;
        *self.retry_state_mut(user) =
            RetryState { attempts: 0, retry_at: is_due.then(OffsetDateTime::now_utc), by, before };
    }

    /// Adds a login that is due after this time. A stored one keeps its time.
    pub(super) fn put_retiring(&mut self, user: &DatabaseUser, after: Duration) -> Result<(), StoreError> {
        let is_stored = self.users.contains(user);
        self.put_user(None, user)?;
        if !is_stored {
            self.retry_state_mut(user).retry_at = Some(OffsetDateTime::now_utc() + after);
        }
        Ok(())
    }

    pub(super) fn retiring(&self, limit: u32) -> Vec<Retirement> {
        let all = self.users.iter().filter(|u| u.status == UserStatus::Retiring);
        let to_retirement = |u: &DatabaseUser| {
            let retry = self.retirements.get(&(u.server.clone(), u.role.clone())).copied().unwrap_or_default();
            Retirement::new(u.clone(), retry.attempts, retry.retry_at).retired(retry.by, retry.before)
        };
        all.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(to_retirement).collect()
    }

    pub(super) fn take_retirements(&mut self, limit: u32, hold: Duration) -> Vec<Retirement> {
        let now = OffsetDateTime::now_utc();
        let mut due = self.retiring(u32::MAX);
        due.retain(|r| r.retry_at.is_some_and(|at| at <= now));
        due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        for taken in &mut due {
            taken.retry_at = Some(now + hold);
            self.retry_state_mut(&taken.user).retry_at = taken.retry_at;
        }
        due
    }

    pub(super) fn settle_retirement(&mut self, user: &DatabaseUser, left: Option<(&str, Duration)>) {
        let is_same = |u: &&mut DatabaseUser| u.server == user.server && u.role == user.role;
        let Some(stored) = self.users.iter_mut().find(is_same).filter(|u| u.status == UserStatus::Retiring) else {
            return;
        };
        match left {
            None => stored.status = UserStatus::Dropped,
            Some((reason, _)) => stored.reason = Some(reason.into()),
        }
        let retry = self.retry_state_mut(user);
        retry.attempts += 1;
        retry.retry_at = left.map(|(_, wait)| OffsetDateTime::now_utc() + wait);
    }
}
