//! What can go wrong, by verb. A message says what and what to do next; the cause is in `source()`, never in both.
mod change;
mod cluster;
mod failure;
mod key;
mod provision;
mod relocate;
mod resolve;
mod server;
mod step;
mod store;
mod umbrella;

pub use change::ChangeError;
pub use cluster::ClusterError;
pub use failure::{Failure, FailureState};
pub use key::{KeyError, VaultError};
pub use provision::ProvisionError;
pub use relocate::{RelocateError, UnknownServer};
pub use resolve::ResolveError;
pub use server::ServerSetupError;
pub use step::StepError;
pub use store::{NameConflict, StoreError};
pub use umbrella::{BuildError, Error, RunError, SchemaError};

use crate::sqlstate;
use std::{error::Error as StdError, fmt, sync::Arc};

/// Any error.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// A shared cause: `Clone`, because one cold resolve answers many waiters, and its `source()` downcasts to the cause
/// itself. (`Arc<dyn Error>` under thiserror's `#[source]` does not: there the `Arc` is the cause.)
#[derive(Clone)]
pub struct SharedError(Arc<dyn StdError + Send + Sync + 'static>);
impl SharedError {
    /// Wraps any error, or a text.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self(Arc::from(cause.into()))
    }
    /// The cause itself, to be handed out by `source()`.
    pub fn as_dyn(&self) -> &(dyn StdError + 'static) {
        &*self.0
    }
}
impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A stored word that this version does not know: written by a newer one, or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what} that this version knows")]
pub struct UnknownValue {
    what: &'static str,
    found: String,
}
impl UnknownValue {
    pub(crate) fn new(what: &'static str, found: &str) -> Self {
        Self { what, found: found.into() }
    }
}

/// The whole chain in one line, for logs and stored history: each cause once, and the SQLSTATE of what a server said,
/// because its text may be in any language.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut code = error.downcast_ref().and_then(sqlstate::code);
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        code = code.or_else(|| error.downcast_ref().and_then(sqlstate::code));
        cause = error.source();
    }
    match code {
        Some(code) => format!("{text} (SQLSTATE {code})"),
        None => text,
    }
}
