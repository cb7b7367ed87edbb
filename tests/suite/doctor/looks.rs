//! Changes while an examination runs: what was never true at one moment is no finding, and what was not seen is not gone.
use super::drifts::{DRIFTS, configured};
use super::fleet::{self, Before, Names};
use super::healthy::found;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::doctor::{Code, Plan, RepairOutcome};
use tenantry::testing::Harness;
use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
use tenantry::{Tenantry, sqlx};
use tokio::sync::Notify;

/// Stops the first statement with this text, before the client gets its answer.
#[derive(Default)]
struct StopAt {
    text: Mutex<Option<&'static str>>,
    /// What happens to the statement, and to all later ones with the text if it is not `Forward`.
    verdict: Mutex<Option<Verdict>>,
    reached: Notify,
    released: Notify,
}

impl StopAt {
    fn is_hit(&self, point: &Point) -> bool {
        let mut text = self.text.lock().unwrap();
        let is_cut = self.verdict.lock().unwrap().is_some();
        match *text {
            Some(stop) if point.stage == Stage::Sent && point.sql.contains(stop) => {
                if !is_cut {
                    *text = None;
                }
                true
            }
            _ => false,
        }
    }
}

#[async_trait::async_trait]
impl Director for StopAt {
    async fn at(&self, point: Point) -> Verdict {
        if !self.is_hit(&point) {
            return Verdict::Forward;
        }
        let verdict = self.verdict.lock().unwrap().clone();
        match verdict {
            Some(verdict) => verdict,
            None => {
                self.reached.notify_one();
                self.released.notified().await;
                Verdict::Forward
            }
        }
    }
}

/// A node whose server is reached through a proxy.
pub(crate) struct Proxied {
    pub(crate) harness: Harness,
    pub(crate) tenantry: Tenantry,
    proxy: Proxy,
    stop: Arc<StopAt>,
}

impl Proxied {
    async fn start() -> Self {
        let harness = Harness::start().await.unwrap();
        let builder = Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone());
        let tenantry = configured(builder).build().await.unwrap();
        let (admin, stop) = (harness.server().admin_options(), Arc::new(StopAt::default()));
        let upstream = tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
        let proxy = Proxy::start(upstream, stop.clone()).await.unwrap();
        let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
        set_up.address("127.0.0.1", proxy.port()).await.unwrap();
        fleet::create_stranger(&harness).await;
        Self { harness, tenantry, proxy, stop }
    }

    /// Examines everything, and calls `change` after the first catalogs were read and before the tenants are.
    async fn examine_while(&self, change: impl AsyncFnOnce()) -> Plan {
        *self.stop.text.lock().unwrap() = Some(AFTER_CATALOGS);
        let doctor = self.tenantry.doctor();
        let examination = tokio::spawn(async move { doctor.examine().await });
        self.stop.reached.notified().await;
        change().await;
        self.stop.released.notify_one();
        examination.await.unwrap().unwrap()
    }

    /// Closes each session that gets the answer to a statement with this text.
    fn cut_at(&self, text: &'static str) {
        *self.stop.verdict.lock().unwrap() = Some(Verdict::Cut);
        *self.stop.text.lock().unwrap() = Some(text);
    }

    fn cut_nothing(&self) {
        *self.stop.text.lock().unwrap() = None;
        *self.stop.verdict.lock().unwrap() = None;
    }

    async fn stop(self) {
        self.tenantry.close().await;
        self.proxy.stop().await;
    }
}

/// A part of the last statement that reads a server's catalogs.
const AFTER_CATALOGS: &str = "pg_prepared_xacts";
/// A part of the statement that reads the objects in a tenant's database.
const OBJECTS: &str = "pg_event_trigger";

/// The queue of replaced logins is no operation, so the journal does not show that it has changed a tenant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_that_is_dropped_during_an_examination_is_no_finding() {
    let node = Proxied::start().await;
    let (names, _) = damaged(&node, "retiring-login-in-no-queue").await;
    const LATER: &str =
        "UPDATE tenantry.tenant_database_users SET retry_at = now() + interval '1 hour' WHERE status = 'retiring'";
    sqlx::query(LATER).execute(node.harness.landlord()).await.unwrap();
    fleet::assert_clean(&node.tenantry, "while the old login waits for its time").await;
    const DUE: &str = "UPDATE tenantry.tenant_database_users SET retry_at = now() WHERE status = 'retiring'";
    let plan = node
        .examine_while(async || {
            let due = sqlx::query(DUE).execute(node.harness.landlord()).await.unwrap();
            assert_eq!(due.rows_affected(), 1, "no login waits for its drop");
            let report = node.tenantry.retire_due().await.unwrap();
            assert_eq!(report.dropped, 1, "{report:?}");
        })
        .await;
    assert!(plan.is_clean(), "{}: {}", names.database, plan.to_json());
    assert_eq!(plan.tenants, 1);
    node.stop().await;
}

