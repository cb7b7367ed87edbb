//! Errors name what failed: the landlord, one of its rows, the key provider, the placement function, or a statement with
//! the server's own explanation.
use crate::provision::migrated;
use async_trait::async_trait;
use secrecy::SecretBox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tenantry::error::{
    ChangeError, Error, KeyError, OperationError, ProvisionError, RelocateError, ResolveError, ServerSetupError,
    StoreError, VaultError, chain,
};
use tenantry::names::ServerName;
use tenantry::secret::KeyId;
use tenantry::sqlx;
use tenantry::testing::Harness;
use tenantry::vault::{KeyDisposal, KeyProvider, LocalKeyring, WrappedKey};
use tenantry::{Builder, TenantId, Tenantry};

static DUPLICATE: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/duplicate_migrations");

/// A key service that can be unreachable.
#[derive(Clone)]
struct KeyService {
    keys: LocalKeyring,
    is_down: Arc<AtomicBool>,
}
impl KeyService {
    fn answer(&self) -> Result<&LocalKeyring, KeyError> {
        if self.is_down.load(SeqCst) { Err(KeyError::unavailable("kms.example: refused")) } else { Ok(&self.keys) }
    }
}
#[async_trait]
impl KeyProvider for KeyService {
    async fn wrap(&self, tenant: Option<TenantId>, key: &SecretBox<[u8; 32]>) -> Result<WrappedKey, KeyError> {
        self.answer()?.wrap(tenant, key).await
    }
    async fn unwrap(&self, tenant: Option<TenantId>, key: &WrappedKey) -> Result<SecretBox<[u8; 32]>, KeyError> {
        self.answer()?.unwrap(tenant, key).await
    }
    async fn holds(&self, key: &KeyId) -> Result<bool, KeyError> {
        self.answer()?.holds(key).await
    }
    async fn forget(&self, tenant: TenantId) -> Result<KeyDisposal, KeyError> {
        self.answer()?.forget(tenant).await
    }
}

#[tokio::test]
async fn outage_of_the_key_service_names_the_key_provider_and_not_the_landlord() {
    let harness = Harness::start().await.unwrap();
    let service = KeyService { keys: LocalKeyring::random(), is_down: Arc::default() };
    let quick = |b: Builder| migrated(b).attempts(1);
    let builder = quick(Tenantry::builder(harness.landlord().clone())).keys(service.clone());
    let tenantry = builder.build().await.unwrap();
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin.clone()).prefix(harness.prefix()).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    service.is_down.store(true, SeqCst);
    let status = tenantry.migration_status("acme").await.unwrap_err();
    let provisioned = tenantry.provision("globex").await.unwrap_err();
    let removed = { tenantry.servers().set_up("spare", admin).prefix(harness.prefix()).await.unwrap_err() };
    assert!(!provisioned.to_string().contains("once the cause is removed"), "{provisioned}");
    assert!(status.retry_after().is_some() && provisioned.retry_after().is_some(), "{status:?} {provisioned:?}");
    for text in [chain(&status), chain(&provisioned), chain(&removed)] {
        assert!(text.contains("the key provider did not answer"), "{text}");
        assert!(!text.contains("landlord"), "{text}");
    }
}

#[tokio::test]
async fn conflict_and_refusal_of_the_landlord_are_no_outage() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant;
    let outdated = acme.clone().with_name("read before another change");
    let conflict = tenantry.registry_writer().update(&outdated, &acme.with_name("Acme"), None).await.unwrap_err();
    let text = chain(&conflict);
    assert!(matches!(conflict, StoreError::Conflict(_)) && conflict.retry_after().is_none(), "{conflict:?}");
    assert!(text.contains("is not the expected one") && !text.contains("did not answer"), "{text}");
    sqlx::raw_sql("DROP TABLE tenantry.token_events").execute(harness.landlord()).await.unwrap();
    let refused = tenantry.tokens().events(TenantId::new(), 1).await.unwrap_err();
    let text = chain(&refused);
    assert!(matches!(refused, StoreError::Refused(_)) && refused.retry_after().is_none(), "{refused:?}");
    assert!(text.contains("token_events") && text.ends_with("(SQLSTATE 42P01)"), "{text}");
    assert!(!text.contains("try again") && !text.contains("did not answer") && !text.contains("at line"), "{text}");
}

