//! The tenant admins, which are users of one tenant, and their passwords.
//!
//! Provisioning creates a tenant's first admin through [`AdminStore`], and the setup links set a password through it.
//! [`PgAdminStore`] keeps the users in a table of the tenant's own database. An application with a users table of its
//! own implements the trait over that.
//!
//! Invariants: passwords are compared in one Unicode form, and a check takes the same time whether the address exists
//! or not.
use crate::error::StepError;
use crate::names::{Email, RoleName};
use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::PgConnection;
use std::sync::Arc;

mod hash;
mod opaque;
mod password;
mod postgres;
pub use opaque::to_opaque_string;
pub use password::{PasswordError, PasswordPolicy};
pub use postgres::PgAdminStore;

/// Stores a tenant's admins. The default, [`PgAdminStore`], uses a table of the tenant's own database. An application
/// that has a users table implements this trait over it.
///
/// Every call uses the caller's session and opens no transaction, so it takes part in a transaction that the caller has
/// opened. Addresses are compared without regard to the case of ASCII letters, and exactly in everything else, so that
/// no address selects an admin with another mailbox (see [`Email`]). Passwords are compared in one Unicode form: an implementation
/// applies [`to_opaque_string`] before it hashes or verifies a password, so that the NFD and the NFC form of one text
/// are one password. `testing::conformance::admin_store` (feature `testing`) checks an implementation against this.
#[async_trait]
pub trait AdminStore: Send + Sync + 'static {
    /// Creates the storage for users, such as a table, if it does not exist, and lets `app` use it: the role that the
    /// application acts as. Runs as the migrator, once in each provisioning. `app` is `None` if the session's role
    /// itself uses what it creates, as its owner.
    ///
    /// Atomic: everything or nothing, also when the future is dropped. Idempotent: an existing table stays as it is.
    ///
    /// # Errors
    /// [`AdminError::Foreign`] if an object of another origin has the name; [`AdminError::Database`].
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError>;
    /// Creates this tenant admin if there is none with the address. A new admin has no password. Runs as the migrator.
    ///
    /// Atomic. Idempotent: an existing admin keeps the password. A user with this address who is not an admin becomes
    /// one.
    ///
    /// # Errors
    /// [`AdminError::Similar`] if the storage cannot hold the address beside another user's; [`AdminError::Database`].
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError>;
    /// Finds the tenant admin with this address and returns the address as it is stored, which may differ in the case of
    /// ASCII letters. `None` if there is none. A password link is issued for the result. Runs as the application's login;
    /// reads only.
    ///
    /// # Errors
    /// [`AdminError::Database`].
    async fn find_admin(&self, db: &mut PgConnection, email: &Email) -> Result<Option<Email>, AdminError>;
    /// Sets a tenant admin's password and replaces the old one, if there is one. Runs as the application's login.
    ///
    /// Atomic: after an error or a dropped future the old password or the new one is in force. Idempotent.
    ///
    /// # Errors
    /// [`AdminError::Unknown`], [`AdminError::Password`], [`AdminError::Database`].
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError>;
    /// How to do the expensive part of [`set_password`](Self::set_password) before a session is open. `None`, the
    /// default, if the store has no such part: `set_password` then does everything.
    fn hash_first(&self) -> Option<&dyn HashFirst> {
        None
    }
    /// Checks whether this is the tenant admin's password. The result is `false` if the address is unknown or has no
    /// password yet; that takes as long as a comparison, so the time does not reveal which addresses exist. Runs as the
    /// application's login; reads only.
    ///
    /// # Errors
    /// [`AdminError::Database`]; [`AdminError::Password`] if the stored hash cannot be read.
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError>;
}

/// Hashes a password without a session, so that no connection waits while the hash is computed. A store that hashes
/// passwords itself implements it and returns itself from [`AdminStore::hash_first`].
#[async_trait]
pub trait HashFirst: Send + Sync {
    /// Checks the password and computes the text that [`set_hash`](Self::set_hash) stores. Neither reads nor writes.
    ///
    /// # Errors
    /// [`AdminError::Password`].
    async fn hash(&self, password: &SecretString) -> Result<SecretString, AdminError>;
    /// As [`AdminStore::set_password`], for a password that [`hash`](Self::hash) has hashed.
    ///
    /// # Errors
    /// [`AdminError::Unknown`], [`AdminError::Database`].
    async fn set_hash(&self, db: &mut PgConnection, email: &Email, hash: &SecretString) -> Result<(), AdminError>;
}

#[async_trait]
impl<T: AdminStore + ?Sized> AdminStore for Arc<T> {
    async fn prepare(&self, db: &mut PgConnection, app: Option<&RoleName>) -> Result<(), AdminError> {
        (**self).prepare(db, app).await
    }
    async fn ensure_admin(&self, db: &mut PgConnection, email: &Email) -> Result<(), AdminError> {
        (**self).ensure_admin(db, email).await
    }
    async fn find_admin(&self, db: &mut PgConnection, email: &Email) -> Result<Option<Email>, AdminError> {
        (**self).find_admin(db, email).await
    }
    async fn set_password(
        &self, db: &mut PgConnection, email: &Email, password: &SecretString,
    ) -> Result<(), AdminError> {
        (**self).set_password(db, email, password).await
    }
    fn hash_first(&self) -> Option<&dyn HashFirst> {
        (**self).hash_first()
    }
    async fn verify(&self, db: &mut PgConnection, email: &Email, password: &SecretString) -> Result<bool, AdminError> {
        (**self).verify(db, email, password).await
    }
}

/// An error of an [`AdminStore`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No tenant admin has this address.
    #[error("no admin has the address {0}")]
    Unknown(Email),
    /// Another user has this address, except for the case of letters outside ASCII. The storage cannot hold both, and the
    /// other user was not changed.
    #[error("another user's address differs from {0} only in the case of letters outside ASCII; use another address")]
    Similar(Email),
    /// The password breaks a rule of the [`PasswordPolicy`], or its stored hash cannot be read.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// An object of another origin has the name of the users' table. It was not changed.
    #[error("table {0} was not created by tenantry; rename it, or implement AdminStore over it")]
    Foreign(&'static str),
    /// The tenant's database did not answer, or rejected a statement.
    #[error("a statement in the tenant's database failed")]
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
