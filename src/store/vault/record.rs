//! The format of a sealed record. The vaults call [`seal`], [`open`] and [`rewrap`]. A record has these parts:
//!
//! `magic | version | algorithm | key id | wrapped data key | commitment | nonce | ciphertext+tag`
//!
//! Each secret version has its own data key, which a [`KeyProvider`] wraps. The associated data contains all fields of
//! the [`CredentialId`], length-prefixed, so that no two ids produce the same bytes: a record that is moved to another
//! owner, database, role, purpose or version does not open. The wrapped key is not part of the associated data, so that
//! a rekey can wrap the data key again and leave the ciphertext unchanged.
//!
//! AES-GCM does not commit to its key: one ciphertext can be made to open under two keys (Len, Grubbs, Ristenpart,
//! "Partitioning Oracle Attacks", USENIX Security 2021). So the record contains a SHA-256 over a label, the data key
//! and the nonce, which is compared before anything is decrypted. The data key is random, so the hash reveals nothing
//! about it.
use super::{DataKey, KeyProvider, WrappedKey};
use crate::error::{KeyError, VaultError};
use crate::secret::{CredentialId, KeyId, SecretOwner};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"TNY\0";
const VERSION: u8 = 1;
const AES_256_GCM: u8 = 1;
const COMMITMENT: &[u8] = b"tenantry record v1";
const NONCE: usize = 12;
const TAG: usize = 16;

/// Seals a secret under an id, each time with a new data key and a new nonce. Returns the id of the wrapping key and
/// the record.
pub(crate) async fn seal(
    keys: &dyn KeyProvider, id: &CredentialId, secret: &SecretString,
) -> Result<(KeyId, Vec<u8>), KeyError> {
    let data_key = DataKey::init_with_mut(|key: &mut [u8; 32]| rand::rng().fill(&mut key[..]));
    let wrapped = keys.wrap(id.owner.tenant(), &data_key).await?;
    let nonce: [u8; NONCE] = rand::rng().random();
    let mut text = Zeroizing::new(secret.expose_secret().as_bytes().to_vec());
    let tag = to_cipher(&data_key)
        .encrypt_inout_detached(&Nonce::from(nonce), &context(id), text.as_mut_slice().into())
        .map_err(|_| KeyError::Malformed("the secret is longer than AES-GCM allows"))?;
    let mut record = encode_header(&wrapped);
    record.extend(commitment(&data_key, &nonce));
    record.extend(nonce);
    record.extend(text.iter());
    record.extend(tag);
    Ok((wrapped.key, record))
}

/// Opens a record under the id that it was sealed for. `DoesNotOpen` if it was sealed for another id, was changed, or
/// was wrapped by another key with the same key id.
pub(crate) async fn open(keys: &dyn KeyProvider, id: &CredentialId, record: &[u8]) -> Result<SecretString, VaultError> {
    let does_not_open = || VaultError::DoesNotOpen(id.clone());
    let parts = Parts::parse(record).ok_or_else(does_not_open)?;
    let data_key = match keys.unwrap(id.owner.tenant(), &parts.wrapped).await {
        Err(KeyError::Refused(_)) => return Err(does_not_open()),
        unwrapped => unwrapped?,
    };
    if commitment(&data_key, parts.nonce) != *parts.commitment {
        return Err(does_not_open());
    }
    let mut text = Zeroizing::new(parts.ciphertext.to_vec());
    let (nonce, tag) = (Nonce::from(*parts.nonce), Tag::from(*parts.tag));
    to_cipher(&data_key)
        .decrypt_inout_detached(&nonce, &context(id), text.as_mut_slice().into(), &tag)
        .map_err(|_| does_not_open())?;
    std::str::from_utf8(&text).map(SecretString::from).map_err(|_| does_not_open())
}

/// Rewraps the data key with the provider's primary key, and returns the key's id and the new record. `None` if the
/// primary key has wrapped it already.
pub(super) async fn rewrap(
    keys: &dyn KeyProvider, id: &CredentialId, record: &[u8],
) -> Result<Option<(KeyId, Vec<u8>)>, VaultError> {
    let does_not_open = || VaultError::DoesNotOpen(id.clone());
    let parts = Parts::parse(record).ok_or_else(does_not_open)?;
    let tenant = id.owner.tenant();
    let data_key = keys.unwrap(tenant, &parts.wrapped).await?;
    let wrapped = keys.wrap(tenant, &data_key).await?;
    if wrapped.key == parts.wrapped.key {
        return Ok(None);
    }
    let mut renewed = encode_header(&wrapped);
    renewed.extend(parts.rest);
    Ok(Some((wrapped.key, renewed)))
}

