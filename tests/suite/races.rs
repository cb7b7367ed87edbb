//! Many callers at once.
use crate::auditor;
use crate::provision::migrated;
use std::collections::HashSet;
use tenantry::error::{NameConflict, ProvisionError};
use tenantry::testing::Harness;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_with_one_key_are_one_tenant_with_one_link() {
    let harness = Harness::start().await.unwrap();
    let nodes = [harness.tenantry(migrated).await.unwrap(), harness.tenantry(migrated).await.unwrap()];
    let calls = (0..50).map(|n| {
        let call = nodes[n % 2].provision("acme").admin("ada@acme.example").key("form-4711");
        tokio::spawn(std::future::IntoFuture::into_future(call))
    });
    let mut answers = HashSet::new();
    for call in calls.collect::<Vec<_>>() {
        let made = call.await.unwrap().unwrap();
        answers.insert((made.tenant.id(), made.operation, made.link.expect("the link").expose_path()));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(auditor::operations(harness.landlord(), "provision", "done").await, 1);
    assert_eq!(auditor::on_server(&harness).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_calls_without_keys_one_wins() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let calls = (0..50).map(|_| tokio::spawn(std::future::IntoFuture::into_future(tenantry.provision("acme"))));
    let (mut won, mut taken) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(_) => won += 1,
            Err(ProvisionError::SlugTaken { slug, operation, .. }) if slug.as_str() == "acme" => {
                taken += 1;
                // One that had begun says so to whoever looks at it later.
                if let Some(id) = operation {
                    let state = tenantry.operations().get(id).await.unwrap().unwrap();
                    assert_eq!(state.taken, Some(NameConflict::Slug(slug)), "{state:?}");
                }
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((won, taken), (1, 49));
    assert_eq!(auditor::on_server(&harness).await.len(), 4);
    assert_eq!(auditor::landlord_only(harness.landlord()).await.len(), 6, "one tenant's rows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_calls_never_exceed_a_capacity() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).capacity(3).await.unwrap();
    let call = |n| std::future::IntoFuture::into_future(tenantry.provision(format!("tenant-{n}")));
    let calls: Vec<_> = (0..8).map(|n| tokio::spawn(call(n))).collect();
    let (mut won, mut refused) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => won += 1,
            Err(ProvisionError::NoRoom { .. }) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((won, refused), (3, 5));
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let made = tenantry.provision("acme").key("k").await.unwrap();
    let again = tenantry.provision("acme").key("k").await.unwrap();
    assert_eq!(made.operation, again.operation);
    let other = tenantry.provision("globex").key("k").await.unwrap_err();
    assert!(matches!(other, ProvisionError::KeyReused { operation, .. } if operation == made.operation), "{other:?}");
    let other = tenantry.provision("acme").input(&1).key("k").await.unwrap_err();
    assert!(matches!(other, ProvisionError::KeyReused { .. }), "the host's input is part of the request: {other:?}");
}
