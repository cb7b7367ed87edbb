//! Findings about servers, keys and the landlord's schema.
use super::healthy::{examine, found};
use crate::fail_closed::run_sql;
use crate::{auditor, provision::migrated};
use tenantry::doctor::{Code, Doctor, Repair, RepairOutcome, Severity};
use tenantry::journal::{Journal, PgJournal};
use tenantry::sqlx;
use tenantry::testing::Harness;
use tenantry::vault::LocalKeyring;
use tenantry::{Builder, Tenantry};

async fn alter_role(harness: &Harness, suffix: &str, clause: &str) {
    let mut server = auditor::superuser(harness).await;
    run_sql(&mut server, format!("ALTER ROLE {}_{suffix} {clause}", harness.prefix())).await;
}

async fn node(harness: &Harness) -> Tenantry {
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry
}

#[tokio::test]
async fn refused_provisioner_is_found_and_repaired_only_with_an_admin_connection() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let main = String::from("server:main");
    for (login, code) in [("blue", Code::ProvisionerRefused), ("green", Code::IdleProvisionerRefused)] {
        alter_role(&harness, login, "NOLOGIN").await;
        let plan = examine(&tenantry).await;
        assert_eq!(found(&plan), [(code, main.clone())], "{:#?}", plan.findings);
        assert!(plan.findings[0].repair.is_none() && plan.findings[0].no_repair.is_some());
        let with_admin = tenantry.doctor().admin("main".parse().unwrap(), harness.server().admin_options());
        let plan = with_admin.examine().await.unwrap();
        assert_eq!(plan.findings[0].repair, Some(Repair::SetUpServer));
        alter_role(&harness, login, "LOGIN").await;
    }
    alter_role(&harness, "blue", "RESET role").await;
    assert_eq!(found(&examine(&tenantry).await), [(Code::ProvisionerRefused, main)]);
}

/// Repairs what is offered, and returns what is found afterwards.
async fn repair(doctor: &Doctor) -> Vec<(Code, String)> {
    let plan = doctor.examine().await.unwrap();
    let report = doctor.apply(&plan, "test").await.unwrap();
    assert!(report.is_complete() && !report.outcomes.is_empty(), "{report:?}");
    found(&doctor.examine().await.unwrap())
}

#[tokio::test]
async fn damaged_server_is_repaired_and_its_tenants_stay_usable() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let doctor = tenantry.doctor().admin("main".parse().unwrap(), harness.server().admin_options());
    let maintenance = format!("{}_maintenance", harness.prefix());
    let mut server = auditor::superuser(&harness).await;
    for damage in ["NOLOGIN", "PASSWORD 'other'", "VALID UNTIL '2020-01-01'", "RESET role"] {
        for login in ["blue", "green"] {
            alter_role(&harness, login, damage).await;
        }
        run_sql(&mut server, format!("GRANT CONNECT ON DATABASE {maintenance} TO PUBLIC")).await;
        // While the provisioner cannot log in, the rights of PUBLIC are not seen.
        repair(&doctor).await;
        if !doctor.examine().await.unwrap().is_clean() {
            assert_eq!(repair(&doctor).await, [], "{damage}");
        }
        let acme = tenantry.resolve("acme").await.unwrap();
        sqlx::query("SELECT FROM notes").execute(&acme).await.unwrap_or_else(|error| panic!("{damage}: {error}"));
        tenantry.rotate("acme").await.unwrap_or_else(|error| panic!("{damage}: {error:?}"));
    }
}

#[tokio::test]
async fn server_that_must_not_be_entered_is_found_and_not_connected_to() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let change = async |statement: &'static str| {
        sqlx::raw_sql(statement).execute(harness.landlord()).await.unwrap();
        found(&examine(&tenantry).await)
    };
    let main = String::from("server:main");
    let moved = change("UPDATE tenantry.database_servers SET port = 1").await;
    assert_eq!(moved, [(Code::ServerUntrusted, main.clone())]);
    harness.sign_servers(&tenantry).await.unwrap();
    assert_eq!(found(&examine(&tenantry).await), [(Code::ServerUnreachable, main)]);
}

#[tokio::test]
async fn other_cluster_at_the_address_of_a_server_is_found() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let stored = "UPDATE tenantry.database_servers SET system_identifier = 4711";
    sqlx::raw_sql(stored).execute(harness.landlord()).await.unwrap();
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [(Code::ServerReplaced, String::from("server:main"))]);
}

