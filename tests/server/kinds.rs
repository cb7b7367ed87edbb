//! What every kind of test server guarantees: password logins only, databases with logins of their own, a readable log.
//!
//! Where one kind cannot do something (a server named by URL has no log), the test expects the documented error.

use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Row};
use tenantry::testing::TestServer;
use tenantry::testing::server::{DatabaseError, LogError, NoServer, ServerKind};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The SQLSTATE with which the server refuses a connection.
async fn sqlstate(options: sqlx::postgres::PgConnectOptions) -> String {
    let error = options.connect().await.expect_err("the server accepted the connection");
    error.as_database_error().and_then(|error| error.code()).expect("the error has no SQLSTATE").into_owned()
}

#[tokio::test]
async fn connection_with_a_wrong_password_is_refused() -> Outcome {
    let server = TestServer::shared().await?;
    assert_eq!(sqlstate(server.admin_options().password("wrong")).await, "28P01");

    let mut admin = server.admin_options().connect().await?;
    let rules = sqlx::query("SELECT auth_method, line_number FROM pg_hba_file_rules").fetch_all(&mut admin);
    let methods: Vec<String> = rules.await?.iter().map(|row| row.get(0)).collect();
    assert!(!methods.is_empty(), "pg_hba_file_rules is empty");
    if !matches!(server.kind(), ServerKind::Url { .. }) {
        assert!(methods.iter().all(|method| method == "scram-sha-256"), "{methods:?}");
    }
    Ok(())
}

#[tokio::test]
async fn created_database_has_its_own_unprivileged_login() -> Outcome {
    let server = TestServer::shared().await?;
    let (first, other) = (server.create_database("landlord").await?, server.create_database("landlord").await?);
    assert_ne!(first.name(), other.name());

    let mut session = first.options().connect().await?;
    sqlx::raw_sql("CREATE TABLE t (id int)").execute(&mut session).await?;
    let sql = "SELECT current_user::text, rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user";
    let (user, is_privileged): (String, bool) = sqlx::query_as(sql).fetch_one(&mut session).await?;
    assert_eq!((user.as_str(), is_privileged), (first.name(), false));

    let name = first.name().to_owned();
    server.drop_database(first).await?;
    assert!(session.ping().await.is_err(), "drop_database() left a session of the dropped database open");
    let mut admin = server.admin_options().connect().await?;
    assert_eq!(count_named(&mut admin, &name).await?, 0);
    assert_eq!(count_named(&mut admin, other.name()).await?, 2);
    server.drop_database(other).await?;
    Ok(())
}

/// How many databases and roles have this name.
async fn count_named(admin: &mut PgConnection, name: &str) -> Result<i64, sqlx::Error> {
    let sql = "SELECT count(*) FROM (SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles) AS n (n) WHERE n = $1";
    sqlx::query_scalar(sql).bind(name).fetch_one(admin).await
}

#[tokio::test]
async fn invalid_database_prefix_is_refused() -> Outcome {
    let server = TestServer::shared().await?;
    for prefix in ["", "Ada", "a-b", "a\"b", &"a".repeat(41)] {
        let error = server.create_database(prefix).await.expect_err("an invalid prefix was accepted");
        assert!(matches!(error, DatabaseError::Prefix { .. }), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn log_contains_everything_up_to_the_call() -> Outcome {
    let server = TestServer::builder().setting("log_statement", "all").start().await?;
    let mut admin = server.admin_options().connect().await?;
    sqlx::raw_sql("SELECT 'canary that must be seen'").execute(&mut admin).await?;
    let database = server.create_database("logged").await?;
    let log = server.log().await?;
    assert!(log.contains("canary that must be seen"), "{log}");
    assert!(!log.contains("LOGIN PASSWORD"), "the harness wrote a password into the server log: {log}");
    server.drop_database(database).await?;
    Ok(server.stop().await?)
}

#[tokio::test]
async fn log_of_a_server_named_by_url_is_a_typed_error() -> Outcome {
    let server = TestServer::shared().await?;
    let named_by_url = matches!(server.kind(), ServerKind::Url { .. });
    assert_eq!(matches!(server.log().await, Err(LogError::NotOurs)), named_by_url);
    Ok(())
}

#[tokio::test]
async fn settings_and_durability_are_applied_to_the_server() -> Outcome {
    let server = TestServer::builder().durable(true).setting("max_prepared_transactions", "7").start().await?;
    let sql = "SELECT current_setting('fsync'), current_setting('max_prepared_transactions'), current_setting('max_connections')";
    let mut admin = server.admin_options().connect().await?;
    let row: (String, String, String) = sqlx::query_as(sql).fetch_one(&mut admin).await?;
    assert_eq!(row, ("on".to_owned(), "7".to_owned(), "300".to_owned()));
    Ok(server.stop().await?)
}

#[tokio::test]
async fn debug_output_contains_no_password() -> Outcome {
    let server = TestServer::shared().await?;
    let database = server.create_database("quiet").await?;
    let printed = format!("{server:?} {} {database:?}", server.describe());
    for options in [server.admin_options(), database.options()] {
        let url = options.to_url_lossy();
        let password = url.password().expect("the connection URL has no password");
        assert!(!printed.contains(password), "{printed}");
    }
    assert!(printed.contains(&format!("{}.", server.version_num() / 10_000)), "{printed}");
    server.drop_database(database).await?;
    Ok(())
}

#[tokio::test]
async fn start_future_can_be_spawned() -> Outcome {
    let server = tokio::spawn(async { TestServer::start().await }).await??;
    server.admin_options().connect().await?;
    Ok(server.stop().await?)
}

#[tokio::test]
async fn crashed_local_server_recovers_committed_data() {
    let server = TestServer::builder().durable(true).start().await.unwrap();
    if !matches!(server.kind(), ServerKind::Local { .. }) {
        assert_eq!(server.crash().await.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
        return;
    }
    let mut session = server.admin_options().connect().await.unwrap();
    session.execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    for _ in 0..2 {
        server.crash().await.unwrap();
        assert!(session.execute("SELECT 1").await.is_err(), "a session survived the crash of its server");
        session = server.admin_options().connect().await.unwrap();
    }
    assert_eq!(sqlx::query_scalar::<_, i32>("SELECT n FROM t").fetch_one(&mut session).await.unwrap(), 7);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn standby_replicates_its_primary_and_stops_independently() {
    let server = TestServer::start().await.unwrap();
    let standby = match server.standby().await {
        Err(NoServer::NoStandby { .. }) if !matches!(server.kind(), ServerKind::Local { .. }) => return,
        started => started.unwrap(),
    };
    let (mut on_primary, mut on_standby) =
        (server.admin_options().connect().await.unwrap(), standby.admin_options().connect().await.unwrap());
    on_primary.execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
    let found = loop {
        let found = sqlx::query_scalar::<_, i32>("SELECT n FROM t").fetch_one(&mut on_standby).await;
        if let Ok(n) = found {
            break n;
        }
    };
    assert_eq!(found, 7);
    let refused = on_standby.execute("CREATE TABLE mine (n int)").await.unwrap_err();
    assert_eq!(refused.as_database_error().and_then(|e| e.code()).as_deref(), Some("25006"));
    let ServerKind::Local { directory, .. } = standby.kind().clone() else { panic!("{:?}", standby.kind()) };
    standby.stop().await.unwrap();
    assert!(!directory.exists());
    on_primary.execute("DROP TABLE t").await.unwrap();
    server.stop().await.unwrap();
}
