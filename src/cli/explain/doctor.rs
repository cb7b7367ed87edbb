//! The errors of an examination and of applying a plan.
use super::causes;
use crate::cli::failure::CommandError;
use crate::error::{DoctorError, chain};

impl From<DoctorError> for CommandError {
    fn from(error: DoctorError) -> Self {
        match error {
            DoctorError::UnknownTenant => Self::failed("no tenant has this id, slug or domain").next("tenants list"),
            DoctorError::UnknownServer { server } => {
                Self::failed(format!("no server {server} is registered")).next("servers list")
            }
            DoctorError::Plan(_) | DoctorError::Format { .. } | DoctorError::OtherInstallation => {
                Self::usage(chain(&error)).next("doctor --plan plan.json")
            }
            DoctorError::Reason(_) => Self::usage(format!("the reason is not valid: {}", causes(&error))),
            DoctorError::Landlord(error) => error.into(),
            DoctorError::Closed => Self::failed("interrupted"),
        }
    }
}
