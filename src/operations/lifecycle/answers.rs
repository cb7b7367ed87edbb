//! The stored names of steps whose answers are read later, and the stored form of an answer.
use serde::{Deserialize, Serialize};

/// The stored names of the steps that wait for sessions.
pub(crate) const END_SESSIONS: &str = "sessions.end";
pub(super) const VERIFY_EMPTY: &str = "sessions.empty";
/// The stored name of `Forget`.
pub(super) const FORGET: &str = "secrets.forget";
/// The stored name of `Refuse`.
pub(super) const REFUSE: &str = "server.refuse";
/// The stored name of `Close`.
pub(super) const CLOSE: &str = "server.close";

/// The stored answer of the step that ends sessions for a second.
#[derive(Serialize, Deserialize)]
pub(super) struct SessionsLeft {
    pub(super) left: u32,
}
