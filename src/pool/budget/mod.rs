//! A hard budget of connections to one server, shared by all its tenants.
mod circuit_breaker;
mod connection;
pub(crate) mod refusal;
mod scheduler;
#[cfg(test)]
mod schedules;
mod server;
mod stats;
pub(crate) use circuit_breaker::CircuitBreaker;
pub(crate) use connection::{Checkout, Handover, PgOpener, PgServer, TenantShare};
pub(crate) use server::{Limits, ServerPool};
pub use stats::PoolStats;
