//! A fence waits for no change: it stops it wherever it is, and what it stopped goes on or leaves nothing.
use crate::auditor::{self, assert_nothing};
use crate::engine::failing::{Failing, Lost, Outage};
use crate::provision::{MIGRATIONS, migrated};
use async_trait::async_trait;
use futures_util::future::join_all;
use sqlx::{ConnectOptions, Executor};
use std::sync::Arc;
use std::time::Duration;
use tenantry::directory::AppAccess;
use tenantry::error::{ChangeError, Failure, FailureState, ProvisionError, StepError, StoreError, VaultError};
use tenantry::journal::{Journal, PgJournal};
use tenantry::lifecycle::{Lifecycle, Verb};
use tenantry::operation::{FencingToken, OperationId, OperationStatus};
use tenantry::provision::{Provision, ProvisionConfig, Provisioned, Provisioner};
use tenantry::saga::{Engine, Observer, Settings};
use tenantry::secret::CredentialId;
use tenantry::step::{Step, StepContext};
use tenantry::tenant::TenantStatus;
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, MemoryVault, VaultWriter};
use tenantry::{Builder, Tenantry, sqlx};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn engine(journal: Arc<dyn Journal>) -> Engine {
    let mut settings = Settings::default();
    (settings.backoff, settings.backoff_limit) = (Duration::from_millis(1), Duration::from_millis(5));
    // A renewal, on a slow machine, would tell a worker sooner than the call that it is held at.
    settings.lease = Duration::from_secs(600);
    Engine::new(journal, vec![], settings, CancellationToken::new())
}

type Made = Result<Provisioned, ProvisionError>;

/// A provisioning of another process, whose call of the journal stays on the way.
pub(crate) struct Stopped {
    slug: String,
    journal: Arc<Failing>,
    worker: JoinHandle<Made>,
}

impl Stopped {
    fn start(harness: &Harness, tenantry: &Tenantry, slug: String, outage: Outage) -> Self {
        let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
        let mut config = ProvisionConfig::default();
        config.migrations = Some(&MIGRATIONS);
        let shop = tenantry.workshop().with_workers(64);
        let provisioner = Provisioner::new(shop, engine(journal.clone()), config);
        let request = Provision::new(&slug).admin("ada@acme.example").key(&slug);
        let worker = tokio::spawn(async move { provisioner.provision(request, &Observer::none()).await });
        Self { slug, journal, worker }
    }
    /// `None` if it came to its end before.
    pub(crate) async fn at(
        harness: &Harness, tenantry: &Tenantry, slug: String, call: &'static str, n: u32,
    ) -> Option<Self> {
        let mut this = Self::start(harness, tenantry, slug, Outage::of(n..n + 1, Lost::Nothing).only(call));
        tokio::select! {
            () = this.journal.arrived() => Some(this),
            made = &mut this.worker => {
                made.unwrap().unwrap();
                tenantry.purge(this.slug.as_str()).force().await.unwrap();
                None
            }
        }
    }
    /// What its caller hears once the call arrives.
    pub(crate) async fn wakes(self) -> Made {
        self.journal.let_through();
        self.worker.await.unwrap()
    }
}

fn failure(made: Made) -> Failure {
    match made {
        Err(ProvisionError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

impl Stopped {
    /// It never wakes again, and its lease is over.
    pub(crate) async fn dies(self, landlord: &sqlx::PgPool) {
        self.worker.abort();
        assert!(self.worker.await.is_err());
        landlord.execute("UPDATE tenantry.operations SET leased_until = now() WHERE status = 'running'").await.unwrap();
    }
}

/// Wherever its worker stands: about to write down what it did, or with a session open and about to act.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_stops_a_provisioning_at_any_point_and_leaves_nothing() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).workers(64)).await.unwrap();
    let points = [("record", 2..20), ("check", 1..5)].into_iter().flat_map(|(call, ns)| ns.map(move |n| (call, n)));
    let stopped = join_all(points.map(async |(call, n)| {
        let slug = format!("{call}-{n}");
        let stopped = Stopped::at(&harness, &tenantry, slug.clone(), call, n).await?;
        let purged = tenantry.purge(slug.as_str()).force().await.unwrap_or_else(|e| panic!("{slug}: {e:?}"));
        assert_eq!(purged.tenant.status(), TenantStatus::Deleted);
        let told = failure(stopped.wakes().await);
        assert_eq!(told.state, FailureState::Undone, "{slug}: {told:?}");
        assert!(told.cause.to_string().starts_with("stopped by operation "), "{slug}: {told:?}");
        Some(())
    }))
    .await;
    assert!(stopped.iter().flatten().count() >= 18, "{stopped:?}");
    assert_nothing(&harness, "after purges of what was being made").await;
    assert!(tenantry.operations().open().await.unwrap().is_empty());
    let again = tenantry.provision("record-9").admin("ada@acme.example").key("record-9").await.unwrap();
    assert_eq!(again.tenant.status(), TenantStatus::Active, "the key starts again");
}

/// A purge that could not even begin to destroy is taken back: the provisioning goes on, and its tenant works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_is_undone_lets_the_provisioning_go_on() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    // Its login is made and known to work; the next thing would be its end.
    for n in [11, 13, 16] {
        let slug = format!("acme-{n}");
        let stopped = Stopped::at(&harness, &tenantry, slug.clone(), "record", n).await.expect("on its way");
        // Nothing of what follows the first two steps is written down, until the purge is given up.
        let outage = Outage::of(3..7, Lost::Call).only("record");
        let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
        let lifecycle = Lifecycle::new(tenantry.workshop(), engine(journal.clone()), AppAccess::App);
        let purge = lifecycle.apply(Verb::Purge { force: true }, slug.as_str().into(), &Observer::none()).await;
        let Err(ChangeError::Failed(given_up)) = purge else { panic!("{purge:?}") };
        assert_eq!((given_up.step.as_str(), given_up.state), ("server.refuse", FailureState::Undone));
        assert_eq!(journal.hit().len(), 4);
        drop(stopped.wakes().await);
        let made = tenantry.provision(slug.as_str()).admin("ada@acme.example").key(&slug);
        let (made, _) = tokio::join!(std::future::IntoFuture::into_future(made), tenantry.operations().recover());
        assert_eq!(made.unwrap().tenant.status(), TenantStatus::Active);
        let db = tenantry.resolve(slug.as_str()).await.unwrap();
        db.execute("INSERT INTO notes (text) VALUES ('works')").await.unwrap();
    }
}

/// Says that it has begun, and waits to be told to go on.
struct Welcome(Arc<Notify>, Arc<Notify>);
#[async_trait]
impl Step for Welcome {
    const NAME: &'static str = "mail.welcome";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.0.notify_one();
        self.1.notified().await;
        Ok(())
    }
}

