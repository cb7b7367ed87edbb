//! The error types of the crate, one for each group of operations.
//!
//! Each message says what failed and, where possible, what to do next. The cause is returned by `source()` and is not
//! repeated in the message, so a caller that prints the whole chain prints each cause once.
mod address;
mod begin;
mod change;
mod cluster;
mod doctor;
mod environment;
mod failure;
mod key;
mod operation;
mod provision;
mod relocate;
mod resolve;
mod rows;
mod server;
mod step;
mod store;
mod umbrella;

pub use address::UntrustedAddress;
pub use begin::BeginError;
pub use change::ChangeError;
pub use cluster::ClusterError;
pub use doctor::DoctorError;
pub use environment::InheritedVariable;
pub use failure::{Failure, FailureState};
pub use key::{KeyError, VaultError};
pub use operation::OperationError;
pub use provision::ProvisionError;
pub use relocate::{RelocateError, UnknownServer};
pub use resolve::ResolveError;
pub use rows::{Rows, UnreadableRow};
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

/// Formats an error and all its causes in one line, for logs, the journal and tools. Each cause appears once, at most
/// 8 KiB in all.
///
/// An error of a PostgreSQL server is shown with its message, DETAIL, HINT and SQLSTATE, because the texts may be in any
/// language. It is shown without the line of PostgreSQL's own source code, which sqlx puts into its text. The DETAIL of
/// a NOT NULL or CHECK constraint is left out, because it contains the whole row.
///
/// ```
/// let error = tenantry::error::StoreError::unavailable("connection refused");
/// assert_eq!(tenantry::error::chain(&error), "the landlord did not answer; try again: connection refused");
/// ```
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts = vec![];
    let mut code = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<sqlx::Error>()
            && let Some(text) = sqlstate::server_text(error)
        {
            (code, next) = (sqlstate::code(error), None);
            parts.push(text);
            continue;
        }
        let mut text = error.to_string();
        next = error.source();
        // A text that ends with its cause's text, as those of sqlx do, is cut there.
        if let Some(cause) = next.map(ToString::to_string)
            && let Some(context) = text.strip_suffix(&cause)
        {
            text = context.trim_end_matches([' ', ':']).to_owned();
        }
        parts.push(text);
    }
    parts.retain(|text| !text.is_empty());
    let text = shorten(&parts.join(": ").replace('\0', "\u{fffd}"), 8 * 1024);
    match code {
        Some(code) => format!("{text} (SQLSTATE {code})"),
        None => text,
    }
}

/// The text, or its beginning and `…` if it is longer than `max` characters. For values and causes in errors.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Characters of a refused value that an error shows.
pub(crate) const EXCERPT: usize = 80;