/// Each change makes the catalogs of the first look older than the tenant's rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operation_that_ends_during_an_examination_makes_no_finding() {
    let node = Proxied::start().await;
    fleet::provision(&node.harness, &node.tenantry, "acme", Before::Active).await;
    let tenantry = &node.tenantry;
    let rotated = node.examine_while(async || drop(tenantry.rotate("acme").await.unwrap())).await;
    let suspended = node.examine_while(async || drop(tenantry.suspend("acme").await.unwrap())).await;
    let activated = node.examine_while(async || drop(tenantry.activate("acme").await.unwrap())).await;
    let provisioned = node.examine_while(async || drop(tenantry.provision("late").await.unwrap())).await;
    let purged = node.examine_while(async || drop(tenantry.purge("late").force().await.unwrap())).await;
    for (plan, what) in [
        (rotated, "rotation"),
        (suspended, "suspension"),
        (activated, "activation"),
        (provisioned, "provisioning"),
        (purged, "purge"),
    ] {
        assert!(plan.is_clean(), "{what}: {}", plan.to_json());
    }
    node.stop().await;
}

/// A change of this tenant, again and again, until the examinations are over.
async fn keep_changing(tenantry: Tenantry, slug: String, is_over: Arc<AtomicBool>) {
    while !is_over.load(SeqCst) {
        tenantry.rotate(slug.as_str()).grace(Duration::ZERO).await.unwrap();
        tenantry.suspend(slug.as_str()).await.unwrap();
        tenantry.activate(slug.as_str()).await.unwrap();
        let other = format!("{slug}-new");
        tenantry.provision(other.as_str()).await.unwrap();
        tenantry.purge(other.as_str()).force().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_that_changes_all_the_time_has_no_finding() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut changes = vec![];
    for n in 0..6 {
        let slug = format!("tenant-{n}");
        tenantry.provision(slug.as_str()).await.unwrap();
        if n % 2 == 0 {
            changes.push(tokio::spawn(keep_changing(tenantry.clone(), slug, is_over.clone())));
        }
    }
    let mut examined = 0;
    for _ in 0..10 {
        let plan = tenantry.doctor().examine().await.unwrap();
        assert_eq!(found(&plan), [], "{}", plan.to_json());
        examined += plan.tenants;
    }
    is_over.store(true, SeqCst);
    for change in changes {
        change.await.unwrap();
    }
    assert!(examined >= 30, "the tenants that do not change must be examined each time: {examined}");
    fleet::assert_clean(&tenantry, "after the changes").await;
}

/// Provisions "acme" with a damage, and returns its names and a plan.
async fn damaged(node: &Proxied, drift: &str) -> (Names, Plan) {
    let drift = DRIFTS.iter().find(|found| found.name == drift).expect("no such damage");
    let names = fleet::provision(&node.harness, &node.tenantry, "acme", drift.before).await;
    fleet::inject(&node.harness, &names, drift.damage).await;
    (names, node.tenantry.doctor().examine().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_that_cannot_be_read_is_a_finding_and_its_damage_is_not_gone() {
    let node = Proxied::start().await;
    let (_, plan) = damaged(&node, "app-creates").await;
    assert_eq!(found(&plan), [(Code::AppCanCreate, String::from("acme"))]);

    node.cut_at(OBJECTS);
    let unseen = node.tenantry.doctor().examine().await.unwrap();
    assert_eq!(found(&unseen), [(Code::CannotSee, String::from("acme"))]);
    assert!(!unseen.is_clean());
    let report = node.tenantry.doctor().apply(&plan, "test").await.unwrap();
    let outcome = &report.outcomes[0].1;
    assert!(!report.is_complete() && *outcome != RepairOutcome::Gone, "what was not seen is not gone: {outcome:?}");

    node.cut_nothing();
    crate::obstacles::recovered(&node.tenantry).await;
    let seen = node.tenantry.doctor().examine().await.unwrap();
    assert!(seen.findings.iter().all(|finding| finding.code == Code::AppCanCreate), "{}", seen.to_json());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_whose_catalogs_cannot_be_read_is_a_finding_and_hides_no_damage() {
    let node = Proxied::start().await;
    let (_, plan) = damaged(&node, "login-limit").await;
    assert_eq!(found(&plan), [(Code::LoginLimit, String::from("acme"))]);
    node.cut_at("rolconnlimit");
    let unseen = node.tenantry.doctor().examine().await.unwrap();
    assert_eq!(found(&unseen), [(Code::ServerUnreachable, String::from("server:main"))]);
    let of_tenant = node.tenantry.doctor().tenant("acme").examine().await.unwrap();
    assert_eq!(found(&of_tenant), [(Code::CannotSee, String::from("acme"))]);
    node.cut_nothing();
    assert_eq!(found(&node.tenantry.doctor().examine().await.unwrap()), [(Code::LoginLimit, String::from("acme"))]);
    node.stop().await;
}
