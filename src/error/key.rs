use super::{BoxError, SharedError, StoreError};
use crate::secret::{CredentialId, KeyId};
use std::{error::Error as StdError, fmt};

/// Why a key provider could not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeyError {
    /// It does not hold this key: give it the key, at least for opening.
    Unknown(KeyId),
    /// It holds a key of this id, with other bytes than the key that sealed the stored secrets.
    WrongBytes(KeyId),
    /// The key material breaks a rule, which is named; the material is not.
    Malformed(&'static str),
    /// What was given to unwrap is not what this key wrapped: it was changed, or belongs to another secret.
    Refused(SharedError),
    /// It did not answer.
    Unavailable(SharedError),
}
impl KeyError {
    /// [`KeyError::Refused`] with any cause.
    pub fn refused(cause: impl Into<BoxError>) -> Self {
        Self::Refused(SharedError::new(cause))
    }
    /// [`KeyError::Unavailable`] with any cause.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(SharedError::new(cause))
    }
}
impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(key) => write!(f, "the key {key} is needed and not provided"),
            Self::WrongBytes(key) => {
                write!(
                    f,
                    "the key {key} has other bytes than the key that sealed the stored secrets; give the right ones"
                )
            }
            Self::Malformed(rule) => write!(f, "the key is malformed: {rule}"),
            Self::Refused(_) => f.write_str("the key does not open this record"),
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

/// Why a secret does not open or is not kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum VaultError {
    /// Nothing is kept under this id.
    Missing(CredentialId),
    /// The record is damaged, or belongs to another id.
    DoesNotOpen(CredentialId),
    /// Another secret is kept under this id already, and a version is written once.
    Exists(CredentialId),
    /// The key.
    Key(KeyError),
    /// The store.
    Store(StoreError),
}
impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(id) => write!(f, "no secret is kept for {id}"),
            Self::DoesNotOpen(id) => write!(f, "the record kept for {id} does not open under this id"),
            Self::Exists(id) => write!(f, "another secret is kept for {id}; write the next version"),
            Self::Key(_) => f.write_str("the secret's key is of no use"),
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
