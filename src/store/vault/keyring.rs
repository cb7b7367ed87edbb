//! A [`KeyProvider`] with local keys, from an environment variable or a file.
//!
//! The application passes a [`LocalKeyring`] to the facade. Each data key is wrapped with AES-256-GCM under the first
//! key of the ring. The id of the wrapping key is its associated data, so a wrapped key that was moved to another id
//! does not unwrap.
use super::record::to_data_key;
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
use std::{fmt, io::Read, path::Path, sync::Arc};
use zeroize::Zeroizing;

const NONCE: usize = 12;

/// Keys that the application supplies, from an environment variable or a file: `id:base64,id:base64`, or one per line
/// in a file. The first key is the primary one, which wraps new data keys. All keys unwrap.
///
/// Each key has 32 random bytes. A key is refused if it is malformed, if all its bytes are equal, if it consists of
/// printable ASCII (a passphrase is not a key), or if it appears under two ids. Create a key with
///
/// ```sh
/// export TENANTRY_KEYS="k1:$(openssl rand -base64 32)"
/// ```
#[derive(Clone)]
pub struct LocalKeyring(Arc<Vec<Key>>);

struct Key {
    id: KeyId,
    /// Contains the key schedule, which begins with the key itself, and zeroizes it when it is dropped. No other copy of
    /// the key is kept: the keys are never moved on the heap, and the stack on which they were parsed is overwritten.
    cipher: Aes256Gcm,
}

/// The bytes of a key while a ring is parsed.
type KeyBytes = Box<Zeroizing<[u8; 32]>>;

impl LocalKeyring {
    /// Reads the keys from an environment variable.
    ///
    /// # Errors
    /// `Malformed`, with the broken rule. The error never contains key material.
    pub fn from_env(variable: &str) -> Result<Self, KeyError> {
        match std::env::var(variable) {
            Ok(text) => Self::from_text(&Zeroizing::new(text)),
            Err(std::env::VarError::NotPresent) => Err(KeyError::Malformed("the environment variable is not set")),
            Err(_) => Err(KeyError::Malformed("the environment variable is not valid UTF-8")),
        }
    }
    /// Reads the keys from a file with one key per line. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env). On Unix also `Malformed` if users other than the owner and the group have
    /// access to the file. `Unavailable` if the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        check_file_mode(path.as_ref())?;
        let mut file = std::fs::File::open(path).map_err(KeyError::unavailable)?;
        let length = file.metadata().map_err(KeyError::unavailable)?.len();
        // With this capacity the text is never moved to a larger buffer, which would leave a copy of it behind.
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(length).unwrap_or_default() + 1));
        file.read_to_string(&mut text).map_err(KeyError::unavailable)?;
        Self::from_text(&text)
    }
    /// Parses the keys from text, in the format of the variable or of the file.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let ring = Self::parse_text(text);
        overwrite_stack::<USED_STACK>();
        ring
    }
    #[inline(never)]
    fn parse_text(text: &str) -> Result<Self, KeyError> {
        let entries = text.split(['\n', ',']).map(str::trim).filter(|e| !e.is_empty() && !e.starts_with('#'));
        let mut seen: Vec<(KeyId, KeyBytes)> = vec![];
        for entry in entries {
            let (id, key) = parse(entry)?;
            if seen.iter().any(|(i, _)| *i == id) {
                return Err(KeyError::Malformed("two keys have the same id"));
            }
            if seen.iter().any(|(_, k)| *k == key) {
                return Err(KeyError::Malformed("the same key appears under two ids"));
            }
            seen.push((id, key));
        }
        if seen.is_empty() {
            return Err(KeyError::Malformed("the key ring contains no key"));
        }
        // With this capacity the keys are never moved to a larger buffer.
        let mut keys = Vec::with_capacity(seen.len());
        for (id, key) in seen {
            keys.push(Key { id, cipher: Aes256Gcm::new((&**key).into()) });
        }
        Ok(Self(Arc::new(keys)))
    }
    /// Creates a ring with one random key, for tests and examples. The key is lost with the process, and then no secret
    /// that it sealed can be opened.
    pub fn random() -> Self {
        let mut key = KeyBytes::default();
        rand::rng().fill(&mut key[..]);
        let ring = Self(Arc::new(vec![Key { id: KeyId::new("throwaway"), cipher: Aes256Gcm::new((&**key).into()) }]));
        overwrite_stack::<USED_STACK>();
        ring
    }
    fn find(&self, id: &KeyId) -> Option<&Key> {
        self.0.iter().find(|k| k.id == *id)
    }
}

