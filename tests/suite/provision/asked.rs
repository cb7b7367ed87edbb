//! Options of a provisioning: what the caller passes with the call, and what the application configures.
//!
//! Also faults in the middle of one: a migration that fails at first, a dying worker, a server that fills up, a login
//! that does not work.
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
use tenantry::saga::{CallOptions, Engine, Settings};
use tenantry::secret::{CredentialId, KeyId, Purpose};
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, KeyDisposal, PgVault, VaultWriter};
use tenantry::{TenantId, Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

static FAILS_TWICE: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/moody_migrations");
static NO_TRANSACTION: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/outside_migrations");

#[tokio::test]
async fn provision_stores_name_metadata_domains_and_reason() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let call = tenantry.provision("acme").name("Acme & Söhne").metadata(json!({ "plan": ["gold", null] }));
    let call = call.domain("acme.example").domain("acme.example").domain("shop.example").reason("order 17");
    let provisioned = call.await.unwrap();
    let tenant = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    assert_eq!((tenant.name(), tenant.metadata()), ("Acme & Söhne", &json!({ "plan": ["gold", null] })));
    let domains = tenantry.registry_writer().domains(tenant.id()).await.unwrap();
    assert_eq!(domains.iter().map(|d| d.as_str()).collect::<Vec<_>>(), ["acme.example", "shop.example"]);
    let history = tenantry.operations().get(provisioned.operation).await.unwrap().unwrap();
    assert_eq!(history.reason.as_deref(), Some("order 17"));
    tenantry.provision("globex").await.unwrap();
    let named = tenantry.registry().find("globex".into()).await.unwrap().unwrap();
    assert_eq!(named.name(), "globex", "without a name, the slug is the name");
}

#[tokio::test]
async fn provision_refuses_input_that_postgres_cannot_store() {
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
async fn connection_settings_and_link_lifetime_of_the_builder_apply() {
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
    let lifetime = link.expires_at - before;
    assert!(lifetime > day - Duration::from_secs(60) && lifetime < day + Duration::from_secs(60), "{lifetime}");
    let db = tenantry.resolve("acme").await.unwrap();
    let seen: (String, String) =
        sqlx::query_as("SELECT current_setting('application_name'), current_setting('lock_timeout')")
            .fetch_one(&db)
            .await
            .unwrap();
    assert_eq!(seen, ("shop".into(), "1234ms".into()));
}

/// A provisioner whose journal has this outage. Its lease is short, so that recovery can take over soon.
fn provisioner(harness: &Harness, tenantry: &Tenantry, config: ProvisionConfig, outage: Outage) -> Provisioner {
    let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
    let mut settings = Settings::default();
    (settings.lease, settings.backoff_limit) = (Duration::from_millis(500), Duration::from_millis(5));
    Provisioner::with_engine(
        tenantry.operation_context(),
        Engine::new(journal, vec![], settings, CancellationToken::new()),
        config,
    )
}

#[tokio::test]
async fn configured_connection_limit_applies_to_the_login() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut config = ProvisionConfig::default();
    config.connection_limit = 2;
    let provisioner = provisioner(&harness, &tenantry, config, Outage::none());
    provisioner.provision(Provision::new("acme"), &CallOptions::new()).await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    let _open = (login.connect().await.unwrap(), login.connect().await.unwrap());
    assert_eq!(code(&login.connect().await.unwrap_err()), "53300");
}

#[tokio::test]
async fn migration_with_a_transient_error_is_retried() {
    let harness = Harness::start().await.unwrap();
    let configure = |b: tenantry::Builder| {
        b.tenant_migrations(&FAILS_TWICE).backoff(Duration::from_millis(1), Duration::from_millis(5))
    };
    let tenantry = harness.tenantry(configure).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}

/// The effect of such a migration and its row in the ledger are two commits. A worker may die between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_migration_is_recovered_after_its_worker_dies() {
    let harness = Harness::start().await.unwrap();
    let configure = |b: tenantry::Builder| b.tenant_migrations(&NO_TRANSACTION).lease(Duration::from_secs(1));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let mut config = ProvisionConfig::default();
    config.migrations = Some(&NO_TRANSACTION);
    let undisturbed = provisioner(&harness, &tenantry, config.clone(), Outage::none());
    let done = Arc::new(AtomicU32::new(0));
    let seen = done.clone();
    let options = CallOptions::new().on_event(move |e| {
        if e.step == "migrations.run" {
            seen.store(e.seq as u32, SeqCst);
        }
    });
    undisturbed.provision(Provision::new("first"), &options).await.unwrap();
    let migrated = done.load(SeqCst);
    let dying = provisioner(&harness, &tenantry, config, Outage::of(migrated..u32::MAX, Lost::Call).only("record"));
    dying.provision(Provision::new("acme"), &CallOptions::new().key("k")).await.unwrap_err();
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
    let provisioned = tenantry.provision("acme").key("k").await.unwrap();
    assert_eq!(provisioned.operation, open[0].id);
    tenantry.resolve("acme").await.unwrap().execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap();
}

/// Another node uses up the server's capacity after the placement was chosen and before it is reserved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provision_chooses_another_server_when_the_first_fills_up_concurrently() {
    let harness = Harness::start().await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let (count, options) = (calls.clone(), harness.landlord().connect_options());
    let choose = move |_: &_, candidates: &[tenantry::placement::Candidate]| {
        count.fetch_add(1, SeqCst);
        let first = candidates.first()?.server.clone();
        if candidates.len() == 2 {
            let (landlord, name) = (landlord::pool((*options).clone()), first.to_string());
            let fill = async move {
                let full = "UPDATE tenantry.database_servers SET tenants = capacity WHERE name = $1";
                sqlx::query(full).bind(name).execute(&landlord).await.unwrap();
            };
            let fill_blocking =
                move || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(fill);
            std::thread::spawn(fill_blocking).join().unwrap();
        }
        Some(first)
    };
    let tenantry = harness.tenantry(|b| migrated(b).placement(choose)).await.unwrap();
    let second = tenantry.servers().set_up("second", harness.server().admin_options());
    second.prefix(format!("{}_2", harness.prefix())).await.unwrap();
    let provisioned = tenantry.provision("acme").await.unwrap();
    let server: String = sqlx::query_scalar("SELECT server FROM tenantry.placements WHERE tenant_id = $1")
        .bind(provisioned.tenant.id().as_uuid())
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!((server.as_str(), calls.load(SeqCst)), ("second", 2));
}

/// A vault that returns the right password of a login once, and a wrong one from then on.
struct WrongPasswordVault(PgVault, AtomicU32);
#[async_trait]
impl CredentialVault for WrongPasswordVault {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        let secret = self.0.open(id).await?;
        match id.purpose == Purpose::Login && self.1.fetch_add(1, SeqCst) > 0 {
            true => Ok(format!("not {}", secret.expose_secret()).into()),
            false => Ok(secret),
        }
    }
}
#[async_trait]
impl VaultWriter for WrongPasswordVault {
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
async fn tenant_whose_login_fails_the_probe_is_not_published() {
    let harness = Harness::start().await.unwrap();
    let vault = WrongPasswordVault(
        PgVault::new(harness.landlord().clone(), Arc::new(harness.keys().clone())),
        AtomicU32::new(0),
    );
    let tenantry = harness.tenantry(|b| migrated(b).vault(vault)).await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("login.probe", FailureState::Undone), "{failure:?}");
    assert_nothing(&harness, "after a login that does not work").await;
}
