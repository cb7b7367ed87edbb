//! A child process of this same binary. It starts a `TestServer`, prints one line about the result, and waits to be
//! killed.
//!
//! The other modules use it to run [`TestServer::start`] with environment variables of their own, and to kill the
//! process that owns a server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use sqlx::{ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, DATABASE_URL, LC_MESSAGES};

/// Set in the child process alone: without it, the entry point below does nothing.
const IS_CHILD: &str = "TENANTRY_TEST_IS_A_CHILD";
/// The directory in which the child keeps its server's data.
pub(crate) const KEEP_DATA: &str = "TENANTRY_TEST_KEEP_DATA";
/// If it is set, the child removes the server and its data, and ends.
pub(crate) const REMOVE: &str = "TENANTRY_TEST_REMOVE";

/// The entry point of the child process. In an ordinary test run it passes at once.
#[tokio::test]
async fn child_process_entry_point() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let started = match std::env::var(KEEP_DATA) {
        Ok(directory) => TestServer::builder().keep_data(directory).start().await,
        Err(_) => TestServer::start().await,
    };
    match started {
        Ok(server) if std::env::var_os(REMOVE).is_some() => server.remove().await.unwrap(),
        Ok(server) => {
            println!("\nup: {}, {} starts", server.describe(), count_starts(&server).await);
            std::future::pending::<()>().await;
        }
        Err(error) => println!("\nno: {error:?} {}", error.to_string().replace('\n', " ")),
    }
}

/// How often a server was started with this data.
async fn count_starts(server: &TestServer) -> i64 {
    let mut session = server.admin_options().connect().await.unwrap();
    session.execute("CREATE TABLE IF NOT EXISTS starts (); INSERT INTO starts DEFAULT VALUES").await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM starts").fetch_one(&mut session).await.unwrap()
}

/// Starts the child with these environment variables, and without those of this process that choose a backend.
pub(crate) fn spawn(variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for inherited in [BACKEND, DATABASE_URL, LC_MESSAGES] {
        command.env_remove(inherited);
    }
    command.args(["child::child_process_entry_point", "--exact", "--nocapture"]).env(IS_CHILD, "1");
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for the line that the child prints about its start: `up: …` (a server runs) or `no: …` (an error).
pub(crate) fn read_result(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines
        .find(|line| line.starts_with("up: ") || line.starts_with("no: "))
        .expect("the child process ended without printing \"up: \" or \"no: \"")
}

/// Kills the child with SIGKILL, which no process can handle, and reaps it.
pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The line that a child with these variables prints about its start. The child is killed afterwards.
pub(crate) fn start_result(variables: &[(&str, &str)]) -> String {
    let mut child = spawn(variables);
    let result = read_result(&mut child);
    kill(child);
    result
}

/// Whether this machine can start a server with this backend, `container` or `local`. If not, it prints that the test
/// `name` is skipped. Panics if [`BACKEND`] demands this backend.
pub(crate) fn is_available(backend: &'static str, name: &str) -> bool {
    static CONTAINER: OnceLock<String> = OnceLock::new();
    static LOCAL: OnceLock<String> = OnceLock::new();
    let result = if backend == "local" { &LOCAL } else { &CONTAINER };
    let result = result.get_or_init(|| start_result(&[(BACKEND, backend)]));
    let available = result.starts_with("up: ");
    assert!(available || std::env::var(BACKEND).as_deref() != Ok(backend), "{BACKEND} demands it: {result}");
    if !available {
        eprintln!("SKIPPED: {name}: {result}");
    }
    available
}
