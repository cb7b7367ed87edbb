//! Operations that survive the crash of their worker. The journal stores intents, and the engine runs a list of steps.
//!
//! A worker may crash at any point. Therefore the journal commits an intent before its effect happens, and all steps
//! are idempotent. An undo means "ensure absent", so it also covers a step that failed or whose outcome is unknown.
//! Every takeover raises the operation's *epoch*, and the stores reject writes with an older epoch.
//!
//! The operations layer defines each operation as a [`Saga`] and begins it with [`Engine::begin`]. A background loop
//! calls [`Recoverer::pass`] to continue the operations of crashed workers.
//!
//! # When the landlord loses commits
//!
//! Intents are committed synchronously, except those of steps that write to the landlord only. Completion records are
//! committed asynchronously, so a landlord that crashes may lose the latest of them. A failover to an *asynchronous*
//! standby may lose intents too; prefer a synchronous standby. The consequences are:
//!
//! - A worker that survives the crash receives [`LostWrites`](crate::error::StoreError::LostWrites) for its next
//!   record. It detects the crash because PostgreSQL's recovery empties an unlogged table that contains the landlord's
//!   incarnation. The worker claims the operation again and continues from the state that the landlord has.
//! - A worker whose epoch the standby does not know receives [`Fenced`](crate::error::StoreError::Fenced). It stops and
//!   undoes nothing. Recovery continues the operation from the state that the standby has, because every step may run
//!   again.
//! - If all records of an operation are lost, its roles and its database remain on the server, and no committed intent
//!   names them. The crate never changes them. A provisioning that would use the same names fails in its precheck with
//!   [`ClusterError::Foreign`](crate::error::ClusterError::Foreign): remove or rename them. The default names contain
//!   the id of the new tenant and never conflict. To find such databases, compare the owners in `pg_database` with
//!   `tenantry.placements`.
//! - If a status (suspended, archived) is lost, the server still enforces it; call the verb again. If a purge is lost,
//!   the registry shows an active tenant whose database does not exist; purge it again.
mod begin;
mod definition;
mod engine;
mod execution;
mod recover;
mod runner;
pub use begin::{CallOptions, NewOperation, Started};
pub use definition::{Saga, SagaStep};
pub use engine::{Engine, EpochFence, Outcome, Settings};
pub use execution::{Execution, Observer};
pub use recover::{AnySaga, Recoverer, RecoveryReport};
