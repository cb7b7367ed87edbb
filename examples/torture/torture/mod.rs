//! The fault-injection driver. The example `torture` runs it in full, and the test `torture_sample` runs a sample.
//!
//! - `plan` makes the list of runs and distributes them over lanes; `run` performs one run.
//! - `child` is the process that is killed; `saga` lists the operations that it runs.
//! - `lane` has the servers, proxies and nodes of one lane; `director` and `fault` decide what a proxy does at a
//!   statement.
//! - `auditor` and `links` check the result of a run; `neighbour` disturbs it; `report` summarises all runs.
//! - `once` is independent of the rest: it checks that tokens and links are consumed exactly once.
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

/// An error of the driver itself, as opposed to a finding about the crate.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;
