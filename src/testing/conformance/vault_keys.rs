//! The conformance suite of a vault's keys: which keys a [`VaultWriter`] accepts, and that a refusal changes nothing.
//!
//! The suite opens one store with different key rings, as the nodes of one application do during a key rotation.
use super::assertions::expect_ok;
use crate::error::{KeyError, VaultError};
use crate::operation::{FencingToken, OperationId};
use crate::secret::{CredentialId, Purpose, SecretOwner};
use crate::store::vault::{LocalKeyring, VaultWriter};
use crate::tenant::TenantId;
use data_encoding::BASE64;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};

/// Checks the key handling of a [`VaultWriter`]: correct keys, keys of the same id with other bytes, and keys of other
/// ids, in different orders; a key rotation with two primary keys; and two first secrets at the same moment. `node`
/// opens the same store with the given key ring. The store must be empty.
///
/// # Panics
/// If the implementation breaks the contract of [`VaultWriter`]. The message names the rule.
pub async fn vault_keys<V: VaultWriter>(node: impl Fn(LocalKeyring) -> V) {
    let keys = Keys { k1: key("k1"), wrong: key("k1"), k2: key("k2"), random: key("k3") };
    let nodes = Nodes { node, keys, by: FencingToken { operation: OperationId::new(), epoch: 1 } };
    expect_ok(nodes.open_with(&[&nodes.keys.k1]).fence(nodes.by.operation, 1).await, "fence() stores an epoch");
    nodes.check_empty_store().await;
    nodes.check_refused_keys().await;
    nodes.check_rekey().await;
    nodes.check_concurrent_first_secrets().await;
}

/// Keys as texts for [`LocalKeyring::from_text`].
struct Keys {
    k1: String,
    /// The id of `k1` with other bytes.
    wrong: String,
    k2: String,
    /// A key with an id of its own that seals no secret.
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

fn tenant() -> TenantId {
    TenantId::from_uuid(uuid::Uuid::from_u128(7))
}

fn id(version: i64) -> CredentialId {
    let owner = SecretOwner::Tenant(tenant());
    CredentialId { owner, database: "t".into(), role: "t_v1".into(), purpose: Purpose::Login, version }
}

impl<V: VaultWriter, F: Fn(LocalKeyring) -> V> Nodes<F> {
    /// A vault over the shared store with these keys. The first one is the primary key.
    fn open_with(&self, keys: &[&String]) -> V {
        let text = keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(",");
        (self.node)(expect_ok(LocalKeyring::from_text(&text), "the suite's own keys are valid"))
    }
    async fn expect_accepted(&self, keys: &[&String], rule: &str) {
        let answer = self.open_with(keys).check_keys().await;
        assert!(answer.is_ok(), "expected: {rule}; got: check_keys() returned {answer:?}");
    }
    async fn put(&self, keys: &[&String], version: i64) -> Result<SecretString, VaultError> {
        self.open_with(keys).put(&id(version), &SecretString::from("a secret"), self.by).await
    }
    async fn keys_in_use(&self) -> Vec<String> {
        let keys = self.open_with(&[&self.keys.k1]).keys_in_use().await;
        expect_ok(keys, "keys_in_use() lists keys").iter().map(|key| key.as_str().to_owned()).collect()
    }

    async fn check_empty_store(&self) {
        let Keys { k1, wrong, k2, random } = &self.keys;
        let primary = expect_ok(self.open_with(&[k2, k1]).primary_key().await, "primary_key() returns a key");
        let is_first = primary.as_ref().is_none_or(|key| key.as_str() == "k2");
        assert!(is_first, "expected: primary_key() returns the key that seals new secrets; got: {primary:?}");
        for key in [wrong, k1, random, k2, wrong, k1] {
            let rule = "a store without secrets accepts any key, whichever keys were checked before";
            self.expect_accepted(&[key], rule).await;
        }
        assert_eq!(self.keys_in_use().await, [""; 0], "expected: check_keys() does not make a key one that is in use");
    }

