//! Conformance suites: one function for each trait that an application may implement.
//!
//! A test of the implementation calls the function; this crate calls it for its own implementations. A suite panics at
//! the first broken rule, and the message names the rule and the actual result.
//!
//! Invariants: a suite uses only the trait. It creates what it needs under new ids and names and does not clean up, so
//! run it on a store that no other test uses.

mod admin;
mod assertions;
mod journal;
mod nodes;
mod registry;
mod resolver;
mod tokens;
mod vault;
mod vault_keys;

pub use admin::admin_store;
pub use journal::journal;
pub use nodes::nodes;
pub use registry::{registry, registry_writer, server_registry};
pub use resolver::resolver;
pub use tokens::token_store;
pub use vault::vault;
pub use vault_keys::vault_keys;
