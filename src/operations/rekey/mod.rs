//! Rekey: wraps the data key of every stored secret again, with the primary key of the key provider.
//!
//! To replace a key:
//!
//! 1. Deploy a key ring to all nodes that also holds the new key, with the old key still primary.
//! 2. Deploy a key ring to all nodes whose primary is the new key.
//! 3. Rekey. When it is done, no record names the old key.
//! 4. Remove the old key. A program whose key ring lacks a key that a secret still needs refuses to start.
//!
//! It is safe to stop after any of these for any length of time. Backups of the landlord that are older than the rekey
//! still need the old key. Rewrapping changes no secret,
//! so it can be repeated and never has to be undone.
use crate::secret::KeyId;

mod driver;
mod saga;
mod steps;
pub(crate) use driver::Rekey;
#[doc(hidden)]
pub use driver::RekeyVault;

/// The keys that are in use after [`Tenantry::rekey`](crate::Tenantry::rekey), which encrypts the data key of every
/// secret with the current primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// Every key that a record names now. That is the primary alone, unless a node with another primary has stored a
    /// secret meanwhile.
    pub keys: Vec<KeyId>,
}
