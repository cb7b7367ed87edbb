//! Findings about the content of tenants' databases, about leftovers, and about objects that are not this installation's.
use super::drifts::configured;
use super::fleet::{self, Before, Damage, Drift};
use super::healthy::{found, snapshot};
use super::servers::key;
use crate::auditor;
use crate::fail_closed::run_sql;
use std::collections::BTreeSet;
use std::sync::Arc;
use tenantry::doctor::{Code, Finding};
use tenantry::registry::TenantRegistry;
use tenantry::testing::Harness;
use tenantry::vault::LocalKeyring;
use tenantry::{Tenantry, sqlx};

use Damage::{Inside, Landlord, Server};

/// Damages after which other checks cannot look, or that only a server admin or a person can repair.
const DRIFTS: &[Drift] = &[
    Drift::new(
        "object-of-a-stranger",
        &[Code::ObjectOwner],
        &[Inside(|n| format!("ALTER TABLE notes OWNER TO \"{}\"", n.stranger))],
    )
    .left(),
    Drift::new(
        "placement-left",
        &[Code::PlacementLeft],
        &[
            Landlord(|n| {
                format!("UPDATE tenantry.tenants SET status = 'deleted', deleted_at = now() WHERE id = '{}'", n.id)
            }),
            Server(|n| format!("DROP ROLE \"{}\"", n.login)),
        ],
    )
    .left(),
    Drift::new(
        "database-owner",
        &[Code::DatabaseOwner, Code::CannotSee],
        &[Server(|n| format!("ALTER DATABASE \"{0}\" OWNER TO \"{1}\"", n.database, n.stranger))],
    )
    .left(),
    Drift::new(
        "database-invalid",
        &[Code::DatabaseInvalid],
        &[Server(|n| format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{}'", n.database))],
    )
    .left(),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_only_a_person_can_repair_is_found_and_left_with_a_reason() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    fleet::create_stranger(&harness).await;
    let mut tenants = vec![];
    for drift in DRIFTS {
        tenants.push((drift, fleet::provision(&harness, &tenantry, drift.name, drift.before).await));
    }
    for (drift, names) in &tenants {
        fleet::inject(&harness, names, drift.damage).await;
    }
    let plan = tenantry.doctor().examine().await.unwrap();
    let codes = fleet::codes_by_tenant(&plan);
    for (drift, names) in &tenants {
        let expected: BTreeSet<&str> = drift.codes.iter().map(|code| code.as_str()).collect();
        let found = codes.get(&names.id).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{}: {}", drift.name, plan.to_json());
    }
    let others: Vec<_> = plan.findings.iter().filter(|finding| finding.subject.tenant().is_none()).collect();
    assert!(others.is_empty(), "findings about no tenant: {others:?}");

    for finding in &plan.findings {
        assert!(finding.repair.is_none() && finding.no_repair.is_some(), "a reason and no repair: {finding:?}");
    }
}

/// Runs statements as a superuser, each alone: CREATE DATABASE cannot run in a transaction.
async fn run_each(harness: &Harness, statements: &[String]) {
    let mut server = auditor::superuser(harness).await;
    for statement in statements {
        run_sql(&mut server, statement.as_str()).await;
    }
}

#[tokio::test]
async fn orphans_and_look_alikes_are_found_and_left_as_they_are() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let names = fleet::provision(&harness, &tenantry, "acme", Before::Active).await;
    let installation: uuid::Uuid =
        sqlx::query_scalar("SELECT id FROM tenantry.installation").fetch_one(harness.landlord()).await.unwrap();
    let (prefix, admin) = (harness.prefix(), &names.admin);
    run_each(
        &harness,
        &[
            format!("CREATE DATABASE \"{prefix}_lost\" OWNER \"{admin}\""),
            format!("CREATE DATABASE \"{prefix}_alike\""),
            format!("COMMENT ON DATABASE \"{prefix}_alike\" IS 'tenantry {installation} acme'"),
            format!("SET ROLE \"{admin}\""),
            format!("CREATE ROLE \"{prefix}_lost_app\""),
            format!("COMMENT ON ROLE \"{prefix}_lost_app\" IS 'tenantry {installation} acme'"),
        ],
    )
    .await;
    let before = snapshot(&harness).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    let object = |finding: &Finding| (finding.code, finding.object.clone().unwrap_or_default());
    let mut objects: Vec<_> = plan.findings.iter().map(object).collect();
    objects.sort_by_key(|(code, object)| (code.as_str(), object.clone()));
    assert_eq!(
        objects,
        [
            (Code::LookAlike, format!("{prefix}_alike")),
            (Code::OrphanDatabase, format!("{prefix}_lost")),
            (Code::OrphanRole, format!("{prefix}_lost_app")),
        ]
    );
    assert!(plan.repairs().next().is_none(), "{:?}", plan.findings);
    let report = tenantry.doctor().apply(&plan, "test").await.unwrap();
    assert!(report.outcomes.is_empty(), "{report:?}");
    assert_eq!(snapshot(&harness).await, before, "an orphan or a look-alike was changed");
}

#[tokio::test]
async fn second_registry_that_names_another_database_is_found() {
    let (harness, other) = (Harness::start().await.unwrap(), Harness::start().await.unwrap());
    let tenantry = harness.tenantry(configured).await.unwrap();
    fleet::provision(&harness, &tenantry, "acme", Before::Active).await;
    let elsewhere = other.tenantry(configured).await.unwrap();
    let compare = async |second: &Tenantry| {
        let second: Arc<dyn TenantRegistry> = second.registry();
        found(&tenantry.doctor().compare_with(second).examine().await.unwrap())
    };
    assert_eq!(compare(&tenantry).await, [], "the same registry");
    assert_eq!(compare(&elsewhere).await, [(Code::SourcesDisagree, String::from("acme"))]);
}

/// Id of the key that has sealed the secrets.
async fn harness_key(harness: &Harness) -> String {
    const KEY: &str = "SELECT key_id FROM tenantry.credentials LIMIT 1";
    sqlx::query_scalar(KEY).fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test]
async fn landlord_for_which_nothing_can_be_built_has_a_finding() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    fleet::provision(&harness, &tenantry, "acme", Before::Active).await;
    let build = || Tenantry::builder(harness.landlord().clone());
    for (id, code) in [("other", Code::KeyMissing), (harness_key(&harness).await.as_str(), Code::KeyWrong)] {
        let keys = LocalKeyring::from_text(&format!("{id}:{}", key(7))).unwrap();
        let error = build().keys(keys).build().await.unwrap_err();
        let finding = Finding::of_build_error(&error).expect("a finding about a key");
        assert_eq!((finding.code, finding.no_repair.is_some()), (code, true), "{id}");
    }
    sqlx::raw_sql("DROP SCHEMA tenantry CASCADE").execute(harness.landlord()).await.unwrap();
    let error = build().keys(harness.keys().clone()).build().await.unwrap_err();
    let finding = Finding::of_build_error(&error).expect("a finding for a missing schema");
    assert_eq!(finding.code, Code::SchemaMissing);
}

