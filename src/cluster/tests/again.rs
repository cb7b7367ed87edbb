//! Every step may be repeated, and from every half-done state there is a way to nothing.
use super::{Step, Tenant, ask, sql};
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;
use secrecy::SecretString;

#[tokio::test]
async fn every_step_may_be_repeated() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::new(&it, "_one", AppAccess::App)?;
    let mut locked = tenant.locked_session().await?;
    for step in Step::ALL {
        tenant.run(&mut locked, &[step, step]).await?;
    }
    // And all of them over a tenant that is complete and in use, as recovery may do.
    let mut app = tenant.app().await?;
    sql(&mut app, "INSERT INTO notes (note) VALUES ('kept')").await?;
    tenant.run(&mut tenant.locked_session().await?, &Step::ALL).await?;
    assert_eq!(ask::<i64>(&mut app, "SELECT count(*) FROM notes").await?, 1);
    Ok(())
}

/// A worker that died has taken the migrator's password with it.
#[tokio::test]
async fn a_login_that_is_there_gets_the_new_password() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut tenant = Tenant::new(&it, "_one", AppAccess::App)?;
    let mut locked = tenant.locked_session().await?;
    tenant.run(&mut locked, &Step::ALL[..5]).await?;
    locked.refuse(&tenant.names, &[]).await?;
    assert!(tenant.migrator().await.is_err(), "shut out");
    tenant.migrator_password = SecretString::from("another");
    tenant.step(&mut locked, Step::Migrator).await?;
    tenant.migrator().await?;
    Ok(())
}

#[tokio::test]
async fn after_any_number_of_steps_removal_leaves_nothing_and_may_be_repeated() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    for steps in 0..=Step::ALL.len() {
        let tenant = Tenant::new(&it, &format!("_{steps}"), AppAccess::App)?;
        tenant.run(&mut tenant.locked_session().await?, &Step::ALL[..steps]).await?;
        let mut locked = tenant.locked_session().await?;
        for _ in 0..2 {
            locked.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
            assert_eq!(tenant.left().await?, Vec::<String>::new(), "after {steps} steps");
        }
        // And then it can be made again.
        if steps % 4 == 1 {
            tenant.run(&mut locked, &Step::ALL).await?;
            tenant.app().await?;
        }
    }
    Ok(())
}

/// A removal that died at any of its own statements.
#[tokio::test]
async fn a_removal_that_died_halfway_goes_on() -> Outcome {
    use crate::cluster::pg::{ddl, ensure};
    let it = Installation::new(By::Managed).await?;
    let mut provisioner = it.provisioner().await?;
    for halfway in 0..5 {
        let tenant = Tenant::provisioned(&it, &format!("_{halfway}"), AppAccess::App).await?;
        let (db, login, app) = (&tenant.names.database, &tenant.login, &tenant.names.roles.app);
        let admin = &it.server.names.admin;
        if halfway > 0 {
            ddl::grant_to_admin(login, admin).run(&mut provisioner, "test").await?;
            ddl::forbid_login(login).run(&mut provisioner, "test").await?;
        }
        if halfway > 1 {
            ddl::close_database(db).run(&mut provisioner, "test").await?;
        }
        if halfway > 2 {
            ddl::drop_database(db).run(&mut provisioner, "test").await?;
        }
        if halfway > 3 {
            assert!(ensure::drop_own_role(&mut provisioner, login, &it.ownership()).await?.is_none());
            assert!(ensure::drop_own_role(&mut provisioner, app, &it.ownership()).await?.is_none());
        }
        tenant.locked_session().await?.remove(&tenant.names, std::slice::from_ref(login)).await?;
        assert_eq!(tenant.left().await?, Vec::<String>::new(), "{halfway}");
    }
    Ok(())
}

/// An interrupted drop leaves `datconnlimit = -2`: then nothing but a drop works. Made here as a superuser would.
#[tokio::test]
async fn a_half_dropped_database_is_dropped_or_made_anew() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::new(&it, "_one", AppAccess::App)?;
    let half = format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{}'", tenant.names.database);
    let mut locked = tenant.locked_session().await?;
    for anew in [true, false] {
        tenant.run(&mut locked, &Step::ALL[..5]).await?;
        sql(&mut it.superuser("postgres").await?, &half).await?;
        if anew {
            tenant.run(&mut locked, &Step::ALL).await?;
            tenant.app().await?;
        }
        locked.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
        assert_eq!(tenant.left().await?, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test]
async fn connected_applications_do_not_keep_a_tenant() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::App).await?;
    let mut idle = tenant.app().await?;
    let mut writing = tenant.app().await?;
    sql(&mut writing, "BEGIN; INSERT INTO notes (note) VALUES ('x')").await?;
    let mut asleep = tenant.app().await?;
    let sleeper = tokio::spawn(async move { sql(&mut asleep, "SELECT pg_sleep(60)").await });
    let mut locked = tenant.locked_session().await?;
    let begun = std::time::Instant::now();
    locked.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    assert!(sql(&mut idle, "SELECT 1").await.is_err() && sleeper.await?.is_err());
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}
