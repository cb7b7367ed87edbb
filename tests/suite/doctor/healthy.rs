//! A healthy fleet has no finding, and an examination changes nothing.
use super::{examine, found, snapshot};
use crate::provision::migrated;
use std::time::Duration;
use tenantry::error::DoctorError;
use tenantry::testing::Harness;
use tenantry::Tenantry;

/// Tenants in each state that lasts.
async fn fleet(harness: &Harness) -> Tenantry {
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["active", "invited", "rotated", "suspended", "archived", "restored", "activated"] {
        let call = tenantry.provision(slug);
        let call = if slug == "invited" { call.admin("ada@acme.example").domain("acme.example") } else { call };
        call.await.unwrap();
    }
    // The old login is kept for an hour.
    tenantry.rotate("rotated").grace(Duration::from_secs(3600)).await.unwrap();
    for slug in ["suspended", "activated"] {
        tenantry.suspend(slug).await.unwrap();
    }
    for slug in ["archived", "restored"] {
        tenantry.archive(slug).await.unwrap();
    }
    tenantry.restore("restored").await.unwrap();
    tenantry.activate("activated").await.unwrap();
    tenantry.provision("purged").await.unwrap();
    tenantry.purge("purged").force().await.unwrap();
    tenantry
}

#[tokio::test]
async fn healthy_fleet_has_no_finding() {
    let harness = Harness::start().await.unwrap();
    let tenantry = fleet(&harness).await;
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [], "{:#?}", plan.findings);
    assert!(plan.is_clean());
    assert_eq!((plan.servers, plan.tenants, plan.busy), (1, 7, 0));
    let of_server = tenantry.doctor().server("main".parse().unwrap()).examine().await.unwrap();
    assert_eq!((found(&of_server), of_server.servers, of_server.tenants), (vec![], 1, 7));
    for slug in ["active", "suspended", "archived"] {
        let plan = tenantry.doctor().tenant(slug).examine().await.unwrap();
        assert_eq!((found(&plan), plan.tenants), (vec![], 1), "{slug}");
    }
}

#[tokio::test]
async fn examination_writes_nothing_to_the_landlord_or_the_server() {
    let harness = Harness::start().await.unwrap();
    let tenantry = fleet(&harness).await;
    let before = snapshot(&harness).await;
    examine(&tenantry).await;
    let after = snapshot(&harness).await;
    assert!(before.len() > 20, "the snapshot contains too little: {before:?}");
    assert_eq!(after, before, "an examination has changed something");
}

#[tokio::test]
async fn examination_of_an_unknown_tenant_or_server_fails() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let unknown = tenantry.doctor().tenant("nobody-here").examine().await;
    assert!(matches!(unknown, Err(DoctorError::UnknownTenant)), "{unknown:?}");
    let unknown = tenantry.doctor().server("other".parse().unwrap()).examine().await;
    assert!(matches!(unknown, Err(DoctorError::UnknownServer { .. })), "{unknown:?}");
}

#[tokio::test]
async fn fleet_of_owners_with_temporary_tables_has_no_finding() {
    let harness = Harness::start().await.unwrap();
    let access = tenantry::directory::AppAccess::Owner;
    let tenantry = harness.tenantry(|builder| migrated(builder).app_access(access)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.rotate("acme").await.unwrap();
    assert_eq!(found(&examine(&tenantry).await), []);

    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|builder| migrated(builder).temp_tables(true)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    assert_eq!(found(&examine(&tenantry).await), []);
}
