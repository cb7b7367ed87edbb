//! No secret is in what the program prints, whatever fails.
use crate::installation::{Installation, KEYS, Ran, program};
use sqlx::ConnectOptions;
use tenantry::testing::TestServer;

/// The passwords and keys of these tests contain it.
const CANARY: &str = "c4n4ry";

#[track_caller]
fn verify_hidden(ran: &Ran) {
    let printed = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!printed.contains(CANARY), "a secret was printed:\n{printed}");
    assert!(!ran.stderr.is_empty() || ran.stdout.contains("error"), "nothing says what is wrong");
}

#[test]
fn wrong_url_is_reported_without_its_password() {
    for url in [
        "postgres://ada:c4n4ry@127.0.0.1:1/landlord",
        "postgres://ada:c4n4ry#x@127.0.0.1:1/landlord",
        "postgres://ada:c4n4ry@x@127.0.0.1:1/landlord",
        "postgres://ada:c4n4ry/x@127.0.0.1/landlord",
        "postgres://ada:c4n4ry@127.0.0.1:port/landlord",
        "postgres://ada:c4n4ry@127.0.0.1/landlord?sslmode=c4n4ry",
        "ada:c4n4ry@127.0.0.1/landlord",
        "c4n4ry",
    ] {
        for json in [&["status"][..], &["status", "--json"]] {
            let mut command = program(json);
            command.env("TENANTRY_LANDLORD_URL", url).env("TENANTRY_KEYS", KEYS);
            let ran = Ran::new(command);
            assert!(matches!(ran.code, Some(1 | 2)), "exit code {:?} for {url}", ran.code);
            verify_hidden(&ran);
        }
    }
}

#[test]
fn malformed_file_and_malformed_keys_are_reported_without_their_text() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tenantry.env");
    std::fs::write(&file, "TENANTRY_LANDLORD_URL=c4n4ry c4n4ry\n").unwrap();
    verify_hidden(&Ran::new(program(&["status", "--env-file", file.to_str().unwrap()])).exit(2));
    let mut command = program(&["status"]);
    command.env("TENANTRY_LANDLORD_URL", "postgres://ada@127.0.0.1:1/x").env("TENANTRY_KEYS", "k1:c4n4ry");
    verify_hidden(&Ran::new(command).exit(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_admin_password_is_not_printed_and_the_error_names_what_to_check() {
    let installation = Installation::empty().await;
    let admin = TestServer::shared().await.unwrap().admin_options().password(CANARY).to_url_lossy().to_string();
    let mut command = installation.command(&["init", "--prefix", installation.prefix(), "--verbose"]);
    let ran = Ran::new({
        command.env("TENANTRY_ADMIN_URL", admin);
        command
    })
    .exit(1);
    verify_hidden(&ran);
    assert!(ran.stderr.contains("Check the admin URL"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_key_is_refused_and_nothing_is_changed() {
    let installation = Installation::start().await;
    for (keys, needle) in [
        ("k1:bWb9y0f9j8dQ3kM1n5Zp7rT2v4x6A8C0E2G4I6K8M0M=", "k1 there has other bytes"),
        ("k2:bWb9y0f9j8dQ3kM1n5Zp7rT2v4x6A8C0E2G4I6K8M0M=", "Add k1:… to TENANTRY_KEYS"),
    ] {
        let mut command = installation.command(&["tenants", "create", "acme"]);
        command.env("TENANTRY_KEYS", keys);
        let ran = Ran::new(command).exit(2);
        assert!(ran.stderr.contains(needle), "{}", ran.stderr);
    }
    assert_eq!(installation.run(&["tenants", "list", "--json"]).succeed().json()["tenants"], serde_json::json!([]));
}
