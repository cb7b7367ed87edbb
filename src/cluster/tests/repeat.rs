//! Every step may be repeated, and a removal completes from every half-done state.
use super::{Step, Tenant, ask, sql};
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;
use secrecy::SecretString;

#[tokio::test]
async fn every_provisioning_step_may_be_repeated() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::new(&it, "_one", AppAccess::App)?;
    let mut locked = tenant.locked_session().await?;
    for step in Step::ALL {
        tenant.run(&mut locked, &[step, step]).await?;
    }
    // Recovery may repeat all steps on a complete tenant that is in use.
    let mut app = tenant.app().await?;
    sql(&mut app, "INSERT INTO notes (note) VALUES ('kept')").await?;
    tenant.run(&mut tenant.locked_session().await?, &Step::ALL).await?;
    assert_eq!(ask::<i64>(&mut app, "SELECT count(*) FROM notes").await?, 1);
    Ok(())
}

/// A new worker does not know the migrator's password of a worker that died, so it sets another one.
#[tokio::test]
async fn ensure_migrator_sets_the_password_of_an_existing_login() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut tenant = Tenant::new(&it, "_one", AppAccess::App)?;
    let mut locked = tenant.locked_session().await?;
    tenant.run(&mut locked, &Step::ALL[..5]).await?;
    locked.refuse(&tenant.names, &[]).await?;
    assert!(tenant.migrator().await.is_err(), "a refused migrator must not connect");
    tenant.migrator_password = SecretString::from("another");
    tenant.step(&mut locked, Step::Migrator).await?;
    tenant.migrator().await?;
    Ok(())
}

#[tokio::test]
async fn remove_leaves_nothing_after_any_number_of_steps() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    for steps in 0..=Step::ALL.len() {
        let tenant = Tenant::new(&it, &format!("_{steps}"), AppAccess::App)?;
        tenant.run(&mut tenant.locked_session().await?, &Step::ALL[..steps]).await?;
        let mut locked = tenant.locked_session().await?;
        for _ in 0..2 {
            locked.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
            assert_eq!(tenant.left().await?, Vec::<String>::new(), "after {steps} steps");
        }
        // The same names can be provisioned again.
        if steps % 4 == 1 {
            tenant.run(&mut locked, &Step::ALL).await?;
            tenant.app().await?;
        }
    }
    Ok(())
}

/// A removal that died after any of its own statements is completed by the next one.
#[tokio::test]
async fn remove_completes_after_dying_at_any_statement() -> Outcome {
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
        assert_eq!(
            tenant.left().await?,
            Vec::<String>::new(),
            "objects left by a removal that had died after statement {halfway}"
        );
    }
    Ok(())
}

/// An interrupted DROP DATABASE leaves `datconnlimit = -2`, and the database can only be dropped. A superuser sets that
/// value here.
#[tokio::test]
async fn half_dropped_database_is_dropped_or_created_again() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::new(&it, "_one", AppAccess::App)?;
    let half = format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{}'", tenant.names.database);
    let mut locked = tenant.locked_session().await?;
    for create_again in [true, false] {
        tenant.run(&mut locked, &Step::ALL[..5]).await?;
        sql(&mut it.superuser("postgres").await?, &half).await?;
        if create_again {
            tenant.run(&mut locked, &Step::ALL).await?;
            tenant.app().await?;
        }
        locked.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
        assert_eq!(tenant.left().await?, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test]
async fn remove_ends_idle_writing_and_sleeping_sessions() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let tenant = Tenant::provisioned(&it, "_one", AppAccess::App).await?;
    let mut idle = tenant.app().await?;
    let mut writing = tenant.app().await?;
    sql(&mut writing, "BEGIN; INSERT INTO notes (note) VALUES ('x')").await?;
    let mut asleep = tenant.app().await?;
    let sleeper = tokio::spawn(async move { sql(&mut asleep, "SELECT pg_sleep(60)").await });
    let mut locked = tenant.locked_session().await?;
    let started = std::time::Instant::now();
    locked.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
    assert!(started.elapsed().as_secs() < 30, "the removal took {:?}", started.elapsed());
    assert!(sql(&mut idle, "SELECT 1").await.is_err() && sleeper.await?.is_err());
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}
