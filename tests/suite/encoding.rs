//! The databases of tenants have the encoding UTF8, whatever the default of their cluster is.
use crate::provision::migrated;
use tenantry::sqlx;
use tenantry::testing::{Harness, TestServer};

#[tokio::test]
async fn tenants_get_utf8_databases_on_clusters_with_another_default_encoding() {
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let server = match TestServer::builder().local_with_encoding(encoding).start().await {
            Ok(server) => server,
            Err(error) => {
                eprintln!("skipped: needs the server's own binaries: {error}");
                return;
            }
        };
        let harness = Harness::start().await.unwrap();
        let tenantry = harness.tenantry_on(&server, migrated).await.unwrap();
        tenantry.provision("acme").await.unwrap();
        let db = tenantry.resolve("acme").await.unwrap();
        let found: String = sqlx::query_scalar(
            "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()",
        )
        .fetch_one(&db)
        .await
        .unwrap();
        assert_eq!(found, "UTF8", "on a cluster with the default {encoding}");
        let text = "Zażółć gęślą jaźń 😀";
        sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(text).execute(&db).await.unwrap();
        let (stored, length): (String, i32) =
            sqlx::query_as("SELECT text, length(text) FROM notes").fetch_one(&db).await.unwrap();
        assert_eq!((stored.as_str(), length as usize), (text, text.chars().count()), "{encoding}");
        tenantry.close().await;
    }
}
