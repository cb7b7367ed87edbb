//! Many concurrent `provision` calls: keys, slugs and server capacities keep their limits.
//!
//! The calls come from several tasks, in one test also from two nodes.
use crate::auditor;
use crate::provision::migrated;
use std::collections::HashSet;
use tenantry::error::{NameConflict, ProvisionError};
use tenantry::testing::Harness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_with_one_key_create_one_tenant() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(migrated).await.unwrap(), harness.tenantry(migrated).await.unwrap()];
    let calls = (0..50).map(|n| {
        let call = nodes[n % 2].provision("acme").admin("ada@acme.example").key("form-4711");
        tokio::spawn(std::future::IntoFuture::into_future(call))
    });
    let mut answers = HashSet::new();
    for call in calls.collect::<Vec<_>>() {
        let provisioned = call.await.unwrap().unwrap();
        answers.insert((
            provisioned.tenant.id(),
            provisioned.operation,
            provisioned.link.expect("no link in the answer").expose_path(),
        ));
    }
    assert_eq!(answers.len(), 1, "calls with one key have different answers: {answers:?}");
    assert_eq!(auditor::operations(harness.landlord(), "provision", "done").await, 1);
    assert_eq!(auditor::on_server(&harness).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_without_keys_create_one_tenant() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let calls = (0..50).map(|_| tokio::spawn(std::future::IntoFuture::into_future(tenantry.provision("acme"))));
    let (mut created, mut taken) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(_) => created += 1,
            Err(ProvisionError::SlugTaken { slug, operation, .. }) if slug.as_str() == "acme" => {
                taken += 1;
                // A call whose operation had begun records the conflict in that operation.
                if let Some(id) = operation {
                    let state = tenantry.operations().get(id).await.unwrap().unwrap();
                    assert_eq!(state.taken, Some(NameConflict::Slug(slug)), "{state:?}");
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((created, taken), (1, 49));
    assert_eq!(auditor::on_server(&harness).await.len(), 4);
    assert_eq!(auditor::landlord_only(harness.landlord()).await.len(), 6, "expected the landlord rows of one tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_do_not_exceed_the_server_capacity() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).capacity(3).await.unwrap();
    let call = |n| std::future::IntoFuture::into_future(tenantry.provision(format!("tenant-{n}")));
    let calls: Vec<_> = (0..8).map(|n| tokio::spawn(call(n))).collect();
    let (mut created, mut refused) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => created += 1,
            Err(ProvisionError::NoRoom { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((created, refused), (3, 5));
}

#[tokio::test]
async fn key_is_refused_for_a_different_request() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let provisioned = tenantry.provision("acme").key("k").await.unwrap();
    let again = tenantry.provision("acme").key("k").await.unwrap();
    assert_eq!(provisioned.operation, again.operation);
    let other = tenantry.provision("globex").key("k").await.unwrap_err();
    assert!(
        matches!(other, ProvisionError::KeyReused { operation, .. } if operation == provisioned.operation),
        "{other:?}"
    );
    let other = tenantry.provision("acme").input(&1).key("k").await.unwrap_err();
    assert!(
        matches!(other, ProvisionError::KeyReused { .. }),
        "a different input was accepted with the same key: {other:?}"
    );
}
