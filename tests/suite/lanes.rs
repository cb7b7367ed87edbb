//! The preempt lane: suspend, archive and purge do not wait for a change that is under way. They stop it at any point;
//! the stopped operation is later resumed, or leaves nothing behind.
use crate::auditor::{self, assert_nothing};
use crate::engine::failing::{Failing, Lost, Outage};
use crate::provision::{MIGRATIONS, migrated};
use futures_util::future::join_all;
use sqlx::{ConnectOptions, Executor};
use std::sync::Arc;
use std::time::Duration;
use tenantry::directory::AppAccess;
use tenantry::error::{ChangeError, Failure, FailureState, ProvisionError, StoreError, VaultError};
use tenantry::journal::{Intent, Journal, PgJournal};
use tenantry::lifecycle::{Lifecycle, Verb};
use tenantry::operation::{FencingToken, Lane, OperationId, OperationStatus, Subject};
use tenantry::provision::{Provision, ProvisionConfig, Provisioned, Provisioner};
use tenantry::saga::{CallOptions, Engine, Settings};
use tenantry::secret::CredentialId;
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, MemoryVault, VaultWriter};
use tenantry::{Tenantry, sqlx};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn engine(journal: Arc<dyn Journal>) -> Engine {
    let mut settings = Settings::default();
    (settings.backoff, settings.backoff_limit) = (Duration::from_millis(1), Duration::from_millis(5));
    // With a short lease, a renewal on a slow machine could report to the worker that it was stopped before its delayed
    // call does.
    settings.lease = Duration::from_secs(600);
    Engine::new(journal, vec![], settings, CancellationToken::new())
}

type ProvisionResult = Result<Provisioned, ProvisionError>;

/// A provisioning, as if by another process, whose worker waits in a delayed call to the journal.
pub(crate) struct Stopped {
    slug: String,
    journal: Arc<Failing>,
    worker: JoinHandle<ProvisionResult>,
}

impl Stopped {
    fn start(harness: &Harness, tenantry: &Tenantry, slug: String, outage: Outage) -> Self {
        let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
        let mut config = ProvisionConfig::default();
        config.migrations = Some(&MIGRATIONS);
        let context = tenantry.operation_context().with_workers(64);
        let provisioner = Provisioner::with_engine(context, engine(journal.clone()), config);
        let (request, options) = (Provision::new(&slug).admin("ada@acme.example"), CallOptions::new().key(&slug));
        let worker = tokio::spawn(async move { provisioner.provision(request, &options).await });
        Self { slug, journal, worker }
    }
    /// Starts a provisioning and waits until its `n`-th call of the journal's method `call` is delayed. Returns `None`
    /// if the provisioning completes without that call; its tenant is then purged.
    pub(crate) async fn at(
        harness: &Harness, tenantry: &Tenantry, slug: String, call: &'static str, n: u32,
    ) -> Option<Self> {
        let mut this = Self::start(harness, tenantry, slug, Outage::of(n..n + 1, Lost::Nothing).only(call));
        tokio::select! {
            () = this.journal.wait_for_delayed_call() => Some(this),
            result = &mut this.worker => {
                result.unwrap().unwrap();
                tenantry.purge(this.slug.as_str()).force().await.unwrap();
                None
            }
        }
    }
    /// Releases the delayed call. Returns the result of the provisioning.
    pub(crate) async fn resume(self) -> ProvisionResult {
        self.journal.release();
        self.worker.await.unwrap()
    }
}

fn expect_failure(result: ProvisionResult) -> Failure {
    match result {
        Err(ProvisionError::Failed(failure)) => failure,
        other => panic!("the provisioning did not fail: {other:?}"),
    }
}

impl Stopped {
    /// Aborts the worker, and lets its lease expire at once.
    pub(crate) async fn dies(self, landlord: &sqlx::PgPool) {
        self.worker.abort();
        assert!(self.worker.await.is_err(), "the worker had ended before it was aborted");
        landlord.execute("UPDATE tenantry.operations SET leased_until = now() WHERE status = 'running'").await.unwrap();
    }
}

/// At a `record` call the worker has completed a step. At a `check` call it has opened a session that it uses next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_stops_a_provisioning_at_any_point_and_leaves_nothing() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).workers(64)).await.unwrap();
    let points = [("record", 2..20), ("check", 1..5)].into_iter().flat_map(|(call, ns)| ns.map(move |n| (call, n)));
    let stopped = join_all(points.map(async |(call, n)| {
        let slug = format!("{call}-{n}");
        let stopped = Stopped::at(&harness, &tenantry, slug.clone(), call, n).await?;
        let purged = tenantry.purge(slug.as_str()).force().await.unwrap_or_else(|e| panic!("{slug}: {e:?}"));
        assert_eq!(purged.tenant.status(), TenantStatus::Deleted);
        let failure = expect_failure(stopped.resume().await);
        assert_eq!(failure.state, FailureState::Undone, "{slug}: {failure:?}");
        assert!(failure.cause.to_string().starts_with("stopped by operation "), "{slug}: {failure:?}");
        Some(())
    }))
    .await;
    assert!(stopped.iter().flatten().count() >= 18, "too few provisionings were stopped: {stopped:?}");
    assert_nothing(&harness, "after purges of unfinished provisionings").await;
    assert!(tenantry.operations().open().await.unwrap().is_empty());
    let again = tenantry.provision("record-9").admin("ada@acme.example").key("record-9").await.unwrap();
    assert_eq!(again.tenant.status(), TenantStatus::Active, "the key of an undone provisioning must begin a new one");
}

