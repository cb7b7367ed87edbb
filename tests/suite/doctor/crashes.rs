//! A process that dies while it repairs something: recovery on any node finishes the repair, or the next run does.
use super::drifts::{DRIFTS, configured};
use super::fleet::{self, Names};
use crate::obstacles::recovered;
use sqlx::ConnectOptions;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::testing::Harness;
use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
use tenantry::{Tenantry, sqlx};
use tokio::sync::Notify;

/// Cuts the connection once, at this stage of a statement with this text, and tells the test.
#[derive(Default)]
struct CutAt {
    at: Mutex<Option<(String, Stage)>>,
    reached: Notify,
}

impl CutAt {
    fn arm(&self, text: &str, stage: Stage) {
        *self.at.lock().unwrap() = Some((text.to_owned(), stage));
    }
    fn is_armed(&self) -> bool {
        self.at.lock().unwrap().is_some()
    }
}

#[async_trait::async_trait]
impl Director for CutAt {
    async fn at(&self, point: Point) -> Verdict {
        let mut at = self.at.lock().unwrap();
        match at.take_if(|(text, stage)| point.stage == *stage && point.sql.contains(text.as_str())) {
            Some(_) => {
                self.reached.notify_one();
                Verdict::Cut
            }
            None => Verdict::Forward,
        }
    }
}

/// A node whose server is reached through a proxy.
struct Fixture {
    harness: Harness,
    tenantry: Tenantry,
    proxy: Proxy,
    cut: Arc<CutAt>,
}

impl Fixture {
    async fn start() -> Self {
        let harness = Harness::start().await.unwrap();
        let builder = Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone());
        let tenantry = configured(builder).lease(Duration::from_secs(1)).build().await.unwrap();
        let (admin, cut) = (harness.server().admin_options(), Arc::new(CutAt::default()));
        let upstream = tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
        let proxy = Proxy::start(upstream, cut.clone()).await.unwrap();
        let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
        set_up.address("127.0.0.1", proxy.port()).await.unwrap();
        fleet::create_stranger(&harness).await;
        Self { harness, tenantry, proxy, cut }
    }

    /// Provisions a tenant, damages it, and repairs it with a process that dies at this stage of this statement.
    async fn die_while_repairing(&self, drift: &str, statement: &str, stage: Stage) {
        let drift = DRIFTS.iter().find(|d| d.name == drift).expect("no such damage");
        let slug = format!("{}-{}", drift.name, format!("{stage:?}").to_lowercase());
        let case = format!("{slug}, {statement:?}");
        let names: Names = fleet::provision(&self.harness, &self.tenantry, &slug, drift.before).await;
        fleet::inject(&self.harness, &names, drift.damage).await;
        let doctor = self.tenantry.doctor().tenant(slug.as_str());
        let plan = doctor.examine().await.unwrap();
        assert!(plan.repairs().next().is_some(), "{case}: no repair is offered: {}", plan.to_json());
        self.cut.arm(statement, stage);
        // Dropping the future of `apply` ends everything that its worker does.
        tokio::select! {
            biased;
            () = self.cut.reached.notified() => {}
            report = doctor.apply(&plan, "test") => panic!("{case}: the repair ended: {report:?}"),
        }
        assert!(!self.cut.is_armed(), "{case}: the statement did not run");

        recovered(&self.tenantry).await;
        for _ in 0..2 {
            let left = doctor.examine().await.unwrap();
            if !left.is_clean() {
                doctor.apply(&left, "test").await.unwrap();
            }
        }
        let left = doctor.examine().await.unwrap();
        assert!(left.is_clean() && left.busy == 0, "{case}: {}", left.to_json());
    }

    async fn stop(self) {
        self.tenantry.close().await;
        self.proxy.stop().await;
    }
}

/// Each damage with a statement that its repair runs on the server.
const CASES: &[(&str, &str)] = &[
    ("login-refused", "VALID UNTIL 'infinity'"),
    ("public-entrant", "REVOKE ALL ON DATABASE"),
    ("member-entrant", "_app\" FROM \""),
    ("login-createrole", "NOCREATEDB NOCREATEROLE"),
    ("app-creates", "REVOKE CREATE ON SCHEMA public"),
    ("login-limit", "CONNECTION LIMIT 43"),
    ("login-unrecorded", "DROP ROLE"),
    ("login-not-dropped", "NOLOGIN"),
    ("migrator-left", "DROP ROLE"),
    ("role-marker", "COMMENT ON ROLE"),
    ("archived-left-open", "ALLOW_CONNECTIONS false"),
    ("suspended-login", "NOLOGIN"),
    ("archived-open", "ALLOW_CONNECTIONS false"),
    ("entry-missing", "CREATE ROLE"),
    ("login-missing", "CREATE ROLE"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_of_a_process_that_dies_at_its_statement_is_finished() {
    let fixture = Fixture::start().await;
    for (drift, statement) in CASES {
        for stage in [Stage::Before, Stage::Sent] {
            fixture.die_while_repairing(drift, statement, stage).await;
        }
    }
    fleet::assert_clean(&fixture.tenantry, "after all repairs").await;
    fixture.stop().await;
}

/// A suspension parks the repair of a login. Resuming the repair while the tenant is suspended must not admit the login.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_that_a_suspension_has_parked_does_not_admit_the_login() {
    let fixture = Fixture::start().await;
    let Fixture { harness, tenantry, cut, .. } = &fixture;
    let drift = DRIFTS.iter().find(|drift| drift.name == "login-refused").unwrap();
    let names = fleet::provision(harness, tenantry, "acme", drift.before).await;
    fleet::inject(harness, &names, drift.damage).await;
    let doctor = tenantry.doctor();
    let plan = doctor.examine().await.unwrap();
    cut.arm("VALID UNTIL 'infinity'", Stage::Before);
    tokio::select! {
        biased;
        () = cut.reached.notified() => {}
        report = doctor.apply(&plan, "test") => panic!("the repair ended: {report:?}"),
    }
    tenantry.suspend("acme").await.unwrap();
    let open = tenantry.operations().open().await.unwrap();
    let parked = open.iter().find(|operation| operation.kind == "repair").expect("the repair is parked");
    let resumed = tenantry.operations().resume(parked.id).await.unwrap();
    assert!(resumed.error.is_some_and(|error| error.contains("suspended")), "the repair must say why it failed");
    let mut superuser = crate::auditor::superuser(harness).await;
    let can_login: bool = sqlx::query_scalar("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1")
        .bind(&names.login)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert!(!can_login, "the login of a suspended tenant was admitted");
    let options = crate::auditor::login(tenantry, "acme").await;
    assert!(options.connect().await.is_err(), "the suspended tenant can connect");
    fixture.stop().await;
}
