//! Vault and tokens while a takeover is under way: a transaction of the test's own holds one side in the middle.
use crate::landlord;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{PgPool, PgTransaction};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tenantry::error::{StoreError, VaultError};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::secret::CredentialId;
use tenantry::tokens::{LinkId, NewToken, PgTokenStore, Token, TokenPurpose, TokenStore};
use tenantry::vault::{CredentialVault, LocalKeyring, PgVault, VaultWriter};
use tenantry::{TenantId, sqlx};
use tokio::task::JoinHandle;

const TAKEOVER: &str = "UPDATE tenantry.epochs SET epoch = 2 WHERE operation = $1";

struct Bench {
    landlord: PgPool,
    vault: PgVault,
    tokens: PgTokenStore,
    writer: FencingToken,
    tenant: TenantId,
    /// A secret that is there already.
    id: CredentialId,
}

impl Bench {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        let vault = PgVault::new(landlord.clone(), Arc::new(LocalKeyring::random()));
        let (tokens, tenant) = (PgTokenStore::new(landlord.clone()), TenantId::new());
        sqlx::query("INSERT INTO tenantry.tenants (id, slug, name, status) VALUES ($1, 'acme', 'Acme', 'active')")
            .bind(tenant.as_uuid())
            .execute(&landlord)
            .await
            .unwrap();
        let writer = FencingToken { operation: OperationId::new(), epoch: 1 };
        VaultWriter::fence(&vault, writer.operation, 1).await.unwrap();
        let this = Self { landlord, vault, tokens, writer, tenant, id: login(tenant, 1) };
        this.vault.put(&this.id, &SecretString::from("first"), writer).await.unwrap();
        this
    }

    /// A transaction that has done `sql` with the operation's id and stays open.
    async fn held(&self, sql: &'static str) -> PgTransaction<'static> {
        let mut tx = self.landlord.begin().await.unwrap();
        sqlx::query(sql).bind(self.writer.operation.as_uuid()).execute(&mut *tx).await.expect(sql);
        tx
    }

    /// Starts it, and returns when a session of the landlord waits for a lock.
    async fn waits<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let call = tokio::spawn(call);
        landlord::somebody_waits(&self.landlord).await;
        call
    }

    /// What a write answers that began before a takeover's commit and waits for it.
    async fn taken_over<T: Send + 'static>(&self, write: impl Future<Output = T> + Send + 'static) -> T {
        let takeover = self.held(TAKEOVER).await;
        let write = self.waits(write).await;
        takeover.commit().await.unwrap();
        write.await.unwrap()
    }

    /// A write that has begun and waits for a row lets no takeover pass.
    async fn passed<T: Send + 'static>(
        &self, lock: &'static str, write: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let row = self.held(lock).await;
        let write = self.waits(write).await;
        let (vault, operation) = (self.vault.clone(), self.writer.operation);
        let mut takeover = tokio::spawn(async move { VaultWriter::fence(&vault, operation, 2).await });
        let early = tokio::time::timeout(Duration::from_millis(500), &mut takeover).await;
        assert!(early.is_err(), "the takeover passed a write that was still to land");
        row.commit().await.unwrap();
        let answer = write.await.unwrap();
        takeover.await.unwrap().unwrap();
        answer
    }

    async fn secret(&self, id: &CredentialId) -> Option<String> {
        match self.vault.open(id).await {
            Ok(secret) => Some(secret.expose_secret().to_owned()),
            Err(VaultError::Missing(_)) => None,
            Err(e) => panic!("{e:?}"),
        }
    }

    async fn issued(&self) -> Vec<LinkId> {
        self.tokens.of_tenant(self.tenant).await.unwrap().into_iter().map(|t| t.id).collect()
    }
}

fn login(tenant: TenantId, version: i64) -> CredentialId {
    CredentialId::login(tenant, &"t_acme".parse().unwrap(), &"t_acme_v1".parse().unwrap(), version)
}

fn link(tenant: TenantId) -> NewToken {
    let token = Token::random(TokenPurpose::credentials());
    NewToken::new(LinkId::new(), tenant, "ada@acme.example", &token, Duration::from_secs(3600))
}

