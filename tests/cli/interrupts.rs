//! Ctrl-C while an operation runs.
use crate::installation::{Installation, Ran};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_provisioning_stays_in_the_journal_and_is_resumed() {
    let installation = Installation::start().await;
    let migrations = tempfile::tempdir().unwrap();
    std::fs::write(migrations.path().join("1_slow.sql"), "SELECT pg_sleep(2)").unwrap();
    let migrations = migrations.path().to_str().unwrap();
    let mut command = installation.command(&["tenants", "create", "acme", "--migrations", migrations]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    progress.find(|line| line.as_ref().unwrap().contains("login.probe")).unwrap().unwrap();
    // The next step is the migration.
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest: Vec<_> = progress.map(Result::unwrap).collect();
    let ran = Ran::of(child.wait_with_output().unwrap()).exit(130);
    let rest = rest.join("\n");
    assert!(
        rest.contains("continues operation"),
        "the message does not say what happens next:\n{rest}\n{}",
        ran.stdout
    );

    let open = installation.run(&["operations", "list", "--json"]).succeed().json();
    let id = open["operations"][0]["id"].as_str().unwrap().to_owned();
    assert!(rest.contains(&format!("operations resume {id} --here")), "{rest}");
    let refused = installation.run(&["operations", "resume", &id]).exit(2);
    assert!(refused.stderr.contains("steps of the application"), "{}", refused.stderr);
    installation.run(&["operations", "resume", &id, "--here", "--migrations", migrations]).succeed();
    let tenant = installation.run(&["tenants", "show", "acme", "--json"]).succeed().json();
    assert_eq!(tenant["tenant"]["status"], "active");
    installation.run(&["migrate", "status", "acme", "--migrations", migrations]).succeed();
}
