//! Changes of the server's row while a set-up runs. The set-up has read the row, and its admin's session waits at a
//! relay until the test releases it.
use crate::provision::migrated;
use sqlx::Executor;
use std::future::IntoFuture;
use std::sync::Arc;
use tenantry::error::ServerSetupError;
use tenantry::names::ServerName;
use tenantry::registry::{PgTenantRegistry, ServerRegistry};
use tenantry::server::DatabaseServer;
use tenantry::servers::ServerSetupReport;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

async fn stored(harness: &Harness) -> DatabaseServer {
    let name: ServerName = "main".parse().unwrap();
    PgTenantRegistry::new(harness.landlord().clone()).server(&name).await.unwrap().expect("a server").server
}

/// A set-up of the server `main`, and the notification that releases it.
struct Waiting {
    call: JoinHandle<Result<ServerSetupReport, ServerSetupError>>,
    release: Arc<Notify>,
}

impl Waiting {
    /// Returns when the set-up has read the row.
    async fn begin(harness: &Harness, tenantry: &Tenantry) -> Self {
        let (host, port) = {
            let server = stored(harness).await;
            (server.host, server.port)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = listener.local_addr().unwrap().port();
        let admin = harness.server().admin_options().host("127.0.0.1").port(relay);
        let call = tenantry.servers().set_up("main", admin).address(&host, port).prefix(harness.prefix());
        let call = tokio::spawn(call.capacity(77).into_future());
        let (mut first, _) = listener.accept().await.unwrap();
        let release = Arc::new(Notify::new());
        let released = release.clone();
        tokio::spawn(async move {
            released.notified().await;
            loop {
                let mut upstream = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut first, &mut upstream).await });
                first = listener.accept().await.unwrap().0;
            }
        });
        Self { call, release }
    }

    async fn finish(self) -> Result<ServerSetupReport, ServerSetupError> {
        self.release.notify_one();
        self.call.await.unwrap()
    }
}

#[tokio::test]
async fn set_up_keeps_a_drain_and_an_allowed_role_that_were_stored_while_it_ran() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let waiting = Waiting::begin(&harness, &tenantry).await;
    tenantry.servers().drain("main").await.unwrap();
    tenantry.servers().allow_role("main", "support").await.unwrap();
    let report = waiting.finish().await.unwrap();
    let server = stored(&harness).await;
    assert_eq!(server.capacity, 77, "the set-up must store what it names");
    assert!(server.draining && report.server.draining, "the set-up has overwritten drain(): {server:?}");
    assert_eq!(server.allowed_roles, ["support".parse().unwrap()], "the set-up has overwritten allow_role()");

    let waiting = Waiting::begin(&harness, &tenantry).await;
    tenantry.servers().undrain("main").await.unwrap();
    tenantry.servers().disallow_role("main", "support").await.unwrap();
    waiting.finish().await.unwrap();
    let server = stored(&harness).await;
    assert!(!server.draining && server.allowed_roles.is_empty(), "{server:?}");
}

/// The vault has the passwords of the new version only.
#[tokio::test]
async fn set_up_is_refused_if_the_servers_passwords_were_rotated_after_it_read_the_row() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let waiting = Waiting::begin(&harness, &tenantry).await;
    tenantry.rotate_server("main").await.unwrap();
    let rotated = stored(&harness).await;
    let error = waiting.finish().await.unwrap_err();
    assert!(matches!(&error, ServerSetupError::Landlord(_)), "{error:?}");
    assert!(error.retry_after().is_some(), "the same call can succeed: {error:?}");
    assert_eq!(stored(&harness).await, rotated);
    assert!(tenantry.operations().open().await.unwrap().is_empty());
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1").await.unwrap();
    let again = tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix());
    again.await.expect("the same call succeeds afterwards");
}
