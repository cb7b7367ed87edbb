//! Findings about a landlord for which no [`Tenantry`](crate::Tenantry) can be built.
use super::checks::{of_key, of_schema_error};
use super::code::Code;
use super::finding::Finding;
use crate::error::BuildError;

impl Finding {
    /// The finding for the reason why [`build`](crate::Builder::build) failed, for a tool that has no
    /// [`doctor`](crate::Tenantry::doctor) then. `None` if the reason is neither the landlord's schema nor a key.
    pub fn of_build_error(error: &BuildError) -> Option<Self> {
        match error {
            BuildError::Schema(error) => of_schema_error(error),
            BuildError::KeyMissing(key) => Some(of_key(Code::KeyMissing, key)),
            BuildError::KeyWrong(key) => Some(of_key(Code::KeyWrong, key)),
            _ => None,
        }
    }
}
