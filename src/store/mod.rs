//! The stores of an installation: one folder for each storage trait, with an implementation in PostgreSQL and, for
//! tests, one in memory.
//!
//! Sagas, the resolver and the facade call the stores through their traits. A store knows nothing of the steps of an
//! operation. The stores share one rule: every worker of an operation has an epoch, and a store rejects a write of an
//! older epoch (`fence`, [`FencingToken`](crate::operation::FencingToken)).
pub mod admin;
pub mod journal;
pub mod nodes;
pub mod registry;
pub mod schema;
pub mod tokens;
pub mod vault;
