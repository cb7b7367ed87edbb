//! Nothing stays behind, not even after `kill -9`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, ServerKind};

use crate::child;

fn child(backend: &str, scratch: &Path) -> Child {
    child::spawn(&[(BACKEND, backend), ("TMPDIR", scratch.to_str().unwrap())])
}

fn wait_until_up(child: &mut Child) {
    let word = child::word(child);
    assert!(word.starts_with("up: "), "{word}");
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A temporary directory that the unprivileged account of the server may use too.
fn scratch() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    directory
}

fn entry(directory: &Path) -> Option<PathBuf> {
    Some(std::fs::read_dir(directory).unwrap().next()?.unwrap().path())
}

fn is_empty(directory: &Path) -> bool {
    entry(directory).is_none()
}

/// Whether a process has this text in its command line.
fn runs(text: &str) -> bool {
    let output = Command::new("ps").args(["-eww", "-o", "args="]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(text)
}

#[test]
fn a_killed_process_leaves_no_local_server_and_no_file() {
    let scratch = scratch();
    let mut child = child("local", scratch.path());
    wait_until_up(&mut child);
    let place = scratch.path().to_str().unwrap();
    assert!(!is_empty(scratch.path()) && runs(place), "the check sees what runs");
    child::kill(child);
    within(Duration::from_secs(30), "server and files gone", || is_empty(scratch.path()) && !runs(place));
}

#[test]
fn a_process_killed_while_the_cluster_is_made_leaves_nothing() {
    for moment in ["", "data/PG_VERSION", "data/postmaster.pid"] {
        let scratch = scratch();
        let child = child("local", scratch.path());
        let reached = || entry(scratch.path()).is_some_and(|cluster| cluster.join(moment).exists());
        within(Duration::from_secs(60), moment, reached);
        child::kill(child);
        let place = scratch.path().to_str().unwrap();
        within(Duration::from_secs(60), "server and files gone", || is_empty(scratch.path()) && !runs(place));
    }
}

#[tokio::test]
async fn stop_returns_when_nothing_is_left() {
    let server = TestServer::start().await.unwrap();
    let kind = server.kind().clone();
    server.stop().await.unwrap();
    match kind {
        ServerKind::Local { directory, .. } => assert!(!directory.exists()),
        ServerKind::Container { name, .. } => assert_eq!(containers(&format!("name={name}")), ""),
        _ => {}
    }
}

pub(crate) fn docker_answers() -> bool {
    Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success())
}

fn containers(filter: &str) -> String {
    let output =
        Command::new("docker").args(["ps", "--all", "--filter", filter, "--format", "{{.Names}}"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_killed_process_leaves_no_container() {
    if !docker_answers() {
        eprintln!("SKIPPED: a_killed_process_leaves_no_container, for Docker does not answer");
        return;
    }
    let scratch = scratch();
    let mut child = child("container", scratch.path());
    wait_until_up(&mut child);
    let label = format!("label=tenantry.test={}", child.id());
    assert_ne!(containers(&label), "", "the check sees what runs");
    child::kill(child);
    within(Duration::from_secs(30), "container gone", || containers(&label).is_empty());
}

#[test]
fn a_process_killed_while_the_container_is_made_leaves_nothing() {
    if !docker_answers() {
        eprintln!("SKIPPED: a_process_killed_while_the_container_is_made_leaves_nothing, for Docker does not answer");
        return;
    }
    let scratch = scratch();
    let child = child("container", scratch.path());
    let label = format!("label=tenantry.test={}", child.id());
    within(Duration::from_secs(90), "the container is begun", || !containers(&label).is_empty());
    let name = containers(&label);
    child::kill(child);
    within(Duration::from_secs(60), "container gone", || containers(&label).is_empty());
    within(Duration::from_secs(60), "watcher gone", || !runs(name.trim()));
}
