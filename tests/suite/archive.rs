//! Archive, restore, and what a deadline allows: by the landlord's clock.
use crate::auditor::{self, assert_nothing, code};
use crate::provision::migrated;
use sqlx::{ConnectOptions, Executor};
use std::time::Duration;
use tenantry::error::{ChangeError, ResolveError};
use tenantry::sqlx;
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;

/// As if the archive had begun so much earlier.
async fn let_time_pass(harness: &Harness, slug: &str) {
    const PASS: &str = "UPDATE tenantry.tenants SET kept_until = now() - interval '1 second' WHERE slug = $1";
    sqlx::query(PASS).bind(slug).execute(harness.landlord()).await.unwrap();
}

#[tokio::test]
async fn an_archived_tenant_is_refused_and_comes_back_with_its_data() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('kept')").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;

    let before: time::OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(harness.landlord()).await.unwrap();
    let archived = tenantry.archive("acme").keep_for(Duration::from_secs(3600)).reason("left").await.unwrap();
    assert_eq!(archived.tenant().status(), TenantStatus::Archived);
    let kept = archived.tenant().kept_until().expect("a deadline") - before;
    assert!((3599..3630).contains(&kept.whole_seconds()), "{kept}");
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000", "the login is refused");
    assert!(db.execute("SELECT 1").await.is_err(), "on a handle that was out, too");
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Archived(_))));
    let open: bool = sqlx::query_scalar("SELECT datallowconn FROM pg_database WHERE datname = $1")
        .bind(login.get_database().unwrap())
        .fetch_one(&mut auditor::superuser(&harness).await)
        .await
        .unwrap();
    assert!(!open, "the database is closed to every login");
    assert!(matches!(tenantry.activate("acme").await, Err(ChangeError::Status { .. })), "archived, not suspended");

    let back = tenantry.restore("acme").await.unwrap();
    assert_eq!((back.status(), back.kept_until()), (TenantStatus::Active, None));
    let texts: Vec<String> = sqlx::query_scalar("SELECT text FROM notes").fetch_all(&db).await.unwrap();
    assert_eq!(texts, ["kept"]);
}

#[tokio::test]
async fn data_is_destroyed_after_the_deadline_and_not_before() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["gone", "kept", "active", "suspended"] {
        tenantry.provision(slug).await.unwrap();
    }
    tenantry.suspend("suspended").await.unwrap();
    tenantry.suspend("gone").await.unwrap();
    for slug in ["gone", "kept"] {
        tenantry.archive(slug).await.unwrap();
    }
    let refused = tenantry.purge("gone").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Kept { until: Some(_), .. }), "{refused}");
    assert_eq!(tenantry.purge_due().await.unwrap().done.len(), 0, "nothing is due yet");

    let_time_pass(&harness, "gone").await;
    let late = tenantry.restore("gone").await.unwrap_err();
    assert!(matches!(late, ChangeError::Expired { .. }), "{late}");
    let report = tenantry.purge_due().reason("the deadline is over").await.unwrap();
    let done: Vec<_> = report.done.iter().map(|(t, _)| t.slug().as_str()).collect();
    assert_eq!((done, report.unchanged, report.failed.len()), (vec!["gone"], 1, 0));
    assert!(tenantry.registry().find("gone".into()).await.unwrap().is_none());

    tenantry.restore("kept").await.unwrap();
    tenantry.resolve("kept").await.unwrap().execute("SELECT count(*) FROM notes").await.unwrap();
    for slug in ["kept", "active", "suspended"] {
        tenantry.purge(slug).force().await.unwrap();
    }
    assert_nothing(&harness, "after all purges").await;
}

#[tokio::test]
async fn a_backup_that_is_running_does_not_hold_up_an_archive() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let database = auditor::login(&tenantry, "acme").await.get_database().unwrap().to_owned();
    let mut backup = harness.server().admin_options().database(&database).connect().await.unwrap();
    tenantry.archive("acme").await.unwrap();
    backup.execute("SELECT count(*) FROM notes").await.expect("a superuser's session goes on");
    tenantry.restore("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
}
