//! A process of this same binary that starts a server, says how that went, and waits to be killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, DATABASE_URL, LC_MESSAGES, PG_BIN};

const ASKED: &str = "TENANTRY_TEST_IS_A_CHILD";

/// Not a test of its own: what the child runs.
#[tokio::test]
async fn starts_a_server() {
    if std::env::var_os(ASKED).is_none() {
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

pub(crate) fn spawn(variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for inherited in [BACKEND, DATABASE_URL, LC_MESSAGES, PG_BIN] {
        command.env_remove(inherited);
    }
    command.args(["child::starts_a_server", "--exact", "--nocapture"]).env(ASKED, "1");
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits for the child's word: `up: …` or `no: …`.
pub(crate) fn word(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.starts_with("up: ") || line.starts_with("no: ")).expect("the child says how it went")
}

/// With SIGKILL, which no process can answer.
pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}
