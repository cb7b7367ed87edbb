//! Workers that die while they remove objects from databases other than their own tenant's. Recovery closes the
//! databases that they opened to connections, and revokes the memberships that they granted to the admin role.
use crate::auditor;
use crate::fail_closed::{primary_entry, run_sql};
use crate::hostile::{fetch_scalar, grant_to};
use crate::obstacles::{impatient, recovered, server};
use sqlx::{ConnectOptions, Connection};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// Cuts the connection once, after the server has run a statement with this text and before its answer arrives.
#[derive(Default)]
struct CutAfter {
    text: OnceLock<String>,
    done: AtomicBool,
}

#[async_trait::async_trait]
impl Director for CutAfter {
    async fn at(&self, point: Point) -> Verdict {
        let matches = point.stage == Stage::Sent && self.text.get().is_some_and(|text| point.sql.contains(text));
        match matches && !self.done.swap(true, SeqCst) {
            true => Verdict::Cut,
            false => Verdict::Forward,
        }
    }
}

/// Tenants "neighbour" and "victim" on a server that is reached through a proxy.
struct Fixture {
    harness: Harness,
    server: TestServer,
    tenantry: Tenantry,
    proxy: Proxy,
    cut: Arc<CutAfter>,
}

impl Fixture {
    async fn start() -> Option<Self> {
        let server = server(&[("max_prepared_transactions", "20")]).await?;
        let harness = Harness::start().await.unwrap();
        let builder = Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone());
        let tenantry = impatient(builder).build().await.unwrap();
        let (admin, cut) = (server.admin_options(), Arc::new(CutAfter::default()));
        let upstream = tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
        let proxy = Proxy::start(upstream, cut.clone()).await.unwrap();
        let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
        set_up.address("127.0.0.1", proxy.port()).await.unwrap();
        for slug in ["neighbour", "victim"] {
            tenantry.provision(slug).await.unwrap();
        }
        Some(Self { harness, server, tenantry, proxy, cut })
    }
    async fn fetch_text(&self, text: String) -> String {
        fetch_scalar(&mut self.server.admin_options().connect().await.unwrap(), text).await
    }
    /// Purges "victim" with a worker whose connection is cut right after this statement. Then runs recovery.
    async fn purge_with_worker_dying_after(&self, statement: String) {
        self.cut.text.set(statement.clone()).unwrap();
        self.tenantry.purge("victim").force().await.expect_err("the worker loses its connection");
        assert!(self.cut.done.load(SeqCst), "the purge did not run {statement}");
        recovered(&self.tenantry).await;
    }
    async fn stop(self) {
        self.tenantry.close().await;
        self.proxy.stop().await;
        drop(self.harness);
        self.server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn recovery_closes_a_database_that_a_dead_worker_left_open() {
    let Some(fixture) = Fixture::start().await else { return };
    let (neighbour, victim) =
        (primary_entry(&fixture.tenantry, "neighbour").await, primary_entry(&fixture.tenantry, "victim").await);
    let mut session = auditor::login(&fixture.tenantry, "neighbour").await.connect().await.unwrap();
    grant_to(&mut session, &[format!("{}_app", victim.database)]).await;
    session.close().await.unwrap();
    fixture.tenantry.archive("neighbour").await.unwrap();

    fixture.purge_with_worker_dying_after(String::from("ALLOW_CONNECTIONS true CONNECTION LIMIT 1618033988")).await;

    let state = "SELECT datallowconn::text || ' ' || datconnlimit FROM pg_database WHERE datname = ";
    let found = fixture.fetch_text(format!("{state}'{}'", neighbour.database)).await;
    assert_eq!(found, "false -1", "datallowconn and datconnlimit of the archived database");
    fixture.tenantry.restore("neighbour").await.unwrap();
    auditor::login(&fixture.tenantry, "neighbour").await.connect().await.unwrap().close().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn recovery_revokes_a_membership_in_a_neighbours_login() {
    let Some(fixture) = Fixture::start().await else { return };
    let (neighbour, victim) =
        (primary_entry(&fixture.tenantry, "neighbour").await, primary_entry(&fixture.tenantry, "victim").await);
    let mut session = auditor::login(&fixture.tenantry, "neighbour").await.connect().await.unwrap();
    let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{}\" SET work_mem = '4MB'", victim.database);
    run_sql(&mut session, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'in the way'")).await;
    session.close().await.unwrap();
    let admin = format!("{}_admin", fixture.harness.prefix());

    fixture.purge_with_worker_dying_after(format!("GRANT \"{}\" TO \"{admin}\"", neighbour.login)).await;

    let member = format!("SELECT pg_has_role('{admin}', '{}', 'USAGE')::text", neighbour.login);
    assert_eq!(fixture.fetch_text(member).await, "false", "the admin role is still a member of the neighbour's login");
    fixture.stop().await;
}