    async fn check_refused_keys(&self) {
        let Keys { k1, wrong, k2, random } = &self.keys;
        expect_ok(self.put(&[k1], 1).await, "put() with the first key stores a secret");
        for refused in [[wrong].as_slice(), &[random], &[random, wrong], &[wrong, random], &[k2]] {
            let answer = self.open_with(refused).check_keys().await;
            let is_expected = match (refused.contains(&wrong), &answer) {
                (true, Err(VaultError::Key(KeyError::WrongBytes(key)))) => key.as_str() == "k1",
                (false, Err(VaultError::Key(KeyError::Unknown(key)))) => key.as_str() == "k1",
                _ => false,
            };
            let rule = "expected: check_keys() demands each key in use, with the bytes that sealed the secrets";
            assert!(is_expected, "{rule}; got: {answer:?}");
            self.expect_accepted(&[k1], "the correct key is accepted after another one was refused").await;
            self.expect_accepted(&[random, k1], "an additional key is accepted").await;
        }
        let stored = self.put(&[wrong], 2).await;
        assert!(has_wrong_bytes(&stored), "expected: put() with other bytes of a known key is WrongBytes; {stored:?}");
        let found = self.open_with(&[k1]).open(&id(2)).await;
        let is_missing = matches!(found, Err(VaultError::Missing(_)));
        assert!(is_missing, "expected: a refused put() stores nothing; got: {found:?}");
        assert_eq!(self.keys_in_use().await, ["k1"], "expected: a refused key is not in use");
    }

    async fn check_rekey(&self) {
        let Keys { k1, k2, wrong, .. } = &self.keys;
        let (old, new) = ([k1, k2], [k2, k1]);
        for (version, node) in [(3, &old), (4, &new), (5, &old)] {
            expect_ok(self.put(node, version).await, "put() succeeds while nodes have different primary keys");
            self.expect_accepted(&old, "a node with the old primary key starts").await;
            self.expect_accepted(&new, "a node with the new primary key starts").await;
        }
        for incomplete in [[k1].as_slice(), &[k2], &[k2, wrong]] {
            let answer = self.open_with(incomplete).check_keys().await;
            assert!(answer.is_err(), "expected: check_keys() demands each key in use; got: {answer:?}");
        }
        let left = expect_ok(self.open_with(&new).rewrap(100).await, "rewrap() returns a number");
        assert_eq!(left, 0, "expected: rewrap() moves all records to the primary key");
        assert_eq!(self.keys_in_use().await, ["k2"], "expected: the old key is not in use after rewrap()");
        self.expect_accepted(&[k2], "the old key can be removed after rewrap()").await;
        self.expect_accepted(&[k2, wrong], "a key that seals no secret may have any bytes").await;
        expect_ok(self.put(&old, 6).await, "put() by a node that still has the old primary key succeeds");
        let answer = self.open_with(&[k2]).check_keys().await;
        assert!(answer.is_err(), "expected: the old key is needed again after such a put(); got: {answer:?}");
    }

    /// Empties the store. Then two nodes with one key id and different bytes store a first secret at the same moment.
    async fn check_concurrent_first_secrets(&self) {
        let Keys { k1, wrong, .. } = &self.keys;
        for round in 0..20 {
            let both = self.open_with(&[k1, &self.keys.k2]);
            expect_ok(both.forget_tenant(tenant(), self.by).await, "forget_tenant() deletes secrets");
            self.expect_accepted(&[wrong], "a store whose secrets were deleted accepts any key again").await;
            let (ours, theirs) = ([k1], [wrong]);
            let (one, other) = tokio::join!(self.put(&ours, 1), self.put(&theirs, 2));
            let (stored, winner, loser) = if one.is_ok() { (1, k1, wrong) } else { (2, wrong, k1) };
            let refused = if one.is_ok() { other } else { one };
            let rule = "expected: only one of two first secrets with different key bytes is stored";
            assert!(has_wrong_bytes(&refused), "{rule}; got in round {round}: {refused:?}");
            let found =
                expect_ok(self.open_with(&[winner]).open(&id(stored)).await, "open() returns the stored secret");
            assert_eq!(found.expose_secret(), "a secret", "expected: open() returns the secret that was put");
            self.expect_accepted(&[winner], "the key of the first secret is accepted").await;
            let answer = self.open_with(&[loser]).check_keys().await;
            assert!(has_wrong_bytes(&answer), "expected: the other key is WrongBytes from then on; got: {answer:?}");
        }
    }
}

fn has_wrong_bytes<T>(answer: &Result<T, VaultError>) -> bool {
    matches!(answer, Err(VaultError::Key(KeyError::WrongBytes(_))))
}
