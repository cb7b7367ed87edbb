//! Parks each kind of operation after each of its steps, and shows that it can be continued or undone, and that it can
//! be abandoned. A trigger in the landlord parks the operation in the statement that records the step.
use crate::auditor::assert_nothing;
use crate::provision::migrated;
use async_trait::async_trait;
use sqlx::Executor;
use std::future::IntoFuture;
use std::time::Duration;
use tenantry::error::{OperationError, StepError};
use tenantry::operation::{OperationState, OperationStatus};
use tenantry::step::{Compensate, Step, StepContext};
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

const TRIGGER: &str = "CREATE TABLE public.sweep (kind text, done integer);
    CREATE FUNCTION public.sweep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.status = 'running' AND NEW.done > OLD.done THEN
            DELETE FROM public.sweep s WHERE s.kind = NEW.kind AND s.done = NEW.done;
            IF FOUND THEN
                NEW.status := 'parked';
                NEW.leased_until := now();
            END IF;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER sweep BEFORE UPDATE ON tenantry.operations FOR EACH ROW EXECUTE FUNCTION public.sweep()";

struct Sweep {
    harness: Harness,
    /// Has no migrations, so that a migration of its tenants has something to do.
    old: Tenantry,
    node: Tenantry,
}

/// How an operator ends the parked operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Undo it, or resume it if it has begun its pivot step.
    Continue,
    Abandon,
}

struct Nothing;
#[async_trait]
impl Step for Nothing {
    const NAME: &'static str = "nothing";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}
#[async_trait]
impl Compensate for Nothing {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        Ok(())
    }
}
struct Later;
#[async_trait]
impl Step for Later {
    const NAME: &'static str = "later";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

impl Sweep {
    async fn start() -> Self {
        let harness = Harness::start().await.unwrap();
        let old = harness.tenantry(|b| b).await.unwrap();
        let configure = |b: Builder| migrated(b).before_activation(Nothing).after_activation(Later);
        let node = harness.tenantry(configure).await.unwrap();
        harness.landlord().execute(TRIGGER).await.unwrap();
        Self { harness, old, node }
    }

    /// Parks the next operation of this kind after `done` steps.
    async fn arm(&self, kind: &str, done: u32) {
        let arm = sqlx::query("INSERT INTO public.sweep VALUES ($1, $2)").bind(kind).bind(done as i32);
        arm.execute(self.harness.landlord()).await.unwrap();
    }

    /// The operation that was parked. `None` if the operation has no such step, and so has ended.
    async fn parked(&self, kind: &str) -> Option<OperationState> {
        self.harness.landlord().execute("DELETE FROM public.sweep").await.unwrap();
        let open = self.node.operations().open().await.unwrap();
        let found = open.iter().find(|o| o.kind == kind && o.status == OperationStatus::Parked);
        assert!(found.is_some() || open.is_empty(), "{kind}: {open:?}");
        found.cloned()
    }

    /// Ends the operation in this way.
    async fn end(&self, parked: &OperationState, way: Way) {
        let (operations, id) = (self.node.operations(), parked.id);
        let point = (&parked.kind, parked.done, way);
        if way == Way::Abandon {
            let ended = operations.abandon(id, "ops/grace: sweep").await.unwrap_or_else(|e| panic!("{point:?}: {e:?}"));
            // A process knows the steps of a set-up only while it has the admin's password.
            let known = if parked.kind == "set_up_server" { 1 } else { parked.done as usize };
            assert!(ended.steps.len() >= known, "{point:?}: {:?}", ended.steps);
        } else {
            let ended = match operations.undo(id).await {
                Err(OperationError::PastPivot { .. }) => operations.resume(id).await,
                undone => undone,
            };
            let ended = ended.unwrap_or_else(|e| panic!("{point:?}: {e:?}"));
            assert!(ended.status.is_over(), "{point:?}: {ended:?}");
        }
        // A follow-up work that the operation has begun, or a change that a preempting one has parked.
        self.node.operations().recover().await.unwrap();
        let open = operations.open().await.unwrap();
        assert!(open.is_empty(), "{point:?}: the lane is not free: {open:?}");
    }

    /// Parks an operation of this kind after each step in turn, and ends it in the two ways alternately. `begin` begins
    /// it on the tenant of this slug; `reach` first brings a new tenant into the state in which it can begin.
    async fn tenants(&self, kind: &str, reach: impl AsyncFn(&str), begin: impl AsyncFn(&str)) {
        for done in 1.. {
            let way = if done % 2 == 1 { Way::Continue } else { Way::Abandon };
            let slug = format!("{}-{done}", kind.replace('_', "-"));
            reach(&slug).await;
            self.arm(kind, done).await;
            begin(&slug).await;
            let parked = self.parked(kind).await;
            if let Some(parked) = &parked {
                self.end(parked, way).await;
            }
            if self.node.registry().find(slug.as_str().into()).await.unwrap().is_some() {
                let purged = self.node.purge(slug.as_str()).force().await;
                purged.unwrap_or_else(|e| panic!("{kind} after {done} steps, {way:?}: {e:?}"));
            }
            if parked.is_none() {
                assert!(done > 1, "{kind} was never parked");
                break;
            }
        }
        assert_nothing(&self.harness, kind).await;
    }

