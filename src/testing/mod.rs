//! Helpers for tests of applications and of this crate.
//!
//! [`TestServer`] and [`Harness`] give a test a real PostgreSQL and a whole [`Tenantry`](crate::Tenantry) over it.
//! [`FixedResolver`] resolves tenants without a database. [`proxy`] injects network faults, and [`conformance`] checks
//! an application's own implementation of a trait. Only the feature `testing` compiles this module.

pub mod conformance;
#[cfg(unix)]
mod harness;
mod options;
pub mod proxy;
mod resolver;
mod seal;
#[cfg(unix)]
pub mod server;
#[cfg(unix)]
pub use harness::{Harness, HarnessError};
pub use options::connect_options;
pub use resolver::{FixedResolver, tenant};
#[cfg(unix)]
pub use server::TestServer;

#[doc(hidden)]
pub use seal::SealBench;
