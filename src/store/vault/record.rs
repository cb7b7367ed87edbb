//! A sealed record: `magic | version | algorithm | key id | wrapped data key | commitment | nonce | ciphertext+tag`.
//!
//! Each secret version has a data key of its own, which a [`KeyProvider`] wraps. The associated data is everything that
//! says whose secret it is, length-prefixed, so that no two ids share one text: a record that is moved to another
//! owner, database, role, purpose or version does not open. The wrapping is not part of it, so that a rekey wraps the
//! data key anew and leaves the ciphertext alone.
//!
//! AES-GCM does not commit to its key: one ciphertext can be made to open under two (Len, Grubbs, Ristenpart,
//! "Partitioning Oracle Attacks", USENIX Security 2021). So the record holds SHA-256 over a label, the data key and the
//! nonce, and it is compared before anything is opened. The data key is random, so the hash tells nothing of it.
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

/// Seals a secret under an id. A fresh data key and a fresh nonce each time.
pub(crate) async fn seal(
    keys: &dyn KeyProvider, id: &CredentialId, secret: &SecretString,
) -> Result<(KeyId, Vec<u8>), KeyError> {
    let data_key = DataKey::new(Box::new(rand::rng().random()));
    let wrapped = keys.wrap(id.owner.tenant(), &data_key).await?;
    let nonce: [u8; NONCE] = rand::rng().random();
    let mut text = Zeroizing::new(secret.expose_secret().as_bytes().to_vec());
    let tag = cipher(&data_key)
        .encrypt_inout_detached(&Nonce::from(nonce), &context(id), text.as_mut_slice().into())
        .map_err(|_| KeyError::Malformed("a secret longer than AES-GCM takes"))?;
    let mut record = header(&wrapped);
    record.extend(commitment(&data_key, &nonce));
    record.extend(nonce);
    record.extend(text.iter());
    record.extend(tag);
    Ok((wrapped.key, record))
}

/// Opens a record under the id that it was sealed for.
pub(crate) async fn open(keys: &dyn KeyProvider, id: &CredentialId, record: &[u8]) -> Result<SecretString, VaultError> {
    let closed = || VaultError::DoesNotOpen(id.clone());
    let parts = Parts::parse(record).ok_or_else(closed)?;
    let data_key = match keys.unwrap(id.owner.tenant(), &parts.wrapped).await {
        Err(KeyError::Refused(_)) => return Err(closed()),
        unwrapped => unwrapped?,
    };
    if commitment(&data_key, parts.nonce) != *parts.commitment {
        return Err(closed());
    }
    let mut text = Zeroizing::new(parts.ciphertext.to_vec());
    let (nonce, tag) = (Nonce::from(*parts.nonce), Tag::from(*parts.tag));
    cipher(&data_key)
        .decrypt_inout_detached(&nonce, &context(id), text.as_mut_slice().into(), &tag)
        .map_err(|_| closed())?;
    std::str::from_utf8(&text).map(SecretString::from).map_err(|_| closed())
}

/// The same secret with its data key wrapped by the provider's primary key; `None` if it is so already.
pub(super) async fn rewrap(
    keys: &dyn KeyProvider, id: &CredentialId, record: &[u8],
) -> Result<Option<(KeyId, Vec<u8>)>, VaultError> {
    let closed = || VaultError::DoesNotOpen(id.clone());
    let parts = Parts::parse(record).ok_or_else(closed)?;
    let tenant = id.owner.tenant();
    let data_key = keys.unwrap(tenant, &parts.wrapped).await?;
    let wrapped = keys.wrap(tenant, &data_key).await?;
    if wrapped.key == parts.wrapped.key {
        return Ok(None);
    }
    let mut renewed = header(&wrapped);
    renewed.extend(parts.rest);
    Ok(Some((wrapped.key, renewed)))
}

/// Zeroizes its key schedule when it is dropped (feature `zeroize`).
fn cipher(key: &DataKey) -> Aes256Gcm {
    Aes256Gcm::new(key.expose_secret().into())
}

fn commitment(key: &DataKey, nonce: &[u8; NONCE]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(COMMITMENT);
    hash.update(key.expose_secret());
    hash.update(nonce);
    hash.finalize().into()
}

/// Each field behind its length, so that no two ids have one text.
pub(crate) fn context(id: &CredentialId) -> Vec<u8> {
    let fields = [id.database.as_str(), &id.role, id.purpose.as_str()];
    let mut text = Vec::with_capacity(128 + fields.iter().map(|f| f.len() + 8).sum::<usize>());
    text.extend([VERSION, AES_256_GCM]);
    match &id.owner {
        // The same text as below; the general way to format it takes a tenth of the time of opening a secret.
        SecretOwner::Tenant(tenant) => {
            let mut uuid = uuid::Uuid::encode_buffer();
            let uuid = tenant.as_uuid().hyphenated().encode_lower(&mut uuid);
            text.extend((TENANT.len() as u64 + uuid.len() as u64).to_be_bytes());
            text.extend(TENANT.as_bytes());
            text.extend(uuid.as_bytes());
        }
        owner => push(&mut text, &owner.to_string()),
    }
    fields.into_iter().for_each(|field| push(&mut text, field));
    text.extend(id.version.to_be_bytes());
    text
}