/// The landlord's own tables share the operations' epochs. A store of the host's does not: it must be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_shuts_the_stopped_worker_out_of_a_store_of_the_hosts() {
    let harness = Harness::start().await.unwrap();
    let (vault, begun) = (MemoryVault::default(), Arc::new(Notify::new()));
    let configure =
        |b: Builder| migrated(b).vault(vault.clone()).after_activation(Welcome(begun.clone(), Arc::new(Notify::new())));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let operation = tenantry.provision("acme").start().await.unwrap();
    begun.notified().await;
    let tenant = tenantry.registry().find("acme".into()).await.unwrap().unwrap().id();
    let late = CredentialId::login(tenant, &"t_acme".parse().unwrap(), &"t_acme_v2".parse().unwrap(), 2);
    let worker = FencingToken { operation, epoch: 1 };
    vault.put(&late, &"in time".to_owned().into(), worker).await.expect("it is at work");
    vault.forget(&late, worker).await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let put = vault.put(&late, &"too late".to_owned().into(), worker).await;
    assert!(matches!(put, Err(VaultError::Store(StoreError::Fenced))), "{put:?}");
    assert!(matches!(vault.open(&late).await, Err(VaultError::Missing(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_parks_what_is_under_way_and_activation_resumes_it() {
    let harness = Harness::start().await.unwrap();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let configure = |b| migrated(b).after_activation(Welcome(begun.clone(), go_on.clone()));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let call = std::future::IntoFuture::into_future(tenantry.provision("acme").key("k"));
    let call = tokio::spawn(call);
    begun.notified().await;
    tenantry.suspend("acme").await.unwrap();
    go_on.notify_one();
    let told = failure(call.await.unwrap());
    assert_eq!(told.state, FailureState::Parked, "{told:?}");
    let suspension = history(&tenantry, &harness, "suspend").await;
    assert_eq!(told.cause.to_string(), format!("stopped by operation {suspension}"));

    let parked = tenantry.operations().get(told.operation).await.unwrap().unwrap();
    assert_eq!(parked.status, OperationStatus::Parked);
    tenantry.operations().recover().await.unwrap();
    let still = tenantry.operations().get(told.operation).await.unwrap().unwrap();
    assert_eq!(still, parked, "nobody goes on with it");
    assert!(auditor::login(&tenantry, "acme").await.connect().await.is_err(), "and nobody comes in");

    tenantry.activate("acme").await.unwrap();
    go_on.notify_one();
    tenantry.operations().recover().await.unwrap();
    let done = tenantry.operations().get(told.operation).await.unwrap().unwrap();
    assert_eq!(done.status, OperationStatus::Done);
    assert_eq!(tenantry.provision("acme").key("k").await.unwrap().operation, told.operation);
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}

/// What a suspension parked has nothing left to go on with after a purge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_ends_what_a_suspension_parked() {
    let harness = Harness::start().await.unwrap();
    let begun = Arc::new(Notify::new());
    let configure = |b| migrated(b).after_activation(Welcome(begun.clone(), Arc::new(Notify::new())));
    let tenantry = harness.tenantry(configure).await.unwrap();
    let operation = tenantry.provision("acme").start().await.unwrap();
    begun.notified().await;
    tenantry.suspend("acme").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
    let ended = tenantry.operations().get(operation).await.unwrap().unwrap();
    assert_eq!(ended.status, OperationStatus::Undone);
    assert_nothing(&harness, "after a purge of what was parked").await;
}

async fn history(tenantry: &Tenantry, harness: &Harness, kind: &str) -> OperationId {
    let id: uuid::Uuid = sqlx::query_scalar("SELECT id FROM tenantry.operations WHERE kind = $1")
        .bind(kind)
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    let id = OperationId::from_uuid(id);
    assert!(tenantry.operations().get(id).await.unwrap().is_some());
    id
}
