//! The tenant's advisory lock, and terminating the sessions of earlier workers.
use super::{By, Installation, Outcome, ask, sql};
use crate::cluster::pg::{catalog, lock, terminate};
use crate::error::ClusterError;
use std::time::Duration;
use uuid::Uuid;

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn key_depends_on_installation_and_subject() {
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(lock::key(one, "tenant:1"), lock::key(one, "tenant:1"));
    assert_ne!(lock::key(one, "tenant:1"), lock::key(other, "tenant:1"));
    assert_ne!(lock::key(one, "tenant:1"), lock::key(one, "tenant:2"));
}

#[tokio::test]
async fn take_names_the_holder_and_succeeds_after_it_has_gone() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    // Test a negative and a positive key, because `pg_locks` shows the two halves of a key as unsigned.
    for key in [lock::key(it.id, "one") | i64::MIN, lock::key(it.id, "two") & i64::MAX] {
        let mut first = it.provisioner_named("tenantry/a/1").await?;
        let mut second = it.provisioner_named("tenantry/b/1").await?;
        lock::take(&mut first, key, SHORT).await?;
        let pid: i32 = ask(&mut first, "SELECT pg_backend_pid()").await?;
        let error = lock::take(&mut second, key, SHORT).await.unwrap_err();
        let named = format!("process {pid} (tenantry/a/1)");
        assert!(matches!(&error, ClusterError::Locked { by } if *by == named), "{error:?}");
        assert!(error.is_transient(), "the error must be retried: {error:?}");
        drop(first);
        lock::take(&mut second, key, LONG).await?;
    }
    Ok(())
}

#[tokio::test]
async fn take_with_evict_terminates_the_holder() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let key = lock::key(it.id, "x");
    let (mut old, mut new) = (it.provisioner_named("tenantry/a/1").await?, it.provisioner_named("tenantry/a/2").await?);
    lock::take(&mut old, key, SHORT).await?;
    lock::take_from_outdated_worker(&mut new, key, LONG).await?;
    assert!(sql(&mut old, "SELECT 1").await.is_err(), "the session of the old holder is still alive");
    let (session_user, current_user, _) = catalog::read_identity(&mut new).await?;
    assert_eq!([session_user, current_user], [it.server.names.blue.to_string(), it.server.names.admin.to_string()]);
    Ok(())
}

#[tokio::test]
async fn terminate_worker_sessions_ends_only_this_operation() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut old = [it.provisioner_named("tenantry/a/1").await?, it.provisioner_named("tenantry/a/2").await?];
    let mut other = it.provisioner_named("tenantry/b/1").await?;
    let mut new = it.provisioner_named("tenantry/a/3").await?;
    terminate::terminate_worker_sessions(&mut new, "tenantry/a/").await?;
    for session in &mut old {
        assert!(sql(session, "SELECT 1").await.is_err(), "the session of an earlier worker is still alive");
    }
    sql(&mut other, "SELECT 1").await?;
    sql(&mut new, "SELECT 1").await?;
    Ok(())
}

/// The migrator's session has its worker's `application_name` too. If the worker died after the GRANT and before DROP
/// ROLE, the admin role is a member of the migrator.
#[tokio::test]
async fn terminate_worker_sessions_ends_an_earlier_migrator() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let mut new = it.provisioner_named("tenantry/a/2").await?;
    let (login, password) = super::termination::login(&it, &mut new, "_mig").await?;
    let options = it.options(&login, &password).database("postgres").application_name("tenantry/a/1");
    let mut migrator = sqlx::ConnectOptions::connect(&options).await?;
    crate::cluster::pg::ddl::grant_to_admin(&login, &it.server.names.admin).run(&mut new, "test").await?;
    crate::cluster::pg::ddl::forbid_login(&login).run(&mut new, "test").await?;
    tokio::time::timeout(Duration::from_secs(5), terminate::terminate_worker_sessions(&mut new, "tenantry/a/"))
        .await??;
    assert!(sql(&mut migrator, "SELECT 1").await.is_err(), "the migrator's session is still alive");
    Ok(())
}

/// The old worker may have used the provisioner's other login. Terminating its session needs `pg_signal_backend`.
#[tokio::test]
async fn terminate_worker_sessions_needs_pg_signal_backend_for_the_other_login() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let key = lock::key(it.id, "x");
    let other = it.options(&it.server.names.green, &it.green).database(it.server.names.maintenance.as_str());
    let mut old = sqlx::ConnectOptions::connect(&other.application_name("tenantry/a/1")).await?;
    let mut new = it.provisioner_named("tenantry/a/2").await?;
    lock::take(&mut old, key, SHORT).await?;
    terminate::terminate_worker_sessions(&mut new, "tenantry/a/").await?;
    assert!(
        lock::take_from_outdated_worker(&mut new, key, SHORT).await.is_err(),
        "without pg_signal_backend the old worker must keep the lock"
    );
    assert!(
        crate::cluster::pg::bootstrap::grant_optional_roles(&mut it.admin().await?, &it.server.names.admin)
            .await?
            .is_empty()
    );
    terminate::terminate_worker_sessions(&mut new, "tenantry/a/").await?;
    assert!(sql(&mut old, "SELECT 1").await.is_err(), "the old worker's session is still alive");
    lock::take_from_outdated_worker(&mut new, key, LONG).await?;
    Ok(())
}
