//! No secret stands anywhere in plain: the server's log, the process's log, Debug output, the landlord's tables.
use crate::provision::{migrated, statement_of};
use secrecy::ExposeSecret;
use sqlx::Executor;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tenantry::registry::TenantRegistryExt;
use tenantry::secret::CredentialId;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// Everything that this process logs, at the lowest level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);
impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}
impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every table of the landlord as text; binary columns are in hexadecimal there.
async fn tables(harness: &Harness) -> String {
    const TABLES: &str = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'tenantry'";
    let names: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(harness.landlord()).await.unwrap();
    let mut all = String::new();
    for name in names {
        let rows = statement_of(format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM tenantry.{name} t"));
        all.push_str(&sqlx::query_scalar::<_, String>(rows).fetch_one(harness.landlord()).await.unwrap());
    }
    all
}

/// Lives through everything that touches a secret, and says what must not be found.
async fn live(harness: &Harness, tenantry: &Tenantry, debug: &mut String) -> Vec<String> {
    let made = tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    let link = made.link.clone().unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('x')").await.unwrap();
    let entry = tenantry.registry().primary(made.tenant.id()).await.unwrap().unwrap();
    let mut secrets = vec![link.token().expose().expose_secret().to_owned()];
    secrets.push(tenantry.vault().open(&entry.credential).await.unwrap().expose_secret().to_owned());
    for login in ["blue", "green"] {
        let role = format!("{}_{login}", harness.prefix()).parse().unwrap();
        let id = CredentialId::provisioner(&"main".parse().unwrap(), &role, 1);
        secrets.push(tenantry.vault().open(&id).await.unwrap().expose_secret().to_owned());
    }
    let open = tenantry.operations().get(made.operation).await.unwrap();
    *debug = format!(
        "{tenantry:?} {made:?} {link:?} {db:?} {entry:?} {open:?} {:?} {harness:?} {:?}",
        harness.keys(),
        tenantry.workshop()
    );
    tenantry.suspend("acme").await.unwrap();
    debug.push_str(&format!("{:?} {:?}", tenantry.resolve("acme").await, db.execute("SELECT 1").await));
    tenantry.activate("acme").await.unwrap();
    secrets
}

#[tokio::test]
async fn no_secret_stands_anywhere_in_plain() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let server = TestServer::builder().setting("log_statement", "all").start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut debug = String::new();
    let secrets = live(&harness, &tenantry, &mut debug).await;

    let rows = tables(&harness).await;
    let process = log.text();
    let places = [("Debug", debug), ("the landlord", rows), ("the process's log", process)];
    for (place, text) in &places {
        assert!(!text.is_empty(), "{place} was looked at");
        for secret in &secrets {
            let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
            assert!(!text.contains(secret.as_str()) && !text.contains(&hex), "a secret stands in {place}");
        }
    }
    in_the_server(server, &secrets).await;
}

/// The migrator's password is known to nobody but its worker: so every password that was sent must be a verifier.
async fn in_the_server(server: &TestServer, secrets: &[String]) {
    let log = server.log().await.unwrap();
    assert!(log.contains("CREATE DATABASE \"t_"), "the statements of the provisioner are logged");
    for secret in secrets {
        assert!(!log.contains(secret.as_str()), "a secret stands in the server's log");
    }
    let sent: Vec<&str> = log.match_indices("PASSWORD '").map(|(at, found)| &log[at + found.len()..]).collect();
    assert!(sent.len() >= 4, "two provisioners, a migrator and a login: {}", sent.len());
    assert!(sent.iter().all(|s| s.starts_with("SCRAM-SHA-256$4096:")), "a password was sent in plain");
    server_may_not_hush(server).await;
}

/// A session that may be quiet is, from before its first statement that holds a verifier.
#[tokio::test]
async fn a_provisioner_that_may_keeps_its_statements_out_of_the_servers_log() {
    use sqlx::ConnectOptions;
    let server = TestServer::builder().setting("log_statement", "all").start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut session = server.admin_options().connect().await.unwrap();
    let grant = format!("GRANT SET ON PARAMETER log_statement TO \"{}_admin\"", harness.prefix());
    #[expect(clippy::disallowed_methods, reason = "names of the test's own")]
    session.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(grant))).await.unwrap();
    let before = server.log().await.unwrap().len();
    tenantry.provision("acme").await.unwrap();
    tenantry.rotate("acme").grace(std::time::Duration::ZERO).await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let log = server.log().await.unwrap();
    let during = &log[before..];
    assert!(during.contains("INSERT INTO tenantry."), "others are logged");
    for statement in ["SCRAM-SHA-256$", "CREATE DATABASE", "CREATE ROLE", "NOLOGIN"] {
        assert!(!during.contains(statement), "{statement}");
    }
    tenantry.close().await;
}

/// If the provisioner could switch the log off, this test would be blind.
async fn server_may_not_hush(server: &TestServer) {
    const MAY: &str = "SELECT bool_or(has_parameter_privilege(oid, 'log_statement', 'SET'))
        FROM pg_roles WHERE rolname LIKE '%\\_blue' OR rolname LIKE '%\\_green' OR rolname LIKE '%\\_admin'";
    use sqlx::ConnectOptions;
    let mut session = server.admin_options().connect().await.unwrap();
    let may: bool = sqlx::query_scalar(MAY).fetch_one(&mut session).await.unwrap();
    assert!(!may);
}
