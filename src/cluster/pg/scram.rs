//! SCRAM-SHA-256 (RFC 5802, RFC 7677): the server gets a verifier, so no password reaches its log or its disk.
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// PostgreSQL's own default, `scram_iterations`.
const ITERATIONS: u32 = 4096;

/// What `ALTER ROLE … PASSWORD` takes in place of a password. By its type it has the shape that PostgreSQL knows: a
/// malformed one would be hashed as if it were the password.
pub(crate) struct Verifier(String);
impl Verifier {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password of 190 bits in letters and digits.
pub(crate) fn password() -> SecretString {
    let mut rng = rand::rng();
    let mut text = Zeroizing::new(String::with_capacity(32));
    for _ in 0..32 {
        text.push(char::from(rng.sample(rand::distr::Alphanumeric)));
    }
    SecretString::from(text.as_str())
}

/// A verifier that is being made: milliseconds of work, so it runs beside the executor.
pub(crate) struct Making(JoinHandle<Verifier>);

/// Begins at once.
pub(crate) fn make(password: &SecretString) -> Making {
    let (password, salt) = (password.clone(), rand::rng().random::<[u8; 16]>());
    Making(tokio::task::spawn_blocking(move || derive(password.expose_secret(), &salt, ITERATIONS)))
}

impl Making {
    pub(crate) async fn made(self) -> Verifier {
        match self.0.await {
            Ok(verifier) => verifier,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

pub(crate) async fn verifier(password: &SecretString) -> Verifier {
    make(password).made().await
}

pub(super) fn derive(password: &str, salt: &[u8], iterations: u32) -> Verifier {
    // PostgreSQL takes what SASLprep (RFC 4013) refuses as it is.
    let prepared = stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password));
    let mut salted = Zeroizing::new([0u8; 32]);
    pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, &mut *salted);
    let stored = Sha256::digest(mac(&salted, b"Client Key"));
    let server = mac(&salted, b"Server Key");
    let (salt, stored, server) = (BASE64.encode(salt), BASE64.encode(&stored), BASE64.encode(&server));
    Verifier(format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}"))
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    // HMAC fills a short key up to its block with zeros (RFC 2104), which here makes the length a matter of types.
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
    fn the_vector_of_the_rfc() {
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let expected = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
            WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert_eq!(derive("pencil", &salt, 4096).0, expected);
    }

    #[test]
    fn passwords_are_long_and_differ() {
        let (a, b) = (password(), password());
        assert_eq!(a.expose_secret().len(), 32);
        assert_ne!(a.expose_secret(), b.expose_secret());
    }
}
