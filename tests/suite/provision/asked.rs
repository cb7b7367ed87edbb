//! What a caller and a host say of a new tenant, and what becomes of it.
use super::migrated;
use crate::auditor::{self, assert_nothing, code};
use crate::engine::failing::{Failing, Lost, Outage};
use crate::landlord;
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sqlx::{ConnectOptions, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tenantry::directory::ConnectionSettings;
use tenantry::error::{FailureState, ProvisionError, VaultError};
use tenantry::journal::PgJournal;
use tenantry::operation::{FencingToken, OperationId, OperationStatus};
use tenantry::provision::{Provision, ProvisionConfig, Provisioner};
use tenantry::saga::{Engine, Observer, Settings};
use tenantry::secret::{CredentialId, KeyId, Purpose};
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, KeyDisposal, PgVault, VaultWriter};
use tenantry::{TenantId, Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

static MOODY: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/moody_migrations");
static OUTSIDE: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/outside_migrations");

#[tokio::test]
async fn what_the_caller_says_stays_with_the_tenant() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let call = tenantry.provision("acme").name("Acme & Söhne").metadata(json!({ "plan": ["gold", null] }));
    let call = call.domain("acme.example").domain("acme.example").domain("shop.example").reason("order 17");
    let made = call.await.unwrap();
    let tenant = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    assert_eq!((tenant.name(), tenant.metadata()), ("Acme & Söhne", &json!({ "plan": ["gold", null] })));
    let domains = tenantry.registry_writer().domains(tenant.id()).await.unwrap();
    assert_eq!(domains.iter().map(|d| d.as_str()).collect::<Vec<_>>(), ["acme.example", "shop.example"]);
    let history = tenantry.operations().get(made.operation).await.unwrap().unwrap();
    assert_eq!(history.reason.as_deref(), Some("order 17"));
    tenantry.provision("globex").await.unwrap();
    let named = tenantry.registry().find("globex".into()).await.unwrap().unwrap();
    assert_eq!(named.name(), "globex", "its slug, if nobody gave it a name");
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_before_anything_is_written() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for nul in [json!("\0"), json!({ "a": ["\0"] }), json!({ "\0": 1 })] {
        let error = tenantry.provision("acme").input(&nul).await.unwrap_err();
        assert!(matches!(error, ProvisionError::Invalid { field: "input", .. }), "{error:?}");
    }
    for name in [String::new(), "ä".repeat(101)] {
        let error = tenantry.provision("acme").name(name).await.unwrap_err();
        assert!(matches!(error, ProvisionError::Invalid { field: "name", .. }), "{error:?}");
    }
    tenantry.provision("acme").name("ä".repeat(100)).await.unwrap();
}

#[tokio::test]
async fn the_hosts_settings_reach_sessions_and_links() {
    let harness = Harness::start().await.unwrap();
    let mut settings = ConnectionSettings::default();
    settings.application_name = Some("shop".into());
    settings.lock_timeout_ms = Some(1234);
    let day = Duration::from_secs(24 * 3600);
    let configure = |b| migrated(b).connection_settings(settings).link_lifetime(day);
    let tenantry = harness.tenantry(configure).await.unwrap();
    let now = sqlx::query_scalar("SELECT now()").fetch_one(harness.landlord());
    let before: time::OffsetDateTime = now.await.unwrap();
    let link = tenantry.provision("acme").admin("ada@acme.example").await.unwrap().link.unwrap();
    let lives = link.expires_at - before;
    assert!(lives > day - Duration::from_secs(60) && lives < day + Duration::from_secs(60), "{lives}");
    let db = tenantry.resolve("acme").await.unwrap();
    let seen: (String, String) =
        sqlx::query_as("SELECT current_setting('application_name'), current_setting('lock_timeout')")
            .fetch_one(&db)
            .await
            .unwrap();
    assert_eq!(seen, ("shop".into(), "1234ms".into()));
}

fn provisioner(harness: &Harness, tenantry: &Tenantry, config: ProvisionConfig, outage: Outage) -> Provisioner {
    let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
    let mut settings = Settings::default();
    (settings.lease, settings.backoff_limit) = (Duration::from_millis(500), Duration::from_millis(5));
    Provisioner::new(tenantry.workshop(), Engine::new(journal, vec![], settings, CancellationToken::new()), config)
}

#[tokio::test]
async fn a_login_has_as_many_sessions_as_the_recipe_says() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut config = ProvisionConfig::default();
    config.connection_limit = 2;
    let provisioner = provisioner(&harness, &tenantry, config, Outage::none());
    provisioner.provision(Provision::new("acme"), &Observer::none()).await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    let _open = (login.connect().await.unwrap(), login.connect().await.unwrap());
    assert_eq!(code(&login.connect().await.unwrap_err()), "53300");
}