#[tokio::test]
async fn refusal_of_the_placement_function_is_not_reported_as_a_lack_of_room() {
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap();
    let nowhere: ServerName = "nowhere".parse().unwrap();
    for choice in [None, Some(nowhere)] {
        let place = choice.clone();
        let tenantry = harness.tenantry(move |b| migrated(b).placement(move |_, _| place.clone())).await.unwrap();
        let error = tenantry.provision("acme").await.unwrap_err();
        let ProvisionError::PlacementRefused { candidates: 1, chosen, .. } = &error else { panic!("{error:?}") };
        assert_eq!((chosen, error.retry_after()), (&choice, None));
        assert!(error.to_string().contains("placement function"), "{error}");
        tenantry.servers().drain("main").await.unwrap();
        let error = tenantry.provision("acme").await.unwrap_err();
        assert!(matches!(error, ProvisionError::NoRoom { servers: 1, draining: 1, .. }), "{error:?}");
        tenantry.servers().undrain("main").await.unwrap();
    }
}

/// The DETAIL is what tells which rows violate the constraint, and in every language it has the values.
#[tokio::test]
async fn failed_migration_shows_the_detail_of_a_unique_violation_without_source_lines() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&DUPLICATE)).await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    let recorded = tenantry.operations().get(failure.operation).await.unwrap().unwrap().error.unwrap();
    for text in [chain(&error), recorded] {
        assert!(text.contains("DETAIL: ") && text.contains("(code)=(x)"), "{text}");
        assert!(text.ends_with("(SQLSTATE 23505)") && !text.contains("at line"), "{text}");
        assert!(!text.contains("the same call") || text.contains("once the cause is removed"), "{text}");
    }
}

/// The DETAIL of a CHECK constraint has all values of the row.
#[tokio::test]
async fn failing_row_of_a_check_constraint_is_not_shown() {
    let landlord = crate::landlord::installed().await;
    let insert = sqlx::query("WITH t AS (SELECT 1) INSERT INTO tenantry.epochs (operation, epoch) VALUES ($1, -77)");
    let error = insert.bind(sqlx::types::Uuid::nil()).execute(&landlord).await.unwrap_err();
    let text = chain(&StoreError::from(error));
    assert!(!text.contains("77") && !text.contains("DETAIL") && text.contains("(SQLSTATE 23514)"), "{text}");
}

#[test]
fn retry_after_is_set_for_temporary_causes_only() {
    let key = |error: KeyError| StoreError::from(VaultError::Key(error));
    let temporary = [
        StoreError::unavailable("x"),
        StoreError::contended("x"),
        StoreError::LostWrites,
        key(KeyError::unavailable("x")),
    ];
    let permanent = [
        StoreError::conflict("x"),
        StoreError::corrupt("x"),
        StoreError::refused("x"),
        StoreError::Fenced,
        key(KeyError::refused("x")),
        key(KeyError::Unknown(KeyId::new("k1"))),
    ];
    let second = Some(Duration::from_secs(1));
    let errors = temporary.into_iter().map(|e| (e, second)).chain(permanent.into_iter().map(|e| (e, None)));
    for (error, expected) in errors {
        let text = chain(&error);
        assert_eq!(error.retry_after(), expected, "{text}");
        assert_eq!(
            text.contains("try again"),
            expected.is_some() && !matches!(error, StoreError::LostWrites),
            "{text}"
        );
        assert_eq!(ChangeError::Landlord(error.clone()).retry_after(), expected, "ChangeError: {text}");
        assert_eq!(OperationError::Landlord(error.clone()).retry_after(), expected, "OperationError: {text}");
        assert_eq!(ProvisionError::Landlord(error.clone()).retry_after(), expected, "ProvisionError: {text}");
        assert_eq!(ResolveError::Landlord(error.clone()).retry_after(), expected, "ResolveError: {text}");
        assert_eq!(ServerSetupError::Landlord(error.clone()).retry_after(), expected, "ServerSetupError: {text}");
        assert_eq!(RelocateError::Landlord(error.clone()).retry_after(), expected, "RelocateError: {text}");
        assert_eq!(Error::Store(error.clone()).retry_after(), expected, "Error: {text}");
        let vault = VaultError::Store(error);
        assert_eq!(ResolveError::Credential(vault).retry_after(), expected, "ResolveError::Credential: {text}");
    }
    assert_eq!(Error::Key(KeyError::unavailable("x")).retry_after(), second);
    assert_eq!(ResolveError::Credential(VaultError::Key(KeyError::unavailable("x"))).retry_after(), second);
}
