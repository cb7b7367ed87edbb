//! `PG*` variables and password files of the process do not change the connections of this crate. A variable that
//! cannot be overridden is refused by name.
//!
//! Each test starts this binary again as a child process, because a variable cannot be set safely in a process with
//! several threads.
use crate::provision::migrated;
use sqlx::ConnectOptions;
use sqlx::postgres::PgPoolOptions;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tenantry::error::{BuildError, InheritedVariable, ServerSetupError};
use tenantry::journal::PgJournal;
use tenantry::saga::{Engine, Settings};
use tenantry::servers::Servers;
use tenantry::testing::server::{BACKEND, DATABASE_URL, NoServer};
use tenantry::testing::{Harness, TestServer, connect_options};
use tenantry::vault::LocalKeyring;
use tenantry::{Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

/// Set in the child process alone. Contains the address of the landlord, or nothing.
const TASK: &str = "TENANTRY_TEST_ENVIRONMENT_TASK";

/// Runs an entry point of this module as a child process with these variables. Returns its output.
fn run_child(entry_point: &str, task: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("environment::{entry_point}"), "--nocapture"]).env(TASK, task);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "the child process failed:\n{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_pg_variables_do_not_change_where_and_how_connections_are_made() {
    let rogue = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = rogue.local_addr().unwrap().port().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    // Ends with the process of the test. Each connection is closed at once, so that no client waits for an answer.
    std::thread::spawn(move || {
        for _ in rogue.incoming() {
            count.fetch_add(1, SeqCst);
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let password_file = directory.path().join("pgpass");
    std::fs::write(&password_file, "*:*:*:*:of-the-password-file").unwrap();
    let variables = [
        ("PGHOST", "127.0.0.1"),
        ("PGHOSTADDR", "127.0.0.1"),
        ("PGPORT", port.as_str()),
        ("PGUSER", "mallory"),
        ("PGPASSWORD", "of-mallory"),
        ("PGDATABASE", "of_mallory"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/nonexistent/root.pem"),
        ("PGAPPNAME", "mallory"),
        ("PGPASSFILE", password_file.to_str().unwrap()),
        ("PGDATA", "/nonexistent/data"),
    ];
    // The child uses a server that the test harness starts, and then one that a URL names.
    let server = TestServer::shared().await.unwrap().admin_options();
    let url = server.to_url_lossy().to_string();
    let (bare_url, _) = url.split_once('?').unwrap();
    let by_url = [(DATABASE_URL, bare_url), (BACKEND, "url")];
    for chosen in [&[][..], &by_url[..]] {
        let variables: Vec<_> = variables.iter().chain(chosen).copied().collect();
        let output = tokio::task::block_in_place(|| run_child("child_provisions", "whole", &variables));
        assert!(output.contains("<environment> done"), "the child process did not run its part:\n{output}");
    }
    assert_eq!(accepted.load(SeqCst), 0, "connections were made to the server that the variables name");
}

/// Not a test, but the entry point of the child process with hostile variables.
#[tokio::test]
async fn child_provisions() {
    if std::env::var_os(TASK).is_none() {
        return;
    }
    let shown = connect_options("127.0.0.1", 1, "user", "password", "database").to_url_lossy().to_string();
    assert!(!shown.contains("nonexistent"), "PGSSLROOTCERT reached the options: {shown}");
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    // The moment of its start identifies the server, also behind the mapped port of a container.
    const SERVER: &str = "SELECT pg_postmaster_start_time()::text, current_setting('application_name')";
    let (server, application): (String, String) = sqlx::query_as(SERVER).fetch_one(&db).await.unwrap();
    let (expected, _): (String, String) = sqlx::query_as(SERVER).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!((server, application), (expected, String::from("tenantry")));
    tenantry.suspend("acme").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
    println!("<environment> done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn build_and_set_up_refuse_a_variable_that_they_cannot_override_unless_it_is_accepted() {
    let harness = Harness::start().await.unwrap();
    let landlord = harness.landlord().connect_options();
    let url = landlord.to_url_lossy();
    let (port, database) = (landlord.get_port(), landlord.get_database().unwrap());
    let task = format!("{}\n{port}\n{database}\n{}", landlord.get_host(), url.password().unwrap());
    for (variable, value) in [("PGOPTIONS", "-c work_mem=5MB"), ("PGSSLCERT", "/x.crt"), ("PGSSLKEY", "/x.key")] {
        let variables = [(variable, value)];
        let output = tokio::task::block_in_place(|| run_child("child_is_refused", &task, &variables));
        assert!(output.contains(&format!("<environment> refused {variable}")), "{variable}: {output}");
    }
}

/// Not a test, but the entry point of the child process with a variable that is refused.
#[tokio::test]
async fn child_is_refused() {
    let Ok(task) = std::env::var(TASK) else { return };
    let lines: Vec<&str> = task.split('\n').collect();
    let [host, port, name, password] = lines.as_slice() else { panic!("{TASK} must have four lines") };
    let landlord = connect_options(host, port.parse().unwrap(), name, password, name);
    let landlord = PgPoolOptions::new().connect_lazy_with(landlord);
    let builder = || Tenantry::builder(landlord.clone()).keys(LocalKeyring::random());
    let error = builder().build().await.unwrap_err();
    let BuildError::Environment(InheritedVariable { variable, .. }) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains(variable), "{error}");
    let error = TestServer::start().await.unwrap_err();
    assert!(matches!(error, NoServer::Environment { variable: named } if named == variable), "{error:?}");
    // The same certificate and key would be presented to the landlord, so only the session settings can be accepted
    // here.
    if variable == "PGOPTIONS" {
        let tenantry = builder().accept_pg_environment().build().await.expect("an accepted variable was refused");
        let journal = Arc::new(PgJournal::new(landlord.clone()));
        let engine = Engine::new(journal, vec![], Settings::default(), CancellationToken::new());
        let servers = Servers::new(tenantry.operation_context(), engine, landlord.clone());
        let error = servers.set_up("main", connect_options(host, 1, "a", "b", "c")).await.unwrap_err();
        assert!(
            matches!(error, ServerSetupError::Environment(InheritedVariable { variable: "PGOPTIONS", .. })),
            "{error:?}"
        );
        let error = tenantry.servers().set_up("main", connect_options(host, 1, "a", "b", "c")).await.unwrap_err();
        assert!(matches!(error, ServerSetupError::Connect(_)), "an accepted variable was refused: {error:?}");
    }
    println!("<environment> refused {variable}");
}
