//! [`VaultWriter`]: which keys a vault takes, and that a refusal changes nothing.
use super::assertions::expect_ok;
use crate::error::{KeyError, VaultError};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, Purpose, SecretOwner};
use crate::store::vault::{LocalKeyring, VaultWriter};
use crate::tenant::TenantId;
use data_encoding::BASE64;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};

/// Good keys, keys of the same id with other bytes, and keys of other ids, in each order; a rekey with two primaries; and
/// two first secrets at once. `node` opens one store with different keys, as nodes of one application do; the store is
/// empty at first.
///
/// # Panics
/// When a promise of [`VaultWriter`] is broken.
pub async fn vault_keys<V: VaultWriter>(node: impl Fn(LocalKeyring) -> V) {
    let keys = Keys { k1: key("k1"), wrong: key("k1"), k2: key("k2"), random: key("k3") };
    let nodes = Nodes { node, keys, by: FencingToken { operation: OperationId::new(), epoch: 1 } };
    expect_ok(nodes.of(&[&nodes.keys.k1]).fence(nodes.by.operation, 1).await, "a fence");
    nodes.empty_store_takes_any_key().await;
    nodes.refused_keys_change_nothing().await;
    nodes.rekey_takes_both_primaries().await;
    nodes.first_secret_decides().await;
}

struct Keys {
    k1: String,
    /// The id of `k1` with other bytes.
    wrong: String,
    k2: String,
    random: String,
}

struct Nodes<F> {
    node: F,
    keys: Keys,
    by: FencingToken,
}

fn key(id: &str) -> String {
    format!("{id}:{}", BASE64.encode(&rand::rng().random::<[u8; 32]>()))
}

fn id(version: i64) -> CredentialId {
    let owner = SecretOwner::Tenant(TenantId::from_uuid(uuid::Uuid::from_u128(7)));
    CredentialId { owner, database: "t".into(), role: "t_v1".into(), purpose: Purpose::Login, version }
}

impl<V: VaultWriter, F: Fn(LocalKeyring) -> V> Nodes<F> {
    fn of(&self, keys: &[&String]) -> V {
        let text = keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(",");
        (self.node)(expect_ok(LocalKeyring::from_text(&text), "a key ring"))
    }
    async fn accepts(&self, keys: &[&String], why: &str) {
        let answer = self.of(keys).check_keys().await;
        assert!(answer.is_ok(), "expected: {why}; got: {answer:?}");
    }
    async fn put(&self, keys: &[&String], version: i64) -> Result<SecretString, VaultError> {
        self.of(keys).put(&id(version), &SecretString::from("a secret"), self.by).await
    }
    async fn in_use(&self) -> Vec<String> {
        let keys = self.of(&[&self.keys.k1]).keys_in_use().await;
        expect_ok(keys, "keys in use").iter().map(|key| key.as_str().to_owned()).collect()
    }

    async fn empty_store_takes_any_key(&self) {
        let Keys { k1, wrong, k2, random } = &self.keys;
        for key in [wrong, k1, random, k2, wrong, k1] {
            self.accepts(&[key], "without secrets any key is taken, whichever was checked before").await;
        }
        assert_eq!(self.in_use().await, [""; 0], "expected: a check makes no key one that is in use");
    }

    async fn refused_keys_change_nothing(&self) {
        let Keys { k1, wrong, k2, random } = &self.keys;
        expect_ok(self.put(&[k1], 1).await, "a put with the first key");
        for refused in [[wrong].as_slice(), &[random], &[random, wrong], &[wrong, random], &[k2]] {
            let answer = self.of(refused).check_keys().await;
            let expected = match (refused.contains(&wrong), &answer) {
                (true, Err(VaultError::Key(KeyError::WrongBytes(key)))) => key.as_str() == "k1",
                (false, Err(VaultError::Key(KeyError::Unknown(key)))) => key.as_str() == "k1",
                _ => false,
            };
            assert!(expected, "expected: the key of a secret must be held, with its bytes; got: {answer:?}");
            self.accepts(&[k1], "after a refused key the right one is taken").await;
            self.accepts(&[random, k1], "a further key does no harm").await;
        }
        let stored = self.put(&[wrong], 2).await;
        assert!(is_wrong(&stored), "expected: other bytes store nothing under a known id; got: {stored:?}");
        let found = self.of(&[k1]).open(&id(2)).await;
        assert!(
            matches!(found, Err(VaultError::Missing(_))),
            "expected: a refused put stores nothing; got: {found:?}"
        );
        assert_eq!(self.in_use().await, ["k1"], "expected: a refused key is not in use");
    }

    async fn rekey_takes_both_primaries(&self) {
        let Keys { k1, k2, wrong, .. } = &self.keys;
        let (old, new) = ([k1, k2], [k2, k1]);
        for (version, node) in [(3, &old), (4, &new), (5, &old)] {
            expect_ok(self.put(node, version).await, "a put while two keys are primary");
            self.accepts(&old, "a node with the old primary starts").await;
            self.accepts(&new, "a node with the new primary starts").await;
        }
        for lacking in [[k1].as_slice(), &[k2], &[k2, wrong]] {
            let answer = self.of(lacking).check_keys().await;
            assert!(answer.is_err(), "expected: each key that secrets need must be held; got: {answer:?}");
        }
        let left = self.of(&new).rewrap(100).await;
        assert_eq!(expect_ok(left, "a rewrap"), 0, "expected: all records come to the new primary");
        assert_eq!(self.in_use().await, ["k2"], "expected: then the old key is not in use");
        self.accepts(&[k2], "the old key may be taken away").await;
        self.accepts(&[k2, wrong], "a key that no secret names may have any bytes").await;
        expect_ok(self.put(&old, 6).await, "a late put with the old primary");
        assert!(self.of(&[k2]).check_keys().await.is_err(), "expected: then the old key is needed again");
    }

    /// The store is emptied, and two nodes with one key id and different bytes store a first secret at once.
    async fn first_secret_decides(&self) {
        let Keys { k1, wrong, .. } = &self.keys;
        for round in 0..20 {
            let Some(tenant) = id(1).owner.tenant() else { return };
            let both = self.of(&[k1, &self.keys.k2]);
            expect_ok(both.forget_tenant(tenant, self.by).await, "forgetting a tenant");
            self.accepts(&[wrong], "without secrets any key is taken again").await;
            let (ours, theirs) = ([k1], [wrong]);
            let (one, other) = tokio::join!(self.put(&ours, 1), self.put(&theirs, 2));
            let (stored, winner, loser) = if one.is_ok() { (1, k1, wrong) } else { (2, wrong, k1) };
            let refused = if one.is_ok() { other } else { one };
            assert!(is_wrong(&refused), "expected: round {round}, only one of them stores a secret; got: {refused:?}");
            let found = self.of(&[winner]).open(&id(stored)).await;
            assert_eq!(expect_ok(found, "opening").expose_secret(), "a secret", "expected: the stored secret opens");
            self.accepts(&[winner], "the key of the first secret is the right one").await;
            let answer = self.of(&[loser]).check_keys().await;
            assert!(is_wrong(&answer), "expected: the other one is refused from then on; got: {answer:?}");
        }
    }
}

fn is_wrong<T>(answer: &Result<T, VaultError>) -> bool {
    matches!(answer, Err(VaultError::Key(KeyError::WrongBytes(_))))
}
