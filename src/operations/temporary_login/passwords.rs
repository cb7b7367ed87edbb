//! The passwords of temporary logins that this process is about to create.
//!
//! The call that waits for a login owns its password. The map only lends it to the workers of this process, so a password
//! is gone as soon as its call is.
use crate::cluster::GeneratedPassword;
use crate::operation::OperationId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Finds a password by its operation, for as long as the call exists. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Passwords(Arc<Mutex<HashMap<OperationId, Weak<GeneratedPassword>>>>);

impl Passwords {
    pub(super) fn lend(&self, operation: OperationId, password: &Arc<GeneratedPassword>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, password| password.strong_count() > 0);
        all.insert(operation, Arc::downgrade(password));
    }
    pub(super) fn find(&self, operation: OperationId) -> Option<Arc<GeneratedPassword>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&operation)?.upgrade()
    }
}
