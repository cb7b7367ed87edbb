//! A server whose data is kept in a directory (`TestServerBuilder::keep_data`): the next start continues with it, also
//! after `kill -9` at any moment.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::{ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, NoServer};

use crate::child::{self, KEEP_DATA, is_available, start_result};

/// A directory that every account may enter: the server may run under an unprivileged one.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    directory
}

fn assert_kept_data_survives_kill(backend: &'static str) {
    let directory = directory();
    let data = directory.path().join("data");
    let variables = [(BACKEND, backend), (KEEP_DATA, data.to_str().unwrap())];
    for starts in ["1 starts", "2 starts", "3 starts"] {
        let result = start_result(&variables);
        assert!(result.starts_with("up: ") && result.contains(starts), "{starts}: {result}");
    }
    remove(&data, backend);
    assert!(!data.exists(), "remove() left the directory");
}

/// Starts the server once more, and removes it with its data.
fn remove(data: &Path, backend: &str) {
    let mut child = child::spawn(&[(BACKEND, backend), (KEEP_DATA, data.to_str().unwrap()), (child::REMOVE, "1")]);
    assert!(child.wait().unwrap().success());
}

#[test]
fn kept_data_of_a_local_server_survives_a_killed_process() {
    if is_available("local", "kept_data_of_a_local_server_survives_a_killed_process") {
        assert_kept_data_survives_kill("local");
    }
}

#[test]
fn kept_data_of_a_container_survives_a_killed_process() {
    if is_available("container", "kept_data_of_a_container_survives_a_killed_process") {
        assert_kept_data_survives_kill("container");
    }
}

#[test]
fn kept_cluster_whose_creation_was_interrupted_is_created_again() {
    if !is_available("local", "kept_cluster_whose_creation_was_interrupted_is_created_again") {
        return;
    }
    let directory = directory();
    let variables = [(BACKEND, "local"), (KEEP_DATA, directory.path().to_str().unwrap())];
    for moment in ["server.log", "data/PG_VERSION"] {
        let child = child::spawn(&variables);
        crate::gone::wait_until_exists(&directory.path().join("cluster").join(moment));
        child::kill(child);
    }
    let result = start_result(&variables);
    assert!(result.starts_with("up: ") && result.contains("1 starts"), "{result}");
    remove(directory.path(), "local");
}

#[test]
fn deleted_data_directory_leaves_no_server_running() {
    if !is_available("local", "deleted_data_directory_leaves_no_server_running") {
        return;
    }
    let directory = directory();
    let data = directory.path().join("data");
    let mut child = child::spawn(&[(BACKEND, "local"), (KEEP_DATA, data.to_str().unwrap())]);
    let result = child::read_result(&mut child);
    assert!(result.starts_with("up: "), "{result}");
    std::fs::remove_dir_all(&data).unwrap();
    child::kill(child);
    crate::gone::wait_until_gone(data.to_str().unwrap());
}

#[tokio::test]
async fn data_directory_in_use_is_refused() -> Result<(), Box<dyn std::error::Error>> {
    let directory = directory();
    let start = || TestServer::builder().keep_data(directory.path().join("data")).start();
    let server = start().await?;
    let error = start().await.unwrap_err();
    assert!(matches!(error, NoServer::KeptData { .. }) && error.to_string().contains("another process"), "{error}");
    server.admin_options().connect().await?.execute("SELECT 1").await?;
    server.remove().await?;
    assert!(!directory.path().join("data").exists(), "remove() left the directory");
    Ok(())
}