/// An index of a partitioned table is invalid until an index of each partition is attached. A sequence of an extension is
/// not the application's to change.
#[tokio::test]
async fn unattached_partitioned_index_and_sequence_of_an_extension_are_no_findings() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let names = fleet::provision(&harness, &tenantry, "acme", Before::Active).await;
    let damage = Inside(|n| {
        format!(
            "SET ROLE \"{}_owner\";
             CREATE TABLE days (day date NOT NULL, note text) PARTITION BY RANGE (day);
             CREATE TABLE days_2026 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
             CREATE INDEX days_note ON ONLY days (note);
             CREATE SEQUENCE counted MAXVALUE 100;
             SELECT setval('counted', 99);
             RESET ROLE;
             ALTER EXTENSION plpgsql ADD SEQUENCE counted",
            n.database
        )
    });
    fleet::inject(&harness, &names, &[damage]).await;
    fleet::assert_clean(&tenantry, "with a partitioned index").await;
}

#[tokio::test]
async fn server_that_accepts_no_writes_is_found() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configured).await.unwrap();
    let blue = format!("{}_blue", harness.prefix());
    run_each(&harness, &[format!("ALTER ROLE \"{blue}\" SET default_transaction_read_only = on")]).await;
    let plan = tenantry.doctor().examine().await.unwrap();
    assert_eq!(found(&plan), [(Code::ServerReadOnly, String::from("server:main"))]);
}
