//! A hard budget of connections to one server, shared by all its tenants.
mod connection;
mod engine;
#[cfg(test)]
mod schedules;
mod server;
mod stats;
pub(crate) use connection::{Checkout, Member, PgOpener, PgServer};
pub(crate) use server::{Limits, Server};
pub use stats::PoolStats;
