use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Which passwords are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasswordPolicy {
    /// Fewest characters; 12 by default.
    pub min: usize,
    /// Most bytes; 1024 by default: a hash of more would be work for nothing.
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
    /// It cannot be hashed, or what is stored is no hash.
    #[error("the stored password cannot be read")]
    Stored,
}

impl PasswordPolicy {
    pub(super) fn check(self, password: &SecretString) -> Result<(), PasswordError> {
        let text = password.expose_secret();
        if text.chars().count() < self.min {
            return Err(PasswordError::Short { min: self.min });
        }
        if self.is_too_long(password) { Err(PasswordError::Long { max: self.max }) } else { Ok(()) }
    }
    pub(super) fn is_too_long(self, password: &SecretString) -> bool {
        password.expose_secret().len() > self.max
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

/// Whether `password` has this hash; `None` never matches, and takes as long.
pub(super) async fn matches(password: &SecretString, stored: Option<String>) -> Result<bool, PasswordError> {
    let password = password.clone();
    beside(&PLACES, move || {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| NOBODY.into());
        let hash = PasswordHash::new(&stored).map_err(|_| PasswordError::Stored)?;
        let same = argon2()?.verify_password(password.expose_secret().as_bytes(), &hash).is_ok();
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
        assert!(matches(&password, Some(stored.clone())).await.unwrap());
        assert!(!matches(&SecretString::from("wrong"), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_gets_in_with_nobodys_password_and_it_takes_the_usual_work() {
        let password = SecretString::from("nobody has this password");
        assert!(!matches(&password, None).await.unwrap());
        assert!(matches(&password, Some(NOBODY.into())).await.unwrap(), "the hash is one, so it is computed");
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
        let check = |text: String| PasswordPolicy::default().check(&SecretString::from(text));
        assert_eq!(check("ä".repeat(11)), Err(PasswordError::Short { min: 12 }));
        assert_eq!(check("ä".repeat(12)), Ok(()));
        assert_eq!(check("x".repeat(1025)), Err(PasswordError::Long { max: 1024 }));
    }
}