    async fn provision(&self, slug: &str) {
        self.old.provision(slug).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provisioning_and_its_follow_up_work_can_be_ended_after_each_step() {
    let sweep = Sweep::start().await;
    let begin = async |slug: &str| drop(sweep.node.provision(slug).admin("ada@acme.example").await);
    sweep.tenants("provision", async |_| {}, begin).await;
    sweep.tenants("follow_up", async |_| {}, begin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_of_a_tenant_can_be_ended_after_each_step() {
    let sweep = Sweep::start().await;
    let provision = async |slug: &str| sweep.provision(slug).await;
    sweep.tenants("migrate", provision, async |slug| drop(sweep.node.migrate(slug).await)).await;
    let rotate = async |slug: &str| drop(sweep.node.rotate(slug).grace(Duration::ZERO).await);
    sweep.tenants("rotate", provision, rotate).await;
    let follow = async |slug: &str| {
        let tenant = sweep.node.registry().find(slug.into()).await.unwrap().unwrap().id();
        let link = sweep.node.tokens().issue(tenant, "ada@acme.example").await.unwrap();
        let path = link.expose_path();
        drop(sweep.node.follow_credentials_link(path.rsplit('/').next().unwrap()).await);
        // The call returns before the operation has ended.
        wait_until_settled(&sweep.node).await;
    };
    sweep.tenants("setup_credentials", provision, follow).await;
}

/// Waits until every open operation is parked.
async fn wait_until_settled(node: &Tenantry) {
    while node.operations().open().await.unwrap().iter().any(|o| o.status != OperationStatus::Parked) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifecycle_operation_can_be_ended_after_each_step() {
    let sweep = Sweep::start().await;
    let node = &sweep.node;
    let provision = async |slug: &str| sweep.provision(slug).await;
    sweep.tenants("suspend", provision, async |slug| drop(node.suspend(slug).await)).await;
    let suspended = async |slug: &str| {
        sweep.provision(slug).await;
        node.suspend(slug).await.unwrap();
    };
    sweep.tenants("activate", suspended, async |slug| drop(node.activate(slug).await)).await;
    sweep.tenants("archive", provision, async |slug| drop(node.archive(slug).await)).await;
    let archived = async |slug: &str| {
        sweep.provision(slug).await;
        node.archive(slug).await.unwrap();
    };
    sweep.tenants("restore", archived, async |slug| drop(node.restore(slug).await)).await;
    sweep.tenants("purge", provision, async |slug| drop(node.purge(slug).force().await)).await;
}

/// The operations of a server and of the vault. Each works again after it was ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operation_of_a_server_or_of_the_vault_can_be_ended_after_each_step() {
    let sweep = Sweep::start().await;
    sweep.provision("acme").await;
    let node = &sweep.node;
    let set_up =
        || node.servers().set_up("main", sweep.harness.server().admin_options()).prefix(sweep.harness.prefix());
    let begin = async |kind: &str| match kind {
        "rotate_server" => node.rotate_server("main").await.map(drop).map_err(|e| format!("{e:?}")),
        "rekey" => node.rekey().await.map(drop).map_err(|e| format!("{e:?}")),
        _ => set_up().await.map(drop).map_err(|e| format!("{e:?}")),
    };
    for kind in ["rotate_server", "rekey", "set_up_server"] {
        for way in [Way::Continue, Way::Abandon] {
            for done in 1.. {
                sweep.arm(kind, done).await;
                drop(begin(kind).await);
                let Some(parked) = sweep.parked(kind).await else {
                    // A rekey has one step, so it is never parked in between.
                    assert!(done > 1 || kind == "rekey", "{kind} was never parked");
                    break;
                };
                // A set-up needs the admin's password, so only another call can continue it.
                let again = way == Way::Continue && kind == "set_up_server";
                if again {
                    let refused = node.operations().resume(parked.id).await;
                    assert!(matches!(refused, Err(OperationError::UnknownKind { .. })), "{refused:?}");
                } else {
                    sweep.end(&parked, way).await;
                }
                if (kind, way) == ("rotate_server", Way::Abandon) {
                    // One login may have a password that the vault does not have. A set-up gives it a new one.
                    begin("set_up_server").await.unwrap_or_else(|e| panic!("{kind} after {done} steps: {e}"));
                }
                begin(kind).await.unwrap_or_else(|e| panic!("{kind} after {done} steps, {way:?}: {e}"));
            }
        }
        let db = node.resolve("acme").await.unwrap();
        db.execute("SELECT 1").await.expect("the tenant works");
    }
    node.purge("acme").force().into_future().await.unwrap();
    assert_nothing(&sweep.harness, "after the sweep").await;
}
