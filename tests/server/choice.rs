//! How environment variables choose the test server, and that each error names a way to get one.
//!
//! Each test starts a child process ([`child`]) with the variables in question and reads the line that it prints.

use sqlx::ConnectOptions;
use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, DATABASE_URL, IMAGE, LC_MESSAGES, PG_BIN};

use crate::child;

/// The line that a child with these variables prints about its start. The child is killed afterwards.
fn child_result(variables: &[(&str, &str)]) -> String {
    let mut child = child::spawn(variables);
    let result = child::read_result(&mut child);
    child::kill(child);
    result
}

#[test]
fn start_without_any_backend_fails_and_names_all_three_options() {
    let result = child_result(&[("DOCKER_HOST", "tcp://127.0.0.1:9"), (PG_BIN, "/nonexistent")]);
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
    assert!(child_result(&docker).starts_with("no: Container(NoDocker"));
    assert!(child_result(&image).starts_with("no: Container(No"));
    assert!(child_result(&local).starts_with("no: Local(NoBinaries"));
    assert!(child_result(&[(BACKEND, "url")]).starts_with("no: UrlMissing"));
    assert!(child_result(&[(BACKEND, "docker")]).starts_with("no: UnknownBackend"));
}

#[test]
fn unusable_url_is_an_error_that_hides_the_password() {
    for url in ["postgres://ada:p4ssw0rd@127.0.0.1:1/x", "postgres://ada:p4ssw0rd@[x"] {
        let result = child_result(&[(DATABASE_URL, url)]);
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
        let result = child_result(&[(DATABASE_URL, url)]);
        assert!(result.contains(hint), "{result}");
        assert!(!result.contains("p4ss") && !result.contains("w0rd"), "the error shows the password: {result}");
    }
}

#[test]
fn server_with_english_messages_is_refused_when_another_language_is_required() {
    let result = child_result(&[(BACKEND, "local"), (LC_MESSAGES, "C")]);
    assert!(result.starts_with("no: Setup") && result.contains("Untranslated"), "{result}");
    let result = child_result(&[(BACKEND, "local"), (LC_MESSAGES, "xx_XX.UTF-8")]);
    assert!(result.starts_with("no: Local(Exited") && result.contains("xx_XX.UTF-8"), "{result}");
}

#[tokio::test]
async fn server_at_a_url_must_use_the_required_message_language() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::shared().await?;
    let url = server.admin_options().to_url_lossy();
    let required = std::env::var(LC_MESSAGES).ok();
    let result =
        child_result(&[(DATABASE_URL, url.as_str()), (LC_MESSAGES, required.as_deref().unwrap_or("de_DE.UTF-8"))]);
    match required {
        Some(_) => assert!(result.starts_with("up: "), "{result}"),
        None => assert!(result.starts_with("no: Setup") && result.contains("Untranslated"), "{result}"),
    }
    Ok(())
}

#[test]
fn container_is_preferred_to_local_binaries() {
    let result = child_result(&[("DOCKER_HOST", "tcp://127.0.0.1:9")]);
    assert!(result.starts_with("up: ") && result.contains("binaries of"), "{result}");
    if crate::gone::docker_answers() {
        let result = child_result(&[]);
        assert!(result.starts_with("up: ") && result.contains("container tenantry-test-"), "{result}");
    }
}

#[tokio::test]
async fn server_at_a_url_is_used_and_not_stopped() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::shared().await?;
    let url = server.admin_options().to_url_lossy();
    let result = child_result(&[(DATABASE_URL, url.as_str())]);
    assert!(result.starts_with("up: ") && result.contains("found by URL"), "{result}");
    server.admin_options().connect().await?;
    Ok(())
}
