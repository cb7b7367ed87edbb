//! The manual.
pub mod roles;
