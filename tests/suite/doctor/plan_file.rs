//! A plan is a file: it selects repairs, and each is refused if its subject has changed since.
use super::drifts::{DRIFTS, configured};
use super::fleet::{self, Names};
use crate::auditor;
use crate::fail_closed::run_sql;
use tenantry::doctor::{Finding, Plan, RepairOutcome, Report};
use tenantry::error::DoctorError;
use tenantry::journal::{Journal, PgJournal};
use tenantry::operation::OperationId;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

/// A tenant "acme" with this damage.
async fn damaged(drift: &str) -> (Harness, Tenantry, Names) {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    fleet::create_stranger(&harness).await;
    let drift = DRIFTS.iter().find(|d| d.name == drift).expect("no such damage");
    let names = fleet::provision(&harness, &tenantry, "acme", drift.before).await;
    fleet::inject(&harness, &names, drift.damage).await;
    (harness, tenantry, names)
}

async fn limit_of(harness: &Harness, login: &str) -> i32 {
    let limit = sqlx::query_scalar("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1").bind(login);
    limit.fetch_one(&mut auditor::superuser(harness).await).await.unwrap()
}

fn only_outcome(report: Report) -> RepairOutcome {
    let [(_, outcome)]: [(Finding, RepairOutcome); 1] =
        report.outcomes.try_into().unwrap_or_else(|all| panic!("one outcome is expected: {all:?}"));
    outcome
}

#[tokio::test]
async fn plan_from_a_file_is_applied_and_each_operation_stores_reason_and_state_before() {
    let (harness, tenantry, names) = damaged("login-limit").await;
    let text = tenantry.doctor().examine().await.unwrap().to_json();
    let plan = Plan::from_json(&text).unwrap();
    assert_eq!(plan.to_json(), text, "the file does not read back");

    let report = tenantry.doctor().apply(&plan, "ops/grace: ticket 17").await.unwrap();

    assert!(report.is_complete(), "{report:?}");
    let RepairOutcome::Repaired { operation } = only_outcome(report) else { panic!("the login was not repaired") };
    assert_eq!(limit_of(&harness, &names.login).await, 43);
    let record = read(&harness, operation).await;
    assert_eq!(record.reason.as_deref(), Some("doctor login_limit: ops/grace: ticket 17"));
    let before = &record.outputs["finding.check"]["before"];
    assert_eq!(before["status"], "active", "the state before: {before}");
    assert!(before.to_string().contains('7'), "the limit before: {before}");
    assert_eq!(record.request["planned_by"], plan.made_by);
}

#[tokio::test]
async fn repair_by_another_operation_stores_reason_and_state_before() {
    for (drift, kind) in
        [("login-missing", "rotate"), ("suspended-login", "close_again"), ("entry-missing", "restore_entry")]
    {
        let (harness, tenantry, _) = damaged(drift).await;
        let plan = tenantry.doctor().examine().await.unwrap();
        let outcome = only_outcome(tenantry.doctor().apply(&plan, "ops/grace: ticket 17").await.unwrap());
        let RepairOutcome::Repaired { operation } = outcome else { panic!("{drift}: {outcome:?}") };
        let (record, finding) = (read(&harness, operation).await, &plan.findings[0]);
        assert_eq!(record.kind, kind);
        assert_eq!(record.reason, Some(format!("doctor {}: ops/grace: ticket 17", finding.code)));
        let stored = &record.request["$repairs"];
        assert_eq!(stored["finding"]["fingerprint"], finding.fingerprint, "{drift}: {:?}", record.request);
        assert_eq!(stored["finding"]["evidence"]["status"], finding.evidence["status"], "{drift}");
        assert_eq!(stored["planned_by"], plan.made_by);
    }
}

#[tokio::test]
async fn operation_that_a_repair_continues_gets_an_event_with_the_reason_and_the_state_before() {
    for (drift, status) in [("operation-parked", "parked"), ("operation-stalled", "running")] {
        let (harness, tenantry, _) = damaged(drift).await;
        let plan = tenantry.doctor().examine().await.unwrap();
        let outcome = only_outcome(tenantry.doctor().apply(&plan, "ops/grace: ticket 17").await.unwrap());
        let RepairOutcome::Repaired { operation } = outcome else { panic!("{drift}: {outcome:?}") };
        let events = PgJournal::new(harness.landlord().clone()).events(operation, 0, 100).await.unwrap();
        let event = events.iter().find(|event| event.reason.is_some()).expect("an event with a reason");
        let reason = format!("doctor {}: ops/grace: ticket 17", plan.findings[0].code);
        assert_eq!((event.reason.clone(), event.status.as_str()), (Some(reason), status), "{drift}");
        assert_eq!(event.seq, 1, "{drift}: the reason is stored before the operation continues");
    }
}

async fn read(harness: &Harness, id: OperationId) -> tenantry::journal::Record {
    PgJournal::new(harness.landlord().clone()).read(id).await.unwrap().expect("the operation is in the journal")
}

