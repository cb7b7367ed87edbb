//! The operations, one folder each: what a caller asks for, the list of steps, the steps.
pub mod lifecycle;
pub mod migrate;
pub mod provision;
pub mod rekey;
pub mod rotate;
pub mod servers;
pub mod step;
