//! The five rules of the page on rights, each with the failure that it prevents.
use super::{Step, Tenant, ask, refusal, sql};
use crate::cluster::pg::ensure;
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;

/// Rule 1: the admin role owns the database. Else the application could drop it, rename it, forge our comment on it,
/// set everybody's search path and let everybody in.
#[tokio::test]
async fn a_login_that_acts_as_the_owner_has_no_power_over_the_database_itself() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::Owner).await?;
    let mut app = tenant.app().await?;
    assert_eq!(ask::<String>(&mut app, "SELECT current_user::text").await?, tenant.names.roles.owner.as_str());
    sql(&mut app, "CREATE TABLE made_by_the_app (id int); DROP TABLE made_by_the_app; CREATE SCHEMA s").await?;
    let db = format!("\"{}\"", tenant.names.database);
    for refused in [
        format!("DROP DATABASE {db}"),
        format!("ALTER DATABASE {db} RENAME TO \"{}_x\"", it.prefix()),
        format!("ALTER DATABASE {db} SET search_path = s"),
        format!("ALTER DATABASE {db} CONNECTION LIMIT 1"),
        format!("ALTER DATABASE {db} OWNER TO CURRENT_USER"),
        format!("COMMENT ON DATABASE {db} IS 'mine'"),
        format!("SET ROLE \"{}\"", it.server.names.admin),
    ] {
        assert_eq!(refusal(&mut app, &refused).await, "42501", "{refused}");
    }
    // A success with a warning, so the rights are what is looked at.
    sql(&mut app, &format!("GRANT CONNECT ON DATABASE {db} TO PUBLIC")).await?;
    let open = format!("SELECT has_database_privilege('public', '{}', 'CONNECT')", tenant.names.database);
    assert!(!ask::<bool>(&mut app, &open).await?);
    Ok(())
}

/// Rule 2: migrations run as a login of their own. On the provisioner's session after SET ROLE, a trigger in the
/// tenant's database could say SET ROLE again.
#[tokio::test]
async fn a_trigger_that_a_migration_fires_reaches_no_role_but_its_owner_s() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::Owner).await?;
    let (admin, blue) = (&it.server.names.admin, &it.server.names.blue);
    let mut app = tenant.app().await?;
    sql(
        &mut app,
        "CREATE TABLE wish (text text); CREATE FUNCTION grant_wish() RETURNS trigger LANGUAGE plpgsql AS \
         $$BEGIN EXECUTE NEW.text; RETURN NEW; END$$; \
         CREATE TRIGGER t BEFORE INSERT ON wish FOR EACH ROW EXECUTE FUNCTION grant_wish()",
    )
    .await?;
    tenant.step(&mut tenant.locked_session().await?, Step::Migrator).await?;
    let mut migrator = tenant.migrator().await?;
    sql(&mut migrator, "INSERT INTO wish VALUES ('SELECT 1')").await?;
    for wish in [
        format!("SET ROLE \"{admin}\""),
        format!("SET SESSION AUTHORIZATION \"{blue}\""),
        format!("CREATE ROLE \"{}_evil\" SUPERUSER", it.prefix()),
        format!("ALTER ROLE \"{blue}\" PASSWORD 'mine'"),
        format!("GRANT \"{admin}\" TO CURRENT_USER"),
        format!("COMMENT ON DATABASE \"{}\" IS 'mine'", tenant.names.database),
    ] {
        let fired = format!("INSERT INTO wish VALUES ('{}')", wish.replace('\'', "''"));
        assert_eq!(refusal(&mut migrator, &fired).await, "42501", "{wish}");
    }
    Ok(())
}

