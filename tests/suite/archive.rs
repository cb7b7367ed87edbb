//! Archive, restore, and purge after the retention deadline. Deadlines are compared on the landlord's clock, so a test
//! moves a deadline into the past with SQL instead of waiting.
use crate::auditor::{self, assert_nothing, code};
use crate::provision::migrated;
use sqlx::{ConnectOptions, Executor};
use std::time::Duration;
use tenantry::error::{ChangeError, ResolveError};
use tenantry::sqlx;
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;

/// Moves the tenant's retention deadline one second into the past.
async fn expire_retention(harness: &Harness, slug: &str) {
    const EXPIRE: &str = "UPDATE tenantry.tenants SET kept_until = now() - interval '1 second' WHERE slug = $1";
    sqlx::query(EXPIRE).bind(slug).execute(harness.landlord()).await.unwrap();
}

#[tokio::test]
async fn archive_refuses_connections_and_restore_keeps_the_data() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('kept')").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;

    let before: time::OffsetDateTime = sqlx::query_scalar("SELECT now()").fetch_one(harness.landlord()).await.unwrap();
    let archived = tenantry.archive("acme").keep_for(Duration::from_secs(3600)).reason("left").await.unwrap();
    assert_eq!(archived.tenant().status(), TenantStatus::Archived);
    let kept = archived.tenant().kept_until().expect("an archived tenant has a deadline") - before;
    assert!((3599..3630).contains(&kept.whole_seconds()), "{kept}");
    assert_eq!(code(&login.connect().await.unwrap_err()), "28000", "the login must be refused");
    assert!(db.execute("SELECT 1").await.is_err(), "a handle that was resolved before the archive must fail too");
    assert!(matches!(tenantry.resolve("acme").await, Err(ResolveError::Archived(_))));
    let open: bool = sqlx::query_scalar("SELECT datallowconn FROM pg_database WHERE datname = $1")
        .bind(login.get_database().unwrap())
        .fetch_one(&mut auditor::superuser(&harness).await)
        .await
        .unwrap();
    assert!(!open, "the database must refuse connections of every login");
    assert!(
        matches!(tenantry.activate("acme").await, Err(ChangeError::Status { .. })),
        "activate must refuse an archived tenant"
    );

    let restored = tenantry.restore("acme").await.unwrap();
    assert_eq!((restored.status(), restored.kept_until()), (TenantStatus::Active, None));
    let texts: Vec<String> = sqlx::query_scalar("SELECT text FROM notes").fetch_all(&db).await.unwrap();
    assert_eq!(texts, ["kept"]);
}

#[tokio::test]
async fn purge_due_purges_an_archived_tenant_only_after_its_deadline() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["expired", "kept", "active", "suspended"] {
        tenantry.provision(slug).await.unwrap();
    }
    tenantry.suspend("suspended").await.unwrap();
    tenantry.suspend("expired").await.unwrap();
    for slug in ["expired", "kept"] {
        tenantry.archive(slug).await.unwrap();
    }
    let refused = tenantry.purge("expired").await.unwrap_err();
    assert!(matches!(refused, ChangeError::Kept { until: Some(_), .. }), "{refused}");
    assert_eq!(tenantry.purge_due().await.unwrap().done.len(), 0, "purge_due must purge nothing before the deadline");

    expire_retention(&harness, "expired").await;
    let expired = tenantry.restore("expired").await.unwrap_err();
    assert!(matches!(expired, ChangeError::Expired { .. }), "{expired}");
    let report = tenantry.purge_due().reason("the deadline is over").await.unwrap();
    let done: Vec<_> = report.done.iter().map(|(t, _)| t.slug().as_str()).collect();
    assert_eq!((done, report.unchanged, report.failed.len()), (vec!["expired"], 1, 0));
    assert!(tenantry.registry().find("expired".into()).await.unwrap().is_none());

    tenantry.restore("kept").await.unwrap();
    tenantry.resolve("kept").await.unwrap().execute("SELECT count(*) FROM notes").await.unwrap();
    for slug in ["kept", "active", "suspended"] {
        tenantry.purge(slug).force().await.unwrap();
    }
    assert_nothing(&harness, "after all purges").await;
}

#[tokio::test]
async fn archive_succeeds_while_a_backup_is_connected() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let database = auditor::login(&tenantry, "acme").await.get_database().unwrap().to_owned();
    let mut backup = harness.server().admin_options().database(&database).connect().await.unwrap();
    tenantry.archive("acme").await.unwrap();
    backup.execute("SELECT count(*) FROM notes").await.expect("archive must not end a superuser's session");
    tenantry.restore("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
}
