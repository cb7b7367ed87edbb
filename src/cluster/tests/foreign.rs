//! Objects of another party under a name that a tenant needs: they are reported and never changed.
use super::{Step, Tenant, ask, sql};
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;
use crate::error::ClusterError;

fn is_foreign(error: Box<dyn std::error::Error>) -> bool {
    error.to_string().contains("Foreign")
}

#[tokio::test]
async fn precheck_fails_when_a_role_of_the_name_exists() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut superuser = it.superuser("postgres").await?;
    let tenant = Tenant::new(&it, "_taken", AppAccess::App)?;
    let names = [&tenant.names.roles.owner, &tenant.names.roles.app, &tenant.names.migrator, &tenant.login];
    for role in names {
        sql(&mut superuser, &format!("CREATE ROLE \"{role}\" NOLOGIN")).await?;
        let error =
            tenant.locked_session().await?.precheck(&tenant.names, &tenant.login).await.unwrap_err().into_cause();
        let is_named = matches!(error.downcast_ref(),
            Some(ClusterError::Foreign { kind: "role", name }) if name == role.as_str());
        assert!(is_named, "the error must name the role {role}: {error:?}");
        sql(&mut superuser, &format!("DROP ROLE \"{role}\"")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn foreign_role_is_reported_and_not_changed() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut superuser = it.superuser("postgres").await?;
    // A role of another tenant of the same installation is not taken over either.
    let comments = [None, Some("mine".to_owned()), Some(it.marker())];
    for (comment, step) in comments.into_iter().zip([Step::Roles, Step::Migrator, Step::Login]) {
        let tenant = Tenant::new(&it, &format!("_{step:?}"), AppAccess::App)?;
        let role = match step {
            Step::Roles => &tenant.names.roles.app,
            Step::Migrator => &tenant.names.migrator,
            _ => &tenant.login,
        };
        sql(&mut superuser, &format!("CREATE ROLE \"{role}\" NOLOGIN CONNECTION LIMIT 7")).await?;
        if let Some(comment) = comment {
            sql(&mut superuser, &format!("COMMENT ON ROLE \"{role}\" IS '{comment}'")).await?;
        }
        let mut locked = tenant.locked_session().await?;
        assert!(locked.precheck(&tenant.names, &tenant.login).await.is_err());
        let before = Step::ALL.iter().position(|s| *s == step).unwrap_or_default();
        tenant.run(&mut locked, &Step::ALL[..before]).await?;
        let error = tenant.run(&mut locked, &[step]).await.unwrap_err();
        assert!(is_foreign(error), "step {step:?} must report the foreign role");
        let is_unchanged = "SELECT rolconnlimit = 7 AND NOT rolcanlogin AND NOT EXISTS \
            (SELECT FROM pg_auth_members m WHERE m.member = r.oid OR m.roleid = r.oid) FROM pg_roles r WHERE rolname";
        assert!(
            ask::<bool>(&mut superuser, &format!("{is_unchanged} = '{role}'")).await?,
            "step {step:?} has changed a foreign role"
        );
        // The undo removes everything that the provisioning created, and not the foreign role.
        locked.remove_created(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
        assert_eq!(tenant.left().await?, [format!("role {role}")]);
    }
    Ok(())
}

#[tokio::test]
async fn foreign_database_is_reported_and_not_changed() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let other = Installation::new(By::Superuser).await?;
    let mut superuser = it.superuser("postgres").await?;
    for (n, owner) in [String::new(), format!("OWNER \"{}\"", other.server.names.admin)].iter().enumerate() {
        let tenant = Tenant::new(&it, &format!("_{n}"), AppAccess::App)?;
        let name = &tenant.names.database;
        sql(&mut superuser, &format!("CREATE DATABASE \"{name}\" {owner} TEMPLATE template0")).await?;
        let mut inside = it.superuser(name.as_str()).await?;
        let mut locked = tenant.locked_session().await?;
        let error = locked.precheck(&tenant.names, &tenant.login).await.unwrap_err().into_cause();
        assert!(matches!(
            error.downcast_ref(),
            Some(ClusterError::Foreign { kind: "database", name: found }) if found == name.as_str()
        ));
        tenant.step(&mut locked, Step::Roles).await?;
        assert!(is_foreign(tenant.run(&mut locked, &[Step::Database]).await.unwrap_err()));
        locked.remove_created(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
        sql(&mut inside, "SELECT 1").await?;
        let open = format!("SELECT datallowconn AND datacl IS NULL FROM pg_database WHERE datname = '{name}'");
        assert!(ask::<bool>(&mut superuser, &open).await?, "the foreign database was changed");
        drop(inside);
        sql(&mut superuser, &format!("DROP DATABASE \"{name}\"")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn installations_do_not_take_over_roles_of_each_other() -> Outcome {
    let (one, other) = (Installation::new(By::Managed).await?, Installation::new(By::Managed).await?);
    let tenant = Tenant::provisioned(&one, "_x", AppAccess::App).await?;
    // Another installation asks for the same names.
    let theirs = Tenant { it: &other, names: tenant.names.clone(), ..Tenant::new(&other, "_x", AppAccess::App)? };
    let mut locked = theirs.locked_session().await?;
    assert!(is_foreign(theirs.run(&mut locked, &[Step::Roles]).await.unwrap_err()));
    locked.remove_created(&theirs.names, std::slice::from_ref(&tenant.login)).await?;
    tenant.app().await?;
    Ok(())
}
