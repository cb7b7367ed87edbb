//! Privileges: what the application's login may not do, and what a hostile migration cannot reach. PostgreSQL refuses a
//! statement for lack of privileges with SQLSTATE 42501.
use crate::auditor::{self, code};
use crate::provision::migrated;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection};
use tenantry::directory::AppAccess;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

static HOSTILE: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/hostile_migrations");

async fn connect_as_tenant(tenantry: &Tenantry, slug: &str) -> PgConnection {
    auditor::login(tenantry, slug).await.connect().await.unwrap()
}

/// Runs a statement that must be refused. Returns the SQLSTATE, or a complaint if the statement succeeded.
#[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
async fn try_execute(session: &mut PgConnection, statement: &str) -> String {
    match session.execute(AssertSqlSafe(statement.to_owned())).await {
        Ok(_) => format!("{statement} was not refused"),
        Err(error) => code(&error),
    }
}

#[tokio::test]
async fn application_login_can_change_rows_and_nothing_else() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    tenantry.provision("globex").await.unwrap();
    let mut app = connect_as_tenant(&tenantry, "acme").await;
    app.execute("INSERT INTO notes (text) VALUES ('x'); UPDATE notes SET text = 'y'; DELETE FROM notes").await.unwrap();
    app.execute("SELECT * FROM _sqlx_migrations; SELECT * FROM tenant_users").await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut app).await.unwrap();
    // plpgsql is on every server and trusted: a role that may create objects in the database may install it. It must be
    // absent for CREATE EXTENSION to check that privilege.
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
        assert_eq!(try_execute(&mut app, statement).await, "42501", "{statement} must be refused");
    }
    assert_no_other_database_is_reachable(&harness, &tenantry).await;
}

/// Tries to connect to each database, and reads the ACLs. Trying a GRANT would prove nothing: without the right to
/// grant it succeeds with a warning.
async fn assert_no_other_database_is_reachable(harness: &Harness, tenantry: &Tenantry) {
    let login = auditor::login(tenantry, "acme").await;
    let globex = auditor::login(tenantry, "globex").await;
    let landlord = harness.landlord().connect_options();
    let maintenance = format!("{}_maintenance", harness.prefix());
    for database in [globex.get_database().unwrap(), landlord.get_database().unwrap(), &maintenance] {
        let refused = login.clone().database(database).connect().await.unwrap_err();
        assert_eq!(code(&refused), "42501", "a connection to {database} must be refused");
    }
    let mut server = auditor::superuser(harness).await;
    const PUBLIC: &str = "SELECT datname::text FROM pg_database
        WHERE (datname = $1 OR datname LIKE $2 || '\\_%' OR datdba = \
            (SELECT oid FROM pg_roles WHERE rolname = $2 || '_admin'))
          AND has_database_privilege('public', oid, 'CONNECT, TEMPORARY')";
    let open: Vec<String> = sqlx::query_scalar(PUBLIC)
        .bind(landlord.get_database())
        .bind(harness.prefix())
        .fetch_all(&mut server)
        .await
        .unwrap();
    assert_eq!(open, Vec::<String>::new(), "PUBLIC may use these databases");
}

#[tokio::test]
async fn provisioner_roles_have_no_superuser_rights() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    const POWER: &str = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '\\_%'
        AND (rolsuper OR rolreplication OR rolbypassrls OR pg_has_role(oid, 'pg_write_server_files', 'MEMBER'))";
    let mut server = auditor::superuser(&harness).await;
    let powerful: Vec<String> = sqlx::query_scalar(POWER).bind(harness.prefix()).fetch_all(&mut server).await.unwrap();
    assert_eq!(powerful, Vec::<String>::new(), "roles with too many rights");
}

