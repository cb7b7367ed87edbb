//! Operations that survive the crash of their worker. The journal stores intents, and the engine runs a list of steps.
//!
//! A worker may crash at any point. Therefore the journal commits an intent before its effect happens, and all steps
//! are idempotent. An undo means "ensure absent", so it also covers a step that failed or whose outcome is unknown.
//! Every takeover raises the operation's *epoch*, and the stores reject writes with an older epoch.
//!
//! The operations layer defines each operation as a [`Saga`] and begins it with [`Engine::begin`]. A background loop
//! calls [`Recoverer::recover_due`] to continue the operations of crashed workers.
//!
//! An intent is flushed to the landlord's disk before its step runs, except the intent of steps that write to the
//! landlord only. Of the completion records, only those that contain the next intent or end the operation are flushed.
//! The consequences of a crash that loses commits are in
//! [the manual](crate::manual::operations#a-landlord-that-loses-commits).
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
