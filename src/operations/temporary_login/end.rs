//! Ending a temporary login before its expiry.
use super::driver::{TemporaryLogins, read_recorded};
use super::{KIND, RECORD};
use crate::directory::UserStatus;
use crate::error::ChangeError;
use crate::operation::OperationId;

impl TemporaryLogins {
    /// Ends the sessions of the login that this operation has created, and drops it. A login that is dropped already is
    /// no error.
    ///
    /// # Errors
    /// `NoTemporaryLogin` if the operation is of another kind or has no login; `Busy` while it creates the login;
    /// `LoginNotDropped` if the login still exists.
    pub(crate) async fn end(&self, operation: OperationId) -> Result<(), ChangeError> {
        let none = || ChangeError::NoTemporaryLogin { operation };
        let record = self.stores.journal.read(operation).await?.filter(|record| record.kind == KIND);
        let record = record.ok_or_else(none)?;
        if !record.status.is_over() {
            return Err(ChangeError::Busy { operation, status: record.status });
        }
        if !record.outputs.contains_key(RECORD) {
            return Err(none());
        }
        let (tenant, recorded) = (record.subject.tenant().ok_or_else(none)?, read_recorded(&record)?);
        let users = self.stores.registry.users(tenant).await?;
        let Some(user) = users.into_iter().find(|user| user.role == recorded.login && user.server == recorded.server)
        else {
            return Ok(());
        };
        if user.status != UserStatus::Retiring {
            return Ok(());
        }
        let left = |source| ChangeError::LoginNotDropped { login: user.role.to_string(), source };
        self.rotation.retire_now(&user).await.map_err(|error| left(error.into_cause()))
    }
}
