//! The landlord's schema: `install` creates or upgrades it, and `check` reports everything that is missing or unknown.
//!
//! Both must not depend on the application's session defaults, must be safe to call concurrently, and must leave no
//! lock behind.
use crate::landlord;
use sqlx::{ConnectOptions, Connection, PgPool};
use tenantry::error::SchemaError;
use tenantry::schema::{check, install};
use tenantry::testing::TestServer;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/store/schema/migrations");

async fn run(landlord: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(landlord).await.expect(sql);
}

#[tokio::test]
async fn concurrent_installs_on_ten_nodes_succeed() {
    let options = landlord::empty().await;
    let nodes = (0..10).map(|_| landlord::pool(options.clone())).collect::<Vec<_>>();
    let installs: Vec<_> =
        nodes.iter().cloned().map(|node| tokio::spawn(async move { install(&node).await })).collect();
    for install in installs {
        install.await.unwrap().expect("one of ten concurrent installs failed");
    }
    check(&nodes[0]).await.unwrap();
    let applied: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.schema_migrations").fetch_one(&nodes[0]).await.unwrap();
    let installations: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.installation").fetch_one(&nodes[0]).await.unwrap();
    assert_eq!(
        (applied, installations),
        (MIGRATIONS.iter().count() as i64, 1),
        "rows in schema_migrations and in installation"
    );
}

#[tokio::test]
async fn check_before_install_lists_what_is_missing_and_names_install() {
    let landlord = landlord::pool(landlord::empty().await);
    let error = check(&landlord).await.unwrap_err();
    let text = error.to_string();
    let SchemaError::Missing(missing) = error else { panic!("{error:?}") };
    let all = MIGRATIONS.iter().map(|m| format!("migration {} ({})", m.version, m.description));
    assert_eq!(missing, ["the schema tenantry".to_owned()].into_iter().chain(all).collect::<Vec<_>>());
    assert!(text.contains("tenantry::schema::install"), "{text}");
    install(&landlord).await.unwrap();
    check(&landlord).await.unwrap();
    install(&landlord).await.expect("a second install failed");
}

#[tokio::test]
async fn newer_or_changed_migration_is_refused() {
    let landlord = landlord::installed().await;
    let newer = "INSERT INTO tenantry.schema_migrations (version, description, success, checksum, execution_time)
        VALUES (999, 'of the future', true, 'x', 0)";
    run(&landlord, newer).await;
    for answer in [check(&landlord).await, install(&landlord).await] {
        let Err(SchemaError::Newer(what)) = answer else { panic!("{answer:?}") };
        assert_eq!(what, ["migration 999"]);
    }
    run(&landlord, "DELETE FROM tenantry.schema_migrations WHERE version = 999").await;
    run(&landlord, "UPDATE tenantry.schema_migrations SET checksum = 'another' WHERE version = 1").await;
    let Err(SchemaError::Newer(what)) = check(&landlord).await else { panic!("check() accepted a changed migration") };
    assert_eq!(what, ["a different migration 1 (landlord)"]);
}

#[tokio::test]
async fn dropped_objects_are_listed_in_one_error() {
    let landlord = landlord::installed().await;
    run(&landlord, "DROP TABLE tenantry.setup_tokens").await;
    run(&landlord, "ALTER TABLE tenantry.tenants DROP COLUMN metadata").await;
    run(&landlord, "DROP INDEX tenantry.tenants_slug").await;
    run(&landlord, "ALTER TABLE tenantry.tenants DISABLE TRIGGER tenant_deleted").await;
    for answer in [check(&landlord).await, install(&landlord).await] {
        let Err(SchemaError::Damaged(mut lost)) = answer else { panic!("{answer:?}") };
        lost.sort();
        let expected = [
            "the column tenantry.tenants.metadata",
            "the index or trigger tenant_deleted on tenantry.tenants",
            "the index or trigger tenants_slug on tenantry.tenants",
            "the table tenantry.setup_tokens",
        ];
        assert_eq!(lost, expected);
    }
}

/// Every object that the migrations create is on the list that `check` compares with the landlord.
#[tokio::test]
async fn check_knows_every_column_index_and_trigger() {
    const COLUMNS: &str = "SELECT format('the column tenantry.%s.%s', table_name, column_name)
        FROM information_schema.columns WHERE table_schema = 'tenantry' AND table_name <> 'schema_migrations'";
    const PARTS: &str = "SELECT format('the index or trigger %s on tenantry.%s', name, tablename) FROM (
            SELECT indexname AS name, tablename FROM pg_indexes WHERE schemaname = 'tenantry'
            UNION SELECT trigger_name, event_object_table FROM information_schema.triggers
                WHERE trigger_schema = 'tenantry') AS part
        WHERE tablename <> 'schema_migrations'";
    const EMPTY: &str = "DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'tenantry' AND tablename <> 'schema_migrations'
        LOOP EXECUTE format('DROP TABLE tenantry.%I CASCADE; CREATE TABLE tenantry.%I ()', name, name); END LOOP;
        END $$";
    let landlord = landlord::installed().await;
    let mut created: Vec<String> = sqlx::query_scalar(COLUMNS).fetch_all(&landlord).await.unwrap();
    created.extend(sqlx::query_scalar::<_, String>(PARTS).fetch_all(&landlord).await.unwrap());
    run(&landlord, EMPTY).await;
    let Err(SchemaError::Damaged(mut missed)) = check(&landlord).await else { panic!("check() accepted empty tables") };
    created.sort();
    missed.sort();
    assert_eq!(
        missed, created,
        "left: what check() reports, right: what the migrations create; update src/store/schema/objects.rs"
    );
}

