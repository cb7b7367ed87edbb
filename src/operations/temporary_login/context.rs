//! State of one worker that issues a temporary login.
use super::passwords::Passwords;
use super::{RECORD, RecordedLogin, Request};
use crate::cluster::{GeneratedPassword, OperationContext, TenantSessions};
use crate::directory::{AppAccess, DatabaseUser};
use crate::error::StepError;
use crate::operation::OperationId;
use crate::saga::Execution;
use crate::tenant::TenantId;
use std::sync::Arc;

/// Stores and sessions of one worker, and the password if this process has it.
pub(super) struct TemporaryLoginContext {
    pub(super) stores: OperationContext,
    pub(super) access: AppAccess,
    pub(super) tenant: TenantId,
    pub(super) sessions: TenantSessions,
    password: Option<Arc<GeneratedPassword>>,
}

impl TemporaryLoginContext {
    pub(super) fn new(
        stores: OperationContext, access: AppAccess, passwords: &Passwords, run: &Execution,
    ) -> Result<Self, StepError> {
        let sessions = TenantSessions::new(stores.clone(), run)?;
        let password = passwords.find(run.operation());
        Ok(Self { stores, access, tenant: sessions.tenant(), sessions, password })
    }

    /// The password of the login.
    ///
    /// # Errors
    /// A failure that undoes the operation: the call that had the password is gone, so the login is of no use.
    pub(super) fn password(&self) -> Result<Arc<GeneratedPassword>, StepError> {
        let gone = || StepError::fail("the call that waited for the temporary login has ended; call it again");
        self.password.clone().ok_or_else(gone)
    }

    /// The logins of this operation that the landlord has: the recorded one, and one that an earlier worker has stored
    /// without recording that.
    pub(super) async fn own_logins(&self, run: &Execution) -> Result<Vec<DatabaseUser>, StepError> {
        let recorded = recorded(run)?.map(|recorded| recorded.login);
        let users = self.stores.registry.users(self.tenant).await?;
        let is_own =
            |user: &DatabaseUser| has_own_reason(user, run.operation()) || recorded.as_ref() == Some(&user.role);
        Ok(users.into_iter().filter(|user| user.is_temporary() && is_own(user)).collect())
    }
}

/// The reason that the landlord stores with the login until a drop fails. It names the operation, so that a worker finds
/// a login whose step it has not seen to end.
pub(super) fn own_reason(operation: OperationId) -> String {
    format!("temporary login of operation {operation}; it is dropped at its expiry")
}
pub(super) fn has_own_reason(user: &DatabaseUser, operation: OperationId) -> bool {
    user.reason.as_ref() == Some(&own_reason(operation))
}

/// The login that the first step has recorded.
pub(super) fn recorded(run: &Execution) -> Result<Option<RecordedLogin>, StepError> {
    run.output(RECORD)
}
pub(super) fn request(run: &Execution) -> Result<Request, StepError> {
    run.request()
}
