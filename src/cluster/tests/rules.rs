//! The rules that keep a tenant's login from gaining rights, each with the failure that it prevents. The manual's page
//! on roles describes the roles. The test for dropping without FORCE is in `obstacles`.
use super::{Step, Tenant, ask, sql, sqlstate_of};
use crate::cluster::pg::ensure;
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;

/// The admin role owns the database. Otherwise the application could drop or rename it, forge its comment, set the
/// search path of all its sessions and let other roles connect.
#[tokio::test]
async fn owner_login_cannot_alter_or_open_its_database() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::Owner).await?;
    let mut app = tenant.app().await?;
    assert_eq!(ask::<String>(&mut app, "SELECT current_user::text").await?, tenant.names.roles.owner.as_str());
    sql(&mut app, "CREATE TABLE made_by_the_app (id int); DROP TABLE made_by_the_app; CREATE SCHEMA s").await?;
    let db = format!("\"{}\"", tenant.names.database);
    for statement in [
        format!("DROP DATABASE {db}"),
        format!("ALTER DATABASE {db} RENAME TO \"{}_x\"", it.prefix()),
        format!("ALTER DATABASE {db} SET search_path = s"),
        format!("ALTER DATABASE {db} CONNECTION LIMIT 1"),
        format!("ALTER DATABASE {db} OWNER TO CURRENT_USER"),
        format!("COMMENT ON DATABASE {db} IS 'mine'"),
        format!("SET ROLE \"{}\"", it.server.names.admin),
    ] {
        assert_eq!(sqlstate_of(&mut app, &statement).await, "42501", "{statement}");
    }
    // This GRANT succeeds with only a warning, so check the resulting right.
    sql(&mut app, &format!("GRANT CONNECT ON DATABASE {db} TO PUBLIC")).await?;
    let open = format!("SELECT has_database_privilege('public', '{}', 'CONNECT')", tenant.names.database);
    assert!(!ask::<bool>(&mut app, &open).await?, "the owner role has let PUBLIC connect");
    Ok(())
}

/// Migrations run as a login of their own. In the provisioner's session after SET ROLE, a trigger of the tenant could
/// run SET ROLE again and so act as the admin role.
#[tokio::test]
async fn trigger_fired_by_a_migration_cannot_change_its_role() -> Outcome {
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
        assert_eq!(sqlstate_of(&mut migrator, &fired).await, "42501", "{wish}");
    }
    Ok(())
}

/// Every login acts as a group role. What it creates by accident belongs to the group, so the next login can use it and
/// the role can be dropped.
#[tokio::test]
async fn objects_of_one_login_belong_to_the_next_and_do_not_block_its_drop() -> Outcome {
    for access in [AppAccess::App, AppAccess::Owner] {
        let it = Installation::new(By::Managed).await?;
        let tenant = Tenant { temp_tables: true, ..Tenant::new(&it, "_one", access)? };
        let mut locked = tenant.locked_session().await?;
        tenant.run(&mut locked, &Step::ALL).await?;
        let mut first = tenant.app().await?;
        let large: i32 = ask(&mut first, "SELECT lo_from_bytea(0, 'kept')::int").await?;
        // The application cannot leave the group role by a reset.
        for reset in ["RESET ROLE", "RESET ALL", "DISCARD ALL"] {
            sql(&mut first, reset).await?;
        }
        sql(&mut first, "CREATE TEMP TABLE t (id int)").await?;

        let second = tenant.create_login(&mut locked, 2).await?;
        let mut provisioner = it.provisioner().await?;
        let login = &tenant.login;
        ensure::refuse_logins(
            &mut provisioner,
            &tenant.names.database,
            &[login],
            &it.ownership(),
            std::time::Duration::ZERO,
        )
        .await?;
        assert_eq!(
            ensure::drop_own_role(&mut provisioner, login, &it.ownership()).await?,
            None,
            "nothing may depend on the login"
        );

        let mut app = tenant.app_as(&second).await?;
        assert_eq!(ask::<Vec<u8>>(&mut app, &format!("SELECT lo_get({large})")).await?, b"kept");
        let group = crate::cluster::pg::ddl::acts_as(&tenant.names.roles, access).as_str();
        assert_eq!(ask::<String>(&mut app, "SELECT current_user::text").await?, group);
    }
    Ok(())
}

/// After SET ROLE NONE the login itself owns what it creates. Removing the login reassigns these objects to the group
/// role.
#[tokio::test]
async fn remove_login_reassigns_what_the_login_owns_itself() -> Outcome {
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
        let second = tenant.create_login(&mut locked, 2).await?;
        let new_owner = crate::cluster::pg::ddl::acts_as(&tenant.names.roles, access);
        let mut provisioner = it.provisioner().await?;
        let login = &tenant.login;
        ensure::refuse_logins(
            &mut provisioner,
            &tenant.names.database,
            &[login],
            &it.ownership(),
            std::time::Duration::ZERO,
        )
        .await?;
        assert!(
            ensure::drop_own_role(&mut provisioner, login, &it.ownership()).await?.is_some(),
            "DROP ROLE must fail with 2BP01"
        );

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

/// The admin role is a member of a tenant's role during one block only. With thousands of memberships each login of the
/// provisioner takes seconds.
#[tokio::test]
async fn admin_role_keeps_no_membership_after_a_step() -> Outcome {
    for by in [By::Superuser, By::Managed] {
        let it = Installation::new(by).await?;
        let tenant = Tenant::new(&it, "_one", AppAccess::App)?;
        let mut locked = tenant.locked_session().await?;
        for step in Step::ALL {
            tenant.step(&mut locked, step).await?;
            assert!(tenant.memberships().await?.is_empty(), "{by:?}: memberships left after step {step:?}");
        }
        // While a login is refused, the admin role is its member. Admitting or dropping the login ends the membership.
        locked.refuse(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
        assert_eq!(tenant.memberships().await?, [tenant.login.to_string()]);
        locked.admit(&tenant.login, &tenant.names.roles.app).await?;
        assert!(tenant.memberships().await?.is_empty());
        let second = tenant.create_login(&mut locked, 2).await?;
        locked.remove_login(&tenant.names, &tenant.login, &tenant.names.roles.app).await?;
        assert!(tenant.memberships().await?.is_empty());
        locked.remove(&tenant.names, &[second]).await?;
        assert!(tenant.memberships().await?.is_empty());
    }
    Ok(())
}
