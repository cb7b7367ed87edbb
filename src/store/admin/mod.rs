//! Who may log in to a tenant: its users, and above all its first admin.
use crate::error::StepError;
use crate::names::{Email, RoleName};
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::sync::Arc;

mod opaque;
mod password;
mod postgres;
pub use opaque::to_opaque_string;
pub use password::{PasswordError, PasswordPolicy};
pub use postgres::PgAdminStore;

/// Keeps a tenant's admins, by default in a table of the tenant's own database. A host that has a users table of its
/// own implements this over it.
///
/// The sessions are the caller's; no call opens a transaction, so each takes part in one that the caller has opened.
/// Addresses are compared without regard to case, and passwords in one Unicode form: an implementation applies
/// [`to_opaque_string`] before it hashes or verifies one, so that NFD and NFC of one text are one password.
/// `testing::conformance::admin_store` holds an implementation to this.
#[async_trait]
pub trait AdminStore: Send + Sync + 'static {
    /// Makes sure that there is a place for users, which `app`, the role that the application acts as, may use. Runs
    /// as the migrator, once in each provisioning; `app` is `None` where the caller owns what it makes.
    ///
    /// Atomic: all of it or nothing, also when the future is dropped. Idempotent: what is there stays.
    ///
    /// # Errors
    /// [`AdminError::Foreign`] if the place is taken by something of another origin; [`AdminError::Database`].
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError>;
    /// Makes sure that this admin is there, without a password if he is new. Runs as the migrator.
    ///
    /// Atomic. Idempotent: an admin who is there keeps his password; another user with this address becomes one.
    ///
    /// # Errors
    /// [`AdminError::Database`].
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError>;
    /// Sets an admin's password, whatever it was. Runs as the application's login.
    ///
    /// Atomic: after an error or a dropped future the old password or the new one is in force. Idempotent.
    ///
    /// # Errors
    /// [`AdminError::Unknown`], [`AdminError::Password`], [`AdminError::Database`].
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError>;
    /// Whether this is the admin's password: `false` for somebody who does not exist or has none yet, which takes as
    /// long. Runs as the application's login; reads only.
    ///
    /// # Errors
    /// [`AdminError::Database`]; [`AdminError::Password`] if what is stored cannot be read.
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError>;
}

#[async_trait]
impl<T: AdminStore + ?Sized> AdminStore for Arc<T> {
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError> {
        (**self).prepare(db, app).await
    }
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError> {
        (**self).ensure_admin(db, email).await
    }
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError> {
        (**self).set_password(db, email, password).await
    }
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError> {
        (**self).verify(db, email, password).await
    }
}

/// Why a password was not set or not looked at, or an admin not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No admin has this address.
    #[error("no admin has the address {0}")]
    Unknown(Email),
    /// The password breaks a rule.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Something of another origin stands where the users would be. It is left as it is.
    #[error("table {0} was not made by tenantry; rename it, or give an AdminStore of your own over it")]
    Foreign(&'static str),
    /// The tenant's database.
    #[error("the tenant's database did not answer")]
    Database(#[from] sqlx::Error),
}
impl From<AdminError> for StepError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Database(error) => error.into(),
            other => Self::fail(other),
        }
    }
}
