//! The doctor finds each damage, finds nothing on a healthy installation, and repairs what a plan selects.
mod blocked;
mod content;
mod crashes;
mod drifts;
mod fleet;
mod healthy;
mod limits;
mod looks;
mod pairs;
mod plan_file;
mod servers;
