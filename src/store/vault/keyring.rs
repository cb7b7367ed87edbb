use super::record::data_key;
use super::{DataKey, KeyDisposal, KeyProvider, WrappedKey};
use crate::error::KeyError;
use crate::secret::KeyId;
use crate::tenant::TenantId;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use async_trait::async_trait;
use data_encoding::BASE64;
use rand::RngExt;
use secrecy::ExposeSecret;
use std::{fmt, path::Path, sync::Arc};
use zeroize::Zeroizing;

const NONCE: usize = 12;

/// Keys of the host's own, from the environment or a file: `id:base64,id:base64`, one per line in a file. The first one
/// is primary: it wraps; all of them unwrap.
///
/// Each key has 32 random bytes. One that is malformed, all bytes equal, printable ASCII only (a passphrase is no key),
/// or there under two ids, is refused. Make one with
///
/// ```sh
/// export TENANTRY_KEYS="k1:$(openssl rand -base64 32)"
/// ```
#[derive(Clone)]
pub struct LocalKeyring(Arc<[Key]>);

struct Key {
    id: KeyId,
    /// Keeps the key's schedule and zeroizes it when it is dropped; the key itself is kept nowhere else.
    cipher: Aes256Gcm,
}

impl LocalKeyring {
    /// From an environment variable.
    ///
    /// # Errors
    /// `Malformed`, with the rule that is broken; the material is never shown.
    pub fn from_env(variable: &str) -> Result<Self, KeyError> {
        match std::env::var(variable) {
            Ok(text) => Self::from_text(&Zeroizing::new(text)),
            Err(std::env::VarError::NotPresent) => Err(KeyError::Malformed("the environment variable is not set")),
            Err(_) => Err(KeyError::Malformed("the environment variable is no text")),
        }
    }
    /// From a file, a key on each line; empty lines and lines that begin with `#` count for nothing.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env); also for a file that others than its owner and its group may read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        private(path.as_ref())?;
        let text = std::fs::read_to_string(path).map_err(KeyError::unavailable)?;
        Self::from_text(&Zeroizing::new(text))
    }
    /// From text in the form of the variable or of the file.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let entries = text.split(['\n', ',']).map(str::trim).filter(|e| !e.is_empty() && !e.starts_with('#'));
        let mut seen: Vec<(KeyId, Zeroizing<[u8; 32]>)> = vec![];
        for entry in entries {
            let (id, key) = parse(entry)?;
            if seen.iter().any(|(i, _)| *i == id) {
                return Err(KeyError::Malformed("two keys have one id"));
            }
            if seen.iter().any(|(_, k)| *k == key) {
                return Err(KeyError::Malformed("one key stands under two ids"));
            }
            seen.push((id, key));
        }
        if seen.is_empty() {
            return Err(KeyError::Malformed("there is no key"));
        }
        let key = |(id, key): (KeyId, Zeroizing<[u8; 32]>)| Key { id, cipher: Aes256Gcm::new((&*key).into()) };
        Ok(Self(seen.into_iter().map(key).collect()))
    }
    /// One random key that nobody else will ever have: for tests and examples. What it wraps is lost with the process.
    pub fn random() -> Self {
        let key = Zeroizing::new(rand::rng().random::<[u8; 32]>());
        Self(Arc::from([Key { id: KeyId::new("throwaway"), cipher: Aes256Gcm::new((&*key).into()) }]))
    }
    fn find(&self, id: &KeyId) -> Option<&Key> {
        self.0.iter().find(|k| k.id == *id)
    }
}

fn parse(entry: &str) -> Result<(KeyId, Zeroizing<[u8; 32]>), KeyError> {
    let (id, key) = entry.split_once(':').ok_or(KeyError::Malformed("a key is written id:base64"))?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > 32 || !id.bytes().all(allowed) {
        return Err(KeyError::Malformed("a key's id is 1 to 32 of a-z 0-9 - _ ."));
    }
    let bytes = BASE64.decode(key.trim().as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| KeyError::Malformed("a key is written in base64 (RFC 4648, section 4)"))?;
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| KeyError::Malformed("a key has 32 bytes"))?;
    let key = Zeroizing::new(key);
    if key.iter().all(|b| *b == key[0]) {
        return Err(KeyError::Malformed("all bytes of a key are equal"));
    }
    if key.iter().all(|b| (b' '..=b'~').contains(b)) {
        return Err(KeyError::Malformed("a key is printable text; make a random one"));
    }
    Ok((KeyId::new(id), key))
}

