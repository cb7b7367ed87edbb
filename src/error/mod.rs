//! The error types of the crate, one for each group of operations.
//!
//! Each message says what failed and, where possible, what to do next. The cause is returned by `source()` and is not
//! repeated in the message, so a caller that prints the whole chain prints each cause once.
mod address;
mod begin;
mod change;
mod cluster;
mod failure;
mod key;
mod operation;
mod provision;
mod relocate;
mod resolve;
mod server;
mod step;
mod store;
mod umbrella;

pub use address::UntrustedAddress;
pub use begin::BeginError;
pub use change::ChangeError;
pub use cluster::ClusterError;
pub use failure::{Failure, FailureState};
pub use key::{KeyError, VaultError};
pub use operation::OperationError;
pub use provision::ProvisionError;
pub use relocate::{RelocateError, UnknownServer};
pub use resolve::ResolveError;
pub use server::ServerSetupError;
pub use step::StepError;
pub use store::{NameConflict, StoreError};
pub use umbrella::{BuildError, Error, RunError, SchemaError};

use crate::sqlstate;
use std::{error::Error as StdError, fmt, sync::Arc};

/// A boxed error of any type.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// A cause that can be cloned, because the error of one shared registry load is returned to many waiting callers.
///
/// An error that contains it implements `source()` with [`SharedError::as_dyn`], so that the source downcasts to the
/// original type. An `Arc<dyn Error>` under thiserror's `#[source]` would downcast to the `Arc` only.
#[derive(Clone)]
pub struct SharedError(Arc<dyn StdError + Send + Sync + 'static>);
impl SharedError {
    /// Wraps an error or a text.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self(Arc::from(cause.into()))
    }
    /// The original error, to be returned from `source()`.
    pub fn as_dyn(&self) -> &(dyn StdError + 'static) {
        &*self.0
    }
}
impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A stored text that this version of the crate cannot parse. A newer version wrote it, or it is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this version of tenantry does not know the {what} {found:?}")]
pub struct UnknownValue {
    what: &'static str,
    found: String,
}
impl UnknownValue {
    pub(crate) fn new(what: &'static str, found: &str) -> Self {
        Self { what, found: found.into() }
    }
}

/// Formats an error and all its causes in one line, for logs and for the journal. Each cause appears once. If one of
/// them is an error of a PostgreSQL server, its SQLSTATE is appended, because the text may be in any language.
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
