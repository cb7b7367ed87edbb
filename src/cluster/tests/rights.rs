//! Which rights the application's login has, and which statements PostgreSQL refuses it.
use super::{Tenant, ask, sql, sqlstate_of};
use crate::cluster::pg::bootstrap;
use crate::cluster::pg::tests::{By, Installation, Outcome, code};
use crate::directory::AppAccess;
use crate::testing::TestServer;
use sqlx::ConnectOptions;

#[tokio::test]
async fn application_login_may_only_read_and_write_rows() -> Outcome {
    for by in [By::Superuser, By::Managed] {
        let it = Installation::new(by).await?;
        let tenant = Tenant::provisioned(&it, "_one", AppAccess::App).await?;
        let mut app = tenant.app().await?;
        sql(&mut app, "INSERT INTO notes (note) VALUES ('a'); UPDATE notes SET note = 'b'; DELETE FROM notes").await?;
        sql(&mut app, "SELECT * FROM _sqlx_migrations").await?;
        let (db, login) = (&tenant.names.database, &tenant.login);
        // Every server has this extension. It is trusted, so any role with CREATE on the database may install it.
        sql(&mut it.superuser(db.as_str()).await?, "DROP EXTENSION plpgsql").await?;
        for statement in [
            "CREATE TABLE x (id int)",
            "CREATE TEMP TABLE x (id int)",
            "CREATE SCHEMA x",
            "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE EXTENSION plpgsql",
            "CREATE INDEX ON notes (note)",
            "ALTER TABLE notes ADD COLUMN x int",
            "DROP TABLE notes",
            "TRUNCATE notes",
            "DROP SCHEMA public",
            "INSERT INTO _sqlx_migrations VALUES (1)",
            "UPDATE _sqlx_migrations SET version = 1",
            "DELETE FROM _sqlx_migrations",
            "SELECT * FROM pg_authid",
            "SELECT * FROM pg_shadow",
            "COPY notes FROM PROGRAM 'true'",
            "SELECT pg_read_file('PG_VERSION')",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL",
            &format!("SET ROLE \"{}\"", tenant.names.roles.owner),
            &format!("SET ROLE \"{}\"", it.server.names.admin),
            &format!("ALTER DATABASE \"{db}\" CONNECTION LIMIT 1"),
            &format!("COMMENT ON DATABASE \"{db}\" IS 'mine'"),
            &format!("ALTER ROLE \"{login}\" CONNECTION LIMIT -1"),
            &format!("ALTER ROLE \"{login}\" CREATEDB"),
            &format!("COMMENT ON ROLE \"{login}\" IS 'mine'"),
        ] {
            assert_eq!(sqlstate_of(&mut app, statement).await, "42501", "{by:?}: {statement}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn application_may_use_objects_of_later_migrations() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::App).await?;
    tenant.step(&mut tenant.locked_session().await?, super::Step::Migrator).await?;
    let made = "CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('ok'); CREATE TABLE s.t (id serial, mood s.mood); \
        CREATE VIEW s.v AS SELECT * FROM s.t; CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 7'; \
        CREATE TABLE \"_Other Ledger\" (id int)";
    let mut migrator = tenant.migrator().await?;
    sql(&mut migrator, made).await?;
    // sqlx takes the table name as SQL, with quotes and perhaps a schema.
    super::close_ledger(&mut migrator, "public.\"_Other Ledger\"", &tenant.names.roles.app).await?;
    let mut app = tenant.app().await?;
    sql(&mut app, "INSERT INTO s.t (mood) VALUES ('ok'); SELECT * FROM s.v").await?;
    assert_eq!(ask::<i32>(&mut app, "SELECT s.f()").await?, 7);
    assert_eq!(sqlstate_of(&mut app, "INSERT INTO \"_Other Ledger\" VALUES (1)").await, "42501");
    let public = "SELECT has_function_privilege('public', 's.f()', 'EXECUTE') \
        OR has_type_privilege('public', 's.mood', 'USAGE') OR has_schema_privilege('public', 's', 'USAGE')";
    assert!(!ask::<bool>(&mut app, public).await?);
    Ok(())
}

#[tokio::test]
async fn temp_tables_option_grants_temporary() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant { temp_tables: true, ..Tenant::new(&it, "_one", AppAccess::App)? };
    tenant.run(&mut tenant.locked_session().await?, &super::Step::ALL).await?;
    sql(&mut tenant.app().await?, "CREATE TEMP TABLE x (id int)").await?;
    Ok(())
}

#[tokio::test]
async fn public_has_no_rights_and_tenants_cannot_enter_other_databases() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let (one, other) = (
        Tenant::provisioned(&it, "_one", AppAccess::App).await?,
        Tenant::provisioned(&it, "_other", AppAccess::Owner).await?,
    );
    let mut app = one.app().await?;
    let rights = "SELECT bool_or(has_database_privilege('public', d.oid, p) OR has_schema_privilege('public', 'public', s)) \
        FROM pg_database d, unnest(ARRAY['CONNECT', 'TEMPORARY', 'CREATE']) p, unnest(ARRAY['USAGE', 'CREATE']) s \
        WHERE d.datname = current_database()";
    assert!(!ask::<bool>(&mut app, rights).await?);

    let landlord = TestServer::shared().await?.create_database("landlord").await?;
    let mut pool = landlord.options().connect().await?;
    assert_eq!(bootstrap::close_to_public(&mut pool, landlord.name(), &[landlord.name().into()]).await?, None);
    let maintenance = it.server.names.maintenance.as_str();
    for (tenant, elsewhere) in [(&one, &other), (&other, &one)] {
        let options = it.options(&tenant.login, &tenant.password);
        for database in [elsewhere.names.database.as_str(), maintenance, landlord.name()] {
            assert_eq!(code(options.clone().database(database).connect().await), "42501", "{database}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn connection_limit_of_a_login_is_enforced() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::App).await?;
    let mut sessions = vec![];
    for _ in 0..5 {
        sessions.push(tenant.app().await?);
    }
    let options = it.options(&tenant.login, &tenant.password).database(tenant.names.database.as_str());
    assert_eq!(code(options.connect().await), "53300", "the sixth session must be refused");
    Ok(())
}
