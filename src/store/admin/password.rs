//! Rules for passwords, and their hashes (Argon2id in PHC form).
//!
//! [`PgAdminStore`](super::PgAdminStore) checks a password with [`PasswordPolicy`] and calls [`hash_password`] and
//! [`verify_password`]. Both run on a blocking thread, and at most four hashes are computed at the same time in one
//! process.
//!
//! Invariant: verifying against no stored hash costs as much as verifying against one.
use super::to_opaque_string;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

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

/// Permits to compute a hash. A hash takes 19 MiB and about 30 ms; four at a time bound the memory of a node. A call
/// that waits for a permit has not allocated that memory yet.
static HASH_PERMITS: Semaphore = Semaphore::const_new(4);

/// A hash to verify against when the address is unknown or has no password, so that the call takes the usual time from
/// the first one on. Its password may be public: [`verify_password`] returns `false` whatever the comparison says.
const DUMMY_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$qaEOQR+Hq61wp4SWgNHnfg$XWk6JmNn+GA+RYKiJpPuCCOkMkLRdcIsFO3/O8WeXNU";

/// Argon2id with 19 MiB, 2 passes and 1 lane: one of the equivalent settings of the OWASP Password Storage Cheat Sheet.
fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|_| PasswordError::Stored)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_blocking(password: &str) -> Result<String, PasswordError> {
    let hash = argon2()?.hash_password(password.as_bytes()).map_err(|_| PasswordError::Stored)?;
    Ok(hash.to_string())
}

/// Hashes a password and returns the hash in PHC form. The computation continues if the future is dropped.
pub(super) async fn hash_password(password: &SecretString) -> Result<String, PasswordError> {
    let password = password.clone();
    run_blocking(&HASH_PERMITS, move || hash_blocking(password.expose_secret())).await
}

/// Checks whether one of these texts has this hash. `None` never matches, and takes as long.
pub(super) async fn verify_password(
    candidates: Vec<SecretString>, stored: Option<String>,
) -> Result<bool, PasswordError> {
    run_blocking(&HASH_PERMITS, move || {
        let has_stored_hash = stored.is_some();
        let stored = stored.unwrap_or_else(|| DUMMY_HASH.into());
        let hash = PasswordHash::new(&stored).map_err(|_| PasswordError::Stored)?;
        let argon2 = argon2()?;
        let mut candidates = candidates.iter();
        let is_match = candidates.any(|text| argon2.verify_password(text.expose_secret().as_bytes(), &hash).is_ok());
        Ok(is_match && has_stored_hash)
    })
    .await
}

/// Runs the work on a blocking thread once a permit is free. The work owns the permit, because it runs to its end even
/// if this future is dropped: otherwise cancelled calls would leave more computations running than there are permits.
async fn run_blocking<T: Send + 'static>(
    permits: &'static Semaphore, work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    let permit = permits.acquire().await.map_err(|_| PasswordError::Stored)?;
    let work = move || {
        let result = work();
        drop(permit);
        result
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PasswordError::Stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hash_matches_its_own_password_and_no_other() {
        let password = SecretString::from("correct horse battery");
        let stored = hash_password(&password).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify_password(vec![password], Some(stored.clone())).await.unwrap());
        assert!(!verify_password(vec![SecretString::from("wrong")], Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn verify_password_without_stored_hash_fails_after_one_hash() {
        // The text of the dummy hash itself: it must not verify either.
        let password = SecretString::from("nobody has this password");
        assert!(!verify_password(vec![password.clone()], None).await.unwrap());
        assert!(
            verify_password(vec![password.clone()], Some(DUMMY_HASH.into())).await.unwrap(),
            "DUMMY_HASH is a real hash of this password, so verifying it does the usual work"
        );
        let parameters = |phc: &str| phc.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parameters(DUMMY_HASH), parameters(&hash_password(&password).await.unwrap()));
    }

    #[tokio::test]
    async fn blocking_work_keeps_its_permit_when_its_future_is_dropped() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let call = tokio::spawn(run_blocking(&ONE, move || Ok(finished.recv())));
        while ONE.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.is_err_and(|e| e.is_cancelled()));
        assert_eq!(ONE.available_permits(), 0, "the work still runs, so its permit must not be free");
        finish.send(()).unwrap();
        let _free = ONE.acquire().await.unwrap();
    }

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
