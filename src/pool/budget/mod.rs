//! A hard limit on the connections of this process to one server, shared by all tenants of that server.
//!
//! The resolver keeps one [`ServerPool`] per host and port and gives each tenant a [`TenantShare`] of it.
//! `TenantPool` checks connections out of the share. `scheduler` decides which caller gets which slot and does no I/O;
//! `server` waits, opens and closes; `connection` wraps real sqlx connections.
//!
//! Invariants: a connection occupies a slot from before it is opened until after it is closed, so the limit holds at
//! all times. A connection serves one tenant for its whole life.
mod circuit_breaker;
mod connection;
pub(crate) mod login_limit;
mod scheduler;
#[cfg(test)]
mod schedules;
mod server;
mod stats;
pub(crate) use circuit_breaker::CircuitBreaker;
pub(crate) use connection::{Checkout, Handover, PgOpener, PgServer, TenantShare};
pub(crate) use server::{PoolLimits, ServerPool};
pub use stats::PoolStats;
