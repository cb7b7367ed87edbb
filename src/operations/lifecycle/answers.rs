//! Stored names of the steps whose outputs are read after the operation, and the stored form of such an output.
//!
//! The facade waits for [`END_SESSIONS`] by name, and the other modules of `lifecycle` read outputs by these names. The
//! journal stores the names: do not change them.
use serde::{Deserialize, Serialize};

/// The stored name of `EndSessions`.
pub(crate) const END_SESSIONS: &str = "sessions.end";
/// The stored name of `VerifyEmpty`.
pub(super) const VERIFY_EMPTY: &str = "sessions.empty";
/// The stored name of `ForgetSecrets`.
pub(super) const FORGET: &str = "secrets.forget";
/// The stored name of `RefuseLogins`.
pub(super) const REFUSE: &str = "server.refuse";
/// The stored name of `CloseDatabase`.
pub(super) const CLOSE: &str = "server.close";

/// The stored output of `EndSessions`.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionsLeft {
    /// Sessions of the tenant that had not ended when the step gave up.
    pub(super) left: u32,
}
