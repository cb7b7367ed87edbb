//! A program that is older than a tenant's database leaves the tenant alone, and a batch counts it.
use super::{DONE, NOTES, assert_no_migrator, program};
use crate::auditor;
use tenantry::error::ChangeError;
use tenantry::migrate::MigrationState;
use tenantry::testing::Harness;

#[tokio::test]
async fn migrate_all_of_an_older_program_counts_newer_and_closed_tenants_and_fails_none() {
    let harness = Harness::start().await.unwrap();
    let old = harness.tenantry(program(&[NOTES])).await.unwrap();
    for slug in ["behind", "newer-1", "newer-2", "suspended", "archived"] {
        old.provision(slug).await.unwrap();
    }
    old.suspend("suspended").await.unwrap();
    old.archive("archived").await.unwrap();
    let new = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    for slug in ["newer-1", "newer-2"] {
        assert_eq!(new.migrate(slug).await.unwrap().applied, [2]);
    }

    let report = old.migrate_all().await.unwrap();
    assert!(report.failed.is_empty(), "a rolled back deployment must fail for no tenant: {report:?}");
    assert_eq!((report.ahead, report.unchanged, report.done.len()), (2, 1, 0), "{report:?}");
    assert_eq!((report.suspended, report.archived), (1, 1), "{report:?}");
    assert_eq!(new.migration_status("newer-1").await.unwrap().state, MigrationState::AtHead);

    let error = old.migrate("newer-1").await.unwrap_err();
    assert!(matches!(error, ChangeError::Ahead { version: 2, .. }), "{error:?}");
    assert_eq!(error.retry_after(), None, "the same program cannot migrate the tenant later");
    assert_no_migrator(&harness).await;
    assert_eq!(auditor::operations(harness.landlord(), "migrate", "undoing").await, 0);

    let report = new.migrate_all().await.unwrap();
    assert_eq!((report.ahead, report.unchanged, report.done.len(), report.suspended), (0, 2, 1, 1), "{report:?}");
}
