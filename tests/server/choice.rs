//! The environment chooses the server, and an error names the way out.

use sqlx::ConnectOptions;
use tenantry::testing::TestServer;
use tenantry::testing::server::{BACKEND, DATABASE_URL, IMAGE, LC_MESSAGES, PG_BIN};

use crate::child;

fn word_of_child(variables: &[(&str, &str)]) -> String {
    let mut child = child::spawn(variables);
    let word = child::word(&mut child);
    child::kill(child);
    word
}

#[test]
fn with_nothing_to_be_had_one_error_names_the_three_ways() {
    let word = word_of_child(&[("DOCKER_HOST", "tcp://127.0.0.1:9"), (PG_BIN, "/nonexistent")]);
    assert!(word.starts_with("no: NoneOfThree"), "{word}");
    for way in [&format!("(1) {DATABASE_URL}="), "(2) Docker", "(3) PostgreSQL", PG_BIN, "/nonexistent"] {
        assert!(word.contains(way), "{way} is missing: {word}");
    }
}

#[test]
fn a_forced_backend_that_does_not_work_is_an_error_and_no_other_is_tried() {
    let docker = [(BACKEND, "container"), ("DOCKER_HOST", "tcp://127.0.0.1:9")];
    let image = [(BACKEND, "container"), (IMAGE, "tenantry.invalid/none:1")];
    let local = [(BACKEND, "local"), (PG_BIN, "/nonexistent")];
    assert!(word_of_child(&docker).starts_with("no: Container(NoDocker"));
    assert!(word_of_child(&image).starts_with("no: Container(No"));
    assert!(word_of_child(&local).starts_with("no: Local(NoBinaries"));
    assert!(word_of_child(&[(BACKEND, "url")]).starts_with("no: UrlMissing"));
    assert!(word_of_child(&[(BACKEND, "docker")]).starts_with("no: UnknownBackend"));
}

#[test]
fn a_url_that_does_not_work_is_an_error_without_its_password() {
    for url in ["postgres://ada:p4ssw0rd@127.0.0.1:1/x", "postgres://ada:p4ssw0rd@[x"] {
        let word = word_of_child(&[(DATABASE_URL, url)]);
        assert!(word.starts_with("no: Url"), "{word}");
        assert!(!word.contains("p4ssw0rd"), "{word}");
    }
}

#[test]
fn a_server_that_speaks_english_is_refused_where_another_language_is_asked_for() {
    let word = word_of_child(&[(BACKEND, "local"), (LC_MESSAGES, "C")]);
    assert!(word.starts_with("no: Setup") && word.contains("Untranslated"), "{word}");
    let word = word_of_child(&[(BACKEND, "local"), (LC_MESSAGES, "xx_XX.UTF-8")]);
    assert!(word.starts_with("no: Local(Exited") && word.contains("xx_XX.UTF-8"), "{word}");
}

#[tokio::test]
async fn a_server_at_a_url_has_to_speak_the_language_asked_for() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::shared().await?;
    let url = server.admin_options().to_url_lossy();
    let asked = std::env::var(LC_MESSAGES).ok();
    let word = word_of_child(&[(DATABASE_URL, url.as_str()), (LC_MESSAGES, asked.as_deref().unwrap_or("de_DE.UTF-8"))]);
    match asked {
        Some(_) => assert!(word.starts_with("up: "), "{word}"),
        None => assert!(word.starts_with("no: Setup") && word.contains("Untranslated"), "{word}"),
    }
    Ok(())
}

#[test]
fn a_container_is_tried_before_the_machine_s_own_binaries() {
    let word = word_of_child(&[("DOCKER_HOST", "tcp://127.0.0.1:9")]);
    assert!(word.starts_with("up: ") && word.contains("binaries of"), "{word}");
    if crate::gone::docker_answers() {
        let word = word_of_child(&[]);
        assert!(word.starts_with("up: ") && word.contains("container tenantry-test-"), "{word}");
    }
}

#[tokio::test]
async fn the_server_at_the_url_is_used_and_stays() -> Result<(), Box<dyn std::error::Error>> {
    let server = TestServer::shared().await?;
    let url = server.admin_options().to_url_lossy();
    let word = word_of_child(&[(DATABASE_URL, url.as_str())]);
    assert!(word.starts_with("up: ") && word.contains("found by URL"), "{word}");
    server.admin_options().connect().await?;
    Ok(())
}
