//! What an installation keeps: one folder for each trait, with its stores in PostgreSQL and in memory. No store knows what
//! an operation does; the only rule between them is `fence`: a store takes no write of an epoch that is over.
pub mod admin;
pub mod journal;
pub mod nodes;
pub mod registry;
pub mod schema;
pub mod tokens;
pub mod vault;
