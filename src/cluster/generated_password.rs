//! A login's password together with its SCRAM verifier.
//!
//! The steps that create or change a login get a [`GeneratedPassword`]; PostgreSQL receives its verifier only.
use crate::cluster::pg::scram::{self, Verifier};
use secrecy::SecretString;

/// A password and its verifier. It has no `Debug`, so that neither can be printed.
pub(crate) struct GeneratedPassword {
    pub(crate) password: SecretString,
    pub(crate) verifier: Verifier,
}

impl GeneratedPassword {
    /// Generates a random password and derives its verifier, which takes milliseconds on a blocking thread.
    pub(crate) async fn generate() -> Self {
        Self::from_stored(scram::generate_password()).await
    }
    /// Derives the verifier of a password that was generated earlier, by this worker or another one.
    pub(crate) async fn from_stored(password: SecretString) -> Self {
        Self { verifier: scram::derive_verifier(&password).await, password }
    }
}
