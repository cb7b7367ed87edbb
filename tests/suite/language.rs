//! Language of the server's messages. CI runs the tests once with a German server; these tests then show that it really
//! answers in German, so that no code depends on English messages.
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::LC_MESSAGES;

/// A statement that fails, and its message in English and in PostgreSQL's German translation.
const FAILURES: [(&str, &str, &str); 2] = [
    ("SELECT 1 / 0", "division by zero", "Division durch Null"),
    ("DROP ROLE nobody_at_all", "role \"nobody_at_all\" does not exist", "Rolle »nobody_at_all« existiert nicht"),
];

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
async fn server_reports_errors_in_the_requested_language() -> Result<(), Box<dyn std::error::Error>> {
    let requested = std::env::var(LC_MESSAGES).unwrap_or_default();
    let mut session = TestServer::shared().await?.admin_options().connect().await?;
    for (statement, english, german) in FAILURES {
        let error = session.execute(AssertSqlSafe(statement)).await.expect_err(statement);
        let message = error.as_database_error().ok_or("the error does not come from the server")?.message();
        match requested.get(..2) {
            Some("de") => assert_eq!(message, german),
            Some(_) => assert_ne!(message, english),
            // The language of a server that is named by URL is not known here.
            None if std::env::var_os(tenantry::testing::server::DATABASE_URL).is_none() => assert_eq!(message, english),
            None => {}
        }
    }
    Ok(())
}
