//! Lock races between registry calls, made deterministic: the test plays one side with a transaction that it keeps
//! open.
//!
//! Each test starts the other side, waits until PostgreSQL reports that it waits for a lock, commits, and checks the
//! result.
use crate::landlord;
use sqlx::{PgPool, PgTransaction};
use std::future::Future;
use std::time::Duration;
use tenantry::error::{NameConflict, StoreError};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::registry::{PgTenantRegistry, Placement, RegistryWriter, ServerRegistry, TenantRegistry};
use tenantry::server::{DatabaseServer, ServerNames, ServerStatus};
use tenantry::tenant::TenantStatus;
use tenantry::{Tenant, TenantId};
use tokio::task::JoinHandle;

/// A landlord with one tenant and the token of the operation that created it.
struct Fixture {
    landlord: PgPool,
    registry: PgTenantRegistry,
    writer: FencingToken,
    tenant: Tenant,
}

impl Fixture {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        let registry = PgTenantRegistry::new(landlord.clone());
        let writer = FencingToken { operation: OperationId::new(), epoch: 1 };
        RegistryWriter::fence(&registry, writer.operation, 1).await.unwrap();
        let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Provisioning);
        registry.create(&tenant, &[], writer).await.unwrap();
        Self { landlord, registry, writer, tenant }
    }

    /// Runs `sql` with the operation's id as its parameter and returns the open transaction, with its locks.
    async fn open_transaction(&self, sql: &'static str) -> PgTransaction<'static> {
        let mut tx = self.landlord.begin().await.unwrap();
        sqlx::query(sql).bind(self.writer.operation.as_uuid()).execute(&mut *tx).await.expect(sql);
        tx
    }

    /// Starts a rename by the operation's worker and waits until it is blocked.
    async fn start_rename(&self) -> JoinHandle<Result<(), StoreError>> {
        let (registry, writer, old) = (self.registry.clone(), self.writer, self.tenant.clone());
        let new = old.clone().with_name("written by the old worker");
        self.spawn_until_blocked(async move { registry.update(&old, &new, Some(writer)).await }).await
    }

    /// Spawns the call and returns once a session of the landlord waits for a lock.
    async fn spawn_until_blocked<T: Send + 'static>(
        &self, call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let call = tokio::spawn(call);
        landlord::somebody_waits(&self.landlord).await;
        call
    }

    /// The tenant's stored name.
    async fn name(&self) -> String {
        self.registry.find(self.tenant.id().into()).await.unwrap().unwrap().name().to_owned()
    }
}

#[tokio::test]
async fn write_blocked_by_a_takeover_is_fenced() {
    let fixture = Fixture::new().await;
    let takeover = fixture.open_transaction("UPDATE tenantry.epochs SET epoch = 2 WHERE operation = $1").await;
    let rename = fixture.start_rename().await;
    takeover.commit().await.unwrap();
    assert!(matches!(rename.await.unwrap(), Err(StoreError::Fenced)));
    assert_eq!(fixture.name().await, "acme");
}

#[tokio::test]
async fn takeover_waits_for_a_write_in_progress() {
    let fixture = Fixture::new().await;
    let row = fixture.open_transaction("SELECT 1 FROM tenantry.tenants WHERE $1 IS NOT NULL FOR UPDATE").await;
    let rename = fixture.start_rename().await;
    let (registry, operation) = (fixture.registry.clone(), fixture.writer.operation);
    let mut takeover = tokio::spawn(async move { RegistryWriter::fence(&registry, operation, 2).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut takeover).await;
    assert!(early.is_err(), "the takeover did not wait for a write in progress");
    row.commit().await.unwrap();
    rename.await.unwrap().expect("a write that began before the takeover was refused");
    takeover.await.unwrap().unwrap();
    assert_eq!(fixture.name().await, "written by the old worker");
    let again =
        fixture.registry.update(&fixture.tenant, &fixture.tenant.clone().with_name("late"), Some(fixture.writer)).await;
    assert!(matches!(again, Err(StoreError::Fenced)), "{again:?}");
}

#[tokio::test]
async fn tenant_deletion_waits_for_a_concurrent_add_domain_and_removes_the_domain() {
    let mut fixture = Fixture::new().await;
    let purging = fixture.tenant.clone().with_status(TenantStatus::Purging);
    fixture.registry.update(&fixture.tenant, &purging, None).await.unwrap();
    fixture.tenant = purging;
    // The statements of `add_domain`, in a transaction that is not committed yet.
    let mut adding = fixture.open_transaction("SELECT 1 FROM tenantry.tenants WHERE $1 IS NOT NULL FOR SHARE").await;
    let add = "INSERT INTO tenantry.tenant_domains (domain, tenant_id) VALUES ('late.example.test', $1)";
    sqlx::query(add).bind(fixture.tenant.id().as_uuid()).execute(&mut *adding).await.unwrap();
    let (registry, old) = (fixture.registry.clone(), fixture.tenant.clone());
    let deleted = old.clone().with_status(TenantStatus::Deleted);
    let delete = fixture.spawn_until_blocked(async move { registry.update(&old, &deleted, None).await }).await;
    adding.commit().await.unwrap();
    delete.await.unwrap().unwrap();
    assert_eq!(
        fixture.registry.domains(fixture.tenant.id()).await.unwrap(),
        [],
        "the domain stayed with a deleted tenant"
    );
}

#[tokio::test]
async fn add_domain_waits_for_a_concurrent_deletion_and_is_refused() {
    let mut fixture = Fixture::new().await;
    let purging = fixture.tenant.clone().with_status(TenantStatus::Purging);
    fixture.registry.update(&fixture.tenant, &purging, None).await.unwrap();
    fixture.tenant = purging;
    let deleting = fixture
        .open_transaction("UPDATE tenantry.tenants SET status = 'deleted', deleted_at = now() WHERE $1 IS NOT NULL")
        .await;
    let (registry, id) = (fixture.registry.clone(), fixture.tenant.id());
    let domain = "late.example.test".parse().unwrap();
    let add = fixture.spawn_until_blocked(async move { registry.add_domain(id, &domain, None).await }).await;
    deleting.commit().await.unwrap();
    let answer = add.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Conflict(_))), "{answer:?}");
    assert_eq!(fixture.registry.domains(fixture.tenant.id()).await.unwrap(), [], "a deleted tenant got a domain");
}

