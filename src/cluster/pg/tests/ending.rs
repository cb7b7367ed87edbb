//! Ending sessions.
use super::{By, Installation, Outcome, ask, code, sql};
use crate::cluster::pg::{ddl, ensure, scram, terminate};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use secrecy::SecretString;
use sqlx::{ConnectOptions, PgConnection};
use std::time::Duration;

/// A login of its own group; `postgres` lets it in.
pub(super) async fn login(
    it: &Installation, provisioner: &mut PgConnection, suffix: &str,
) -> Outcome<(RoleName, SecretString)> {
    let (name, group): (RoleName, RoleName) =
        (format!("{}{suffix}", it.prefix()).parse()?, format!("{}{suffix}_g", it.prefix()).parse()?);
    ddl::create_groups(&[&group], &it.ownership().marker).run(provisioner, "test").await?;
    let password = scram::password();
    let verifier = scram::verifier(&password).await;
    let login = ddl::Login { name: &name, acts_as: &group, limit: -1, verifier: &verifier };
    ensure::create_login(provisioner, &login, &it.ownership()).await?;
    Ok((name, password))
}

fn elsewhere(it: &Installation) -> DatabaseName {
    it.database("_none")
}

#[tokio::test]
async fn a_refused_login_is_out_everywhere() -> Outcome {
    for by in [By::Superuser, By::Managed] {
        let it = Installation::new(by).await?;
        let mut provisioner = it.provisioner().await?;
        let (login, password) = login(&it, &mut provisioner, "_v1").await?;
        let group: RoleName = format!("{login}_g").parse()?;
        let options = it.options(&login, &password).database("postgres");
        let mut sessions = vec![];
        for _ in 0..20 {
            sessions.push(options.connect().await?);
        }
        ensure::refuse_logins(&mut provisioner, &elsewhere(&it), &[&login], &it.ownership()).await?;
        for session in &mut sessions {
            assert!(sql(session, "SELECT 1").await.is_err());
        }
        assert_eq!(code(options.connect().await), "28000");
        // Again, and then the way back.
        ensure::refuse_logins(&mut provisioner, &elsewhere(&it), &[&login], &it.ownership()).await?;
        ensure::admit_login(&mut provisioner, &login, &group, &it.ownership()).await?;
        ensure::admit_login(&mut provisioner, &login, &group, &it.ownership()).await?;
        assert_eq!(code(options.connect().await), "00000");
    }
    Ok(())
}

/// A session that has passed authentication and shows no user yet: `post_auth_delay` stretches that moment.
fn slow(
    it: &Installation, login: &RoleName, password: &SecretString, database: &str,
) -> tokio::task::JoinHandle<String> {
    let options = it.options(login, password).database(database).options([("post_auth_delay", "3")]);
    tokio::spawn(async move {
        match options.connect().await {
            Ok(mut session) => code(sqlx::query("SELECT pg_sleep(30)").execute(&mut session).await),
            refused => code(refused),
        }
    })
}

async fn until_connecting(it: &Installation) -> Outcome {
    let mut superuser = it.superuser("postgres").await?;
    let hidden = "SELECT count(*) FROM pg_locks l WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass \
        AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
    for _ in 0..200 {
        if ask::<i64>(&mut superuser, hidden).await? > 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("nobody was seen in the middle of connecting".into())
}

#[tokio::test]
async fn a_login_that_is_connecting_is_waited_for_and_ended() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let mut provisioner = it.provisioner().await?;
    let (login, password) = login(&it, &mut provisioner, "_v1").await?;
    let connecting = slow(&it, &login, &password, "postgres");
    until_connecting(&it).await?;
    ensure::refuse_logins(&mut provisioner, &elsewhere(&it), &[&login], &it.ownership()).await?;
    assert_eq!(ensure::drop_own_role(&mut provisioner, &login, &it.ownership()).await?, None);
    let left: i64 = ask(
        &mut it.superuser("postgres").await?,
        "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'",
    )
    .await?;
    assert_eq!(left, 0, "a session goes on living under a dropped role");
    assert_ne!(connecting.await?, "00000");
    Ok(())
}

#[tokio::test]
async fn a_stranger_s_session_in_the_database_is_named_and_left_alone() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut provisioner = it.provisioner().await?;
    let database = it.database("_x");
    ensure::create_database(&mut provisioner, &database, &it.ownership()).await?;
    sql(&mut provisioner, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")).await?;
    let mut psql = it.superuser(database.as_str()).await?;
    let pid: i32 = ask(&mut psql, "SELECT pg_backend_pid()").await?;
    let refused = ensure::drop_database(&mut provisioner, &database, &it.ownership()).await.unwrap_err();
    let ClusterError::InUse { by, .. } = &refused else { return Err(refused.into()) };
    assert!(by.contains(&pid.to_string()), "{by}");
    assert!(refused.is_transient());
    sql(&mut psql, "SELECT 1").await?;
    drop(psql);
    ensure::drop_database(&mut provisioner, &database, &it.ownership()).await?;
    Ok(())
}

#[tokio::test]
async fn no_login_at_all_ends_nobody() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let mut provisioner = it.provisioner().await?;
    terminate::terminate_role_sessions(&mut provisioner, &[]).await?;
    sql(&mut provisioner, "SELECT 1").await?;
    Ok(())
}
