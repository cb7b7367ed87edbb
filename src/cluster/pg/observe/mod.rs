//! The doctor's queries on a PostgreSQL server. Each reads catalogs only and changes nothing.
//!
//! The doctor runs them in sessions of the provisioner, or in one of the application's login where the text says so. One
//! query answers one group of checks, and it reads all databases of the server at once.
mod facts;
pub(crate) use facts::{
    Blocker, Entrant, Holder, Membership, ObservedDatabase, ObservedObject, ObservedRole, ObservedSequence, ServerFacts,
};
