//! The errors of key providers and of the vault that stores encrypted secrets.
//!
//! No error contains a secret or key material. Only an unavailable provider or store makes a step retry.
use super::{BoxError, SharedError, StoreError};
use crate::secret::{CredentialId, KeyId};
use std::{error::Error as StdError, fmt};

/// The reason why a key provider could not wrap or unwrap a key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// The provider does not have this key. Add it to the provider, at least for decryption.
    Unknown(KeyId),
    /// The provider has a key with this id, but its bytes differ from those of the key that encrypted the stored
    /// secrets.
    WrongBytes(KeyId),
    /// The key material breaks the named rule. The error does not contain the material.
    Malformed(&'static str),
    /// The key cannot unwrap the given bytes: they were changed, or they belong to another secret.
    Refused(SharedError),
    /// The provider did not answer.
    Unavailable(SharedError),
}
impl KeyError {
    /// Creates a [`KeyError::Refused`] from any cause.
    pub fn refused(cause: impl Into<BoxError>) -> Self {
        Self::Refused(SharedError::new(cause))
    }
    /// Creates a [`KeyError::Unavailable`] from any cause.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(SharedError::new(cause))
    }
}
impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(key) => write!(f, "the key provider does not have the key {key}; add it"),
            Self::WrongBytes(key) => {
                write!(
                    f,
                    "the key {key} differs from the key of that name that encrypted the stored secrets; provide it"
                )
            }
            Self::Malformed(rule) => write!(f, "the key is malformed: {rule}"),
            Self::Refused(_) => f.write_str("the key cannot decrypt this record"),
            Self::Unavailable(_) => f.write_str("the key provider did not answer; try again"),
        }
    }
}
impl StdError for KeyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Refused(c) | Self::Unavailable(c) => Some(c.as_dyn()),
            _ => None,
        }
    }
}

/// The reason why a secret could not be read or stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum VaultError {
    /// The vault has no secret under this id.
    Missing(CredentialId),
    /// The record cannot be decrypted: it is damaged, or it belongs to another id.
    DoesNotOpen(CredentialId),
    /// The vault already has a different secret under this id. A version of a secret is never overwritten.
    Exists(CredentialId),
    /// The key provider failed.
    Key(KeyError),
    /// The store that holds the encrypted records failed.
    Store(StoreError),
}
impl From<super::UnreadableRow> for VaultError {
    fn from(row: super::UnreadableRow) -> Self {
        Self::Store(row.into())
    }
}
impl VaultError {
    /// Whether the error is about one stored record, so that other records may still be usable.
    pub(crate) fn is_of_one_record(&self) -> bool {
        match self {
            Self::Missing(_) | Self::DoesNotOpen(_) | Self::Exists(_) | Self::Store(StoreError::Corrupt(_)) => true,
            Self::Key(error) => matches!(error, KeyError::Unknown(_) | KeyError::Refused(_)),
            Self::Store(_) => false,
        }
    }
    /// Whether the same call may succeed later without a change by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Key(error) => matches!(error, KeyError::Unavailable(_)),
            Self::Store(error) => error.is_transient(),
            Self::Missing(_) | Self::DoesNotOpen(_) | Self::Exists(_) => false,
        }
    }
}
impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(id) => write!(f, "the vault has no secret for {id}"),
            Self::DoesNotOpen(id) => write!(f, "the vault's record for {id} cannot be decrypted under this id"),
            Self::Exists(id) => write!(f, "the vault already has another secret for {id}; write the next version"),
            Self::Key(_) => f.write_str("the key of the secret cannot be used"),
            Self::Store(_) => f.write_str("the vault's store failed"),
        }
    }
}
impl StdError for VaultError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Key(e) => Some(e),
            Self::Store(e) => Some(e),
            _ => None,
        }
    }
}
impl From<KeyError> for VaultError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}
impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
impl From<VaultError> for super::StepError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(e) => e.into(),
            VaultError::Key(KeyError::Unavailable(_)) => Self::retry(error),
            _ => Self::fail(error),
        }
    }
}