/// What a tenant's text begins with.
const TENANT: &str = "tenant:";

fn push(text: &mut Vec<u8>, field: &str) {
    text.extend((field.len() as u64).to_be_bytes());
    text.extend(field.as_bytes());
}

fn header(wrapped: &WrappedKey) -> Vec<u8> {
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
    /// Everything after the wrapped key.
    rest: &'a [u8],
    commitment: &'a [u8; 32],
    nonce: &'a [u8; NONCE],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Parts<'a> {
    fn parse(record: &'a [u8]) -> Option<Self> {
        let record = record.strip_prefix(MAGIC)?.strip_prefix(&[VERSION, AES_256_GCM])?;
        let (key, record) = prefixed(record)?;
        let (bytes, rest) = prefixed(record)?;
        let (commitment, record) = rest.split_first_chunk()?;
        let (nonce, record) = record.split_first_chunk()?;
        let (ciphertext, tag) = record.split_last_chunk()?;
        let key = KeyId::new(std::str::from_utf8(key).ok()?);
        Some(Self { wrapped: WrappedKey { key, bytes: bytes.to_vec() }, rest, commitment, nonce, ciphertext, tag })
    }
}

fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// A random data key is 32 bytes; any other length was not wrapped by us.
pub(super) fn data_key(bytes: &[u8]) -> Result<DataKey, KeyError> {
    let key: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Malformed("a data key has 32 bytes"))?;
    Ok(SecretBox::new(Box::new(key)))
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

    /// A stored format is a contract: this record was sealed by the first version.
    #[tokio::test]
    async fn a_record_of_the_first_version_opens() {
        let record = data_encoding::HEXLOWER.decode(GOLDEN.as_bytes()).unwrap();
        let ring = LocalKeyring::from_text(RING).unwrap();
        let opened = open(&ring, &id(), &record).await.unwrap();
        assert_eq!(opened.expose_secret(), "p@ss/w?rd:1#%");
    }
    const GOLDEN: &str = "544e5900010100026b31003c09f82972aa8a40a6500919b78160a5f3169bdc74335284e0085955f32664ce0d667d78c59d2a\
        f54b07ad7aa40c9898d40e61725e477303acd0e14e1ff69021d89568e02456bfacd9e4a5d082a91ce2d269e97eef3aee1efc\
        94571d48c0737394bce80fb29f939e9cb8a4ded4e5506f14df058ccae88502d5a04c41ef111a607f8b3c67f15f";

    #[tokio::test]
    async fn no_changed_bit_and_no_cut_opens() {
        let (ring, record) = sealed().await;
        assert!(open(&ring, &id(), &record).await.is_ok());
        for at in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let opened = open(&ring, &id(), &changed).await;
            assert!(
                matches!(opened, Err(VaultError::DoesNotOpen(_) | VaultError::Key(KeyError::Unknown(_)))),
                "bit {at}"
            );
        }
        for length in 0..record.len() {
            assert!(open(&ring, &id(), &record[..length]).await.is_err(), "cut at {length}");
        }
    }

    #[tokio::test]
    async fn a_moved_record_does_not_open() {
        let (ring, record) = sealed().await;
        let moved = [
            CredentialId { owner: SecretOwner::Tenant(TenantId::new()), ..id() },
            CredentialId { owner: SecretOwner::Server("main".parse().unwrap()), ..id() },
            CredentialId { database: "t_8".into(), ..id() },
            CredentialId { role: "t_7_v2".into(), ..id() },
            // The same letters, cut elsewhere: lengths are part of the context.
            CredentialId { database: "t_7t".into(), role: "_7_v1".into(), ..id() },
            CredentialId { purpose: Purpose::SetupLink, ..id() },
            CredentialId { version: 2, ..id() },
        ];
        for other in moved {
            let opened = open(&ring, &other, &record).await;
            assert!(matches!(opened, Err(VaultError::DoesNotOpen(_))), "{other}: {opened:?}");
        }
    }

    #[tokio::test]
    async fn a_new_primary_wraps_anew_and_the_ciphertext_stays() {
        let (_, record) = sealed().await;
        let both = LocalKeyring::from_text(&format!("k2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=,{RING}")).unwrap();
        let (key, renewed) = rewrap(&both, &id(), &record).await.unwrap().expect("another key wraps now");
        assert_eq!(key.as_str(), "k2");
        assert!(rewrap(&both, &id(), &renewed).await.unwrap().is_none(), "and then there is nothing to do");
        let only = LocalKeyring::from_text("k2:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        assert_eq!(open(&only, &id(), &renewed).await.unwrap().expose_secret(), "p@ss/w?rd:1#%");
        let gone = open(&only, &id(), &record).await;
        assert!(matches!(gone, Err(VaultError::Key(KeyError::Unknown(_)))), "{gone:?}");
    }
}
