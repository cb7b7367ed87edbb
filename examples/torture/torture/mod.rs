//! The torture, for the example and for a sample of it in the tests.
#![allow(dead_code, unused_imports, reason = "the example and the test each use a part")]

mod auditor;
mod child;
mod director;
mod fault;
mod lane;
mod links;
mod neighbour;
pub(crate) mod once;
mod plan;
mod report;
mod run;
mod saga;

pub(crate) use child::{Task, run_child};
pub(crate) use plan::{Options, USAGE, torture};

/// Whatever goes wrong in the driver itself.
pub(crate) type Anything = Box<dyn std::error::Error + Send + Sync>;