/// A ready server with room for this many tenants.
fn server(capacity: u32) -> DatabaseServer {
    let names = ServerNames::with_prefix("x").unwrap();
    let mut server = DatabaseServer::new("main".parse().unwrap(), "localhost", 5432, names);
    server.status = ServerStatus::Ready;
    server.capacity = capacity;
    server
}

#[tokio::test]
async fn reserve_waits_for_a_concurrent_reservation_and_finds_the_server_full() {
    let fixture = Fixture::new().await;
    let server = server(1);
    fixture.registry.put_server(None, &server, None).await.unwrap();
    let rival = fixture.open_transaction("UPDATE tenantry.database_servers SET tenants = 1 WHERE $1 IS NOT NULL").await;
    let placement = Placement::new(fixture.tenant.id(), server.name.clone(), "t_acme".parse().unwrap());
    let (registry, writer) = (fixture.registry.clone(), fixture.writer);
    let reserve = fixture.spawn_until_blocked(async move { registry.reserve(&placement, writer).await }).await;
    rival.commit().await.unwrap();
    let answer = reserve.await.unwrap();
    let Err(StoreError::Taken(NameConflict::ServerFull(full))) = answer else { panic!("{answer:?}") };
    assert_eq!(full, server.name);
    assert_eq!(fixture.registry.placement(fixture.tenant.id()).await.unwrap(), None);
}

#[tokio::test]
async fn remove_server_waits_for_a_concurrent_reservation_and_is_refused() {
    let fixture = Fixture::new().await;
    let server = server(5);
    fixture.registry.put_server(None, &server, None).await.unwrap();
    let rival = fixture.open_transaction("UPDATE tenantry.database_servers SET tenants = 1 WHERE $1 IS NOT NULL").await;
    let (registry, name) = (fixture.registry.clone(), server.name.clone());
    let remove = fixture.spawn_until_blocked(async move { registry.remove_server(&name, None).await }).await;
    rival.commit().await.unwrap();
    let answer = remove.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Conflict(_))), "{answer:?}");
}

/// `release` and `reserve` must lock in the same order. Otherwise they deadlock when a name passes to the next tenant.
#[tokio::test]
async fn release_locks_the_server_before_the_placement() {
    let fixture = Fixture::new().await;
    let server = server(5);
    fixture.registry.put_server(None, &server, None).await.unwrap();
    let placement = Placement::new(fixture.tenant.id(), server.name.clone(), "t_acme".parse().unwrap());
    fixture.registry.reserve(&placement, fixture.writer).await.unwrap();
    let mut rival =
        fixture.open_transaction("UPDATE tenantry.database_servers SET updated_at = now() WHERE $1 IS NOT NULL").await;
    let (registry, writer) = (fixture.registry.clone(), fixture.writer);
    let release = fixture.spawn_until_blocked(async move { registry.release(placement.tenant, writer).await }).await;
    let lock = sqlx::query("SELECT 1 FROM tenantry.placements FOR UPDATE NOWAIT").execute(&mut *rival).await;
    lock.expect("release() locked the placement before the server");
    rival.commit().await.unwrap();
    release.await.unwrap().unwrap();
    assert_eq!(fixture.registry.placement(fixture.tenant.id()).await.unwrap(), None);
    let load = fixture.registry.server(&server.name).await.unwrap().unwrap();
    assert_eq!(load.tenants, 0);
}