#[tokio::test]
async fn missing_rights_are_listed() {
    let owner = landlord::empty().await;
    let guest = TestServer::shared().await.unwrap().create_database("guest").await.unwrap();
    let as_guest = guest.options().database(owner.get_database().unwrap());
    let (landlord, guest_pool) = (landlord::pool(owner), landlord::pool(as_guest));
    let Err(SchemaError::Rights(lacking)) = install(&guest_pool).await else {
        panic!("a role without rights could install the schema")
    };
    assert_eq!(lacking, ["CREATE on its database"]);

    run(&landlord, "CREATE SCHEMA tenantry").await;
    let Err(SchemaError::Rights(lacking)) = install(&guest_pool).await else {
        panic!("a role without rights could install the schema")
    };
    assert_eq!(lacking, ["USAGE on the schema tenantry"]);
    run(&landlord, "GRANT USAGE ON SCHEMA tenantry TO PUBLIC").await;
    let Err(SchemaError::Rights(lacking)) = install(&guest_pool).await else {
        panic!("a role without rights could install the schema")
    };
    assert_eq!(lacking, ["CREATE on the schema tenantry"]);

    install(&landlord).await.expect("install into an existing empty schema failed");
    run(&landlord, "GRANT SELECT ON tenantry.schema_migrations TO PUBLIC").await;
    let error = check(&guest_pool).await.unwrap_err();
    assert!(matches!(error, SchemaError::Rights(_)), "{error:?}");
    assert!(error.to_string().contains("SELECT, INSERT, UPDATE, DELETE on tenantry.tenants"), "{error}");
    run(&landlord, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tenantry TO PUBLIC").await;
    check(&guest_pool).await.expect("check() failed for a role that has all required rights");
    install(&guest_pool)
        .await
        .expect("install() of an up-to-date schema failed for a role that may not create anything");
}

/// The sessions of this pool have a `search_path` with functions and tables that shadow the real ones, and their
/// transactions are serializable and read-only by default.
#[tokio::test]
async fn install_ignores_search_path_isolation_and_read_only_defaults() {
    const ASTRAY: &str = "CREATE SCHEMA astray;
        CREATE FUNCTION astray.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
        CREATE FUNCTION astray.current_database() RETURNS name LANGUAGE sql AS 'SELECT NULL::name';
        CREATE TABLE astray.tenants (id int);
        CREATE TABLE astray.pg_class (id int);
        CREATE TABLE astray._sqlx_migrations (version int)";
    let options = landlord::empty().await;
    let mut host = options.connect().await.unwrap();
    sqlx::raw_sql(ASTRAY).execute(&mut host).await.unwrap();
    host.close().await.unwrap();
    let defaults = [
        ("search_path", "astray,pg_catalog"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_read_only", "on"),
    ];
    let landlord = landlord::pool(options.options(defaults));
    install(&landlord).await.unwrap();
    check(&landlord).await.unwrap();
    let after: String = sqlx::query_scalar("SHOW search_path").fetch_one(&landlord).await.unwrap();
    assert_eq!(after, "astray,pg_catalog", "install() changed the search_path of the application's sessions");
}

#[tokio::test]
async fn cancelled_install_leaves_no_lock() {
    let options = landlord::empty().await;
    let landlord = landlord::pool(options.clone());
    for microseconds in [500, 2_000, 5_000, 10_000, 20_000, 40_000] {
        let _ = tokio::time::timeout(std::time::Duration::from_micros(microseconds), install(&landlord)).await;
    }
    let other = landlord::pool(options);
    tokio::time::timeout(std::time::Duration::from_secs(10), install(&other))
        .await
        .expect("a cancelled install left a lock: the next one did not end within 10 s")
        .unwrap();
    check(&other).await.unwrap();
}

/// The pause is necessary: the pool tests an idle connection only after it has been idle for a while.
#[tokio::test]
async fn terminated_idle_connection_is_replaced_without_an_error() {
    let options = landlord::empty().await;
    let pool = tenantry::schema::pool_options().max_connections(1).connect_lazy_with(options.clone());
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&pool).await.unwrap();
    let mut other = options.connect().await.unwrap();
    let ended: bool =
        sqlx::query_scalar("SELECT pg_terminate_backend($1, 5000)").bind(pid).fetch_one(&mut other).await.unwrap();
    assert!(ended);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let next: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&pool)
        .await
        .expect("the pool did not replace a terminated connection");
    assert_ne!(next, pid);
}
