//! Sessions that are idle in a transaction while others wait for them (incident 6): shown, and ended on request.
use super::drifts::configured;
use crate::auditor;
use crate::fail_closed::run_sql;
use sqlx::{ConnectOptions, PgConnection};
use std::time::Duration;
use tenantry::doctor::{Code, Finding, RepairOutcome};
use tenantry::operation::Subject;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio::task::JoinHandle;

/// Reports every session that blocks others, however long it has been idle.
async fn impatient(harness: &Harness) -> Tenantry {
    harness.tenantry(|builder| configured(builder).blocking_after(Duration::ZERO)).await.unwrap()
}

/// A session that keeps a row locked, and a session that waits for it.
async fn block(options: sqlx::postgres::PgConnectOptions) -> (PgConnection, JoinHandle<Result<(), sqlx::Error>>) {
    let mut blocker = options.clone().application_name("nightly import").connect().await.unwrap();
    let mut waiter = options.connect().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut waiter).await.unwrap();
    run_sql(&mut blocker, "BEGIN; UPDATE notes SET text = 'mine'").await;
    let waits =
        tokio::spawn(
            async move { sqlx::query("UPDATE notes SET text = 'yours'").execute(&mut waiter).await.map(drop) },
        );
    wait_until_blocked(&mut blocker, pid).await;
    (blocker, waits)
}

/// Polls until the session waits for a lock.
async fn wait_until_blocked(blocker: &mut PgConnection, pid: i32) {
    for _ in 0..1000 {
        let blocked = sqlx::query_scalar("SELECT cardinality(pg_blocking_pids($1)) > 0").bind(pid);
        if blocked.fetch_one(&mut *blocker).await.unwrap() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the second session does not wait for the first one");
}

/// Finds the one session that blocks, ends it, and lets the other one continue.
async fn find_and_end(tenantry: &Tenantry, subject: Subject, user: &str, waits: JoinHandle<Result<(), sqlx::Error>>) {
    let plan = tenantry.doctor().examine().await.unwrap();
    let [finding] = plan.findings.as_slice() else { panic!("one finding is expected: {}", plan.to_json()) };
    let Finding { code, evidence, repair, .. } = finding;
    assert_eq!((*code, &finding.subject), (Code::SessionBlocks, &subject));
    assert_eq!(evidence["application"], "nightly import", "{evidence:?}");
    assert_eq!(evidence["user"], user, "{evidence:?}");
    assert_eq!(evidence["waiters"], 1, "{evidence:?}");
    assert_eq!(evidence["waiting_statements"], serde_json::json!(["UPDATE"]), "{evidence:?}");
    assert!(!plan.to_json().contains("notes"), "the plan contains the text of a statement");
    assert!(repair.is_some(), "no repair: {finding:?}");

    let report = tenantry.doctor().apply(&plan, "ops/grace: the import hangs").await.unwrap();

    assert!(report.is_complete(), "{report:?}");
    assert!(matches!(report.outcomes[0].1, RepairOutcome::Repaired { .. }), "{report:?}");
    waits.await.unwrap().expect("the session that waited continues");
    let again = tenantry.doctor().apply(&plan, "ops/grace").await.unwrap();
    assert_eq!(again.outcomes[0].1, RepairOutcome::Gone, "a second run must end nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_blocks_in_the_landlord_is_shown_and_ended() {
    let harness = Harness::start().await.unwrap();
    let tenantry = impatient(&harness).await;
    let landlord = harness.landlord().connect_options().as_ref().clone();
    let mut owner = landlord.connect().await.unwrap();
    run_sql(&mut owner, "CREATE TABLE public.notes (text text); INSERT INTO public.notes VALUES ('')").await;
    let user = landlord.get_username().to_owned();
    let (mut blocker, waits) = block(landlord).await;
    find_and_end(&tenantry, Subject::Landlord, &user, waits).await;
    assert!(sqlx::query("SELECT 1").execute(&mut blocker).await.is_err(), "the session that blocked has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_blocks_in_a_tenants_database_is_shown_and_ended() {
    let harness = Harness::start().await.unwrap();
    let tenantry = impatient(&harness).await;
    tenantry.provision("acme").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    run_sql(&mut login.connect().await.unwrap(), "INSERT INTO notes (text) VALUES ('')").await;
    let user = login.get_username().to_owned();
    let (mut blocker, waits) = block(login).await;
    find_and_end(&tenantry, Subject::Server("main".parse().unwrap()), &user, waits).await;
    assert!(sqlx::query("SELECT 1").execute(&mut blocker).await.is_err(), "the session that blocked has ended");
}

/// The session that blocked others when the plan was made blocks others again, in another transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_transaction_of_the_same_session_is_not_ended() {
    let harness = Harness::start().await.unwrap();
    let tenantry = impatient(&harness).await;
    tenantry.provision("acme").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    run_sql(&mut login.connect().await.unwrap(), "INSERT INTO notes (text) VALUES ('')").await;
    let (mut blocker, waits) = block(login.clone()).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!(plan.repairs().count(), 1, "{}", plan.to_json());
    run_sql(&mut blocker, "COMMIT").await;
    waits.await.unwrap().unwrap();
    run_sql(&mut blocker, "BEGIN; UPDATE notes SET text = 'mine'").await;
    let mut waiter = login.connect().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut waiter).await.unwrap();
    let waits = tokio::spawn(async move { sqlx::query("UPDATE notes SET text = 'x'").execute(&mut waiter).await });
    wait_until_blocked(&mut blocker, pid).await;

    let report = tenantry.doctor().apply(&plan, "ops/grace").await.unwrap();

    assert_eq!(report.outcomes[0].1, RepairOutcome::Changed);
    run_sql(&mut blocker, "COMMIT").await;
    waits.await.unwrap().unwrap();
}

/// A session that waits is no finding, and neither is one that works while others wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_that_others_wait_for_briefly_is_no_finding() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    run_sql(&mut login.connect().await.unwrap(), "INSERT INTO notes (text) VALUES ('')").await;
    let (mut blocker, waits) = block(login).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    assert!(plan.is_clean(), "{}", plan.to_json());
    run_sql(&mut blocker, "COMMIT").await;
    waits.await.unwrap().unwrap();
}