#[cfg(unix)]
fn private(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(KeyError::unavailable)?.permissions().mode();
    if mode & 0o007 == 0 { Ok(()) } else { Err(KeyError::Malformed("everybody may read the key file; chmod 600 it")) }
}
#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

#[async_trait]
impl KeyProvider for LocalKeyring {
    async fn wrap(&self, _: Option<TenantId>, key: &DataKey) -> Result<WrappedKey, KeyError> {
        let primary = self.0.first().ok_or(KeyError::Malformed("there is no key"))?;
        let nonce: [u8; NONCE] = rand::rng().random();
        let mut sealed = Zeroizing::new(*key.expose_secret());
        let tag = primary
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), primary.id.as_str().as_bytes(), sealed.as_mut_slice().into())
            .map_err(|_| KeyError::Malformed("a data key has 32 bytes"))?;
        let bytes = [&nonce[..], &sealed[..], &tag[..]].concat();
        Ok(WrappedKey { key: primary.id.clone(), bytes })
    }
    async fn unwrap(&self, _: Option<TenantId>, wrapped: &WrappedKey) -> Result<DataKey, KeyError> {
        let key = self.find(&wrapped.key).ok_or_else(|| KeyError::Unknown(wrapped.key.clone()))?;
        let refused = || KeyError::refused("the wrapped key was changed, or wrapped by another key of this name");
        let (nonce, rest) = wrapped.bytes.split_first_chunk::<NONCE>().ok_or_else(refused)?;
        let (sealed, tag) = rest.split_last_chunk::<16>().ok_or_else(refused)?;
        let mut plain = Zeroizing::new(<[u8; 32]>::try_from(sealed).map_err(|_| refused())?);
        let (nonce, tag, id) = (Nonce::from(*nonce), Tag::from(*tag), key.id.as_str().as_bytes());
        let opened = key.cipher.decrypt_inout_detached(&nonce, id, plain.as_mut_slice().into(), &tag);
        opened.map_err(|_| refused())?;
        data_key(&*plain)
    }
    async fn holds(&self, key: &KeyId) -> Result<bool, KeyError> {
        Ok(self.find(key).is_some())
    }
    async fn forget(&self, _: TenantId) -> Result<KeyDisposal, KeyError> {
        Ok(KeyDisposal::SharedKey)
    }
}

impl fmt::Debug for LocalKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|k| k.id.as_str())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: impl Fn(u8) -> u8) -> String {
        BASE64.encode(&(0..32).map(byte).collect::<Vec<u8>>())
    }
    fn refused(text: &str) -> &'static str {
        match LocalKeyring::from_text(text) {
            Err(KeyError::Malformed(rule)) => rule,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_bad_ring_is_refused_with_its_rule() {
        let good = key(|n| n);
        assert!(LocalKeyring::from_text(&format!("k1:{good}")).is_ok());
        assert!(refused("").contains("no key"));
        assert!(refused(&good).contains("id:base64"));
        assert!(refused(&format!("K1:{good}")).contains("id is"));
        assert!(refused("k1:not base64").contains("base64"));
        assert!(refused("k1:AAAA").contains("32 bytes"));
        assert!(refused(&format!("k1:{}", key(|_| 7))).contains("equal"));
        assert!(refused(&format!("k1:{}", key(|n| b'a' + n % 26))).contains("printable"));
        assert!(refused(&format!("k1:{good},k1:{}", key(|n| n + 1))).contains("one id"));
        assert!(refused(&format!("k1:{good},k2:{good}")).contains("two ids"));
    }

    #[test]
    fn a_ring_shows_its_ids_alone() {
        let ring = LocalKeyring::from_text(&format!("# mine\nnew:{}\n\nold:{}\n", key(|n| n), key(|n| n + 1))).unwrap();
        assert_eq!(format!("{ring:?}"), r#"["new", "old"]"#);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_everybody_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("k1:{}", key(|n| n))).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(LocalKeyring::from_file(file.path()), Err(KeyError::Malformed(_))));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(LocalKeyring::from_file(file.path()).is_ok());
    }

    #[test]
    fn a_variable_that_is_missing_or_holds_no_keys_is_refused_and_not_shown() {
        for variable in ["TENANTRY_KEYS_OF_NOBODY", "PATH"] {
            let refused = LocalKeyring::from_env(variable).map(drop).unwrap_err();
            assert!(matches!(refused, KeyError::Malformed(_)), "{variable}: {refused:?}");
            assert!(std::env::var(variable).is_err() || !format!("{refused:?} {refused}").contains("/bin"));
        }
    }
}
