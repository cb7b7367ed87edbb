//! Operations that survive their worker: a journal of intents, and an engine that walks a plain list of steps.
//!
//! Between any two lines a worker may die. So the journal learns of an intent before its effect; steps are idempotent;
//! an undo means "ensure absent" and covers a step that failed or whose outcome is unknown; and every takeover raises
//! the operation's *epoch*, below which no store takes a write any more.
//!
//! # A landlord that forgets
//!
//! What merely happened is committed without waiting for the disk, so a landlord that crashes may forget its last
//! moments; what is intended is waited for. One that fails over to an *asynchronous* standby may forget that too: prefer a
//! synchronous one. This is what happens:
//!
//! - A worker that lives on is told by its next record, [`Forgotten`](StoreError::Forgotten): a table that recovery empties
//!   holds the landlord's incarnation. It takes hold of the operation anew and goes by what the landlord knows.
//! - A worker whose epoch the standby does not know is [`Fenced`](StoreError::Fenced): it stops and undoes nothing. What
//!   the standby still knows of the operation is recovered from there, since every step may run again.
//! - An operation that is forgotten as a whole leaves roles and a database that no committed intent names. Nobody
//!   touches them. A provisioning that meets them by name stops at its survey, with
//!   [`ClusterError::Foreign`](crate::error::ClusterError::Foreign): remove or rename them. With the default names, which
//!   hold a new tenant's id, it never meets them; compare `pg_database`'s owners with `tenantry.placements` to find them.
//! - A status that is forgotten (suspended, archived) still holds on the server; call the verb again. A purge that is
//!   forgotten shows an active tenant without a database: purge it again.
mod engine;
mod execution;
mod recover;
mod runner;
pub use engine::{Engine, EpochFence, Outcome, Saga, SagaStep, Settings};
pub use execution::{Execution, Observer};
pub use recover::{AnySaga, Recoverer, RecoveryReport};
