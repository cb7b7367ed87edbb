//! What hosts and this crate need to test against a real PostgreSQL.

pub mod conformance;
#[cfg(unix)]
mod harness;
pub mod proxy;
mod resolver;
mod seal;
#[cfg(unix)]
pub mod server;
#[cfg(unix)]
pub use harness::{Harness, HarnessError};
pub use resolver::{FixedResolver, tenant};
#[cfg(unix)]
pub use server::TestServer;

#[doc(hidden)]
pub use seal::SealBench;
