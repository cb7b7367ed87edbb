//! A test server leaves no process, file or container behind, even when its owner is killed with `kill -9`.
//!
//! Each test starts a server in a child process ([`child`]), kills the child, and waits until the machine is clean.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, ServerKind};

use crate::child;

/// A child that starts a server of this backend, with its files below `scratch`.
fn child(backend: &str, scratch: &Path) -> Child {
    child::spawn(&[(BACKEND, backend), ("TMPDIR", scratch.to_str().unwrap())])
}

fn wait_until_up(child: &mut Child) {
    let result = child::read_result(child);
    assert!(result.starts_with("up: "), "{result}");
}

/// Polls until `is_done` holds; panics after `limit`.
fn wait_until(limit: Duration, what: &str, mut is_done: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !is_done() {
        assert!(Instant::now() < deadline, "not reached within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn wait_until_exists(path: &Path) {
    wait_until(Duration::from_secs(60), &format!("{} exists", path.display()), || path.exists());
}

pub(crate) fn wait_until_gone(text: &str) {
    wait_until(Duration::from_secs(30), &format!("no process has {text} in its command line"), || !runs(text));
}

/// A temporary directory that every account may write to: the server may run under an unprivileged one.
fn scratch() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    directory
}

/// The path of one entry of the directory, if it has any.
fn entry(directory: &Path) -> Option<PathBuf> {
    Some(std::fs::read_dir(directory).unwrap().next()?.unwrap().path())
}

fn is_empty(directory: &Path) -> bool {
    entry(directory).is_none()
}

/// Whether any process on this machine has this text in its command line.
fn runs(text: &str) -> bool {
    let output = Command::new("ps").args(["-eww", "-o", "args="]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(text)
}

#[test]
fn killed_process_leaves_no_local_server_and_no_files() {
    if !child::is_available("local", "killed_process_leaves_no_local_server_and_no_files") {
        return;
    }
    let scratch = scratch();
    let mut child = child("local", scratch.path());
    wait_until_up(&mut child);
    let path = scratch.path().to_str().unwrap();
    assert!(!is_empty(scratch.path()) && runs(path), "the check does not see the running server, so it proves nothing");
    child::kill(child);
    wait_until(Duration::from_secs(30), "the server and its files are gone", || {
        is_empty(scratch.path()) && !runs(path)
    });
}

#[test]
fn process_killed_during_cluster_creation_leaves_nothing() {
    if !child::is_available("local", "process_killed_during_cluster_creation_leaves_nothing") {
        return;
    }
    for moment in ["", "data/PG_VERSION", "data/postmaster.pid"] {
        let scratch = scratch();
        let child = child("local", scratch.path());
        let reached = || entry(scratch.path()).is_some_and(|cluster| cluster.join(moment).exists());
        wait_until(Duration::from_secs(60), &format!("the cluster directory has {moment:?}"), reached);
        child::kill(child);
        let path = scratch.path().to_str().unwrap();
        wait_until(Duration::from_secs(60), "the server and its files are gone", || {
            is_empty(scratch.path()) && !runs(path)
        });
    }
}

#[tokio::test]
async fn stop_returns_after_everything_is_removed() {
    let server = TestServer::start().await.unwrap();
    let kind = server.kind().clone();
    server.stop().await.unwrap();
    match kind {
        ServerKind::Local { directory, .. } => {
            assert!(!directory.exists(), "stop() returned and {} exists", directory.display())
        }
        ServerKind::Container { name, .. } => assert_eq!(containers(&format!("name={name}")), ""),
        _ => {}
    }
}

/// Names of all containers, running or not, that match a filter of `docker ps`.
fn containers(filter: &str) -> String {
    let output =
        Command::new("docker").args(["ps", "--all", "--filter", filter, "--format", "{{.Names}}"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn killed_process_leaves_no_container() {
    if !child::is_available("container", "killed_process_leaves_no_container") {
        return;
    }
    let scratch = scratch();
    let mut child = child("container", scratch.path());
    wait_until_up(&mut child);
    let label = format!("label=tenantry.test={}", child.id());
    assert_ne!(containers(&label), "", "the check does not see the running container, so it proves nothing");
    child::kill(child);
    wait_until(Duration::from_secs(30), "the container is gone", || containers(&label).is_empty());
}

#[test]
fn process_killed_during_container_creation_leaves_nothing() {
    if !child::is_available("container", "process_killed_during_container_creation_leaves_nothing") {
        return;
    }
    let scratch = scratch();
    let child = child("container", scratch.path());
    let label = format!("label=tenantry.test={}", child.id());
    wait_until(Duration::from_secs(90), "the container exists", || !containers(&label).is_empty());
    let name = containers(&label);
    child::kill(child);
    wait_until(Duration::from_secs(60), "the container is gone", || containers(&label).is_empty());
    wait_until(Duration::from_secs(60), "the watcher process is gone", || !runs(name.trim()));
}
