//! Races that are not left to chance: one side is held in the middle by a transaction of the test's own.
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

struct Bench {
    landlord: PgPool,
    registry: PgTenantRegistry,
    writer: FencingToken,
    tenant: Tenant,
}

impl Bench {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        let registry = PgTenantRegistry::new(landlord.clone());
        let writer = FencingToken { operation: OperationId::new(), epoch: 1 };
        RegistryWriter::fence(&registry, writer.operation, 1).await.unwrap();
        let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Provisioning);
        registry.create(&tenant, &[], writer).await.unwrap();
        Self { landlord, registry, writer, tenant }
    }

    /// A transaction that has done `sql` with the operation's id and stays open.
    async fn held(&self, sql: &'static str) -> PgTransaction<'static> {
        let mut tx = self.landlord.begin().await.unwrap();
        sqlx::query(sql).bind(self.writer.operation.as_uuid()).execute(&mut *tx).await.expect(sql);
        tx
    }

    async fn renames(&self) -> JoinHandle<Result<(), StoreError>> {
        let (registry, writer, old) = (self.registry.clone(), self.writer, self.tenant.clone());
        let new = old.clone().with_name("written by the old worker");
        self.waits(async move { registry.update(&old, &new, Some(writer)).await }).await
    }

    /// Starts it, and returns when a session of the landlord waits for a lock.
    async fn waits<T: Send + 'static>(&self, call: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let call = tokio::spawn(call);
        landlord::somebody_waits(&self.landlord).await;
        call
    }

    async fn name(&self) -> String {
        self.registry.find(self.tenant.id().into()).await.unwrap().unwrap().name().to_owned()
    }
}

#[tokio::test]
async fn a_write_that_waits_for_a_takeover_is_fenced() {
    let bench = Bench::new().await;
    let takeover = bench.held("UPDATE tenantry.epochs SET epoch = 2 WHERE operation = $1").await;
    let rename = bench.renames().await;
    takeover.commit().await.unwrap();
    assert!(matches!(rename.await.unwrap(), Err(StoreError::Fenced)));
    assert_eq!(bench.name().await, "acme");
}

#[tokio::test]
async fn a_takeover_waits_for_a_write_that_has_begun() {
    let bench = Bench::new().await;
    let row = bench.held("SELECT 1 FROM tenantry.tenants WHERE $1 IS NOT NULL FOR UPDATE").await;
    let rename = bench.renames().await;
    let (registry, operation) = (bench.registry.clone(), bench.writer.operation);
    let mut takeover = tokio::spawn(async move { RegistryWriter::fence(&registry, operation, 2).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut takeover).await;
    assert!(early.is_err(), "the takeover passed a write that was still to land");
    row.commit().await.unwrap();
    rename.await.unwrap().expect("the write began before the takeover");
    takeover.await.unwrap().unwrap();
    assert_eq!(bench.name().await, "written by the old worker");
    let again = bench.registry.update(&bench.tenant, &bench.tenant.clone().with_name("late"), Some(bench.writer)).await;
    assert!(matches!(again, Err(StoreError::Fenced)), "{again:?}");
}

#[tokio::test]
async fn a_deletion_frees_a_domain_that_is_added_at_this_moment() {
    let mut bench = Bench::new().await;
    let purging = bench.tenant.clone().with_status(TenantStatus::Purging);
    bench.registry.update(&bench.tenant, &purging, None).await.unwrap();
    bench.tenant = purging;
    // What add_domain does, held before its commit.
    let mut adding = bench.held("SELECT 1 FROM tenantry.tenants WHERE $1 IS NOT NULL FOR SHARE").await;
    let add = "INSERT INTO tenantry.tenant_domains (domain, tenant_id) VALUES ('late.example.test', $1)";
    sqlx::query(add).bind(bench.tenant.id().as_uuid()).execute(&mut *adding).await.unwrap();
    let (registry, old) = (bench.registry.clone(), bench.tenant.clone());
    let deleted = old.clone().with_status(TenantStatus::Deleted);
    let delete = bench.waits(async move { registry.update(&old, &deleted, None).await }).await;
    adding.commit().await.unwrap();
    delete.await.unwrap().unwrap();
    assert_eq!(bench.registry.domains(bench.tenant.id()).await.unwrap(), [], "the domain stayed with a deleted tenant");
}

#[tokio::test]
async fn a_domain_waits_for_a_deletion_and_is_refused() {
    let mut bench = Bench::new().await;
    let purging = bench.tenant.clone().with_status(TenantStatus::Purging);
    bench.registry.update(&bench.tenant, &purging, None).await.unwrap();
    bench.tenant = purging;
    let deleting =
        bench.held("UPDATE tenantry.tenants SET status = 'deleted', deleted_at = now() WHERE $1 IS NOT NULL").await;
    let (registry, id) = (bench.registry.clone(), bench.tenant.id());
    let domain = "late.example.test".parse().unwrap();
    let add = bench.waits(async move { registry.add_domain(id, &domain, None).await }).await;
    deleting.commit().await.unwrap();
    let answer = add.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Conflict(_))), "{answer:?}");
    assert_eq!(bench.registry.domains(bench.tenant.id()).await.unwrap(), []);
}

