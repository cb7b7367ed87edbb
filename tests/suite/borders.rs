//! What the application's login may not do, and what a hostile migration cannot reach.
use crate::auditor::{self, code};
use crate::provision::migrated;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use tenantry::directory::AppAccess;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

static HOSTILE: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/hostile_migrations");

async fn session(tenantry: &Tenantry, slug: &str) -> PgConnection {
    auditor::login(tenantry, slug).await.connect().await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "statements of the test's own")]
async fn refusal(session: &mut PgConnection, statement: &str) -> String {
    match session.execute(AssertSqlSafe(statement.to_owned())).await {
        Ok(_) => format!("{statement} was not refused"),
        Err(error) => code(&error),
    }
}

#[tokio::test]
async fn the_application_has_rows_and_nothing_else() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    tenantry.provision("globex").await.unwrap();
    let mut app = session(&tenantry, "acme").await;
    app.execute("INSERT INTO notes (text) VALUES ('x'); UPDATE notes SET text = 'y'; DELETE FROM notes").await.unwrap();
    app.execute("SELECT * FROM _sqlx_migrations; SELECT * FROM tenant_users").await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut app).await.unwrap();
    // Every server has this one extension, and whoever may create something in the database may install it.
    let superuser = harness.server().admin_options().database(&database);
    superuser.connect().await.unwrap().execute("DROP EXTENSION plpgsql").await.unwrap();
    for statement in [
        "CREATE TABLE x (id int)",
        "CREATE SCHEMA x",
        "CREATE EXTENSION plpgsql",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE notes ADD COLUMN x int",
        "DROP TABLE notes",
        "TRUNCATE notes",
        "CREATE TEMP TABLE x (id int)",
        "INSERT INTO _sqlx_migrations SELECT * FROM _sqlx_migrations",
        "DELETE FROM _sqlx_migrations",
        &format!("SET ROLE {database}_owner"),
        &format!("SET ROLE {}_admin", harness.prefix()),
        "SELECT * FROM pg_authid",
        "COPY notes TO PROGRAM 'true'",
        "SELECT pg_read_file('postgresql.conf')",
        &format!("ALTER DATABASE {database} SET search_path = x"),
        "CREATE ROLE x",
        "CREATE DATABASE x",
    ] {
        assert_eq!(refusal(&mut app, statement).await, "42501", "{statement}");
    }
    nowhere_else(&harness, &tenantry).await;
}

/// By the ACL and by trying: the SQLSTATE of a GRANT would not tell.
async fn nowhere_else(harness: &Harness, tenantry: &Tenantry) {
    let login = auditor::login(tenantry, "acme").await;
    let globex = auditor::login(tenantry, "globex").await;
    let landlord = harness.landlord().connect_options();
    let maintenance = format!("{}_maintenance", harness.prefix());
    for database in [globex.get_database().unwrap(), landlord.get_database().unwrap(), &maintenance] {
        let refused = login.clone().database(database).connect().await.unwrap_err();
        assert_eq!(code(&refused), "42501", "{database}");
    }
    let mut server = auditor::superuser(harness).await;
    const PUBLIC: &str = "SELECT datname::text FROM pg_database
        WHERE (datname = $1 OR datname LIKE $2 || '\\_%' OR datdba = (SELECT oid FROM pg_roles WHERE rolname = $2 || '_admin'))
          AND has_database_privilege('public', oid, 'CONNECT, TEMPORARY')";
    let open: Vec<String> = sqlx::query_scalar(PUBLIC)
        .bind(landlord.get_database())
        .bind(harness.prefix())
        .fetch_all(&mut server)
        .await
        .unwrap();
    assert_eq!(open, Vec::<String>::new(), "PUBLIC has nothing");
}

#[tokio::test]
async fn the_provisioner_is_no_superuser() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    const POWER: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '\\_%'
        AND (rolsuper OR rolreplication OR rolbypassrls OR pg_has_role(oid, 'pg_write_server_files', 'MEMBER'))";
    let mut server = auditor::superuser(&harness).await;
    let strong: Vec<String> = sqlx::query_scalar(POWER).bind(harness.prefix()).fetch_all(&mut server).await.unwrap();
    assert_eq!(strong, Vec::<String>::new());
}