/// Creates the cipher of a data key. It zeroizes its key schedule when it is dropped (feature `zeroize`).
fn to_cipher(key: &DataKey) -> Aes256Gcm {
    Aes256Gcm::new(key.expose_secret().into())
}

/// Hash that binds the record to its data key, see the module's documentation.
fn commitment(key: &DataKey, nonce: &[u8; NONCE]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(COMMITMENT);
    hash.update(key.expose_secret());
    hash.update(nonce);
    hash.finalize().into()
}

/// Encodes an id as associated data. Each field follows its length, so that no two ids produce the same bytes.
pub(crate) fn context(id: &CredentialId) -> Vec<u8> {
    let fields = [id.database.as_str(), &id.role, id.purpose.as_str()];
    let mut text = Vec::with_capacity(128 + fields.iter().map(|f| f.len() + 8).sum::<usize>());
    text.extend([VERSION, AES_256_GCM]);
    match &id.owner {
        // The same bytes as the general case below. Formatting the owner there takes a tenth of the time of opening a
        // secret, and nearly all secrets belong to tenants.
        SecretOwner::Tenant(tenant) => {
            let mut uuid = uuid::Uuid::encode_buffer();
            let uuid = tenant.as_uuid().hyphenated().encode_lower(&mut uuid);
            text.extend((TENANT.len() as u64 + uuid.len() as u64).to_be_bytes());
            text.extend(TENANT.as_bytes());
            text.extend(uuid.as_bytes());
        }
        owner => push_prefixed(&mut text, &owner.to_string()),
    }
    fields.into_iter().for_each(|field| push_prefixed(&mut text, field));
    text.extend(id.version.to_be_bytes());
    text
}

/// Prefix of [`SecretOwner::Tenant`] in its text form.
const TENANT: &str = "tenant:";

fn push_prefixed(text: &mut Vec<u8>, field: &str) {
    text.extend((field.len() as u64).to_be_bytes());
    text.extend(field.as_bytes());
}

fn encode_header(wrapped: &WrappedKey) -> Vec<u8> {
    let (key, bytes) = (wrapped.key.as_str().as_bytes(), &wrapped.bytes);
    let mut header = Vec::with_capacity(128 + key.len() + bytes.len());
    header.extend(MAGIC);
    header.extend([VERSION, AES_256_GCM]);
    header.extend((key.len() as u16).to_be_bytes());
    header.extend(key);
    header.extend((bytes.len() as u16).to_be_bytes());
    header.extend(bytes);
    header
}

struct Parts<'a> {
    wrapped: WrappedKey,
    /// All bytes after the wrapped key. A rekey copies them unchanged.
    rest: &'a [u8],
    commitment: &'a [u8; 32],
    nonce: &'a [u8; NONCE],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Parts<'a> {
    fn parse(record: &'a [u8]) -> Option<Self> {
        let record = record.strip_prefix(MAGIC)?.strip_prefix(&[VERSION, AES_256_GCM])?;
        let (key, record) = split_prefixed(record)?;
        let (bytes, rest) = split_prefixed(record)?;
        let (commitment, record) = rest.split_first_chunk()?;
        let (nonce, record) = record.split_first_chunk()?;
        let (ciphertext, tag) = record.split_last_chunk()?;
        let key = KeyId::new(std::str::from_utf8(key).ok()?);
        Some(Self { wrapped: WrappedKey { key, bytes: bytes.to_vec() }, rest, commitment, nonce, ciphertext, tag })
    }
}

/// Splits off a field behind its length in two big-endian bytes.
fn split_prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Converts unwrapped bytes to a data key. `Malformed` if they are not 32 bytes long, since [`seal`] never wraps a key
/// of another length.
pub(super) fn to_data_key(bytes: &[u8]) -> Result<DataKey, KeyError> {
    if bytes.len() != 32 {
        return Err(KeyError::Malformed("a data key must have 32 bytes"));
    }
    Ok(SecretBox::init_with_mut(|key: &mut [u8; 32]| key.copy_from_slice(bytes)))
}

