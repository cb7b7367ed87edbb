//! The manual: how the crate is built, what it promises, and where a change goes.
//!
//! - [`architecture`]: the layers, how a call travels through them, and where a new part goes.
//! - [`roles`]: roles and rights on a database server, what a suspension proves, what cannot be prevented.
//! - [`operations`]: the states of an operation, lanes, fencing, takeover, recovery, a landlord that loses commits.
//! - [`connections`]: slots, connect permits, eviction, and what is reset between two users of a connection.
//! - [`findings`]: each code of the doctor: what it means, how it comes about, and what its repair does.
//! - [`threat_model`]: the attackers, what holds against each, and what does not.
//! - [`promises`]: each promise, the tests that check it, and the command that measures it.
pub mod architecture;
pub mod connections;
pub mod findings;
pub mod operations;
pub mod promises;
pub mod roles;
pub mod threat_model;
