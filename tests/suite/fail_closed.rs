//! Suspend, archive and purge succeed only if the tenant is provably shut out. If anything prevents that proof, the
//! operation reports an error that names the obstacle.
use crate::auditor::{self, code};
use crate::obstacles::{impatient, recovered, told};
use crate::provision::migrated;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use std::time::Duration;
use tenantry::directory::{DatabaseKind, Driver, TenantDatabase};
use tenantry::error::{ChangeError, FailureState};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::registry::{RegistryWriter, TenantRegistry};
use tenantry::secret::CredentialId;
use tenantry::tenant::{Tenant, TenantId, TenantStatus};
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

/// Runs SQL of a test. Panics with the text of the SQL if it fails.
#[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
pub(crate) async fn run_sql(session: &mut PgConnection, text: impl Into<String>) {
    let text: String = text.into();
    sqlx::raw_sql(AssertSqlSafe(text.clone())).execute(session).await.unwrap_or_else(|e| panic!("{text}: {e}"));
}

/// Primary database entry of the tenant.
pub(crate) async fn primary_entry(tenantry: &Tenantry, slug: &str) -> TenantDatabase {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().expect("the tenant exists");
    tenantry.registry().primary(tenant.id()).await.unwrap().expect("the tenant has a primary database entry")
}

/// Status of the tenant in the registry.
async fn tenant_status(tenantry: &Tenantry, slug: &str) -> TenantStatus {
    tenantry.registry().find(slug.into()).await.unwrap().expect("the tenant exists").status()
}

/// Whether recovery will continue the failed operation.
fn is_continuing(error: &ChangeError) -> bool {
    matches!(error, ChangeError::Failed(f) if f.state == FailureState::Continuing)
}

#[tokio::test]
async fn suspend_shuts_out_a_login_whose_comment_was_changed() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (login, mut superuser) = (primary_entry(&tenantry, "acme").await.login, auditor::superuser(&harness).await);
    let direct = auditor::login(&tenantry, "acme").await;
    let mut session = direct.connect().await.unwrap();
    run_sql(&mut superuser, format!("COMMENT ON ROLE \"{login}\" IS 'see ticket 17'")).await;

    tenantry.suspend("acme").await.unwrap();
    assert_eq!(code(&direct.connect().await.unwrap_err()), "28000", "the login must be refused");
    assert!(session.ping().await.is_err(), "the session of the login must have ended");
    let comment = format!("SELECT shobj_description('\"{login}\"'::regrole, 'pg_authid') LIKE 'tenantry %'");
    #[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
    let restored: bool = sqlx::query_scalar(AssertSqlSafe(comment)).fetch_one(&mut superuser).await.unwrap();
    assert!(restored, "suspend must restore the comment of the role");
    tenantry.activate("acme").await.unwrap();
    direct.connect().await.expect("the login works again");
}

#[tokio::test]
async fn rotate_and_purge_remove_logins_whose_comment_was_changed() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (login, mut superuser) = (primary_entry(&tenantry, "acme").await.login, auditor::superuser(&harness).await);
    let old = auditor::login(&tenantry, "acme").await;
    let mut session = old.connect().await.unwrap();
    run_sql(&mut superuser, format!("COMMENT ON ROLE \"{login}\" IS 'see ticket 17'")).await;
    tenantry.rotate("acme").grace(Duration::ZERO).await.unwrap();
    assert_eq!(code(&old.connect().await.unwrap_err()), "28P01", "the old login must be dropped");
    assert!(session.ping().await.is_err(), "the session of the login must have ended");

    let new = primary_entry(&tenantry, "acme").await.login;
    run_sql(&mut superuser, format!("COMMENT ON ROLE \"{new}\" IS NULL")).await;
    tenantry.purge("acme").force().await.unwrap();
    let left = "SELECT count(*) FROM pg_roles WHERE rolname = ANY($1)";
    let left: i64 = sqlx::query_scalar(left)
        .bind(vec![login.to_string(), new.to_string()])
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(left, 0, "logins of the purged tenant are left");
}

