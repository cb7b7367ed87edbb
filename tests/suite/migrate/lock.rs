//! A migration that finds sqlx's lock of the migrations taken names the session that has it.
use super::{DONE, NOTES, assert_no_migrator, program};
use crate::auditor;
use sqlx::migrate::Migrate;
use sqlx::{ConnectOptions, Connection};
use std::time::{Duration, Instant};
use tenantry::error::{ChangeError, FailureState};
use tenantry::testing::Harness;

#[tokio::test]
async fn migrate_names_the_session_that_has_the_lock_of_the_migrations() {
    let harness = Harness::start().await.unwrap();
    harness.tenantry(program(&[NOTES])).await.unwrap().provision("acme").await.unwrap();
    let tenantry = harness.tenantry(program(&[NOTES, DONE])).await.unwrap();
    // What a `Migrator::run` that failed leaves behind on a session.
    let login = auditor::login(&tenantry, "acme").await;
    let mut holder = login.clone().application_name("left by a deploy").connect().await.unwrap();
    holder.lock().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.unwrap();

    let begun = Instant::now();
    let error = tenantry.migrate("acme").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(25), "the wait is not bounded: {:?}", begun.elapsed());
    let ChangeError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.state, FailureState::Undone);
    let named = failure.cause.to_string();
    for part in [&format!("process {pid}"), login.get_username(), "'left by a deploy'", "pg_terminate_backend", "UTC"] {
        assert!(named.contains(part), "{part:?} is missing in {named:?}");
    }
    assert_no_migrator(&harness).await;

    holder.close().await.unwrap();
    assert_eq!(tenantry.migrate("acme").await.unwrap().applied, [2]);
}
