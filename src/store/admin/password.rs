use super::to_opaque_string;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Which passwords are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordPolicy {
    /// Minimum characters of the password's [form](to_opaque_string); 12 by default. An empty password is never taken.
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

/// Why a password is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too short.
    #[error("the password needs at least {min} characters")]
    #[non_exhaustive]
    Short {
        /// Fewest characters.
        min: usize,
    },
    /// Too long.
    #[error("the password has more than {max} bytes")]
    #[non_exhaustive]
    Long {
        /// Most bytes.
        max: usize,
    },
    /// It contains a character that PRECIS disallows, for example a control character.
    #[error("the password contains a character that cannot be used, for example a control character; leave it out")]
    Character,
    /// It cannot be hashed, or what is stored is no hash.
    #[error("the stored password cannot be read")]
    Stored,
}

impl PasswordPolicy {
    /// The form of a password that keeps the rules: the text to hash.
    pub(super) fn check(self, password: &SecretString) -> Result<SecretString, PasswordError> {
        let min = self.min.max(1);
        let form = to_opaque_string(password)?;
        if form.expose_secret().chars().count() < min {
            return Err(PasswordError::Short { min });
        }
        if form.expose_secret().len() > self.max { Err(PasswordError::Long { max: self.max }) } else { Ok(form) }
    }

    /// The texts whose hash may be stored for this password: its form, and the text as it was typed if that differs,
    /// because versions before this rule hashed that. Empty for a text that is too long: it is not worth a hash, and
    /// its refusal says nothing about the address.
    pub(super) fn candidates(self, password: &SecretString) -> Vec<SecretString> {
        let fits = |text: &SecretString| text.expose_secret().len() <= self.max;
        let form = to_opaque_string(password).ok().filter(fits);
        let same = form.as_ref().is_some_and(|form| form.expose_secret() == password.expose_secret());
        let typed = Some(password).filter(|typed| !same && fits(typed)).cloned();
        form.into_iter().chain(typed).collect()
    }
}

/// Each hash takes 19 MiB and some 30 ms: four at once are enough for a node, and what waits takes no memory.
static PLACES: Semaphore = Semaphore::const_new(4);

/// Verifying an unknown user costs what a known one does, from the first time on. Its password is worth nothing.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$qaEOQR+Hq61wp4SWgNHnfg$XWk6JmNn+GA+RYKiJpPuCCOkMkLRdcIsFO3/O8WeXNU";

/// Argon2id with 19 MiB, 2 passes, 1 lane: OWASP Password Storage Cheat Sheet, the first of its equal choices.
fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|_| PasswordError::Stored)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, PasswordError> {
    let hash = argon2()?.hash_password(password.as_bytes()).map_err(|_| PasswordError::Stored)?;
    Ok(hash.to_string())
}

/// The hash in PHC form.
pub(super) async fn hashed(password: &SecretString) -> Result<String, PasswordError> {
    let password = password.clone();
    beside(&PLACES, move || hash(password.expose_secret())).await
}

/// Whether one of these texts has this hash; `None` never matches, and takes as long.
pub(super) async fn matches(candidates: Vec<SecretString>, stored: Option<String>) -> Result<bool, PasswordError> {
    beside(&PLACES, move || {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| NOBODY.into());
        let hash = PasswordHash::new(&stored).map_err(|_| PasswordError::Stored)?;
        let argon2 = argon2()?;
        let mut found = candidates.iter();
        let same = found.any(|text| argon2.verify_password(text.expose_secret().as_bytes(), &hash).is_ok());
        Ok(same && known)
    })
    .await
}

/// Off the executor, a few at a time: the place goes with the work, which does not end when its future is dropped.
async fn beside<T: Send + 'static>(
    places: &'static Semaphore, work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    let place = places.acquire().await.map_err(|_| PasswordError::Stored)?;
    let placed = move || {
        let done = work();
        drop(place);
        done
    };
    tokio::task::spawn_blocking(placed).await.unwrap_or(Err(PasswordError::Stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_matches_its_password_alone() {
        let password = SecretString::from("correct horse battery");
        let stored = hashed(&password).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(matches(vec![password], Some(stored.clone())).await.unwrap());
        assert!(!matches(vec![SecretString::from("wrong")], Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_gets_in_with_nobodys_password_and_it_takes_the_usual_work() {
        let password = SecretString::from("nobody has this password");
        assert!(!matches(vec![password.clone()], None).await.unwrap());
        assert!(
            matches(vec![password.clone()], Some(NOBODY.into())).await.unwrap(),
            "the hash is one, so it is computed"
        );
        let parameters = |phc: &str| phc.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parameters(NOBODY), parameters(&hashed(&password).await.unwrap()));
    }

    #[tokio::test]
    async fn work_whose_caller_hangs_up_keeps_its_place() {
        static ONE: Semaphore = Semaphore::const_new(1);
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let call = tokio::spawn(beside(&ONE, move || Ok(goes_on.recv())));
        while ONE.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.is_err_and(|e| e.is_cancelled()));
        assert_eq!(ONE.available_permits(), 0, "it is still at work");
        go_on.send(()).unwrap();
        let _free = ONE.acquire().await.unwrap();
    }

    #[test]
    fn a_rule_is_named() {
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
    async fn hash_of_a_text_as_typed_still_matches_that_text() {
        let typed = SecretString::from("e\u{301}te\u{301} et hiver");
        let stored = hashed(&typed).await.unwrap();
        let candidates = |text: &SecretString| PasswordPolicy::default().candidates(text);
        assert!(matches(candidates(&typed), Some(stored)).await.unwrap());
        assert_eq!(candidates(&typed).len(), 2);
        assert_eq!(candidates(&SecretString::from("plain")).len(), 1, "one hash where the form is the text");
        assert_eq!(candidates(&SecretString::from("x".repeat(1025))).len(), 0);
    }
}