#[tokio::test]
async fn a_migration_that_fails_for_now_is_tried_again() {
    let harness = Harness::start().await.unwrap();
    let configure =
        |b: tenantry::Builder| b.tenant_migrations(&MOODY).backoff(Duration::from_millis(1), Duration::from_millis(5));
    let tenantry = harness.tenantry(configure).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}

/// Its effect and its ledger row are two commits: a worker may die in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_behind_a_migration_outside_a_transaction_leaves_no_riddle() {
    let harness = Harness::start().await.unwrap();
    let configure = |b: tenantry::Builder| b.tenant_migrations(&OUTSIDE).lease(Duration::from_secs(1));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&OUTSIDE);
    let whole = provisioner(&harness, &tenantry, config.clone(), Outage::none());
    let done = Arc::new(AtomicU32::new(0));
    let seen = done.clone();
    let see = Observer::new(move |e| {
        if e.step == "migrations.run" {
            seen.store(e.seq as u32, SeqCst);
        }
    });
    whole.provision(Provision::new("first"), &see).await.unwrap();
    let migrated = done.load(SeqCst);
    let dies = provisioner(&harness, &tenantry, config, Outage::of(migrated..u32::MAX, Lost::Call).only("record"));
    dies.provision(Provision::new("acme").key("k"), &Observer::none()).await.unwrap_err();
    let open = tenantry.operations().open().await.unwrap();
    assert_eq!((open.len(), open[0].status, open[0].done), (1, OperationStatus::Running, migrated - 1));
    let database: String = sqlx::query_scalar("SELECT database FROM tenantry.placements WHERE tenant_id = $1")
        .bind(open[0].subject.tenant().unwrap().as_uuid())
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    let mut inside = harness.server().admin_options().database(&database).connect().await.unwrap();
    inside.execute("DELETE FROM _sqlx_migrations").await.unwrap();
    drop(inside);
    while tenantry.operations().get(open[0].id).await.unwrap().unwrap().status == OperationStatus::Running {
        tenantry.operations().recover().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let made = tenantry.provision("acme").key("k").await.unwrap();
    assert_eq!(made.operation, open[0].id);
    tenantry.resolve("acme").await.unwrap().execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap();
}

/// Another node fills the server up between the look and the reservation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fills_up_at_this_moment_is_passed_over() {
    let harness = Harness::start().await.unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let (count, options) = (asked.clone(), harness.landlord().connect_options());
    let choose = move |_: &_, candidates: &[tenantry::placement::Candidate]| {
        count.fetch_add(1, SeqCst);
        let first = candidates.first()?.server.clone();
        if candidates.len() == 2 {
            let (landlord, name) = (landlord::pool((*options).clone()), first.to_string());
            let fill = async move {
                let full = "UPDATE tenantry.database_servers SET tenants = capacity WHERE name = $1";
                sqlx::query(full).bind(name).execute(&landlord).await.unwrap();
            };
            let on_its_own =
                move || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(fill);
            std::thread::spawn(on_its_own).join().unwrap();
        }
        Some(first)
    };
    let tenantry = harness.tenantry(|b| migrated(b).placement(choose)).await.unwrap();
    let second = tenantry.servers().set_up("second", harness.server().admin_options());
    second.prefix(format!("{}_2", harness.prefix())).await.unwrap();
    let made = tenantry.provision("acme").await.unwrap();
    let place: String = sqlx::query_scalar("SELECT server FROM tenantry.placements WHERE tenant_id = $1")
        .bind(made.tenant.id().as_uuid())
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!((place.as_str(), asked.load(SeqCst)), ("second", 2));
}

/// A vault that opens a login's secret rightly once, and never again.
struct Forgetful(PgVault, AtomicU32);
#[async_trait]
impl CredentialVault for Forgetful {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        let secret = self.0.open(id).await?;
        match id.purpose == Purpose::Login && self.1.fetch_add(1, SeqCst) > 0 {
            true => Ok(format!("not {}", secret.expose_secret()).into()),
            false => Ok(secret),
        }
    }
}
#[async_trait]
impl VaultWriter for Forgetful {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError> {
        self.0.fence(operation, epoch).await
    }
    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError> {
        self.0.put(id, secret, writer).await
    }
    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError> {
        self.0.forget(id, writer).await
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError> {
        self.0.forget_tenant(tenant, writer).await
    }
    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError> {
        self.0.rewrap(limit).await
    }
    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError> {
        self.0.keys_in_use().await
    }
    async fn check_keys(&self) -> Result<(), VaultError> {
        self.0.check_keys().await
    }
}

#[tokio::test]
async fn a_tenant_whose_login_does_not_work_is_never_published() {
    let harness = Harness::start().await.unwrap();
    let vault =
        Forgetful(PgVault::new(harness.landlord().clone(), Arc::new(harness.keys().clone())), AtomicU32::new(0));
    let tenantry = harness.tenantry(|b| migrated(b).vault(vault)).await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("login.probe", FailureState::Undone), "{failure:?}");
    assert_nothing(&harness, "after a login that does not work").await;
}
