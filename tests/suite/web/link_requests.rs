//! How the setup routes treat one request: which methods they accept, and how often they look the token up.
//!
//! The look-ups are counted in the statements that sqlx logs, because the landlord's token store cannot be replaced.
use super::apps::{Ask, link};
use crate::canary::Log;
use crate::provision::migrated;
use tenantry::testing::Harness;
use tenantry::web::SetupRoutes;

const EMAIL: &str = "ada@acme.example";

/// Number of statements in sqlx's log that look a token up by its hash.
fn count_lookups(log: &Log) -> usize {
    log.text().replace("\\n", "\n").matches("FROM tenantry.setup_tokens\n    WHERE hash = $1").count()
}

#[tokio::test]
async fn request_of_a_setup_link_looks_its_token_up_once() {
    let log = Log::default();
    let writer = log.clone();
    // With a second dispatcher in the process, `tracing` asks each thread's own one. Otherwise a test on another thread
    // could decide first that the statements are not logged.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let routes = SetupRoutes::new(&tenantry);
    for (axum, slug) in [(true, "over-axum"), (false, "over-actix")] {
        let setup = tenantry.provision(slug).admin(EMAIL).await.unwrap().link.unwrap().expose_path();
        let before = count_lookups(&log);
        let shown = link(axum, &routes, Ask::get("acme.example.org", &setup, &[])).await;
        assert_eq!((shown.status, count_lookups(&log) - before), (200, 1), "{slug}: status and look-ups of a GET");

        let before = count_lookups(&log);
        let followed = link(axum, &routes, Ask::post(&setup, "")).await;
        let counted = (followed.status, count_lookups(&log) - before);
        assert_eq!(counted, (303, 1), "{slug}: status and look-ups of a POST to a credentials link");

        let (form, before) = (followed.header("location").unwrap(), count_lookups(&log));
        let set = link(axum, &routes, Ask::post(form, "password=correct+horse+battery")).await;
        let counted = (set.status, count_lookups(&log) - before);
        assert_eq!(counted, (200, 1), "{slug}: status and look-ups of a POST to a password link");
    }
}

#[tokio::test]
async fn setup_routes_treat_each_method_alike_in_both_frameworks() {
    let harness = Harness::start().await.unwrap();
    let routes = SetupRoutes::new(&harness.tenantry(migrated).await.unwrap());
    for axum in [true, false] {
        for (path, allowed) in [("/setup/credentials/x", "GET,HEAD,POST"), ("/setup/style.css", "GET,HEAD")] {
            let refused = link(axum, &routes, Ask::get("acme.example.org", path, &[]).with_method("DELETE")).await;
            assert_eq!((refused.status, refused.body.as_str()), (405, ""), "axum: {axum}, {path}");
            let allow = refused.header("allow").unwrap_or_default().replace(' ', "");
            for method in allowed.split(',') {
                assert!(allow.split(',').any(|m| m == method), "axum: {axum}, {path}: allow is {allow:?}");
            }
        }
        for (path, status) in [("/setup/credentials/x", 404), ("/setup/style.css", 200)] {
            let head = link(axum, &routes, Ask::get("acme.example.org", path, &[]).with_method("HEAD")).await;
            assert_eq!(head.status, status, "axum: {axum}, HEAD {path}");
            // actix-web leaves the body out only when it writes the response to a connection.
            assert!(!axum || head.body.is_empty(), "HEAD {path} has the body {:?}", head.body);
        }
    }
}
