//! The errors of building the facade: the landlord's schema, the keys, the environment.
use crate::cli::failure::CommandError;
use crate::error::{BuildError, chain};

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Schema(error) => error.into(),
            BuildError::Landlord(error) => error.into(),
            BuildError::Environment(inherited) => Self::usage(format!(
                "the variable {} would change every connection to a server; remove it from the environment",
                inherited.variable
            )),
            BuildError::KeyMissing(key) => {
                let text = format!("stored secrets need the key {key}, which this program does not have");
                Self::usage(text).hint(format!("Add {key}:… to TENANTRY_KEYS or to the key file."))
            }
            BuildError::KeyWrong(key) => {
                let text = format!("the key {key} is not the one of that name that has sealed the stored secrets");
                Self::usage(text).hint(format!(
                    "Set TENANTRY_KEYS or the key file to the same keys as the application has; {key} there has other bytes."
                ))
            }
            other => Self::failed(chain(&other)),
        }
    }
}