#[tokio::test]
async fn row_of_a_retired_login_names_the_operation_and_the_status_before() {
    let (harness, tenantry, names) = damaged("login-not-dropped").await;
    let plan = tenantry.doctor().examine().await.unwrap();
    let outcome = only_outcome(tenantry.doctor().apply(&plan, "ops/grace").await.unwrap());
    let RepairOutcome::Repaired { operation } = outcome else { panic!("{outcome:?}") };
    let row: (String, String, String) = sqlx::query_as(
        "SELECT status, metadata ->> 'by', metadata ->> 'before' FROM tenantry.tenant_database_users WHERE role = $1",
    )
    .bind(format!("{}_v7", names.database))
    .fetch_one(harness.landlord())
    .await
    .unwrap();
    assert_eq!(row, ("dropped".into(), operation.to_string(), "retiring".into()));
}

#[tokio::test]
async fn repair_is_refused_if_its_subject_has_changed_or_is_repaired_already() {
    let (harness, tenantry, names) = damaged("login-limit").await;
    let plan = tenantry.doctor().examine().await.unwrap();
    let mut superuser = auditor::superuser(&harness).await;
    for (limit, expected) in [(9, RepairOutcome::Changed), (43, RepairOutcome::Gone)] {
        run_sql(&mut superuser, format!("ALTER ROLE \"{}\" CONNECTION LIMIT {limit}", names.login)).await;
        let report = tenantry.doctor().apply(&plan, "ops/grace").await.unwrap();
        assert_eq!(report.is_complete(), expected == RepairOutcome::Gone);
        assert_eq!(only_outcome(report), expected, "limit {limit}");
        assert_eq!(limit_of(&harness, &names.login).await, limit, "a refused repair has changed something");
    }
    assert!(tenantry.operations().open().await.unwrap().is_empty(), "a refused repair must not keep the lane");
}

#[tokio::test]
async fn edited_file_cannot_make_the_doctor_do_what_it_does_not_propose() {
    let (harness, tenantry, names) = damaged("login-limit").await;
    let plan = tenantry.doctor().examine().await.unwrap();
    let mut edited: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap();
    for repair in [
        serde_json::json!({ "action": "limit_login", "login": names.login, "limit": 1000 }),
        serde_json::json!({ "action": "retire_login", "login": names.login, "before": "active" }),
        serde_json::json!({ "action": "rotate" }),
    ] {
        edited["findings"][0]["repair"] = repair.clone();
        let edited = Plan::from_json(&edited.to_string()).unwrap();
        let outcome = only_outcome(tenantry.doctor().apply(&edited, "ops/grace").await.unwrap());
        assert_eq!(outcome, RepairOutcome::Changed, "{repair}");
        assert_eq!(limit_of(&harness, &names.login).await, 7, "{repair}");
    }
}

#[tokio::test]
async fn findings_that_a_person_removes_from_the_file_are_not_repaired() {
    let (harness, tenantry, names) = damaged("login-limit").await;
    let drift = DRIFTS.iter().find(|drift| drift.name == "role-marker").unwrap();
    fleet::inject(&harness, &names, drift.damage).await;
    let mut plan = tenantry.doctor().examine().await.unwrap();
    plan.findings.retain(|finding| finding.code.as_str() == "role_marker");
    let report = tenantry.doctor().apply(&plan, "ops/grace").await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(limit_of(&harness, &names.login).await, 7);
    let left = tenantry.doctor().examine().await.unwrap();
    let left: Vec<_> = left.findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(left, ["login_limit"]);
}

#[tokio::test]
async fn plan_of_another_installation_or_format_and_a_missing_reason_are_refused() {
    let (harness, tenantry, names) = damaged("login-limit").await;
    let plan = tenantry.doctor().examine().await.unwrap();
    let other = Harness::start().await.unwrap();
    let elsewhere = other.tenantry(configured).await.unwrap();
    let refused = elsewhere.doctor().apply(&plan, "ops/grace").await;
    assert!(matches!(refused, Err(DoctorError::OtherInstallation)), "{refused:?}");
    let text = plan.to_json().replacen("\"format\": 1", "\"format\": 2", 1);
    let refused = Plan::from_json(&text);
    assert!(matches!(refused, Err(DoctorError::Format { found: 2, .. })), "{refused:?}");
    let refused = Plan::from_json("{}");
    assert!(matches!(refused, Err(DoctorError::Plan(_))), "{refused:?}");
    for reason in ["", "  ", "a\0b", &"x".repeat(4000)] {
        let refused = tenantry.doctor().apply(&plan, reason).await;
        assert!(matches!(refused, Err(DoctorError::Reason(_))), "{refused:?}");
    }
    tenantry.close().await;
    let refused = tenantry.doctor().apply(&plan, "ops/grace").await;
    assert!(matches!(refused, Err(DoctorError::Closed)), "{refused:?}");
    assert_eq!(limit_of(&harness, &names.login).await, 7, "a refused call has changed something");
}

#[tokio::test]
async fn repair_waits_for_no_open_operation_and_names_it() {
    let (harness, tenantry, names) = damaged("login-limit").await;
    let plan = tenantry.doctor().examine().await.unwrap();
    let drift = DRIFTS.iter().find(|drift| drift.name == "operation-parked").unwrap();
    fleet::inject(&harness, &names, drift.damage).await;
    let outcome = only_outcome(tenantry.doctor().apply(&plan, "ops/grace").await.unwrap());
    let open = tenantry.operations().open().await.unwrap().readable.remove(0);
    assert_eq!(outcome, RepairOutcome::Busy { operation: open.id });
    assert_eq!(limit_of(&harness, &names.login).await, 7);
}