#[tokio::test]
async fn rights_of_public_and_of_other_members_of_the_admin_role_are_found() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let (prefix, mut server) = (harness.prefix(), auditor::superuser(&harness).await);
    run_sql(&mut server, format!("CREATE ROLE {prefix}_guest LOGIN; GRANT {prefix}_admin TO {prefix}_guest")).await;
    run_sql(&mut server, format!("GRANT CONNECT ON DATABASE {prefix}_maintenance TO PUBLIC")).await;
    let plan = examine(&tenantry).await;
    let main = || String::from("server:main");
    assert_eq!(found(&plan), [(Code::AdminMember, main()), (Code::MaintenancePublic, main())]);
    assert_eq!(plan.findings.iter().filter(|finding| finding.repair.is_some()).count(), 1);
    assert_eq!(plan.count(Severity::Critical), 2);
    run_sql(&mut server, format!("REVOKE {prefix}_admin FROM {prefix}_guest; DROP ROLE {prefix}_guest")).await;
}

#[tokio::test]
async fn further_membership_of_a_provisioners_login_is_found() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let (prefix, mut server) = (harness.prefix(), auditor::superuser(&harness).await);
    for (login, group) in [("blue", "pg_monitor"), ("green", "pg_write_all_data")] {
        run_sql(&mut server, format!("GRANT {group} TO {prefix}_{login}")).await;
    }
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [(Code::ProvisionerMembership, String::from("server:main"))]);
    let finding = &plan.findings[0];
    assert_eq!(finding.object, Some(format!("{prefix}_green in pg_write_all_data")));
    assert!(finding.no_repair.as_ref().is_some_and(|reason| reason.contains("REVOKE \"pg_write_all_data\"")));
}

#[tokio::test]
async fn set_up_by_the_doctor_stores_reason_and_finding() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    alter_role(&harness, "green", "NOLOGIN").await;
    let doctor = tenantry.doctor().admin("main".parse().unwrap(), harness.server().admin_options());
    let plan = doctor.examine().await.unwrap();
    let report = doctor.apply(&plan, "ops/grace: ticket 17").await.unwrap();
    let RepairOutcome::Repaired { operation } = &report.outcomes[0].1 else { panic!("{report:?}") };
    let record = PgJournal::new(harness.landlord().clone()).read(*operation).await.unwrap().unwrap();
    assert_eq!(record.reason.as_deref(), Some("doctor idle_provisioner_refused: ops/grace: ticket 17"));
    assert_eq!(record.request["$repairs"]["finding"]["code"], "idle_provisioner_refused", "{:?}", record.request);
}

#[tokio::test]
async fn hidden_sessions_are_a_finding_and_never_healthy() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    let mut server = auditor::superuser(&harness).await;
    run_sql(&mut server, format!("REVOKE pg_read_all_stats FROM {}_admin", harness.prefix())).await;
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [(Code::CannotSee, String::from("server:main"))]);
    assert!(!plan.is_clean());
}

/// The text of a key that depends on `seed`.
pub(crate) fn key(seed: u8) -> String {
    let bytes: Vec<u8> = (0..32).map(|at| seed.wrapping_mul(31).wrapping_add(at * 7)).collect();
    data_encoding::BASE64.encode(&bytes)
}

/// Configures keys; the first one is the primary one.
fn keyed(keys: &str) -> impl FnOnce(Builder) -> Builder {
    let keys = LocalKeyring::from_text(keys).unwrap();
    move |builder| migrated(builder).keys(keys)
}

#[tokio::test]
async fn secrets_on_a_key_that_is_not_primary_any_more_are_found() {
    let harness = Harness::start().await.unwrap();
    let (old, new) = (format!("k1:{}", key(1)), format!("k2:{}", key(2)));
    let tenantry = harness.tenantry(keyed(&old)).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    assert_eq!(found(&examine(&tenantry).await), []);
    let tenantry = harness.tenantry(keyed(&format!("{new},{old}"))).await.unwrap();
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [(Code::SecretsOnOldKey, String::from("vault"))]);
    assert_eq!(plan.findings[0].repair, Some(Repair::Rekey));
    assert_eq!(repair(&tenantry.doctor()).await, []);
}

#[tokio::test]
async fn damaged_schema_is_the_only_finding_of_its_examination() {
    let harness = Harness::start().await.unwrap();
    let tenantry = node(&harness).await;
    sqlx::raw_sql("DROP TABLE tenantry.nodes").execute(harness.landlord()).await.unwrap();
    let plan = examine(&tenantry).await;
    assert_eq!(found(&plan), [(Code::SchemaDamaged, String::from("landlord"))]);
    assert!(plan.findings[0].no_repair.is_some());
}
