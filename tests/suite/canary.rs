//! No secret appears in plain text in PostgreSQL's log, the process's log, `Debug` output or the landlord's tables. A
//! test runs operations whose secrets it knows, and then searches each of these texts for them.
use crate::provision::{migrated, statement_of};
use secrecy::ExposeSecret;
use sqlx::Executor;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tenantry::registry::TenantRegistry;
use tenantry::secret::CredentialId;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// Writer that collects what this process logs.
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

/// All rows of the landlord's tables as text. Binary columns appear in hexadecimal.
pub(crate) async fn dump_landlord(harness: &Harness) -> String {
    const TABLES: &str = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'tenantry'";
    let names: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(harness.landlord()).await.unwrap();
    let mut all = String::new();
    for name in names {
        let rows = statement_of(format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM tenantry.{name} t"));
        all.push_str(&sqlx::query_scalar::<_, String>(rows).fetch_one(harness.landlord()).await.unwrap());
    }
    all
}

/// Runs the operations that handle secrets, and returns those secrets. `debug` receives the `Debug` text of all types
/// that contain one.
async fn use_secrets(harness: &Harness, tenantry: &Tenantry, debug: &mut String) -> Vec<String> {
    let provisioned = tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    let link = provisioned.link.clone().unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("INSERT INTO notes (text) VALUES ('x')").await.unwrap();
    let entry = tenantry.registry().primary(provisioned.tenant.id()).await.unwrap().unwrap();
    let mut secrets = vec![link.token().expose().expose_secret().to_owned()];
    secrets.push(tenantry.vault().open(&entry.credential).await.unwrap().expose_secret().to_owned());
    for login in ["blue", "green"] {
        let role = format!("{}_{login}", harness.prefix()).parse().unwrap();
        let id = CredentialId::provisioner(&"main".parse().unwrap(), &role, 1);
        secrets.push(tenantry.vault().open(&id).await.unwrap().expose_secret().to_owned());
    }
    let operation = tenantry.operations().get(provisioned.operation).await.unwrap();
    *debug = format!(
        "{tenantry:?} {provisioned:?} {link:?} {db:?} {entry:?} {operation:?} {:?} {harness:?} {:?}",
        harness.keys(),
        tenantry.operation_context()
    );
    tenantry.suspend("acme").await.unwrap();
    debug.push_str(&format!("{:?} {:?}", tenantry.resolve("acme").await, db.execute("SELECT 1").await));
    tenantry.activate("acme").await.unwrap();
    secrets
}

#[tokio::test]
async fn secrets_never_appear_in_plain_text() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let server = TestServer::builder().setting("log_statement", "all").start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut debug = String::new();
    let secrets = use_secrets(&harness, &tenantry, &mut debug).await;

    let rows = dump_landlord(&harness).await;
    let process = log.text();
    let texts = [("Debug output", debug), ("the landlord's tables", rows), ("the process's log", process)];
    for (source, text) in &texts {
        assert!(!text.is_empty(), "nothing was captured from {source}");
        for secret in &secrets {
            let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
            assert!(
                !text.contains(secret.as_str()) && !text.contains(&hex),
                "a secret appears in plain text in {source}"
            );
        }
    }
    assert_server_log_contains_no_secret(server, &secrets).await;
}

/// Also checks that every password in the log is a SCRAM verifier: the test cannot search for the migrator's password,
/// which never leaves its worker.
async fn assert_server_log_contains_no_secret(server: &TestServer, secrets: &[String]) {
    let log = server.log().await.unwrap();
    assert!(log.contains("CREATE DATABASE \"t_"), "the log does not contain the provisioner's statements");
    for secret in secrets {
        assert!(!log.contains(secret.as_str()), "a secret appears in plain text in the server's log");
    }
    let sent: Vec<&str> = log.match_indices("PASSWORD '").map(|(at, found)| &log[at + found.len()..]).collect();
    assert!(
        sent.len() >= 4,
        "expected the passwords of two provisioners, a migrator and a login, found {}",
        sent.len()
    );
    assert!(sent.iter().all(|s| s.starts_with("SCRAM-SHA-256$4096:")), "a password was sent in plain text");
    assert_provisioner_cannot_set_log_statement(server).await;
}

/// A provisioner that may set `log_statement` turns it off before its first statement that contains a verifier.
#[tokio::test]
async fn provisioner_that_may_set_log_statement_keeps_its_statements_out_of_the_log() {
    use sqlx::ConnectOptions;
    let server = TestServer::builder().setting("log_statement", "all").start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut session = server.admin_options().connect().await.unwrap();
    let grant = format!("GRANT SET ON PARAMETER log_statement TO \"{}_admin\"", harness.prefix());
    #[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
    session.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(grant))).await.unwrap();
    let before = server.log().await.unwrap().len();
    tenantry.provision("acme").await.unwrap();
    tenantry.rotate("acme").grace(std::time::Duration::ZERO).await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let log = server.log().await.unwrap();
    let during = &log[before..];
    assert!(during.contains("INSERT INTO tenantry."), "statements of other sessions are missing from the log");
    for statement in ["SCRAM-SHA-256$", "CREATE DATABASE", "CREATE ROLE", "NOLOGIN"] {
        assert!(!during.contains(statement), "{statement} appears in the server's log");
    }
    tenantry.close().await;
}

/// Asserts that the provisioner cannot turn `log_statement` off. Otherwise the log would contain none of its
/// statements, and a search for secrets in it would prove nothing.
async fn assert_provisioner_cannot_set_log_statement(server: &TestServer) {
    const MAY: &str = "SELECT bool_or(has_parameter_privilege(oid, 'log_statement', 'SET'))
        FROM pg_roles WHERE rolname LIKE '%\\_blue' OR rolname LIKE '%\\_green' OR rolname LIKE '%\\_admin'";
    use sqlx::ConnectOptions;
    let mut session = server.admin_options().connect().await.unwrap();
    let may: bool = sqlx::query_scalar(MAY).fetch_one(&mut session).await.unwrap();
    assert!(!may, "a provisioner role may set log_statement");
}