/// Registers a tenant whose entry names a database that tenantry did not create.
pub(crate) async fn register_unmanaged(harness: &Harness, tenantry: &Tenantry, slug: &str, driver: Driver) -> TenantId {
    let registry = tenantry.registry_writer();
    let writer = FencingToken { operation: OperationId::new(), epoch: 1 };
    RegistryWriter::fence(&*registry, writer.operation, writer.epoch).await.unwrap();
    let tenant = Tenant::new(TenantId::new(), slug.parse().unwrap(), TenantStatus::Provisioning);
    registry.create(&tenant, &[], writer).await.unwrap();
    let (database, login) = ("theirs".parse().unwrap(), "their_login".parse().unwrap());
    let credential = CredentialId::login(tenant.id(), &database, &login, 1);
    let (host, port) =
        (harness.server().admin_options().get_host().to_owned(), harness.server().admin_options().get_port());
    let mut entry = TenantDatabase::primary(tenant.id(), host, port, database, login, credential);
    entry.driver = driver;
    registry.publish(TenantStatus::Provisioning, &entry, writer).await.unwrap();
    tenant.id()
}

#[tokio::test]
async fn suspend_archive_and_purge_refuse_a_tenant_with_an_unmanaged_database() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for (slug, driver) in [("pointed", Driver::Postgres), ("mysql", Driver::MySql)] {
        let id = register_unmanaged(&harness, &tenantry, slug, driver).await;
        let refused = [
            tenantry.suspend(slug).await.map(drop).unwrap_err(),
            tenantry.archive(slug).await.map(drop).unwrap_err(),
            tenantry.purge(slug).force().await.map(drop).unwrap_err(),
        ];
        for error in refused {
            let named = match &error {
                ChangeError::UnmanagedEntry { database, .. } => driver == Driver::Postgres && database == "theirs",
                ChangeError::NotBuilt { database, .. } => driver == Driver::MySql && database == "theirs",
                _ => false,
            };
            assert!(named, "{slug}: {error:?}");
            assert!(
                error.retry_after().is_none(),
                "{slug}: a retry cannot succeed, so the error must give no retry time"
            );
        }
        assert_eq!(
            tenant_status(&tenantry, slug).await,
            TenantStatus::Active,
            "{slug}: a refused call must not change the status"
        );
        // Do what the error recommends: mark the entry as dropped.
        let mut dropped = tenantry.registry().primary(id).await.unwrap().unwrap();
        dropped.status = tenantry::directory::DatabaseStatus::Dropped;
        tenantry.registry_writer().put_database(Some(dropped.generation), &dropped, None).await.unwrap();
        tenantry.purge(slug).force().await.unwrap();
    }
    assert!(tenantry.operations().open().await.unwrap().is_empty());
}

#[tokio::test]
async fn suspend_refuses_a_tenant_with_a_second_entry_that_it_cannot_close() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut second = primary_entry(&tenantry, "acme").await;
    (second.kind, second.server) = (DatabaseKind::Backup, None);
    second.host = String::from("elsewhere.example");
    tenantry.registry_writer().put_database(None, &second, None).await.unwrap();
    let error = tenantry.suspend("acme").await.unwrap_err();
    assert!(error.to_string().contains("elsewhere.example"), "{error}");
    assert_eq!(tenant_status(&tenantry, "acme").await, TenantStatus::Active);
}

#[tokio::test]
async fn archive_restore_and_purge_report_a_database_with_a_foreign_owner() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(impatient).await.unwrap();
    let mut superuser = auditor::superuser(&harness).await;
    for slug in ["archived", "purged"] {
        tenantry.provision(slug).await.unwrap();
        let database = primary_entry(&tenantry, slug).await.database;
        let direct = auditor::login(&tenantry, slug).await;
        run_sql(&mut superuser, format!("ALTER DATABASE \"{database}\" OWNER TO CURRENT_USER")).await;
        let error = match slug {
            "archived" => tenantry.archive(slug).await.map(drop).unwrap_err(),
            _ => tenantry.purge(slug).force().await.map(drop).unwrap_err(),
        };
        assert!(is_continuing(&error), "{error:?}");
        let reported = told(&tenantry).await;
        assert!(reported.contains(database.as_str()) && reported.contains("OWNER TO"), "{reported}");
        assert!(
            direct.connect().await.is_err(),
            "{slug}: the tenant must be shut out although the operation is not complete"
        );
        run_sql(&mut superuser, format!("ALTER DATABASE \"{database}\" OWNER TO \"{}_admin\"", harness.prefix())).await;
        recovered(&tenantry).await;
    }
    assert_eq!(tenant_status(&tenantry, "archived").await, TenantStatus::Archived);
    assert!(tenantry.registry().find("purged".into()).await.unwrap().is_none());

    let database = primary_entry(&tenantry, "archived").await.database;
    run_sql(&mut superuser, format!("ALTER DATABASE \"{database}\" OWNER TO CURRENT_USER")).await;
    let error = tenantry.restore("archived").await.unwrap_err();
    assert!(
        is_continuing(&error) && told(&tenantry).await.contains("OWNER TO"),
        "{error:?}: {}",
        told(&tenantry).await
    );
    run_sql(&mut superuser, format!("ALTER DATABASE \"{database}\" OWNER TO \"{}_admin\"", harness.prefix())).await;
    recovered(&tenantry).await;
    auditor::login(&tenantry, "archived").await.connect().await.expect("the restored tenant can connect");
}

