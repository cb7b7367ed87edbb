//! Which key rings a node may start with. The key of every stored secret must be there with the same bytes; a refused
//! start changes nothing in the landlord.
use crate::provision::migrated;
use std::sync::Arc;
use tenantry::error::{BuildError, ProvisionError, StoreError, UntrustedAddress, VaultError};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::secret::CredentialId;
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, LocalKeyring, PgVault, VaultWriter};
use tenantry::{TenantId, Tenantry, sqlx};

const K1: &str = "k1:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
const K1_OTHER_BYTES: &str = "k1:pBqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
const K2: &str = "k2:qBqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";

fn key_ring(keys: &[&str]) -> LocalKeyring {
    LocalKeyring::from_text(&keys.join(",")).unwrap()
}

async fn build(harness: &Harness, keys: &[&str]) -> Result<Tenantry, BuildError> {
    migrated(Tenantry::builder(harness.landlord().clone())).keys(key_ring(keys)).build().await
}

async fn set_up(harness: &Harness, tenantry: &Tenantry) {
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
}

/// Every row of the vault, as text.
async fn vault_rows(harness: &Harness) -> Vec<String> {
    const ALL: &str = "SELECT c::text FROM tenantry.credentials c ORDER BY 1";
    sqlx::query_scalar(ALL).fetch_all(harness.landlord()).await.unwrap()
}

/// Stores a secret of one tenant as a node with these keys does.
async fn put_secret(harness: &Harness, keys: &[&str], version: i64) -> Result<CredentialId, VaultError> {
    let vault = PgVault::new(harness.landlord().clone(), Arc::new(key_ring(keys)));
    let by = FencingToken { operation: OperationId::new(), epoch: 1 };
    vault.fence(by.operation, 1).await.unwrap();
    let tenant = TenantId::from_uuid(sqlx::types::Uuid::from_u128(7));
    let id = CredentialId::login(tenant, &"t".parse().unwrap(), &"t_v1".parse().unwrap(), version);
    vault.put(&id, &"a secret".to_owned().into(), by).await.map(|_| id)
}

#[tokio::test]
async fn build_with_refused_keys_changes_nothing() {
    let harness = Harness::start().await.unwrap();
    let first = build(&harness, &[K1]).await.unwrap();
    set_up(&harness, &first).await;
    let before = vault_rows(&harness).await;
    let refused: [&[&str]; 4] = [&[K1_OTHER_BYTES], &[K2], &[K2, K1_OTHER_BYTES], &[K1_OTHER_BYTES, K2]];
    for one in refused {
        for other in refused {
            for keys in [one, other] {
                let error = build(&harness, keys).await.expect_err("build must refuse a missing or wrong key");
                let named = match (keys.contains(&K1_OTHER_BYTES), &error) {
                    (true, BuildError::KeyWrong(key)) | (false, BuildError::KeyMissing(key)) => key.as_str(),
                    _ => panic!("{keys:?}: {error:?}"),
                };
                assert_eq!(named, "k1", "{keys:?}");
            }
            build(&harness, &[K1]).await.unwrap_or_else(|e| panic!("after {one:?} and {other:?}: {e}"));
            build(&harness, &[K2, K1]).await.unwrap_or_else(|e| panic!("after {one:?} and {other:?}: {e}"));
        }
    }
    assert_eq!(vault_rows(&harness).await, before, "a refused build changed the vault");
    build(&harness, &[K1]).await.unwrap().provision("acme").await.expect("the right key works");
}

#[tokio::test]
async fn build_on_an_empty_landlord_accepts_any_keys_and_stores_none() {
    let harness = Harness::start().await.unwrap();
    for keys in [[K1_OTHER_BYTES].as_slice(), &[K2], &[K2, K1_OTHER_BYTES], &[K1], &[K1_OTHER_BYTES]] {
        build(&harness, keys).await.unwrap_or_else(|e| panic!("{keys:?}: {e}"));
    }
    assert_eq!(vault_rows(&harness).await, [""; 0]);
    let good = build(&harness, &[K1]).await.expect("earlier builds with other keys must leave nothing");
    set_up(&harness, &good).await;
    assert!(matches!(build(&harness, &[K1_OTHER_BYTES]).await, Err(BuildError::KeyWrong(_))));
    good.provision("acme").await.unwrap();
}

