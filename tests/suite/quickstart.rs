//! The example `quickstart`, as a process: it removes what it created in every case, and only that.
//!
//! The process is this same test binary. Its entry point runs the example's code unchanged.
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Executor};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use tenantry::sqlx;
use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, EXAMPLE_DATABASE_URL, LC_MESSAGES, ServerKind};

#[allow(dead_code, reason = "main() is not used by tests")]
#[allow(clippy::duplicate_mod, reason = "the web examples include the module `example_server` too")]
#[path = "../../examples/quickstart/main.rs"]
mod example;

/// Arguments of the example. Set in the child process alone.
const ARGUMENTS: &str = "TENANTRY_TEST_QUICKSTART";

/// The entry point of the child process. In an ordinary test run it passes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quickstart_process_entry_point() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let result = example::run::run(arguments.split_whitespace().map(str::to_owned)).await;
    println!("\nresult: {}", result.map_or_else(|error| error.to_string(), |()| "success".into()));
}

fn spawn(url: &str, arguments: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["quickstart::quickstart_process_entry_point", "--exact", "--nocapture"]);
    // What is forced for the tests would be forced for the example too. Only a superuser may choose the language.
    command.env(ARGUMENTS, arguments).env(EXAMPLE_DATABASE_URL, url).env_remove(BACKEND).env_remove(LC_MESSAGES);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end and returns the result and everything that was printed.
fn finish(mut child: Child) -> (String, String) {
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    child.wait().unwrap();
    let result = output.lines().find_map(|line| line.strip_prefix("result: ")).unwrap_or_else(|| panic!("{output}"));
    (result.to_owned(), output)
}

/// Names of all roles and databases on the server.
async fn names(admin: &mut PgConnection) -> Vec<String> {
    const NAMES: &str = "SELECT rolname::text FROM pg_roles UNION ALL SELECT datname FROM pg_database ORDER BY 1";
    sqlx::query_scalar(NAMES).fetch_all(admin).await.unwrap()
}

/// A server of its own, and the URL of an admin with CREATEDB and CREATEROLE that is no superuser. `None` where a URL
/// names the tests' server: the kept run would stay there.
async fn server_with_plain_admin() -> Option<(TestServer, String)> {
    let server = TestServer::start().await.unwrap();
    if let ServerKind::Url { .. } = server.kind() {
        println!("!!! SKIPPED: a server named by URL would keep what this test creates !!!");
        return None;
    }
    let mut admin = server.admin_options().connect().await.unwrap();
    admin.execute("CREATE ROLE plain_admin LOGIN CREATEDB CREATEROLE PASSWORD 'x'").await.unwrap();
    let url = server.admin_options().username("plain_admin").password("x").to_url_lossy().to_string();
    Some((server, url))
}

#[tokio::test]
async fn quickstart_with_a_plain_admin_removes_its_own_objects_and_no_others() {
    let Some((server, url)) = server_with_plain_admin().await else { return };
    let mut admin = server.admin_options().connect().await.unwrap();
    let before = names(&mut admin).await;
    let (result, output) = finish(spawn(&url, ""));
    assert_eq!(result, "success", "{output}");
    assert_eq!(names(&mut admin).await, before, "the example left objects: {output}");

    let (result, output) = finish(spawn(&url, "--keep"));
    assert_eq!(result, "success", "{output}");
    let kept = names(&mut admin).await;
    assert!(kept.len() > before.len() + 8, "--keep kept only {kept:?}");
    let (result, output) = finish(spawn(&url, ""));
    assert_eq!(result, "success", "{output}");
    assert_eq!(names(&mut admin).await, kept, "the second run changed what the first one had kept");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn quickstart_interrupted_by_ctrl_c_removes_everything() {
    let Some((server, url)) = server_with_plain_admin().await else { return };
    let mut admin = server.admin_options().connect().await.unwrap();
    let before = names(&mut admin).await;
    for moment in ["Server:", "Set up in", "Provisioning globex", "acme: "] {
        let mut child = spawn(&url, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(moment)), "the example did not print {moment:?}");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let rest: Vec<_> = lines.collect();
        child.wait().unwrap();
        assert!(rest.contains(&String::from("result: interrupted")), "{moment}: {rest:?}");
        assert_eq!(names(&mut admin).await, before, "Ctrl-C after {moment:?} left objects: {rest:?}");
    }
    server.stop().await.unwrap();
}

#[test]
fn quickstart_refuses_unknown_arguments_before_it_starts_a_server() {
    let (result, output) = finish(spawn("postgres://127.0.0.1:1/unreachable", "--kepp"));
    assert!(result.starts_with("unknown argument \"--kepp\""), "{output}");
    assert!(output.contains("usage: ") && !output.contains("Server"), "{output}");
}
