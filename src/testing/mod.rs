//! What hosts and this crate need to test against a real PostgreSQL.

pub mod conformance;
#[cfg(unix)]
mod harness;
pub mod proxy;
mod resolver;
#[cfg(unix)]
pub mod server;
#[cfg(unix)]
pub use harness::{Harness, HarnessError};
pub use resolver::{FixedResolver, tenant};
#[cfg(unix)]
pub use server::TestServer;

/// A sealed secret without a store around it: what the benchmark opens.
#[doc(hidden)]
pub use crate::vault::SealBench;
