//! Vault and token writes that race with a takeover, made deterministic: the test plays one side with a transaction
//! that it keeps open, and waits until PostgreSQL reports that the other side is blocked.
//!
//! Whichever side commits first, a worker whose operation was taken over must not write afterwards.
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

/// What a takeover does: it raises the operation's epoch, so that tokens with the old epoch are fenced.
const TAKEOVER: &str = "UPDATE tenantry.epochs SET epoch = 2 WHERE operation = $1";

/// A landlord with one tenant, and the token of an operation that has stored a secret.
struct Fixture {
    landlord: PgPool,
    vault: PgVault,
    tokens: PgTokenStore,
    writer: FencingToken,
    tenant: TenantId,
    /// The secret that is stored already.
    id: CredentialId,
}

impl Fixture {
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

    /// Runs `sql` with the operation's id as its parameter and returns the open transaction, with its locks.
    async fn open_transaction(&self, sql: &'static str) -> PgTransaction<'static> {
        let mut tx = self.landlord.begin().await.unwrap();
        sqlx::query(sql).bind(self.writer.operation.as_uuid()).execute(&mut *tx).await.expect(sql);
        tx
    }

    /// Spawns the call and returns once a session of the landlord waits for a lock.
    async fn spawn_until_blocked<T: Send + 'static>(
        &self, call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let call = tokio::spawn(call);
        landlord::somebody_waits(&self.landlord).await;
        call
    }

    /// Starts the write while a takeover is not committed yet, commits the takeover, and returns the result of the
    /// write.
    async fn run_across_takeover<T: Send + 'static>(&self, write: impl Future<Output = T> + Send + 'static) -> T {
        let takeover = self.open_transaction(TAKEOVER).await;
        let write = self.spawn_until_blocked(write).await;
        takeover.commit().await.unwrap();
        write.await.unwrap()
    }

    /// Starts the write while the row is locked, asserts that a takeover waits for the write, and returns the write's
    /// result.
    async fn run_before_takeover<T: Send + 'static>(
        &self, lock: &'static str, write: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let row = self.open_transaction(lock).await;
        let write = self.spawn_until_blocked(write).await;
        let (vault, operation) = (self.vault.clone(), self.writer.operation);
        let mut takeover = tokio::spawn(async move { VaultWriter::fence(&vault, operation, 2).await });
        let early = tokio::time::timeout(Duration::from_millis(500), &mut takeover).await;
        assert!(early.is_err(), "the takeover did not wait for a write in progress");
        row.commit().await.unwrap();
        let answer = write.await.unwrap();
        takeover.await.unwrap().unwrap();
        answer
    }

    /// The stored secret, if there is one.
    async fn secret(&self, id: &CredentialId) -> Option<String> {
        match self.vault.open(id).await {
            Ok(secret) => Some(secret.expose_secret().to_owned()),
            Err(VaultError::Missing(_)) => None,
            Err(e) => panic!("{e:?}"),
        }
    }

    /// The tenant's stored links.
    async fn issued_links(&self) -> Vec<LinkId> {
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
async fn put_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let (vault, writer, id) = (fixture.vault.clone(), fixture.writer, login(fixture.tenant, 2));
    let put = async move { vault.put(&id, &SecretString::from("stale"), writer).await };
    assert!(is_fenced(&fixture.run_across_takeover(put).await));
    assert_eq!(fixture.secret(&login(fixture.tenant, 2)).await, None);
}

#[tokio::test]
async fn forget_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let (vault, writer, id) = (fixture.vault.clone(), fixture.writer, fixture.id.clone());
    assert!(is_fenced(&fixture.run_across_takeover(async move { vault.forget(&id, writer).await }).await));
    assert_eq!(fixture.secret(&fixture.id).await.as_deref(), Some("first"));
}

#[tokio::test]
async fn forget_tenant_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let (vault, writer, tenant) = (fixture.vault.clone(), fixture.writer, fixture.tenant);
    assert!(is_fenced(&fixture.run_across_takeover(async move { vault.forget_tenant(tenant, writer).await }).await));
    assert_eq!(fixture.secret(&fixture.id).await.as_deref(), Some("first"));
}

#[tokio::test]
async fn takeover_waits_for_a_forget_in_progress() {
    let fixture = Fixture::new().await;
    let lock = "SELECT 1 FROM tenantry.credentials WHERE $1 IS NOT NULL FOR UPDATE";
    let (vault, writer, id) = (fixture.vault.clone(), fixture.writer, fixture.id.clone());
    fixture
        .run_before_takeover(lock, async move { vault.forget(&id, writer).await })
        .await
        .expect("a forget() that began before the takeover was refused");
    assert_eq!(fixture.secret(&fixture.id).await, None);
    assert!(is_fenced(&fixture.vault.put(&fixture.id, &SecretString::from("late"), fixture.writer).await));
    assert_eq!(fixture.secret(&fixture.id).await, None);
}

#[tokio::test]
async fn issue_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let earlier = link(fixture.tenant);
    fixture.tokens.issue(&earlier, Some(fixture.writer)).await.unwrap();
    let (tokens, writer, stale) = (fixture.tokens.clone(), fixture.writer, link(fixture.tenant));
    let answer = fixture.run_across_takeover(async move { tokens.issue(&stale, Some(writer)).await }).await;
    assert!(matches!(answer, Err(StoreError::Fenced)), "{answer:?}");
    assert_eq!(fixture.issued_links().await, [earlier.id], "the fenced issue() revoked an earlier link");
}

#[tokio::test]
async fn forget_links_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let earlier = link(fixture.tenant);
    fixture.tokens.issue(&earlier, Some(fixture.writer)).await.unwrap();
    let (tokens, writer, tenant) = (fixture.tokens.clone(), fixture.writer, fixture.tenant);
    let answer = fixture.run_across_takeover(async move { tokens.forget_tenant(tenant, writer).await }).await;
    assert!(matches!(answer, Err(StoreError::Fenced)), "{answer:?}");
    assert_eq!(fixture.issued_links().await, [earlier.id]);
}

#[tokio::test]
async fn takeover_waits_for_a_forget_links_in_progress() {
    let fixture = Fixture::new().await;
    fixture.tokens.issue(&link(fixture.tenant), Some(fixture.writer)).await.unwrap();
    let lock = "SELECT 1 FROM tenantry.setup_tokens WHERE $1 IS NOT NULL FOR UPDATE";
    let (tokens, writer, tenant) = (fixture.tokens.clone(), fixture.writer, fixture.tenant);
    fixture
        .run_before_takeover(lock, async move { tokens.forget_tenant(tenant, writer).await })
        .await
        .expect("a forget_tenant() that began before the takeover was refused");
    assert_eq!(fixture.issued_links().await, []);
    let after_takeover = fixture.tokens.issue(&link(fixture.tenant), Some(fixture.writer)).await;
    assert!(matches!(after_takeover, Err(StoreError::Fenced)), "{after_takeover:?}");
}