/// Overwrites the part of the stack that a call before this one has used: moves of an array or a cipher leave copies
/// there, and the compiler spills keys to it.
#[inline(never)]
fn overwrite_stack<const WORDS: usize>() {
    std::hint::black_box(&mut *Zeroizing::new([1u64; WORDS]));
}

/// Words of the stack that parsing a ring or using a cipher takes at most, in a build without optimisation.
const USED_STACK: usize = 2048;

fn parse(entry: &str) -> Result<(KeyId, KeyBytes), KeyError> {
    let (id, key) = entry.split_once(':').ok_or(KeyError::Malformed("an entry has the form id:base64"))?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > 32 || !id.bytes().all(allowed) {
        return Err(KeyError::Malformed("a key's id is 1 to 32 characters of a-z 0-9 - _ ."));
    }
    let bytes = BASE64.decode(key.trim().as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| KeyError::Malformed("a key is not in base64 (RFC 4648, section 4)"))?;
    let mut key = KeyBytes::default();
    if bytes.len() != key.len() {
        return Err(KeyError::Malformed("a key must have 32 bytes"));
    }
    key.copy_from_slice(&bytes);
    if key.iter().all(|b| *b == key[0]) {
        return Err(KeyError::Malformed("all bytes of a key are equal"));
    }
    if key.iter().all(|b| (b' '..=b'~').contains(b)) {
        return Err(KeyError::Malformed("a key is printable text; generate a random one"));
    }
    Ok((KeyId::new(id), key))
}

#[cfg(unix)]
/// Refuses a key file that users other than the owner and the group may read, write or execute.
fn check_file_mode(path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(KeyError::unavailable)?.permissions().mode();
    if mode & 0o007 == 0 {
        Ok(())
    } else {
        Err(KeyError::Malformed("all users have access to the key file; run chmod 600 on it"))
    }
}
#[cfg(not(unix))]
fn check_file_mode(_: &Path) -> Result<(), KeyError> {
    Ok(())
}