/// The purge fails before its pivot step and is undone. The provisioning then continues, and its tenant works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_continues_after_a_purge_of_its_tenant_is_undone() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    // At these records the login of the tenant exists, and the tenant is not published yet.
    for n in [11, 13, 16] {
        let slug = format!("acme-{n}");
        let stopped = Stopped::at(&harness, &tenantry, slug.clone(), "record", n)
            .await
            .expect("the provisioning reaches this record");
        // The purge loses its records from the third on, until it gives up and starts undoing.
        let outage = Outage::of(3..7, Lost::Call).only("record");
        let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
        let lifecycle = Lifecycle::new(tenantry.operation_context(), engine(journal.clone()), AppAccess::App);
        let purge = lifecycle.apply(Verb::Purge { force: true }, slug.as_str().into(), &CallOptions::new()).await;
        let Err(ChangeError::Failed(failure)) = purge else { panic!("{purge:?}") };
        assert_eq!((failure.step.as_str(), failure.state), ("server.refuse", FailureState::Undone));
        assert_eq!(journal.hit().len(), 4, "number of records that the purge lost");
        drop(stopped.resume().await);
        let provision = tenantry.provision(slug.as_str()).admin("ada@acme.example").key(&slug);
        let (provisioned, _) =
            tokio::join!(std::future::IntoFuture::into_future(provision), tenantry.operations().recover());
        assert_eq!(provisioned.unwrap().tenant.status(), TenantStatus::Active);
        let db = tenantry.resolve(slug.as_str()).await.unwrap();
        db.execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap();
    }
}

/// The landlord's tables share the epochs of the operations. An application's own store does not, so a preempting
/// operation must fence the stopped worker there explicitly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_fences_the_stopped_worker_in_a_store_of_the_host() {
    let harness = Harness::start().await.unwrap();
    let vault = MemoryVault::default();
    let tenantry = harness.tenantry(|b| migrated(b).vault(vault.clone())).await.unwrap();
    let tenant = tenantry.provision("acme").await.unwrap().tenant.id();
    let mut change = Intent::new(OperationId::new(), "by hand", Lane::Change, Subject::Tenant(tenant));
    change.lease = Duration::from_secs(600);
    PgJournal::new(harness.landlord().clone()).begin(&change).await.unwrap();
    let credential = CredentialId::login(tenant, &"t_acme".parse().unwrap(), &"t_acme_v2".parse().unwrap(), 2);
    let worker = FencingToken { operation: change.id, epoch: 1 };
    // As the engine does for the first worker of an operation.
    vault.fence(worker.operation, worker.epoch).await.unwrap();
    vault.put(&credential, &"in time".to_owned().into(), worker).await.expect("the running worker may write");
    vault.forget(&credential, worker).await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let put = vault.put(&credential, &"too late".to_owned().into(), worker).await;
    assert!(matches!(put, Err(VaultError::Store(StoreError::Fenced))), "{put:?}");
    assert!(matches!(vault.open(&credential).await, Err(VaultError::Missing(_))));
}

/// A provisioning that waits in its final record: its tenant is active already.
async fn stopped_at_its_end(harness: &Harness, tenantry: &Tenantry) -> Stopped {
    for n in (10..30).rev() {
        if let Some(stopped) = Stopped::at(harness, tenantry, format!("acme-{n}"), "record", n).await {
            return stopped;
        }
    }
    panic!("the provisioning has fewer than ten records")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_parks_a_running_provisioning_and_activate_resumes_it() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let stopped = stopped_at_its_end(&harness, &tenantry).await;
    let slug = stopped.slug.clone();
    tenantry.suspend(slug.as_str()).await.unwrap();
    let failure = expect_failure(stopped.resume().await);
    assert_eq!(failure.state, FailureState::Parked, "{failure:?}");
    let suspension = find_operation(&tenantry, &harness, "suspend").await;
    assert_eq!(failure.cause.to_string(), format!("stopped by operation {suspension}"));

    let parked = tenantry.operations().get(failure.operation).await.unwrap().unwrap();
    assert_eq!(parked.status, OperationStatus::Parked);
    tenantry.operations().recover().await.unwrap();
    let recovered = tenantry.operations().get(failure.operation).await.unwrap().unwrap();
    assert_eq!(recovered, parked, "recovery must not continue a parked operation");
    assert!(
        auditor::login(&tenantry, &slug).await.connect().await.is_err(),
        "the suspended tenant must not be able to connect"
    );

    tenantry.activate(slug.as_str()).await.unwrap();
    tenantry.operations().recover().await.unwrap();
    let done = tenantry.operations().get(failure.operation).await.unwrap().unwrap();
    assert_eq!(done.status, OperationStatus::Done);
    let again = tenantry.provision(&slug).admin("ada@acme.example").key(&slug).await.unwrap();
    assert_eq!(again.operation, failure.operation);
    tenantry.resolve(slug.as_str()).await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}

/// After a purge the parked operation has no tenant to continue with, so the purge ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purge_ends_an_operation_that_suspend_parked() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let stopped = stopped_at_its_end(&harness, &tenantry).await;
    let slug = stopped.slug.clone();
    tenantry.suspend(slug.as_str()).await.unwrap();
    let operation = expect_failure(stopped.resume().await).operation;
    tenantry.purge(slug.as_str()).force().await.unwrap();
    let ended = tenantry.operations().get(operation).await.unwrap().unwrap();
    assert_eq!(ended.status, OperationStatus::Undone);
    assert_nothing(&harness, "after a purge of a tenant with a parked operation").await;
}

/// Id of the one operation of this kind.
async fn find_operation(tenantry: &Tenantry, harness: &Harness, kind: &str) -> OperationId {
    let id: uuid::Uuid = sqlx::query_scalar("SELECT id FROM tenantry.operations WHERE kind = $1")
        .bind(kind)
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    let id = OperationId::from_uuid(id);
    assert!(tenantry.operations().get(id).await.unwrap().is_some());
    id
}
