//! A hard limit on the connections of this process to one server, shared by all tenants of that server.
//!
//! The resolver keeps one [`ServerPool`] per host and port and gives each tenant a [`TenantShare`] of it.
//! `TenantPool` checks connections out of the share:
//!
//! - `scheduler` decides which caller gets which slot and does no I/O.
//! - `server` has the pool's state. `acquire` gets a connection for a caller, `waiting` waits for a grant, one of the
//!   two `guards` owns the slot, and `closing` returns and closes connections.
//! - `connect_permits` bounds how many connections are opened at the same time.
//! - `opener` opens and closes PostgreSQL connections (`connection`), `checked_out` is how a caller uses one, and
//!   `clear` is what is reset before the next caller has it. `lifetime` says when a connection has expired, and
//!   `expired` closes it.
//!
//! Invariants: a connection occupies a slot from before it is opened until after it is closed, so the limit holds at
//! all times. A connection serves one tenant for its whole life.
mod acquire;
mod checked_out;
mod circuit_breaker;
mod clear;
mod closing;
mod connect_permits;
mod connection;
mod expired;
mod guards;
mod lifetime;
pub(crate) mod login_limit;
mod opener;
mod scheduler;
#[cfg(test)]
mod schedules;
mod server;
mod share;
mod stats;
mod waiting;
pub(crate) use acquire::Acquired;
pub(crate) use checked_out::PgCheckedOut;
pub(crate) use circuit_breaker::CircuitBreaker;
pub(crate) use connect_permits::PermitLimit;
pub(crate) use connection::Handover;
pub(crate) use lifetime::Lifetimes;
pub(crate) use opener::{PgOpener, PgServer};
pub(crate) use server::{PoolLimits, ServerPool};
pub(crate) use share::{PgAcquired, PgEntry, TenantShare};
pub use stats::PoolStats;
