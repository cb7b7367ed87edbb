//! A child process of this same binary. It starts a `TestServer`, prints one line about the result, and waits to be
//! killed.
//!
//! The other modules use it to run [`TestServer::start`] with environment variables of their own, and to kill the
//! process that owns a server.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, DATABASE_URL, LC_MESSAGES, PG_BIN};

/// Set in the child process alone: without it, the entry point below does nothing.
const IS_CHILD: &str = "TENANTRY_TEST_IS_A_CHILD";

/// The entry point of the child process. In an ordinary test run it passes at once.
#[tokio::test]
async fn child_process_entry_point() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    match TestServer::start().await {
        Ok(server) => {
            println!("\nup: {}", server.describe());
            std::future::pending::<()>().await;
        }
        Err(error) => println!("\nno: {error:?} {}", error.to_string().replace('\n', " ")),
    }
}

/// Starts the child with these environment variables, and without those of this process that choose a server.
pub(crate) fn spawn(variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for inherited in [BACKEND, DATABASE_URL, LC_MESSAGES, PG_BIN] {
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
