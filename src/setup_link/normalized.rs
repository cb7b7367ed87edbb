//! [`NormalizedPassword`]: a posted password, normalized before the operation of a password link uses it.
//!
//! The facade and the web layer create it. `join.rs` seals it, and compares it with the one that another POST has
//! sealed.
//!
//! Invariant: the duration of a comparison reveals nothing about the sealed password.
use super::SetupLinkError;
use crate::store::admin::to_opaque_string;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A posted password in the form in which it is sealed, compared and set.
pub(crate) struct NormalizedPassword(SecretString);

impl NormalizedPassword {
    /// Normalizes a posted password, so that the NFD and the NFC form of one text are the same password.
    ///
    /// # Errors
    /// [`SetupLinkError::Password`] if the text cannot be a password.
    pub(crate) fn new(posted: &SecretString) -> Result<Self, SetupLinkError> {
        to_opaque_string(posted).map(Self).map_err(SetupLinkError::Password)
    }
    /// The text that is sealed and set.
    pub(super) fn text(&self) -> &SecretString {
        &self.0
    }

    /// Whether a sealed password is this one. It normalizes the sealed password first, because earlier versions sealed
    /// the text as it was typed.
    pub(super) fn is_same_as(&self, sealed: &SecretString) -> bool {
        let sealed = to_opaque_string(sealed).unwrap_or_else(|_| sealed.clone());
        is_same(&sealed, &self.0)
    }
}

/// Whether two texts are equal. It compares MACs under a random key, so that its duration reveals nothing about the
/// sealed text.
fn is_same(sealed: &SecretString, posted: &SecretString) -> bool {
    let key = Zeroizing::new(rand::rng().random::<[u8; 64]>());
    let mac = |text: &SecretString| {
        let mut mac = Hmac::<Sha256>::new((&*key).into());
        mac.update(text.expose_secret().as_bytes());
        mac
    };
    mac(sealed).verify(&mac(posted).finalize().into_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_same_as_compares_whole_texts_after_normalization() {
        let same = |a: &str, b: &str| NormalizedPassword(SecretString::from(b)).is_same_as(&SecretString::from(a));
        assert!(same("correct horse", "correct horse"));
        assert!(same("cafe\u{301}", "caf\u{e9}"), "an NFD text that an earlier version has sealed equals its NFC form");
        for other in ["", "correct hors", "correct horse ", "Correct horse"] {
            assert!(!same("correct horse", other), "{other:?} must differ from \"correct horse\"");
        }
    }
}
