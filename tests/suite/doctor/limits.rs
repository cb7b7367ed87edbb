//! Limits of an examination: what it leaves out it says, and a program that is not configured repairs nothing by guess.
use super::drifts::{DRIFTS, configured};
use super::fleet::{self, Before, Damage};
use crate::auditor;
use crate::fail_closed::run_sql;
use sqlx::ConnectOptions;
use std::time::Duration;
use tenantry::doctor::{Code, Finding, Plan, Repair, RepairOutcome};
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};

/// Provisions "acme" with this damage.
async fn damaged(harness: &Harness, tenantry: &Tenantry, drift: &str) -> fleet::Names {
    fleet::create_stranger(harness).await;
    let drift = DRIFTS.iter().find(|found| found.name == drift).expect("no such damage");
    let names = fleet::provision(harness, tenantry, "acme", drift.before).await;
    fleet::inject(harness, &names, drift.damage).await;
    names
}

fn of_acme(plan: &Plan) -> Vec<Code> {
    let is_of_acme = |finding: &&Finding| finding.tenant.as_ref().is_some_and(|slug| slug.as_str() == "acme");
    plan.findings.iter().filter(is_of_acme).map(|finding| finding.code).collect()
}

/// More rows than a page has, all before the tenant's.
#[tokio::test]
async fn unreadable_placements_do_not_hide_the_tenants_after_them() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    damaged(&harness, &tenantry, "login-limit").await;
    const BAD: &str = "INSERT INTO tenantry.placements (tenant_id, server, database)
        SELECT gen_random_uuid(), 'main', '0' || chr(1) || n FROM generate_series(1, 450) n";
    sqlx::raw_sql(BAD).execute(harness.landlord()).await.unwrap();
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!(of_acme(&plan), [Code::LoginLimit]);
    let unreadable = plan.findings.iter().filter(|finding| finding.code == Code::RowUnreadable).count();
    assert_eq!((unreadable, plan.findings.len(), plan.tenants), (450, 451, 1), "each row once, and nothing else");
}

#[tokio::test]
async fn unreadable_tenants_do_not_hide_the_tenants_after_them() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    damaged(&harness, &tenantry, "placement-missing").await;
    const BAD: &str = "INSERT INTO tenantry.tenants (id, slug, name, status, metadata)
        SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'broken-' || n, 'x', 'active', '1e400'
        FROM generate_series(1, 450) AS n";
    sqlx::raw_sql(BAD).execute(harness.landlord()).await.unwrap();
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!(of_acme(&plan), [Code::PlacementMissing]);
}

/// A tenant can make as many deviations as it likes in its own database.
#[tokio::test]
async fn findings_of_one_tenant_are_capped_and_the_rest_is_counted() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let names = fleet::provision(&harness, &tenantry, "acme", Before::Active).await;
    let other = fleet::provision(&harness, &tenantry, "other", Before::Active).await;
    let broken = Damage::Inside(|n| {
        format!(
            "SET ROLE \"{}_owner\";
             DO $$ BEGIN FOR n IN 1..150 LOOP EXECUTE format('CREATE INDEX broken_%s ON notes (text)', n); END LOOP; END $$;
             RESET ROLE",
            n.database
        )
    });
    let invalid = Damage::Inside(|_| {
        String::from("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE 'broken\\_%'")
    });
    fleet::inject(&harness, &names, &[broken, invalid]).await;
    let limited = DRIFTS.iter().find(|found| found.name == "login-limit").unwrap();
    fleet::inject(&harness, &other, limited.damage).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!((plan.findings.len(), plan.omitted), (101, 2), "100 of acme and 1 of the other tenant");
    assert!(!plan.is_clean());
    assert!(plan.findings.iter().any(|finding| finding.code == Code::LoginLimit), "the other tenant's finding is kept");
    assert!(of_acme(&plan).contains(&Code::CannotSee), "more indexes than the query returns are not seen");
}