#[tokio::test]
async fn suspend_reports_a_role_that_can_still_connect_until_it_is_allowed() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(impatient).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (database, mut superuser) =
        (primary_entry(&tenantry, "acme").await.database, auditor::superuser(&harness).await);
    let support = format!("{}_support", harness.prefix());
    run_sql(&mut superuser, format!("CREATE ROLE \"{support}\" LOGIN; GRANT \"{database}_app\" TO \"{support}\""))
        .await;
    let error = tenantry.suspend("acme").await.unwrap_err();
    assert!(is_continuing(&error), "{error:?}");
    assert!(told(&tenantry).await.contains(&support), "{}", told(&tenantry).await);
    tenantry.servers().allow_role("main", &support).await.unwrap();
    recovered(&tenantry).await;
    assert_eq!(tenant_status(&tenantry, "acme").await, TenantStatus::Suspended);

    tenantry.activate("acme").await.unwrap();
    tenantry.servers().disallow_role("main", &support).await.unwrap();
    run_sql(&mut superuser, format!("DROP ROLE \"{support}\"; GRANT CONNECT ON DATABASE \"{database}\" TO PUBLIC"))
        .await;
    tenantry.suspend("acme").await.unwrap_err();
    assert!(told(&tenantry).await.contains("PUBLIC"), "{}", told(&tenantry).await);
    run_sql(&mut superuser, format!("REVOKE CONNECT ON DATABASE \"{database}\" FROM PUBLIC")).await;
    recovered(&tenantry).await;
    let tenant = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    assert_eq!(tenant.status(), TenantStatus::Suspended);
}

#[tokio::test]
async fn suspend_reports_a_login_that_may_create_roles() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(impatient).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (login, mut superuser) = (primary_entry(&tenantry, "acme").await.login, auditor::superuser(&harness).await);
    for (right, back) in [("CREATEROLE", "NOCREATEROLE"), ("SUPERUSER", "NOSUPERUSER")] {
        run_sql(&mut superuser, format!("ALTER ROLE \"{login}\" {right}")).await;
        let error = tenantry.suspend("acme").await.unwrap_err();
        assert!(is_continuing(&error), "{right}: {error:?}");
        let reported = told(&tenantry).await;
        assert!(reported.contains(login.as_str()) && reported.contains(back), "{reported}");
        run_sql(&mut superuser, format!("ALTER ROLE \"{login}\" {back}")).await;
        recovered(&tenantry).await;
        assert_eq!(tenant_status(&tenantry, "acme").await, TenantStatus::Suspended);
        tenantry.activate("acme").await.unwrap();
    }
}

/// Managed services set this default when the disk is full.
#[tokio::test]
async fn suspend_and_purge_work_where_transactions_are_read_only_by_default() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let (database, mut superuser) =
        (primary_entry(&tenantry, "acme").await.database, auditor::superuser(&harness).await);
    let maintenance = format!("{}_maintenance", harness.prefix());
    for database in [maintenance.as_str(), database.as_str()] {
        run_sql(&mut superuser, format!("ALTER DATABASE \"{database}\" SET default_transaction_read_only = on")).await;
    }
    assert!(tenantry.suspend("acme").await.unwrap().is_complete());
    tenantry.purge("acme").force().await.unwrap();
    auditor::assert_nothing(&harness, "after a purge").await;
}
