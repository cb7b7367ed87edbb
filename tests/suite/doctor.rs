//! The doctor finds each damage, finds nothing on a healthy installation, and repairs what a plan selects.
mod healthy;
mod servers;
