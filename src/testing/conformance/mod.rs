//! What each seam promises, as tests: one entry point per trait, for implementations of hosts and of this crate alike.
//!
//! Each panics at the first broken promise, and says which it was and what was seen instead. They make what they need
//! under new ids and names, and leave it behind: run them on a store of a test's own.

mod admin;
mod answer;
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
