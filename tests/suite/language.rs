//! The server's language: a run that asks for German messages gets them, so nothing that passes there reads English.
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tenantry::testing::TestServer;
use tenantry::testing::server::LC_MESSAGES;

/// Two complaints, one of them about roles, as PostgreSQL's own translators have them.
const COMPLAINTS: [(&str, &str, &str); 2] = [
    ("SELECT 1 / 0", "division by zero", "Division durch Null"),
    ("DROP ROLE nobody_at_all", "role \"nobody_at_all\" does not exist", "Rolle »nobody_at_all« existiert nicht"),
];

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "statements of the test's own")]
async fn the_server_speaks_the_language_that_is_asked_for() -> Result<(), Box<dyn std::error::Error>> {
    let asked = std::env::var(LC_MESSAGES).unwrap_or_default();
    let mut session = TestServer::shared().await?.admin_options().connect().await?;
    for (statement, english, german) in COMPLAINTS {
        let error = session.execute(AssertSqlSafe(statement)).await.expect_err(statement);
        let said = error.as_database_error().ok_or("an error of the server's")?.message();
        match asked.get(..2) {
            Some("de") => assert_eq!(said, german),
            Some(_) => assert_ne!(said, english),
            // One named by URL speaks as it is set.
            None if std::env::var_os(tenantry::testing::server::DATABASE_URL).is_none() => assert_eq!(said, english),
            None => {}
        }
    }
    Ok(())
}