fn is_fenced<T>(answer: &Result<T, VaultError>) -> bool {
    matches!(answer, Err(VaultError::Store(StoreError::Fenced)))
}

#[tokio::test]
async fn a_secret_that_waits_for_a_takeover_is_not_kept() {
    let bench = Bench::new().await;
    let (vault, writer, id) = (bench.vault.clone(), bench.writer, login(bench.tenant, 2));
    let put = async move { vault.put(&id, &SecretString::from("stale"), writer).await };
    assert!(is_fenced(&bench.taken_over(put).await));
    assert_eq!(bench.secret(&login(bench.tenant, 2)).await, None);
}

#[tokio::test]
async fn a_forgetting_that_waits_for_a_takeover_forgets_nothing() {
    let bench = Bench::new().await;
    let (vault, writer, id) = (bench.vault.clone(), bench.writer, bench.id.clone());
    assert!(is_fenced(&bench.taken_over(async move { vault.forget(&id, writer).await }).await));
    assert_eq!(bench.secret(&bench.id).await.as_deref(), Some("first"));
}

#[tokio::test]
async fn forgetting_a_tenant_that_waits_for_a_takeover_forgets_nothing() {
    let bench = Bench::new().await;
    let (vault, writer, tenant) = (bench.vault.clone(), bench.writer, bench.tenant);
    assert!(is_fenced(&bench.taken_over(async move { vault.forget_tenant(tenant, writer).await }).await));
    assert_eq!(bench.secret(&bench.id).await.as_deref(), Some("first"));
}

#[tokio::test]
async fn a_takeover_waits_for_a_forgetting_that_has_begun() {
    let bench = Bench::new().await;
    let lock = "SELECT 1 FROM tenantry.credentials WHERE $1 IS NOT NULL FOR UPDATE";
    let (vault, writer, id) = (bench.vault.clone(), bench.writer, bench.id.clone());
    bench.passed(lock, async move { vault.forget(&id, writer).await }).await.expect("it began before the takeover");
    assert_eq!(bench.secret(&bench.id).await, None);
    assert!(is_fenced(&bench.vault.put(&bench.id, &SecretString::from("late"), bench.writer).await));
    assert_eq!(bench.secret(&bench.id).await, None);
}

#[tokio::test]
async fn a_link_that_waits_for_a_takeover_is_not_issued() {
    let bench = Bench::new().await;
    let earlier = link(bench.tenant);
    bench.tokens.issue(&earlier, Some(bench.writer)).await.unwrap();
    let (tokens, writer, stale) = (bench.tokens.clone(), bench.writer, link(bench.tenant));
    let answer = bench.taken_over(async move { tokens.issue(&stale, Some(writer)).await }).await;
    assert!(matches!(answer, Err(StoreError::Fenced)), "{answer:?}");
    assert_eq!(bench.issued().await, [earlier.id], "and what was issued before is not revoked");
}

#[tokio::test]
async fn forgetting_links_that_waits_for_a_takeover_forgets_none() {
    let bench = Bench::new().await;
    let earlier = link(bench.tenant);
    bench.tokens.issue(&earlier, Some(bench.writer)).await.unwrap();
    let (tokens, writer, tenant) = (bench.tokens.clone(), bench.writer, bench.tenant);
    let answer = bench.taken_over(async move { tokens.forget_tenant(tenant, writer).await }).await;
    assert!(matches!(answer, Err(StoreError::Fenced)), "{answer:?}");
    assert_eq!(bench.issued().await, [earlier.id]);
}

#[tokio::test]
async fn a_takeover_waits_for_links_that_are_being_forgotten() {
    let bench = Bench::new().await;
    bench.tokens.issue(&link(bench.tenant), Some(bench.writer)).await.unwrap();
    let lock = "SELECT 1 FROM tenantry.setup_tokens WHERE $1 IS NOT NULL FOR UPDATE";
    let (tokens, writer, tenant) = (bench.tokens.clone(), bench.writer, bench.tenant);
    bench.passed(lock, async move { tokens.forget_tenant(tenant, writer).await }).await.expect("it began before");
    assert_eq!(bench.issued().await, []);
    let late = bench.tokens.issue(&link(bench.tenant), Some(bench.writer)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
}
