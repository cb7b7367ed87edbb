//! What the checks of content, capacity and leftovers find after one thing about a healthy tenant or fleet is changed.
use super::tests::{expected, healthy_server, healthy_tenant};
use super::*;
use crate::cluster::pg::observe::{Holder, ObservedObject, ObservedSequence};
use crate::doctor::code::Severity;
use crate::doctor::view::{FleetServer, LoginView, Seen, Skew};
use crate::doctor::{Finding, Repair};
use crate::tenant::TenantStatus;
use std::time::Duration;

fn find(change: impl FnOnce(&mut TenantView<'_>)) -> Vec<Finding> {
    let server = healthy_server();
    let mut tenant = healthy_tenant(&server);
    change(&mut tenant);
    let mut findings = Findings::default();
    check_tenant(&tenant, &expected(), &mut findings);
    findings.list
}

fn find_on_server(change: impl FnOnce(&mut ServerView)) -> Vec<Finding> {
    let (mut view, mut findings) = (healthy_server(), Findings::default());
    change(&mut view);
    check_server(&view, &expected(), &mut findings);
    findings.list
}

fn codes(findings: &[Finding]) -> Vec<Code> {
    findings.iter().map(|finding| finding.code).collect()
}

fn row(kind: &str, object: &str, role: Option<&str>) -> ObservedObject {
    ObservedObject { kind: kind.into(), object: object.into(), role: role.map(str::to_owned) }
}

#[test]
fn objects_are_one_finding_for_each_kind_and_role() {
    let rows = vec![
        row("object_owner", "table b", Some("stranger")),
        row("object_owner", "table a", Some("stranger")),
        row("object_owner", "table c", Some("other")),
        row("object_granted", "table a", Some("stranger")),
        row("object_public", "SELECT on a", None),
    ];
    let found = find(|tenant| tenant.objects = Seen::Read(rows));
    let subjects: Vec<_> = found.iter().map(|finding| (finding.code, finding.object.as_deref().unwrap())).collect();
    assert_eq!(
        subjects,
        [
            (Code::ObjectGranted, "stranger"),
            (Code::ObjectOwner, "other"),
            (Code::ObjectOwner, "stranger"),
            (Code::ObjectPublic, "PUBLIC"),
        ]
    );
    assert_eq!(found[2].evidence["objects"], serde_json::json!(["table a", "table b"]));
}

#[test]
fn schema_is_repaired_only_if_the_provisioner_may() {
    for (row, is_repaired) in [
        (row("schema_owner", "public", Some("pg_database_owner")), true),
        (row("schema_owner", "public", Some("stranger")), false),
        (row("schema_public", "USAGE on schema public", None), true),
        (row("schema_public", "USAGE on schema reports", None), false),
    ] {
        let found = find(|tenant| tenant.objects = Seen::Read(vec![row.clone()]));
        assert_eq!(found.len(), 1, "{row:?}");
        assert_eq!(found[0].repair == Some(Repair::RestoreSchema), is_repaired, "{row:?}");
    }
}

#[test]
fn index_and_event_trigger_are_found() {
    let found = find(|tenant| tenant.objects = Seen::Read(vec![row("index_invalid", "notes_pkey", Some("notes"))]));
    assert_eq!(codes(&found), [Code::IndexInvalid]);
    let found = find(|tenant| tenant.objects = Seen::Read(vec![row("event_trigger", "audit", Some("postgres"))]));
    assert_eq!(codes(&found), [Code::EventTrigger]);
}

#[test]
fn sequence_is_found_from_four_fifths_of_its_range_on() {
    let with = |last_value, is_hidden| {
        let sequence = ObservedSequence {
            sequence: "notes_id_seq".into(),
            increment: 1,
            last_value,
            is_hidden,
            smallest: 0,
            largest: 100,
        };
        let login =
            LoginView::Entered { acts_as: "t_1_app".into(), migrations: None, sequences: Seen::Read(vec![sequence]) };
        find(|tenant| tenant.login = Seen::Read(login))
    };
    assert_eq!(with(None, false), []);
    assert_eq!(with(Some(79), false), []);
    for (last_value, severity) in [(80, Severity::Warning), (95, Severity::Critical)] {
        let found = with(Some(last_value), false);
        assert_eq!((codes(&found), found[0].severity), (vec![Code::SequenceExhausted], severity));
    }
    assert_eq!(codes(&with(None, true)), [Code::CannotSee]);
}

#[test]
fn prepared_transaction_and_slot_are_found_if_they_are_in_the_way() {
    let with = |holder: Holder| codes(&find_on_server(|view| view.holders = vec![holder]));
    let prepared = Holder {
        kind: "prepared".into(),
        name: "gid".into(),
        owner: Some("t_1_app".into()),
        database: Some("t_1".into()),
        age_seconds: Some(601.0),
        held_bytes: None,
        is_active: false,
        wal_status: None,
    };
    assert_eq!(with(prepared.clone()), [Code::TransactionPrepared]);
    assert_eq!(with(Holder { age_seconds: Some(1.0), ..prepared.clone() }), []);
    let slot = Holder { kind: "slot".into(), database: None, age_seconds: None, ..prepared };
    assert_eq!(with(slot.clone()), [], "a slot of another database that holds little");
    assert_eq!(with(Holder { database: Some("t_1".into()), ..slot.clone() }), [Code::SlotHolds]);
    assert_eq!(with(Holder { held_bytes: Some(2 << 30), ..slot.clone() }), [Code::SlotHolds]);
    assert_eq!(with(Holder { wal_status: Some("lost".into()), ..slot }), [Code::SlotHolds]);
}

#[test]
fn server_without_writes_or_encryption_is_found() {
    let facts = |change: fn(&mut crate::cluster::pg::observe::ServerFacts)| {
        codes(&find_on_server(|view| change(view.facts.as_mut().unwrap())))
    };
    assert_eq!(facts(|facts| facts.is_read_only = true), [Code::ServerReadOnly]);
    assert_eq!(facts(|facts| facts.is_in_recovery = true), [Code::ServerReadOnly]);
    assert_eq!(codes(&find_on_server(|view| view.server.host = "db1.internal".into())), [Code::TlsOff]);
    let outdated = find_on_server(|view| {
        let database = view.databases.get_mut("t_1").unwrap();
        (database.collation_version, database.actual_collation_version) = (Some("2.31".into()), Some("2.36".into()));
    });
    assert_eq!(codes(&outdated), [Code::CollationOutdated]);
}

#[test]
fn unplaced_objects_are_found_and_never_repaired() {
    let found = find_on_server(|view| {
        let mark = Some(format!("tenantry {}", view.installation));
        view.unplaced_databases = vec!["t_1".into(), "copy".into(), "theirs".into()];
        let owned = view.databases["t_1"].clone();
        let foreign = crate::cluster::pg::observe::ObservedDatabase { owner: Some("x".into()), ..owned };
        let marked = crate::cluster::pg::observe::ObservedDatabase {
            name: "copy".into(),
            comment: mark.clone(),
            ..foreign.clone()
        };
        view.databases.insert("copy".into(), marked);
        view.databases.insert("theirs".into(), foreign);
        view.unplaced_roles = vec!["t_1_v1".into(), "t_1_app".into()];
        for (role, is_ours) in [("t_1_v1", true), ("t_1_app", false)] {
            let role = view.roles.get_mut(role).unwrap();
            (role.comment, role.is_ours) = (mark.clone(), is_ours);
        }
    });
    let subjects: Vec<_> = found.iter().map(|finding| (finding.code, finding.object.as_deref().unwrap())).collect();
    assert_eq!(
        subjects,
        [
            (Code::OrphanDatabase, "t_1"),
            (Code::LookAlike, "copy"),
            (Code::OrphanRole, "t_1_v1"),
            (Code::LookAlike, "t_1_app"),
        ]
    );
    assert!(found.iter().all(|finding| finding.repair.is_none()), "{found:?}");
}

#[test]
fn row_that_is_left_or_outdated_is_found() {
    let with_status = |status| {
        codes(&find(move |tenant| {
            tenant.tenant = tenant.tenant.take().map(|found| found.with_status(status));
            tenant.entries.clear();
            (tenant.secret, tenant.login) = (Seen::NotApplicable, Seen::NotApplicable);
        }))
    };
    assert_eq!(with_status(TenantStatus::Deleted), [Code::PlacementLeft]);
    assert_eq!(codes(&find(|tenant| tenant.entries[0].host = "old.internal".into())), [Code::AddressOutdated]);
    let other = |tenant: &mut TenantView<'_>| {
        let mut entry = tenant.entries[0].clone();
        entry.database = "other".parse().unwrap();
        tenant.second = Seen::Read(Some(entry));
    };
    assert_eq!(codes(&find(other)), [Code::SourcesDisagree]);
    assert_eq!(codes(&find(|tenant| tenant.second = Seen::Read(None))), [Code::SourcesDisagree]);
    assert_eq!(find(|tenant| tenant.second = Seen::Read(Some(tenant.entries[0].clone()))), []);
}

