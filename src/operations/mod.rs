//! Every operation that changes a tenant or a server, one folder each.
//!
//! A folder holds the request and the result, the saga (its ordered list of steps), the steps, and the context (the
//! state of one worker). The facade begins an operation through the folder's driver (`Provisioner`, `Rotation`,
//! `Lifecycle`, …) by [`verb::CallVerb`], and gives its saga to recovery. Each step is idempotent, because any worker
//! may die at any await and another one runs the step again.
pub(crate) mod abandon;
pub(crate) mod lifecycle;
pub(crate) mod managed;
pub mod migrate;
pub mod provision;
pub mod rekey;
pub(crate) mod restore_entry;
pub mod rotate;
pub mod servers;
pub mod step;
pub mod temporary_login;
pub(crate) mod verb;