/// Earlier versions stored the check record of a key even when the start with that key was then refused.
#[tokio::test]
async fn check_record_that_no_secret_needs_refuses_no_key() {
    let harness = Harness::start().await.unwrap();
    for (keys, version) in [([K2], 1), ([K1_OTHER_BYTES], 2)] {
        let id = put_secret(&harness, &keys, version).await.unwrap();
        let delete = "DELETE FROM tenantry.credentials WHERE version = $1 AND purpose <> 'key_check'";
        sqlx::query(delete).bind(id.version).execute(harness.landlord()).await.unwrap();
    }
    assert_eq!(vault_rows(&harness).await.len(), 2, "the vault must contain two check records and no secret");
    let good = build(&harness, &[K1]).await.expect("neither check record is needed");
    set_up(&harness, &good).await;
    good.provision("acme").await.expect("the check record of k1 is replaced");
    for keys in [[K1].as_slice(), &[K1, K2]] {
        let node = build(&harness, keys).await.unwrap_or_else(|e| panic!("{keys:?}: {e}"));
        assert!(node.problems().await.is_empty(), "{:?}", node.problems().await);
    }
    assert!(matches!(build(&harness, &[K1_OTHER_BYTES]).await, Err(BuildError::KeyWrong(_))));
    good.rekey().await.expect("rekey removes check records that no secret needs");
    assert!(vault_rows(&harness).await.iter().all(|row| row.contains("k1")), "the check record of k2 is still stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_different_key_bytes_start_on_an_empty_landlord_and_the_first_secret_decides() {
    let harness = Harness::start().await.unwrap();
    let (one, other) = tokio::join!(build(&harness, &[K1]), build(&harness, &[K1_OTHER_BYTES]));
    let (one, other) = (one.expect("an empty vault accepts any key"), other.expect("an empty vault accepts any key"));
    set_up(&harness, &one).await;
    one.provision("acme").await.unwrap();
    let error = other.provision("globex").await.expect_err("its key has other bytes");
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    let wrong = failure.cause.downcast_ref::<StoreError>();
    assert!(matches!(wrong, Some(StoreError::Untrusted(UntrustedAddress::NoKey))), "{failure:?}");
    let codes: Vec<_> = other.problems().await.into_iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["keys"], "problems must report the wrong key");
    assert!(matches!(build(&harness, &[K1_OTHER_BYTES]).await, Err(BuildError::KeyWrong(_))));
    one.provision("globex").await.expect("the refused provisioning must leave nothing that obstructs this one");
}

#[tokio::test]
async fn nodes_with_different_key_ids_on_an_empty_landlord_need_both_keys_afterwards() {
    let harness = Harness::start().await.unwrap();
    let (one, other) = tokio::join!(build(&harness, &[K1]), build(&harness, &[K2]));
    drop((one.unwrap(), other.unwrap()));
    put_secret(&harness, &[K1], 1).await.unwrap();
    let id = put_secret(&harness, &[K2], 2).await.unwrap();
    assert!(matches!(build(&harness, &[K1]).await, Err(BuildError::KeyMissing(key)) if key.as_str() == "k2"));
    assert!(matches!(build(&harness, &[K2]).await, Err(BuildError::KeyMissing(key)) if key.as_str() == "k1"));
    for keys in [[K1, K2], [K2, K1]] {
        build(&harness, &keys).await.expect("a node with both keys can start");
        PgVault::new(harness.landlord().clone(), Arc::new(key_ring(&keys))).open(&id).await.unwrap();
    }
}

#[tokio::test]
async fn nodes_with_old_and_new_primary_key_work_together_during_a_rekey() {
    let harness = Harness::start().await.unwrap();
    let old = build(&harness, &[K1, K2]).await.unwrap();
    set_up(&harness, &old).await;
    let new = build(&harness, &[K2, K1]).await.unwrap();
    old.provision("acme").await.unwrap();
    new.provision("globex").await.unwrap();
    for keys in [[K1, K2], [K2, K1]] {
        build(&harness, &keys).await.unwrap_or_else(|e| panic!("{keys:?}: {e}"));
    }
    for keys in [[K1].as_slice(), &[K2], &[K2, K1_OTHER_BYTES]] {
        assert!(
            build(&harness, keys).await.is_err(),
            "{keys:?}: stored secrets need a key that is missing or has other bytes"
        );
    }
    new.rekey().await.unwrap();
    build(&harness, &[K2]).await.expect("a node can start without the old key after a rekey");
    old.resolve("globex").await.unwrap();
    old.rotate("acme").await.expect("the node with the old primary key still works");
    assert!(
        matches!(build(&harness, &[K2]).await, Err(BuildError::KeyMissing(_))),
        "a secret sealed with the old key makes that key necessary again"
    );
    new.rekey().await.unwrap();
    build(&harness, &[K2]).await.expect("a node can start without the old key after the next rekey");
}
