//! A hard budget of connections to one server, shared by all its tenants.
mod away;
mod connection;
mod engine;
pub(crate) mod refusal;
#[cfg(test)]
mod schedules;
mod server;
mod stats;
pub(crate) use away::Away;
pub(crate) use connection::{Checkout, Handover, Member, PgOpener, PgServer};
pub(crate) use server::{Limits, Server};
pub use stats::PoolStats;