fn server(capacity: u32) -> DatabaseServer {
    let names = ServerNames::with_prefix("x").unwrap();
    let mut server = DatabaseServer::new("main".parse().unwrap(), "localhost", 5432, names);
    server.status = ServerStatus::Ready;
    server.capacity = capacity;
    server
}

#[tokio::test]
async fn a_place_waits_for_the_last_one_to_be_given_away() {
    let bench = Bench::new().await;
    let server = server(1);
    bench.registry.put_server(None, &server, None).await.unwrap();
    let rival = bench.held("UPDATE tenantry.database_servers SET tenants = 1 WHERE $1 IS NOT NULL").await;
    let place = Placement::new(bench.tenant.id(), server.name.clone(), "t_acme".parse().unwrap());
    let (registry, writer) = (bench.registry.clone(), bench.writer);
    let reserve = bench.waits(async move { registry.reserve(&place, writer).await }).await;
    rival.commit().await.unwrap();
    let answer = reserve.await.unwrap();
    let Err(StoreError::Taken(NameConflict::ServerFull(room))) = answer else { panic!("{answer:?}") };
    assert_eq!(room, server.name);
    assert_eq!(bench.registry.placement(bench.tenant.id()).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_is_not_removed_under_a_place_that_is_being_given() {
    let bench = Bench::new().await;
    let server = server(5);
    bench.registry.put_server(None, &server, None).await.unwrap();
    let rival = bench.held("UPDATE tenantry.database_servers SET tenants = 1 WHERE $1 IS NOT NULL").await;
    let (registry, name) = (bench.registry.clone(), server.name.clone());
    let remove = bench.waits(async move { registry.remove_server(&name, None).await }).await;
    rival.commit().await.unwrap();
    let answer = remove.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Conflict(_))), "{answer:?}");
}

/// In one order with `reserve`: else the two wait for each other when the name goes to the next tenant.
#[tokio::test]
async fn a_release_locks_the_server_before_the_place() {
    let bench = Bench::new().await;
    let server = server(5);
    bench.registry.put_server(None, &server, None).await.unwrap();
    let place = Placement::new(bench.tenant.id(), server.name.clone(), "t_acme".parse().unwrap());
    bench.registry.reserve(&place, bench.writer).await.unwrap();
    let mut rival = bench.held("UPDATE tenantry.database_servers SET updated_at = now() WHERE $1 IS NOT NULL").await;
    let (registry, writer) = (bench.registry.clone(), bench.writer);
    let release = bench.waits(async move { registry.release(place.tenant, writer).await }).await;
    let lock = sqlx::query("SELECT 1 FROM tenantry.placements FOR UPDATE NOWAIT").execute(&mut *rival).await;
    lock.expect("nobody has locked the place yet");
    rival.commit().await.unwrap();
    release.await.unwrap().unwrap();
    assert_eq!(bench.registry.placement(bench.tenant.id()).await.unwrap(), None);
    let load = bench.registry.server(&server.name).await.unwrap().unwrap();
    assert_eq!(load.tenants, 0);
}