/// Rule 3: every login acts as a group role, so what it makes by accident survives it and does not keep it.
#[tokio::test]
async fn what_one_login_made_by_accident_is_the_next_one_s_and_does_not_keep_it() -> Outcome {
    for access in [AppAccess::App, AppAccess::Owner] {
        let it = Installation::new(By::Managed).await?;
        let tenant = Tenant { temp_tables: true, ..Tenant::new(&it, "_one", access)? };
        let mut locked = tenant.locked_session().await?;
        tenant.run(&mut locked, &Step::ALL).await?;
        let mut first = tenant.app().await?;
        let large: i32 = ask(&mut first, "SELECT lo_from_bytea(0, 'kept')::int").await?;
        // Whatever the application says to its session, it stays what it acts as.
        for reset in ["RESET ROLE", "RESET ALL", "DISCARD ALL"] {
            sql(&mut first, reset).await?;
        }
        sql(&mut first, "CREATE TEMP TABLE t (id int)").await?;

        let second = tenant.rotated(&mut locked, 2).await?;
        let mut provisioner = it.provisioner().await?;
        let login = &tenant.login;
        ensure::refuse_logins(&mut provisioner, &tenant.names.database, &[login], &it.ownership()).await?;
        assert_eq!(ensure::drop_own_role(&mut provisioner, login, &it.ownership()).await?, None, "nothing keeps it");

        let mut app = tenant.app_as(&second).await?;
        assert_eq!(ask::<Vec<u8>>(&mut app, &format!("SELECT lo_get({large})")).await?, b"kept");
        let group = crate::cluster::pg::ddl::acts_as(&tenant.names.roles, access).as_str();
        assert_eq!(ask::<String>(&mut app, "SELECT current_user::text").await?, group);
    }
    Ok(())
}

/// And where the application went out of its way (SET ROLE NONE), what it made is adopted: the login still goes.
#[tokio::test]
async fn what_a_login_owns_itself_is_adopted_by_the_role_that_it_acts_as() -> Outcome {
    for access in [AppAccess::App, AppAccess::Owner] {
        let it = Installation::new(By::Managed).await?;
        let tenant = Tenant::provisioned(&it, "_one", access).await?;
        let mut locked = tenant.locked_session().await?;
        let mut first = tenant.app().await?;
        sql(&mut first, "SET ROLE NONE").await?;
        let large: i32 = ask(&mut first, "SELECT lo_from_bytea(0, 'kept')::int").await?;
        if access == AppAccess::Owner {
            sql(&mut first, "CREATE TABLE by_the_login (id int); INSERT INTO by_the_login VALUES (1)").await?;
        }
        let second = tenant.rotated(&mut locked, 2).await?;
        let new_owner = crate::cluster::pg::ddl::acts_as(&tenant.names.roles, access);
        let mut provisioner = it.provisioner().await?;
        let login = &tenant.login;
        ensure::refuse_logins(&mut provisioner, &tenant.names.database, &[login], &it.ownership()).await?;
        assert!(ensure::drop_own_role(&mut provisioner, login, &it.ownership()).await?.is_some(), "2BP01");

        locked.remove_login(&tenant.names, login, new_owner).await?;
        locked.remove_login(&tenant.names, login, new_owner).await?;
        let mut app = tenant.app_as(&second).await?;
        assert_eq!(ask::<Vec<u8>>(&mut app, &format!("SELECT lo_get({large})")).await?, b"kept");
        if access == AppAccess::Owner {
            assert_eq!(ask::<i64>(&mut app, "SELECT count(*) FROM by_the_login").await?, 1);
        }
        let roles = [tenant.names.roles.app.to_string(), tenant.names.roles.owner.to_string(), second.to_string()];
        let mut expected: Vec<String> = roles.iter().map(|r| format!("role {r}")).collect();
        expected.insert(0, format!("database {}", tenant.names.database));
        assert_eq!(tenant.left().await?, expected);
    }
    Ok(())
}

/// Rule 4: memberships of the admin role last for a block. With thousands of them its connect takes seconds.
#[tokio::test]
async fn the_admin_role_keeps_no_membership() -> Outcome {
    for by in [By::Superuser, By::Managed] {
        let it = Installation::new(by).await?;
        let tenant = Tenant::new(&it, "_one", AppAccess::App)?;
        let mut locked = tenant.locked_session().await?;
        for step in Step::ALL {
            tenant.step(&mut locked, step).await?;
            assert!(tenant.memberships().await?.is_empty(), "{by:?}, after {step:?}");
        }
        // A login that is refused has one, which ends with the login or with its return.
        locked.refuse(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
        assert_eq!(tenant.memberships().await?, [tenant.login.to_string()]);
        locked.admit(&tenant.login, &tenant.names.roles.app).await?;
        assert!(tenant.memberships().await?.is_empty());
        let second = tenant.rotated(&mut locked, 2).await?;
        locked.remove_login(&tenant.names, &tenant.login, &tenant.names.roles.app).await?;
        assert!(tenant.memberships().await?.is_empty());
        locked.remove(&tenant.names, &[second]).await?;
        assert!(tenant.memberships().await?.is_empty());
    }
    Ok(())
}
