//! Every operation that changes a tenant or a server, one module each.
//!
//! A module holds the request type, the saga (its ordered list of steps) and the steps. The facade begins an operation
//! through the module's driver type (`Provisioner`, `Rotation`, `Lifecycle`, ...) and hands its saga to recovery.
//! Each step is idempotent, because any worker may die at any await and another one runs the step again.
pub(crate) mod lifecycle;
pub mod migrate;
pub mod provision;
pub mod rekey;
pub mod rotate;
pub mod servers;
pub mod step;