#[test]
fn fleet_is_compared_by_cluster() {
    let no_skew = Skew { seconds: 0.5, tolerance: 0.0 };
    let row = |name: &str, system_identifier| {
        let view = healthy_server();
        let server = crate::server::DatabaseServer { name: name.parse().unwrap(), ..view.server };
        FleetServer { server, facts: view.facts.unwrap(), system_identifier, skew: Some(no_skew) }
    };
    let check = |servers, live_nodes, node_skew| {
        let expected = Expected { max_connections: 50, blocking_after: Duration::ZERO, ..expected() };
        let mut findings = Findings::default();
        check_fleet(&FleetView { servers, live_nodes, node_skew }, &expected, &mut findings);
        codes(&findings.list)
    };
    assert_eq!(check(vec![row("a", Some(1)), row("b", Some(2))], 1, no_skew), []);
    assert_eq!(check(vec![row("a", Some(1)), row("b", Some(1))], 1, no_skew), [Code::BudgetExceedsServer]);
    let mut german = row("b", Some(2));
    german.facts.locale = "UTF8 de_DE de_DE c".into();
    assert_eq!(check(vec![row("a", Some(1)), german], 1, no_skew), [Code::LocaleDiffers]);
    assert_eq!(check(vec![], 1, Skew { seconds: -3.0, tolerance: 0.1 }), [Code::ClockSkew]);
    assert_eq!(check(vec![], 1, Skew { seconds: -3.0, tolerance: 1.5 }), [], "the answer took long");
}
