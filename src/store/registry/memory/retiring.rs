#![expect(clippy::disallowed_methods, reason = "a store of one process has that process's clock")]
use super::*;
use time::OffsetDateTime;

/// How often it was tried to drop a login, when it is tried again, and how it came to that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    attempts: u32,
    retry_at: Option<OffsetDateTime>,
    by: Option<OperationId>,
    before: Option<UserStatus>,
}

impl State {
    fn tries(&mut self, user: &DatabaseUser) -> &mut Tries {
        self.retirements.entry((user.server.clone(), user.role.clone())).or_default()
    }
    /// By hand it is due at once, in a flip its operation is at it.
    pub(super) fn retires(&mut self, user: &DatabaseUser, before: Option<UserStatus>, by_hand: bool) {
        let by = self.by;
        *self.tries(user) = Tries { attempts: 0, retry_at: by_hand.then(OffsetDateTime::now_utc), by, before };
    }

    pub(super) fn retiring(&self, limit: u32) -> Vec<Retirement> {
        let all = self.users.iter().filter(|u| u.status == UserStatus::Retiring);
        let with = |u: &DatabaseUser| {
            let tries = self.retirements.get(&(u.server.clone(), u.role.clone())).copied().unwrap_or_default();
            Retirement::new(u.clone(), tries.attempts, tries.retry_at).retired(tries.by, tries.before)
        };
        all.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(with).collect()
    }

    pub(super) fn take_retirements(&mut self, limit: u32, hold: Duration) -> Vec<Retirement> {
        let now = OffsetDateTime::now_utc();
        let mut due = self.retiring(u32::MAX);
        due.retain(|r| r.retry_at.is_some_and(|at| at <= now));
        due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        for taken in &mut due {
            taken.retry_at = Some(now + hold);
            self.tries(&taken.user).retry_at = taken.retry_at;
        }
        due
    }

    pub(super) fn settle_retirement(&mut self, user: &DatabaseUser, left: Option<(&str, Duration)>) {
        let same = |u: &&mut DatabaseUser| u.server == user.server && u.role == user.role;
        let Some(stored) = self.users.iter_mut().find(same).filter(|u| u.status == UserStatus::Retiring) else {
            return;
        };
        match left {
            None => stored.status = UserStatus::Dropped,
            Some((reason, _)) => stored.reason = Some(reason.into()),
        }
        let tries = self.tries(user);
        tries.attempts += 1;
        tries.retry_at = left.map(|(_, wait)| OffsetDateTime::now_utc() + wait);
    }
}