#[cfg(test)]
mod tests {
    use super::super::LocalKeyring;
    use super::*;
    use crate::secret::Purpose;
    use crate::tenant::TenantId;

    const RING: &str = "k1:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";

    fn id() -> CredentialId {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(7));
        CredentialId::login(tenant, &"t_7".parse().unwrap(), &"t_7_v1".parse().unwrap(), 1)
    }

    async fn sealed() -> (LocalKeyring, Vec<u8>) {
        let ring = LocalKeyring::from_text(RING).unwrap();
        let record = seal(&ring, &id(), &SecretString::from("p@ss/w?rd:1#%")).await.unwrap().1;
        (ring, record)
    }

    /// The stored format must not change: this record was sealed by the first version of the crate.
    #[tokio::test]
    async fn open_reads_a_record_of_the_first_version() {
        let record = data_encoding::HEXLOWER.decode(GOLDEN.as_bytes()).unwrap();
        let ring = LocalKeyring::from_text(RING).unwrap();
        let opened = open(&ring, &id(), &record).await.unwrap();
        assert_eq!(opened.expose_secret(), "p@ss/w?rd:1#%");
    }
    const GOLDEN: &str = "544e5900010100026b31003c09f82972aa8a40a6500919b78160a5f3169bdc74335284e0085955f32664ce0d667d78c59d2a\
        f54b07ad7aa40c9898d40e61725e477303acd0e14e1ff69021d89568e02456bfacd9e4a5d082a91ce2d269e97eef3aee1efc\
        94571d48c0737394bce80fb29f939e9cb8a4ded4e5506f14df058ccae88502d5a04c41ef111a607f8b3c67f15f";

    #[tokio::test]
    async fn open_fails_after_any_bit_flip_or_truncation() {
        let (ring, record) = sealed().await;
        assert!(open(&ring, &id(), &record).await.is_ok());
        for at in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let opened = open(&ring, &id(), &changed).await;
            assert!(
                matches!(opened, Err(VaultError::DoesNotOpen(_) | VaultError::Key(KeyError::Unknown(_)))),
                "flipped bit {at}: {opened:?}"
            );
        }
        for length in 0..record.len() {
            assert!(open(&ring, &id(), &record[..length]).await.is_err(), "a record cut at byte {length} opens");
        }
    }

    #[tokio::test]
    async fn open_fails_under_any_other_id() {
        let (ring, record) = sealed().await;
        let moved = [
            CredentialId { owner: SecretOwner::Tenant(TenantId::new()), ..id() },
            CredentialId { owner: SecretOwner::Server("main".parse().unwrap()), ..id() },
            CredentialId { database: "t_8".into(), ..id() },
            CredentialId { role: "t_7_v2".into(), ..id() },
            // The same letters in other fields: the lengths in the associated data make the difference.
            CredentialId { database: "t_7t".into(), role: "_7_v1".into(), ..id() },
            CredentialId { purpose: Purpose::SetupLink, ..id() },
            CredentialId { version: 2, ..id() },
        ];
        for other in moved {
            let opened = open(&ring, &other, &record).await;
            assert!(matches!(opened, Err(VaultError::DoesNotOpen(_))), "moved to {other}: {opened:?}");
        }
    }

    #[tokio::test]
    async fn rewrap_uses_the_new_primary_key_and_keeps_the_ciphertext() {
        let (_, record) = sealed().await;
        let both = LocalKeyring::from_text(&format!("k2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,{RING}")).unwrap();
        let (key, renewed) =
            rewrap(&both, &id(), &record).await.unwrap().expect("k2 is primary now, so it must rewrap");
        assert_eq!(key.as_str(), "k2");
        assert!(
            rewrap(&both, &id(), &renewed).await.unwrap().is_none(),
            "the primary key has wrapped the record already"
        );
        let only = LocalKeyring::from_text("k2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        assert_eq!(open(&only, &id(), &renewed).await.unwrap().expose_secret(), "p@ss/w?rd:1#%");
        let result = open(&only, &id(), &record).await;
        assert!(matches!(result, Err(VaultError::Key(KeyError::Unknown(_)))), "{result:?}");
    }
}
