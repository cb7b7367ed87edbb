//! How environment variables choose the test server, and that each error names a way to get one.
//!
//! Each test starts a child process ([`start_result`]) with the variables in question and reads the line that it prints.

use sqlx::ConnectOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, DATABASE_URL, IMAGE, LC_MESSAGES, PG_BIN};

use crate::child::{is_available, start_result};

#[test]
fn start_without_any_backend_fails_and_names_all_three_options() {
    let result = start_result(&[("DOCKER_HOST", "tcp://127.0.0.1:9"), (PG_BIN, "/nonexistent")]);
    assert!(result.starts_with("no: NoneOfThree"), "{result}");
    for option in [&format!("(1) {DATABASE_URL}="), "(2) Docker", "(3) PostgreSQL", PG_BIN, "/nonexistent"] {
        assert!(result.contains(option), "the error does not mention {option}: {result}");
    }
}

#[test]
fn start_with_an_unusable_backend_fails_without_trying_another() {
    let docker = [(BACKEND, "container"), ("DOCKER_HOST", "tcp://127.0.0.1:9")];
    let image = [(BACKEND, "container"), (IMAGE, "tenantry.invalid/none:1")];
    let local = [(BACKEND, "local"), (PG_BIN, "/nonexistent")];
    assert!(start_result(&docker).starts_with("no: Container(NoDocker"));
    assert!(start_result(&image).starts_with("no: Container(No"));
    assert!(start_result(&local).starts_with("no: Local(NoBinaries"));
    assert!(start_result(&[(BACKEND, "url")]).starts_with("no: UrlMissing"));
    assert!(start_result(&[(BACKEND, "docker")]).starts_with("no: UnknownBackend"));
}

#[test]
fn unusable_url_is_an_error_that_hides_the_password() {
    for url in ["postgres://ada:p4ssw0rd@127.0.0.1:1/x", "postgres://ada:p4ssw0rd@[x"] {
        let result = start_result(&[(DATABASE_URL, url)]);
        assert!(result.starts_with("no: Url"), "{result}");
        assert!(!result.contains("p4ssw0rd"), "{result}");
    }
}

#[test]
fn unescaped_character_in_the_password_of_a_url_is_named_with_its_escape() {
    for (url, hint) in [
        ("postgres://ada:p4ss#w0rd@127.0.0.1:1/x", "write %23 instead of # in the user name or password"),
        ("postgres://ada:p4ss@w0rd@127.0.0.1:1/x", "write %40 instead of @ in the user name or password"),
    ] {
        let result = start_result(&[(DATABASE_URL, url)]);
        assert!(result.contains(hint), "{result}");
        assert!(!result.contains("p4ss") && !result.contains("w0rd"), "the error shows the password: {result}");
    }
}

#[test]
fn server_with_english_messages_is_refused_when_another_language_is_required() {
    if !is_available("local", "server_with_english_messages_is_refused_when_another_language_is_required") {
        return;
    }
    let result = start_result(&[(BACKEND, "local"), (LC_MESSAGES, "C")]);
    assert!(result.starts_with("no: Setup") && result.contains("Untranslated"), "{result}");
    let result = start_result(&[(BACKEND, "local"), (LC_MESSAGES, "xx_XX.UTF-8")]);
    assert!(result.starts_with("no: Local(Exited") && result.contains("xx_XX.UTF-8"), "{result}");
}

#[tokio::test]
async fn server_at_a_url_must_use_the_required_message_language() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::shared().await?;
    let url = server.admin_options().to_url_lossy();
    let required = std::env::var(LC_MESSAGES).ok();
    let result =
        start_result(&[(DATABASE_URL, url.as_str()), (LC_MESSAGES, required.as_deref().unwrap_or("de_DE.UTF-8"))]);
    match required {
        Some(_) => assert!(result.starts_with("up: "), "{result}"),
        None => assert!(result.starts_with("no: Setup") && result.contains("Untranslated"), "{result}"),
    }
    Ok(())
}

/// No Docker, a Docker without an image, and no `docker` command.
#[test]
fn start_falls_back_to_local_binaries_when_no_container_can_be_had() {
    if !is_available("local", "start_falls_back_to_local_binaries_when_no_container_can_be_had") {
        return;
    }
    let image = (IMAGE, "tenantry.invalid/none:1");
    for variables in [&[("DOCKER_HOST", "tcp://127.0.0.1:9")][..], &[image], &[("PATH", ""), image]] {
        let result = start_result(variables);
        assert!(result.starts_with("up: ") && result.contains("binaries of"), "{variables:?}: {result}");
    }
}

#[test]
fn container_is_preferred_to_local_binaries() {
    if is_available("container", "container_is_preferred_to_local_binaries") {
        let result = start_result(&[]);
        assert!(result.starts_with("up: ") && result.contains("container tenantry-test-"), "{result}");
    }
}

/// Creates a directory that contains a link to each of these programs of the local server's directory of binaries.
fn link_programs(directory: &Path, programs: &[&str]) -> PathBuf {
    let found = start_result(&[(BACKEND, "local")]);
    let binaries = found.split_once("binaries of ").unwrap().1.split(", cluster").next().unwrap();
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
    for program in programs {
        std::os::unix::fs::symlink(Path::new(binaries).join(program), directory.join(program)).unwrap();
    }
    PathBuf::from(binaries)
}

#[test]
fn binaries_behind_symbolic_links_are_used_from_their_real_directory() {
    if !is_available("local", "binaries_behind_symbolic_links_are_used_from_their_real_directory") {
        return;
    }
    let links = tempfile::tempdir().unwrap();
    let real = link_programs(links.path(), &["initdb", "postgres"]);
    let result = start_result(&[(BACKEND, "local"), (PG_BIN, links.path().to_str().unwrap())]);
    // The real directory has pg_basebackup, which a standby needs.
    assert!(result.starts_with("up: ") && result.contains(&format!("binaries of {},", real.display())), "{result}");
}

#[test]
fn machine_without_docker_and_binaries_gets_one_line_that_says_what_to_install() {
    let result = start_result(&[("DOCKER_HOST", "tcp://127.0.0.1:9"), (PG_BIN, "/nonexistent")]);
    for command in ["apt install postgresql", "dnf install postgresql-server", "brew install postgresql@17"] {
        assert!(result.contains(command), "the error does not mention {command:?}: {result}");
    }
}

#[test]
fn unwritable_temporary_directory_is_named_by_the_error() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o500)).unwrap();
    let missing = scratch.path().join("missing");
    if !is_available("local", "unwritable_temporary_directory_is_named_by_the_error") {
        return;
    }
    for directory in [scratch.path(), &missing] {
        let directory = directory.to_str().unwrap();
        let result = start_result(&[(BACKEND, "local"), ("TMPDIR", directory)]);
        assert!(result.starts_with("no: Local(Directory") && result.contains(directory), "{result}");
    }
}

#[tokio::test]
async fn server_at_a_url_is_used_and_not_stopped() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::shared().await?;
    let url = server.admin_options().to_url_lossy();
    let result = start_result(&[(DATABASE_URL, url.as_str())]);
    assert!(result.starts_with("up: ") && result.contains("found by URL"), "{result}");
    server.admin_options().connect().await?;
    Ok(())
}
