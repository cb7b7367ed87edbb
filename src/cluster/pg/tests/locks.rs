//! The second fence, and who is shut out by it.
use super::{By, Installation, Outcome, ask, sql};
use crate::cluster::pg::{catalog, lock, terminate};
use crate::error::ClusterError;
use std::time::Duration;
use uuid::Uuid;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn a_key_is_of_an_installation_and_a_subject() {
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(lock::key(one, "tenant:1"), lock::key(one, "tenant:1"));
    assert_ne!(lock::key(one, "tenant:1"), lock::key(other, "tenant:1"));
    assert_ne!(lock::key(one, "tenant:1"), lock::key(one, "tenant:2"));
}

#[tokio::test]
async fn the_second_is_told_who_has_it_and_gets_it_when_that_one_has_gone() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    // Negative and positive keys: the halves of `pg_locks` are unsigned.
    for key in [lock::key(it.id, "one") | i64::MIN, lock::key(it.id, "two") & i64::MAX] {
        let mut first = it.named("tenantry/a/1").await?;
        let mut second = it.named("tenantry/b/1").await?;
        lock::take(&mut first, key, false, SHORT).await?;
        let pid: i32 = ask(&mut first, "SELECT pg_backend_pid()").await?;
        let refused = lock::take(&mut second, key, false, SHORT).await.unwrap_err();
        let named = format!("process {pid} (tenantry/a/1)");
        assert!(matches!(&refused, ClusterError::Locked { by } if *by == named), "{refused:?}");
        assert!(refused.is_transient());
        drop(first);
        lock::take(&mut second, key, false, LONG).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_has_it_from_an_epoch_that_is_over_is_ended() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let key = lock::key(it.id, "x");
    let (mut old, mut new) = (it.named("tenantry/a/1").await?, it.named("tenantry/a/2").await?);
    lock::take(&mut old, key, false, SHORT).await?;
    lock::take(&mut new, key, true, LONG).await?;
    assert!(sql(&mut old, "SELECT 1").await.is_err(), "its session was ended");
    let (session_user, current_user, _) = catalog::identity(&mut new).await?;
    assert_eq!([session_user, current_user], [it.server.names.blue.to_string(), it.server.names.admin.to_string()]);
    Ok(())
}

#[tokio::test]
async fn earlier_workers_are_ended_and_nobody_else() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut old = [it.named("tenantry/a/1").await?, it.named("tenantry/a/2").await?];
    let mut other = it.named("tenantry/b/1").await?;
    let mut new = it.named("tenantry/a/3").await?;
    terminate::terminate_worker_sessions(&mut new, "tenantry/a/").await?;
    for session in &mut old {
        assert!(sql(session, "SELECT 1").await.is_err());
    }
    sql(&mut other, "SELECT 1").await?;
    sql(&mut new, "SELECT 1").await?;
    Ok(())
}

/// The migrator carries its worker's name too. After a worker died between c1 and c3, the provisioner is its member.
#[tokio::test]
async fn an_earlier_worker_s_migrator_is_ended_too() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut new = it.named("tenantry/a/2").await?;
    let (login, password) = super::ending::login(&it, &mut new, "_mig").await?;
    let options = it.options(&login, &password).database("postgres").application_name("tenantry/a/1");
    let mut migrator = sqlx::ConnectOptions::connect(&options).await?;
    crate::cluster::pg::ddl::grant_to_admin(&login, &it.server.names.admin).run(&mut new, "test").await?;
    crate::cluster::pg::ddl::forbid_login(&login).run(&mut new, "test").await?;
    tokio::time::timeout(Duration::from_secs(5), terminate::terminate_worker_sessions(&mut new, "tenantry/a/"))
        .await??;
    assert!(sql(&mut migrator, "SELECT 1").await.is_err());
    Ok(())
}

/// With `pg_signal_backend`, the old worker may have come as the other login.
#[tokio::test]
async fn an_earlier_worker_of_the_other_login_is_ended_too() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let key = lock::key(it.id, "x");
    let other = it.options(&it.server.names.green, &it.green).database(it.server.names.maintenance.as_str());
    let mut old = sqlx::ConnectOptions::connect(&other.application_name("tenantry/a/1")).await?;
    let mut new = it.named("tenantry/a/2").await?;
    lock::take(&mut old, key, false, SHORT).await?;
    terminate::terminate_worker_sessions(&mut new, "tenantry/a/").await?;
    assert!(
        lock::take(&mut new, key, true, SHORT).await.is_err(),
        "without the right it is neither ended nor waited for"
    );
    assert!(crate::cluster::pg::bootstrap::optional(&mut it.admin().await?, &it.server.names.admin).await?.is_empty());
    terminate::terminate_worker_sessions(&mut new, "tenantry/a/").await?;
    assert!(sql(&mut old, "SELECT 1").await.is_err());
    lock::take(&mut new, key, true, LONG).await?;
    Ok(())
}