/// With the owner's rights the login may run DDL. It still cannot alter, rename or grant the database itself, because
/// the admin role owns that.
#[tokio::test]
async fn owner_login_can_change_its_schema_but_not_its_database() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).app_access(AppAccess::Owner)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut owner = connect_as_tenant(&tenantry, "acme").await;
    owner.execute("CREATE TABLE x (id int); DROP TABLE notes; CREATE SCHEMA y").await.unwrap();
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut owner).await.unwrap();
    for statement in ["RENAME TO x", "SET search_path = x", "OWNER TO CURRENT_USER", "ALLOW_CONNECTIONS true"] {
        assert_eq!(
            try_execute(&mut owner, &format!("ALTER DATABASE {database} {statement}")).await,
            "42501",
            "{statement}"
        );
    }
    let comment = format!("COMMENT ON DATABASE {database} IS 'mine'");
    assert_eq!(try_execute(&mut owner, &comment).await, "42501");
    // Without the right to grant, GRANT succeeds with a warning, so only the ACL shows that it had no effect.
    let _ = try_execute(&mut owner, &format!("GRANT CONNECT ON DATABASE {database} TO PUBLIC")).await;
    const OPEN: &str = "SELECT has_database_privilege('public', current_database(), 'CONNECT')";
    let open: bool = sqlx::query_scalar(OPEN).fetch_one(&mut owner).await.unwrap();
    assert!(!open, "PUBLIC may connect to the database");
    tenantry.purge("acme").force().await.unwrap();
    auditor::assert_nothing(&harness, "after a purge of an owner").await;
}

/// Migrations run as a login that is a member of the owner role only, so a trigger cannot become the admin role.
#[tokio::test]
async fn trigger_in_a_migration_cannot_become_a_powerful_role() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.tenant_migrations(&HOSTILE).app_access(AppAccess::Owner)).await.unwrap();
    let provisioned = tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    // The trigger ran as the role that ran the migration, and stored each outcome.
    let db = tenantry.resolve(provisioned.tenant.id()).await.unwrap();
    let seen: Vec<(String, String)> =
        sqlx::query_as("SELECT who, outcome FROM loot ORDER BY who").fetch_all(&db).await.unwrap();
    assert!(!seen.is_empty(), "the trigger did not run");
    for (who, outcome) in &seen {
        assert!(who.ends_with("_mig"), "the migration ran as {who}, not as a migrator");
        assert_eq!(outcome, "42501", "{who} became the admin role, or failed for another reason");
    }
    const HOSTILE_ROLES: &str = "SELECT count(*) FROM pg_roles WHERE rolname = 'hostile'";
    let mut server = auditor::superuser(&harness).await;
    let count: i64 = sqlx::query_scalar(HOSTILE_ROLES).fetch_one(&mut server).await.unwrap();
    assert_eq!(count, 0, "the trigger created a role");
}

/// An object that a session makes by accident belongs to the group role. The next login can therefore use it, and it
/// does not prevent the drop of the login that made it.
#[tokio::test]
async fn object_made_by_a_login_belongs_to_its_group_role() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let mut app = connect_as_tenant(&tenantry, "acme").await;
    app.execute("SELECT lo_create(4711)").await.unwrap();
    const OWNER: &str = "SELECT rolname::text FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner";
    let owner: String = sqlx::query_scalar(OWNER).fetch_one(&mut app).await.unwrap();
    assert!(owner.ends_with("_app"), "the object belongs to {owner}, not to the group role");
}

#[tokio::test]
async fn admin_role_keeps_no_membership_in_tenant_roles() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    const USABLE: &str = "SELECT r.rolname::text FROM pg_roles r, pg_roles a
        WHERE a.rolname = $1 || '_admin' AND r.oid <> a.oid AND NOT r.rolsuper AND pg_has_role(a.oid, r.oid, 'USAGE')
          AND r.rolname NOT LIKE 'pg\\_%'";
    let mut server = auditor::superuser(&harness).await;
    let usable: Vec<String> = sqlx::query_scalar(USABLE).bind(harness.prefix()).fetch_all(&mut server).await.unwrap();
    assert_eq!(usable, Vec::<String>::new(), "roles that the admin role can still use");
}
