//! Terminating sessions of refused logins, of connecting sessions, and of a database.
use super::{By, Installation, Outcome, ask, code, sql};
use crate::cluster::pg::{ddl, ensure, scram, terminate};
use crate::error::ClusterError;
use crate::names::{DatabaseName, RoleName};
use secrecy::SecretString;
use sqlx::{ConnectOptions, PgConnection};
use std::time::Duration;

/// Creates a login with a group role of its own. It can connect to `postgres`.
pub(super) async fn login(
    it: &Installation, provisioner: &mut PgConnection, suffix: &str,
) -> Outcome<(RoleName, SecretString)> {
    let (name, group): (RoleName, RoleName) =
        (format!("{}{suffix}", it.prefix()).parse()?, format!("{}{suffix}_g", it.prefix()).parse()?);
    ddl::create_groups(&[&group], &it.ownership().marker).run(provisioner, "test").await?;
    let password = scram::generate_password();
    let verifier = scram::derive_verifier(&password).await;
    let login = ddl::Login { name: &name, acts_as: &group, limit: -1, verifier: &verifier };
    ensure::create_login(provisioner, &login, &it.ownership()).await?;
    Ok((name, password))
}

/// The name of a database that does not exist.
fn missing_database(it: &Installation) -> DatabaseName {
    it.database("_none")
}

#[tokio::test]
async fn refuse_logins_ends_sessions_in_all_databases_and_admit_reverts_it() -> Outcome {
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
        ensure::refuse_logins(
            &mut provisioner,
            &missing_database(&it),
            &[&login],
            &it.ownership(),
            std::time::Duration::ZERO,
        )
        .await?;
        for session in &mut sessions {
            assert!(sql(session, "SELECT 1").await.is_err(), "{by:?}: a session of a refused login is still alive");
        }
        assert_eq!(code(options.connect().await), "28000", "{by:?}: a refused login must not connect");
        // Refusing and admitting may both be repeated.
        ensure::refuse_logins(
            &mut provisioner,
            &missing_database(&it),
            &[&login],
            &it.ownership(),
            std::time::Duration::ZERO,
        )
        .await?;
        ensure::admit_login(&mut provisioner, &login, &group, &it.ownership()).await?;
        ensure::admit_login(&mut provisioner, &login, &group, &it.ownership()).await?;
        assert_eq!(code(options.connect().await), "00000", "{by:?}: an admitted login must connect");
    }
    Ok(())
}

/// Starts a session that has passed authentication and shows no user for 3 seconds, by `post_auth_delay`. The task
/// returns the SQLSTATE with which the session ended.
fn connect_slowly(
    it: &Installation, login: &RoleName, password: &SecretString, database: &str,
) -> tokio::task::JoinHandle<String> {
    let options = it.options(login, password).database(database).options([("post_auth_delay", "3")]);
    tokio::spawn(async move {
        match options.connect().await {
            Ok(mut session) => code(sqlx::query("SELECT pg_sleep(30)").execute(&mut session).await),
            failed => code(failed),
        }
    })
}

/// Waits until a session is still connecting.
async fn wait_until_connecting(it: &Installation) -> Outcome {
    let mut superuser = it.superuser("postgres").await?;
    let connecting = "SELECT count(*) FROM pg_locks l \
        WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass \
        AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.usesysid IS NOT NULL)";
    for _ in 0..200 {
        if ask::<i64>(&mut superuser, connecting).await? > 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("no session was seen in the connecting phase within 2 s".into())
}

#[tokio::test]
async fn refuse_logins_terminates_a_session_that_is_still_connecting() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let mut provisioner = it.provisioner().await?;
    let (login, password) = login(&it, &mut provisioner, "_v1").await?;
    let connecting = connect_slowly(&it, &login, &password, "postgres");
    wait_until_connecting(&it).await?;
    ensure::refuse_logins(
        &mut provisioner,
        &missing_database(&it),
        &[&login],
        &it.ownership(),
        std::time::Duration::ZERO,
    )
    .await?;
    assert_eq!(ensure::drop_own_role(&mut provisioner, &login, &it.ownership()).await?, None);
    let left: i64 = ask(
        &mut it.superuser("postgres").await?,
        "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'",
    )
    .await?;
    assert_eq!(left, 0, "a session still runs under a dropped role");
    assert_ne!(connecting.await?, "00000", "the connecting session was not terminated");
    Ok(())
}

#[tokio::test]
async fn drop_database_names_a_superuser_session_and_leaves_it_alone() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut provisioner = it.provisioner().await?;
    let database = it.database("_x");
    ensure::create_database(&mut provisioner, &database, &it.ownership()).await?;
    sql(&mut provisioner, &format!("ALTER DATABASE \"{database}\" ALLOW_CONNECTIONS true")).await?;
    let mut psql = it.superuser(database.as_str()).await?;
    let pid: i32 = ask(&mut psql, "SELECT pg_backend_pid()").await?;
    let error = ensure::drop_database(&mut provisioner, &database, &it.ownership()).await.unwrap_err();
    let ClusterError::InUse { by, .. } = &error else { return Err(error.into()) };
    assert!(by.contains(&pid.to_string()), "the error does not name process {pid}: {by}");
    assert!(error.is_transient(), "the error must be retried: {error:?}");
    sql(&mut psql, "SELECT 1").await?;
    drop(psql);
    ensure::drop_database(&mut provisioner, &database, &it.ownership()).await?;
    Ok(())
}

#[tokio::test]
async fn terminate_role_sessions_without_logins_ends_no_session() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let mut provisioner = it.provisioner().await?;
    terminate::terminate_role_sessions(&mut provisioner, &[]).await?;
    sql(&mut provisioner, "SELECT 1").await?;
    Ok(())
}