/// With the owner's rights the login may run DDL, and still cannot touch its database from outside: the database is
/// the admin role's (rule 1).
#[tokio::test]
async fn an_owner_may_change_its_schema_and_not_its_database() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).app_access(AppAccess::Owner)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut owner = session(&tenantry, "acme").await;
    owner.execute("CREATE TABLE x (id int); DROP TABLE notes; CREATE SCHEMA y").await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut owner).await.unwrap();
    for statement in ["RENAME TO x", "SET search_path = x", "OWNER TO CURRENT_USER", "ALLOW_CONNECTIONS true"] {
        assert_eq!(
            refusal(&mut owner, &format!("ALTER DATABASE {database} {statement}")).await,
            "42501",
            "{statement}"
        );
    }
    let comment = format!("COMMENT ON DATABASE {database} IS 'mine'");
    assert_eq!(refusal(&mut owner, &comment).await, "42501");
    // Success with a warning alone: so the ACL is what counts.
    let _ = refusal(&mut owner, &format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC")).await;
    const OPEN: &str = "SELECT has_database_privilege('public', current_database(), 'CONNECT')";
    let open: bool = sqlx::query_scalar(OPEN).fetch_one(&mut owner).await.unwrap();
    assert!(!open);
    tenantry.purge("acme").force().await.unwrap();
    auditor::assert_nothing(&harness, "after a purge of an owner").await;
}

/// Rule 2: migrations run as a login that is a member of the owner alone, so no trigger reaches the admin role.
#[tokio::test]
async fn a_hostile_trigger_in_a_migration_reaches_nothing() {
    let harness = Harness::start().await.unwrap();
    let prefix = harness.prefix().to_owned();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&HOSTILE).app_access(AppAccess::Owner)).await.unwrap();
    let made = tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    // The trigger fired as whoever ran the migration, and kept what it found.
    let db = tenantry.resolve(made.tenant.id()).await.unwrap();
    let seen: Vec<(String, String)> =
        sqlx::query_as("SELECT who, outcome FROM loot ORDER BY who").fetch_all(&db).await.unwrap();
    assert!(!seen.is_empty(), "the trigger ran");
    for (who, outcome) in &seen {
        assert!(who.ends_with("_mig"), "{who}");
        assert_eq!(outcome, "42501", "{who} could become the admin role");
    }
    const MADE: &str = "SELECT count(*) FROM pg_roles WHERE rolname = 'hostile_' || $1";
    let mut server = auditor::superuser(&harness).await;
    let count: i64 = sqlx::query_scalar(MADE).bind(prefix).fetch_one(&mut server).await.unwrap();
    assert_eq!(count, 0);
}

/// Rule 3: what a session makes by accident belongs to the group, so it neither hides from the next login nor blocks
/// the drop of this one.
#[tokio::test]
async fn what_a_login_makes_belongs_to_its_group() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut app = session(&tenantry, "acme").await;
    app.execute("SELECT lo_create(4711)").await.unwrap();
    const OWNER: &str = "SELECT rolname::text FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner";
    let owner: String = sqlx::query_scalar(OWNER).fetch_one(&mut app).await.unwrap();
    assert!(owner.ends_with("_app"), "{owner}");
}

/// Rule 4: the admin role keeps no membership in tenant roles.
#[tokio::test]
async fn the_admin_role_keeps_no_membership_in_tenant_roles() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    const USABLE: &str = "SELECT r.rolname::text FROM pg_roles r, pg_roles a
        WHERE a.rolname = $1 || '_admin' AND r.oid <> a.oid AND NOT r.rolsuper AND pg_has_role(a.oid, r.oid, 'USAGE')
          AND r.rolname NOT LIKE 'pg\\_%'";
    let mut server = auditor::superuser(&harness).await;
    let usable: Vec<String> = sqlx::query_scalar(USABLE).bind(harness.prefix()).fetch_all(&mut server).await.unwrap();
    assert_eq!(usable, Vec::<String>::new());
}
