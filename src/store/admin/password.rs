//! Rules for passwords: their length, and the form in which they are hashed.
//!
//! [`PgAdminStore`](super::PgAdminStore) checks a password with [`PasswordPolicy`] before it hashes or verifies it.
use super::to_opaque_string;
use secrecy::{ExposeSecret, SecretString};

/// Rules that a new password must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordPolicy {
    /// Minimum characters of the password's [form](to_opaque_string); 12 by default. An empty password is refused even
    /// if this is 0.
    pub min: usize,
    /// Maximum bytes of the password's form; 1024 by default, because a longer one adds work and no strength. A value
    /// above 4096 has no effect.
    pub max: usize,
}
impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { min: 12, max: 1024 }
    }
}

/// An error about a password: it was refused, or it could not be hashed or compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The password is too short.
    #[error("the password needs at least {min} characters")]
    #[non_exhaustive]
    Short {
        /// Minimum characters that the policy requires.
        min: usize,
    },
    /// The password is too long.
    #[error("the password has more than {max} bytes")]
    #[non_exhaustive]
    Long {
        /// Maximum bytes that are accepted.
        max: usize,
    },
    /// It contains a character that PRECIS disallows, for example a control character.
    #[error("the password contains a character that cannot be used, for example a control character; leave it out")]
    Character,
    /// The password cannot be hashed, or the stored text is not a hash in PHC form.
    #[error("the password cannot be hashed, or its stored hash is not in PHC form")]
    Stored,
}

impl PasswordPolicy {
    /// Converts the password to the text to hash, if it keeps the rules.
    pub(super) fn check(self, password: &SecretString) -> Result<SecretString, PasswordError> {
        let min = self.min.max(1);
        let form = to_opaque_string(password)?;
        if form.expose_secret().chars().count() < min {
            return Err(PasswordError::Short { min });
        }
        if form.expose_secret().len() > self.max { Err(PasswordError::Long { max: self.max }) } else { Ok(form) }
    }

    /// The texts whose hash may be stored for this password: its form, and the typed text if that differs. Earlier
    /// versions of this crate stored the hash of the typed text. The result is empty for a text that is too long: no
    /// stored hash can match it, and refusing it at once says nothing about the address.
    pub(super) fn candidates(self, password: &SecretString) -> Vec<SecretString> {
        let fits = |text: &SecretString| text.expose_secret().len() <= self.max;
        let form = to_opaque_string(password).ok().filter(fits);
        let is_equal = form.as_ref().is_some_and(|form| form.expose_secret() == password.expose_secret());
        let typed = Some(password).filter(|typed| !is_equal && fits(typed)).cloned();
        form.into_iter().chain(typed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::{hash_password, verify_password};
    use super::*;

    #[test]
    fn policy_refuses_password_and_names_the_broken_rule() {
        let check = |text: String| PasswordPolicy::default().check(&SecretString::from(text)).map(drop);
        assert_eq!(check("ä".repeat(11)), Err(PasswordError::Short { min: 12 }));
        assert_eq!(check("ä".repeat(12)), Ok(()));
        assert_eq!(check("x".repeat(1025)), Err(PasswordError::Long { max: 1024 }));
        assert_eq!(check("x".repeat(12) + "\0"), Err(PasswordError::Character));
        let empty = PasswordPolicy { min: 0, max: 1024 }.check(&SecretString::from("")).map(drop);
        assert_eq!(empty, Err(PasswordError::Short { min: 1 }));
    }

    #[test]
    fn policy_counts_characters_and_bytes_after_normalisation() {
        let check = |text: String| PasswordPolicy::default().check(&SecretString::from(text)).map(drop);
        assert_eq!(check("e\u{301}".repeat(6)), Err(PasswordError::Short { min: 12 }), "12 code points, 6 characters");
        assert_eq!(check("e\u{301}".repeat(12)), Ok(()));
        assert_eq!(check("e\u{301}".repeat(512)), Ok(()), "1536 bytes become 1024");
        assert_eq!(check("e\u{301}".repeat(513)), Err(PasswordError::Long { max: 1024 }));
    }

    #[tokio::test]
    async fn verify_accepts_hash_of_the_typed_text() {
        let typed = SecretString::from("e\u{301}te\u{301} et hiver");
        let stored = hash_password(&typed).await.unwrap();
        let candidates = |text: &SecretString| PasswordPolicy::default().candidates(text);
        assert!(verify_password(candidates(&typed), Some(stored)).await.unwrap());
        assert_eq!(candidates(&typed).len(), 2);
        assert_eq!(candidates(&SecretString::from("plain")).len(), 1, "one candidate if the form is the typed text");
        assert_eq!(candidates(&SecretString::from("x".repeat(1025))).len(), 0);
    }
}
