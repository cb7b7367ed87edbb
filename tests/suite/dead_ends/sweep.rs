//! Parks each kind of operation after each of its steps, and shows that it can be continued or undone, and that it can
//! be abandoned. A trigger in the landlord parks the operation in the statement that records the step.
use crate::auditor::assert_nothing;
use crate::provision::migrated;
use async_trait::async_trait;
use sqlx::Executor;
use std::future::IntoFuture;
use std::time::Duration;
use tenantry::admin::{AdminStore, PgAdminStore};
use tenantry::error::{OperationError, RelocateError, StepError};
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
        self.tenants_and_use(kind, reach, begin, async |_| {}).await;
    }

    /// As `tenants`, and uses the tenant after the operation was ended.
    async fn tenants_and_use(
        &self, kind: &str, reach: impl AsyncFn(&str), begin: impl AsyncFn(&str), use_it: impl AsyncFn(&str),
    ) {
        for done in 1.. {
            let way = if done % 2 == 1 { Way::Continue } else { Way::Abandon };
            let slug = format!("{}-{done}", kind.replace('_', "-"));
            reach(&slug).await;
            self.arm(kind, done).await;
            begin(&slug).await;
            let parked = self.parked(kind).await;
            if let Some(parked) = &parked {
                self.end(parked, way).await;
                use_it(&slug).await;
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
    sweep.tenants("temporary_login", provision, async |slug| drop(sweep.node.temporary_login(slug).await)).await;
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

const ADMIN: &str = "ada@acme.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_link_can_be_ended_after_each_step_and_the_next_link_works() {
    let sweep = Sweep::start().await;
    let reach = async |slug: &str| drop(sweep.old.provision(slug).admin(ADMIN).await.unwrap());
    let follow = async |slug: &str, password: &str| {
        let link = sweep.node.tokens().issue_password(slug, ADMIN).await.unwrap();
        let text = link.expose_path().rsplit('/').next().unwrap().to_owned();
        let followed = sweep.node.follow_password_link(&text, &password.into()).await;
        // The call returns before the operation has ended.
        wait_until_settled(&sweep.node).await;
        followed
    };
    let begin = async |slug: &str| drop(follow(slug, "the first password").await);
    let use_it = async |slug: &str| {
        let followed = follow(slug, "the second password").await;
        followed.unwrap_or_else(|e| panic!("{slug}: a link that was issued afterwards: {e:?}"));
        let mut session = sweep.node.resolve(slug).await.unwrap().acquire().await.unwrap();
        for (password, expected) in [("the first password", false), ("the second password", true)] {
            let email = ADMIN.parse().unwrap();
            let accepted = PgAdminStore::default().verify(&mut session, &email, &password.into()).await.unwrap();
            assert_eq!(accepted, expected, "{slug}: the admin logs in with {password:?}");
        }
    };
    sweep.tenants_and_use("setup_password", reach, begin, use_it).await;
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

impl Sweep {
    /// Relocates the server to the other one of its two addresses.
    async fn relocate(&self) -> Result<(), RelocateError> {
        let options = self.harness.server().admin_options();
        let stored = self.node.servers().list().await.unwrap().readable.remove(0);
        let host = if stored.host == "localhost" { "127.0.0.1" } else { "localhost" };
        self.node.servers().relocate("main", host, options.get_port()).old_is_fenced().await.map(drop)
    }

    /// The server takes a relocation, a rotation of its passwords and a new tenant.
    async fn use_server(&self, point: &str) {
        self.relocate().await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
        self.node.rotate_server("main").await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
        self.node.provision("umbrella").await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
        self.node.purge("umbrella").force().await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
        let db = self.node.resolve("acme").await.unwrap();
        db.execute("SELECT 1").await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
    }
}

/// The server has a parked rotation, which a relocation has to continue. A relocation that was abandoned leaves it, and
/// it is ended by a call of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relocation_of_a_server_can_be_ended_after_each_step() {
    let sweep = Sweep::start().await;
    sweep.provision("acme").await;
    let operations = sweep.node.operations();
    for way in [Way::Continue, Way::Abandon] {
        for done in 1.. {
            let point = format!("relocate_server after {done} steps, {way:?}");
            sweep.arm("rotate_server", 1).await;
            drop(sweep.node.rotate_server("main").await);
            let rotation = sweep.parked("rotate_server").await.expect("the rotation was not parked");
            sweep.arm("relocate_server", done).await;
            drop(sweep.relocate().await);
            operations.recover().await.unwrap();
            let Some(parked) = sweep.parked("relocate_server").await else {
                assert!(done > 1, "relocate_server was never parked");
                break;
            };
            if way == Way::Abandon {
                operations.abandon(parked.id, "ops/grace: sweep").await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
                // The worker notices only after its next step that the relocation is parked, and that step continues the
                // rotation.
                if done == 1 {
                    operations.resume(rotation.id).await.unwrap_or_else(|e| panic!("{point}: {e:?}"));
                }
            } else {
                sweep.end(&parked, way).await;
            }
            let continued = operations.get(rotation.id).await.unwrap().unwrap();
            assert_eq!(continued.status, OperationStatus::Done, "{point}: {continued:?}");
            let open = operations.open().await.unwrap();
            assert!(open.is_empty(), "{point}: {open:?}");
            sweep.use_server(&point).await;
        }
    }
    sweep.node.purge("acme").force().await.unwrap();
    assert_nothing(&sweep.harness, "after the sweep").await;
}
