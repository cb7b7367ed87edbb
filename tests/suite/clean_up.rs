//! Workers that die while they clean up in other databases than their tenant's: recovery closes what they have opened, and
//! gives back the memberships that they have taken.
use crate::auditor;
use crate::fail_closed::{entry, sql};
use crate::hostile::{ask, grant_to};
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
        let is_it = point.stage == Stage::Sent && self.text.get().is_some_and(|text| point.sql.contains(text));
        match is_it && !self.done.swap(true, SeqCst) {
            true => Verdict::Cut,
            false => Verdict::Forward,
        }
    }
}

/// Tenants "neighbour" and "victim" on a server that is reached through a proxy.
struct Site {
    harness: Harness,
    server: TestServer,
    tenantry: Tenantry,
    proxy: Proxy,
    cut: Arc<CutAfter>,
}

impl Site {
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
    async fn ask(&self, text: String) -> String {
        ask(&mut self.server.admin_options().connect().await.unwrap(), text).await
    }
    /// Purges "victim" with a worker that loses its server right after this statement; then recovers.
    async fn purge_dying_after(&self, statement: String) {
        self.cut.text.set(statement.clone()).unwrap();
        self.tenantry.purge("victim").force().await.expect_err("the worker loses its server");
        assert!(self.cut.done.load(SeqCst), "the purge ran {statement}");
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
async fn recovery_closes_a_database_that_a_clean_up_left_open() {
    let Some(site) = Site::start().await else { return };
    let (neighbour, victim) = (entry(&site.tenantry, "neighbour").await, entry(&site.tenantry, "victim").await);
    let mut session = auditor::login(&site.tenantry, "neighbour").await.connect().await.unwrap();
    grant_to(&mut session, &[format!("{}_app", victim.database)]).await;
    session.close().await.unwrap();
    site.tenantry.archive("neighbour").await.unwrap();

    site.purge_dying_after(String::from("ALLOW_CONNECTIONS true CONNECTION LIMIT 1618033988")).await;

    let state = "SELECT datallowconn::text || ' ' || datconnlimit FROM pg_database WHERE datname = ";
    let found = site.ask(format!("{state}'{}'", neighbour.database)).await;
    assert_eq!(found, "false -1", "whether the archived database takes connections, and its limit");
    site.tenantry.restore("neighbour").await.unwrap();
    auditor::login(&site.tenantry, "neighbour").await.connect().await.unwrap().close().await.unwrap();
    site.stop().await;
}

#[tokio::test]
async fn recovery_gives_back_a_membership_in_the_login_of_a_neighbour() {
    let Some(site) = Site::start().await else { return };
    let (neighbour, victim) = (entry(&site.tenantry, "neighbour").await, entry(&site.tenantry, "victim").await);
    let mut session = auditor::login(&site.tenantry, "neighbour").await.connect().await.unwrap();
    let set = format!("ALTER ROLE CURRENT_USER IN DATABASE \"{}\" SET work_mem = '4MB'", victim.database);
    sql(&mut session, format!("SET ROLE NONE; BEGIN; {set}; PREPARE TRANSACTION 'in the way'")).await;
    session.close().await.unwrap();
    let admin = format!("{}_admin", site.harness.prefix());

    site.purge_dying_after(format!("GRANT \"{}\" TO \"{admin}\"", neighbour.login)).await;

    let member = format!("SELECT pg_has_role('{admin}', '{}', 'USAGE')::text", neighbour.login);
    assert_eq!(site.ask(member).await, "false", "whether the admin role is still a member of the neighbour's login");
    site.stop().await;
}
