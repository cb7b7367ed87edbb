//! Generating passwords and deriving their SCRAM-SHA-256 verifiers (RFC 5802, RFC 7677).
//!
//! Every login is created with a verifier from this module, so PostgreSQL never receives a password and cannot log or
//! store one.
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// Number of PBKDF2 iterations, PostgreSQL's default for `scram_iterations`.
const ITERATIONS: u32 = 4096;

/// A SCRAM verifier, which `ALTER ROLE … PASSWORD` accepts in place of a password. The type guarantees PostgreSQL's
/// format; a malformed verifier would be hashed as if it were the password.
pub(crate) struct Verifier(String);
impl Verifier {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Generates a random password of 32 letters and digits (190 bits).
pub(crate) fn generate_password() -> SecretString {
    let mut rng = rand::rng();
    let mut text = Zeroizing::new(String::with_capacity(32));
    for _ in 0..32 {
        text.push(char::from(rng.sample(rand::distr::Alphanumeric)));
    }
    SecretString::from(text.as_str())
}

/// Derives the verifier of this password, with a random salt, on a blocking thread: it takes milliseconds of CPU time.
/// Resumes a panic of that thread.
pub(crate) async fn derive_verifier(password: &SecretString) -> Verifier {
    let (password, salt) = (password.clone(), rand::rng().random::<[u8; 16]>());
    match tokio::task::spawn_blocking(move || derive(password.expose_secret(), &salt, ITERATIONS)).await {
        Ok(verifier) => verifier,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Derives a verifier with a given salt and number of iterations. Blocks the thread for milliseconds.
pub(super) fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
    // PostgreSQL uses a password as it is if SASLprep (RFC 4013) rejects it. A different rule here would derive another
    // key.
    let prepared = stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password));
    let mut salted = Zeroizing::new([0u8; 32]);
    pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut *salted);
    let stored = Sha256::digest(mac(&salted, b"Client Key"));
    let server = mac(&salted, b"Server Key");
    let (salt, stored, server) = (BASE64.encode(salt), BASE64.encode(&stored), BASE64.encode(&server));
    Verifier(format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"))
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC pads a short key with zeros to its block size (RFC 2104). Padding it here gives a key of fixed length, so
    // that creating the HMAC cannot fail.
    let mut block = Zeroizing::new([0u8; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: user `user`, password `pencil`; the keys follow from the exchange printed there.
    #[test]
    fn derive_matches_the_rfc_7677_test_vector() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let expected = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
            WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(derive("pencil", &salt, 4096).0, expected);
    }

    #[test]
    fn password_has_32_characters_and_is_random() {
        let (a, b) = (generate_password(), generate_password());
        assert_eq!(a.expose_secret().len(), 32);
        assert_ne!(a.expose_secret(), b.expose_secret());
    }
}
