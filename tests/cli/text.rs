//! What the program prints, as text: the files `*.trycmd`. `TRYCMD=overwrite` writes them after a change on purpose.
use crate::installation::Installation;

/// Variables that are empty count as absent, so a developer's own configuration takes no part.
fn cases() -> trycmd::TestCases {
    let cases = trycmd::TestCases::new();
    for name in ["LANDLORD_URL", "KEYS", "KEY_FILE", "ADMIN_URL", "MIGRATIONS", "APP_ACCESS", "ENV_FILE"] {
        cases.env(format!("TENANTRY_{name}"), "");
    }
    cases
}

#[test]
fn wrong_arguments_and_a_missing_configuration_say_what_to_type() {
    cases().case("tests/cli/usage/*.trycmd");
}

/// The files name the installation's prefix `PREFIX`, because several installations may be on the server.
#[tokio::test(flavor = "multi_thread")]
async fn first_tenant_is_created_shown_closed_and_purged_as_the_tour_shows() {
    let installation = Installation::empty().await;
    let directory = tempfile::tempdir().unwrap();
    let tour = std::fs::read_to_string("tests/cli/tour.trycmd").unwrap();
    let path = directory.path().join("tour.trycmd");
    std::fs::write(&path, tour.replace("PREFIX", installation.prefix())).unwrap();
    let cases = cases();
    for (name, value) in &installation.variables {
        cases.env(*name, value);
    }
    tokio::task::spawn_blocking(move || cases.case(path).run()).await.unwrap();
}