#[async_trait]
impl KeyProvider for LocalKeyring {
    async fn wrap(&self, _: Option<TenantId>, key: &DataKey) -> Result<WrappedKey, KeyError> {
        let primary = self.0.first().ok_or(KeyError::Malformed("the key ring contains no key"))?;
        let nonce: [u8; NONCE] = rand::rng().random();
        let mut sealed = Zeroizing::new(*key.expose_secret());
        let tag = primary
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), primary.id.as_str().as_bytes(), sealed.as_mut_slice().into())
            .map_err(|_| KeyError::Malformed("a data key must have 32 bytes"))?;
        overwrite_stack::<USED_STACK>();
        let bytes = [&nonce[..], &sealed[..], &tag[..]].concat();
        Ok(WrappedKey { key: primary.id.clone(), bytes })
    }
    async fn unwrap(&self, _: Option<TenantId>, wrapped: &WrappedKey) -> Result<DataKey, KeyError> {
        let key = self.find(&wrapped.key).ok_or_else(|| KeyError::Unknown(wrapped.key.clone()))?;
        let refusal = || KeyError::refused("the wrapped key was changed, or another key with this id wrapped it");
        let (nonce, rest) = wrapped.bytes.split_first_chunk::<NONCE>().ok_or_else(refusal)?;
        let (sealed, tag) = rest.split_last_chunk::<16>().ok_or_else(refusal)?;
        let mut plain = Zeroizing::new(<[u8; 32]>::try_from(sealed).map_err(|_| refusal())?);
        let (nonce, tag, id) = (Nonce::from(*nonce), Tag::from(*tag), key.id.as_str().as_bytes());
        let result = key.cipher.decrypt_inout_detached(&nonce, id, plain.as_mut_slice().into(), &tag);
        overwrite_stack::<USED_STACK>();
        result.map_err(|_| refusal())?;
        to_data_key(&*plain)
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
    fn parse_error(text: &str) -> &'static str {
        match LocalKeyring::from_text(text) {
            Err(KeyError::Malformed(rule)) => rule,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn from_text_refuses_a_bad_ring_and_names_the_rule() {
        let good = key(|n| n);
        assert!(LocalKeyring::from_text(&format!("k1:{good}")).is_ok());
        assert!(parse_error("").contains("no key"));
        assert!(parse_error(&good).contains("id:base64"));
        assert!(parse_error(&format!("K1:{good}")).contains("id is"));
        assert!(parse_error("k1:not base64").contains("base64"));
        assert!(parse_error("k1:AAAA").contains("32 bytes"));
        assert!(parse_error(&format!("k1:{}", key(|_| 7))).contains("equal"));
        assert!(parse_error(&format!("k1:{}", key(|n| b'a' + n % 26))).contains("printable"));
        assert!(parse_error(&format!("k1:{good},k1:{}", key(|n| n + 1))).contains("same id"));
        assert!(parse_error(&format!("k1:{good},k2:{good}")).contains("two ids"));
    }

    /// How often the 32 bytes occur in the writable memory of this process. They are passed with each bit inverted, so
    /// that the search does not find its own argument.
    #[cfg(target_os = "linux")]
    fn count_in_memory(inverted: &[u8; 32]) -> usize {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut buffer = vec![0u8; 1 << 20];
        let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (range, _) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let [mut at, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
            while at < end {
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let stop = if at < own.start { end.min(own.start) } else { end };
                let length = buffer.len().min(stop - at);
                let Ok(read) = memory.read_at(&mut buffer[..length], at as u64) else { break };
                found += buffer[..read].windows(32).filter(|w| w.iter().zip(inverted).all(|(a, b)| *a == !*b)).count();
                at += if read == length && length == buffer.len() { length - 31 } else { read.max(1) };
            }
        }
        found
    }

    /// The text of a ring with one key, and the key's bytes with each bit inverted.
    #[cfg(target_os = "linux")]
    #[inline(never)]
    fn ring_text(inverted: &[u8; 32]) -> Zeroizing<String> {
        let mut key = KeyBytes::default();
        key.iter_mut().zip(inverted).for_each(|(byte, inverted)| *byte = !inverted);
        Zeroizing::new(format!("old:{},new:{}", BASE64.encode(&key[..]), BASE64.encode(&[7, 8].repeat(16))))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn key_is_in_memory_once_while_its_ring_lives_and_never_after() {
        use futures_util::FutureExt;
        let inverted: [u8; 32] = rand::rng().random();
        let text = ring_text(&inverted);
        overwrite_stack::<USED_STACK>();
        let ring = LocalKeyring::from_text(&text).unwrap();
        // Counted after each call: a later call would overwrite what an earlier one has left on the stack.
        let parsed = count_in_memory(&inverted);
        let wrapped = ring.wrap(None, &DataKey::new(Box::new([3; 32]))).now_or_never().unwrap().unwrap();
        let after_wrap = count_in_memory(&inverted);
        ring.unwrap(None, &wrapped).now_or_never().unwrap().unwrap();
        let after_unwrap = count_in_memory(&inverted);
        drop(ring);
        let left = count_in_memory(&inverted);
        assert_eq!(
            (parsed, after_wrap, after_unwrap),
            (1, 1, 1),
            "copies of a key after from_text(), wrap(), unwrap()"
        );
        assert_eq!(left, 0, "copies of a key after its ring was dropped");
    }

    #[test]
    fn debug_of_a_ring_shows_only_the_key_ids() {
        let ring = LocalKeyring::from_text(&format!("# mine\nnew:{}\n\nold:{}\n", key(|n| n), key(|n| n + 1))).unwrap();
        assert_eq!(format!("{ring:?}"), r#"["new", "old"]"#);
    }

    #[cfg(unix)]
    #[test]
    fn from_file_refuses_a_file_that_all_users_may_read() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("k1:{}", key(|n| n))).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(LocalKeyring::from_file(file.path()), Err(KeyError::Malformed(_))));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(LocalKeyring::from_file(file.path()).is_ok());
    }

    #[test]
    fn from_env_refuses_a_variable_without_keys_and_hides_its_value() {
        for variable in ["TENANTRY_KEYS_THAT_ARE_NOT_SET", "PATH"] {
            let error = LocalKeyring::from_env(variable).map(drop).unwrap_err();
            assert!(matches!(error, KeyError::Malformed(_)), "{variable}: {error:?}");
            assert!(
                std::env::var(variable).is_err() || !format!("{error:?} {error}").contains("/bin"),
                "the error of {variable} shows a part of its value"
            );
        }
    }
}