/// A program without migrations, such as the command line without the application's code, knows neither the application's
/// migrations nor its access.
#[tokio::test]
async fn program_without_configuration_finds_no_deviation_from_what_it_does_not_know() {
    let harness = Harness::start().await.unwrap();
    let access = tenantry::directory::AppAccess::Owner;
    let configured = harness.tenantry(|builder| configured(builder).app_access(access)).await.unwrap();
    let names = fleet::provision(&harness, &configured, "acme", Before::Active).await;
    let behind = DRIFTS.iter().find(|found| found.name == "migrations-behind").unwrap();
    fleet::inject(&harness, &names, behind.damage).await;
    let bare = Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone()).build().await.unwrap();
    let plan = bare.doctor().examine().await.unwrap();
    let repairs: Vec<&Repair> = plan.repairs().filter_map(|finding| finding.repair.as_ref()).collect();
    let destroys = |repair: &&&Repair| {
        matches!(
            repair,
            Repair::Rotate
                | Repair::Migrate
                | Repair::RevokeMembership { .. }
                | Repair::RetireLogin { .. }
                | Repair::CloseAgain
        )
    };
    assert_eq!(repairs.iter().filter(destroys).count(), 0, "{repairs:?}");
}

/// The change of a suspended tenant is parked by the suspension, and by nothing else.
#[tokio::test]
async fn change_that_a_suspension_has_parked_is_no_finding_until_the_tenant_is_active() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let names = damaged(&harness, &tenantry, "operation-parked").await;
    tenantry.suspend("acme").await.unwrap();
    fleet::assert_clean(&tenantry, "while the tenant is suspended").await;
    sqlx::raw_sql("UPDATE tenantry.tenants SET status = 'active'").execute(harness.landlord()).await.unwrap();
    let admit =
        format!("ALTER ROLE \"{}\" LOGIN; GRANT \"{}_app\" TO \"{}\"", names.login, names.database, names.login);
    run_sql(&mut auditor::superuser(&harness).await, admit).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    assert!(of_acme(&plan).contains(&Code::OperationParked), "{}", plan.to_json());
}

/// A login that a parked rotation has created, or has replaced, is that operation's to drop.
#[tokio::test]
async fn logins_of_a_parked_operation_are_not_reported_as_gone() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let names = damaged(&harness, &tenantry, "operation-parked").await;
    let record = format!(
        "INSERT INTO tenantry.tenant_database_users (tenant_id, server, database, role, generation, status)
         VALUES ('{0}', 'main', '{1}', '{1}_v5', 5, 'pending')",
        names.id, names.database
    );
    run_sql(&mut harness.landlord().acquire().await.unwrap(), record).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!(of_acme(&plan), [Code::OperationParked]);
}

/// Sessions of a login that nothing records may be in use, so they get the time that those of a rotated login get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_retired_login_continue_for_the_grace_period() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let names = damaged(&harness, &tenantry, "login-unrecorded").await;
    let login = format!("{}_v9", names.database);
    let grant = format!("ALTER ROLE \"{login}\" PASSWORD 'secret'; GRANT \"{}_app\" TO \"{login}\"", names.database);
    run_sql(&mut auditor::superuser(&harness).await, grant).await;
    let options = auditor::login(&tenantry, "acme").await.username(&login).password("secret");
    let mut session = options.connect().await.unwrap();
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!(plan.findings[0].evidence["sessions"], 1, "{}", plan.to_json());
    let doctor = tenantry.doctor();
    let repair = tokio::spawn(async move { doctor.apply(&plan, "ops/grace").await.unwrap() });
    // The login is recorded as retiring immediately before its sessions are waited for.
    const RETIRING: &str = "SELECT count(*) FROM tenantry.tenant_database_users WHERE status = 'retiring'";
    while sqlx::query_scalar::<_, i64>(RETIRING).fetch_one(harness.landlord()).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let worked = sqlx::query("SELECT pg_sleep(2)").execute(&mut session).await;
    worked.expect("the session must not be ended while it works");
    drop(session);
    let report = repair.await.unwrap();
    assert!(matches!(report.outcomes[0].1, RepairOutcome::Repaired { .. }), "{report:?}");
}
