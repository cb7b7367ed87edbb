//! Findings about recorded logins, migrations, operations and sessions.
use super::*;
use crate::cluster::pg::observe::Blocker;
use crate::cluster::{MigrationState, MigrationStatus};
use crate::doctor::view::{Clock, KeyView};
use crate::operation::{Lane, OperationId, OperationStatus, Subject};
use crate::store::journal::{Intent, Record};
use crate::store::registry::Retirement;
use std::time::{Duration, Instant};

fn user(generation: i64, status: UserStatus) -> DatabaseUser {
    let server = healthy_server();
    let database = DATABASE.parse().unwrap();
    let login = TenantNames::of(&database).unwrap().login(Generation(generation)).unwrap();
    let user = DatabaseUser::pending(
        TenantId::from_uuid(Uuid::nil()),
        server.name().clone(),
        database,
        login,
        Generation(generation),
    );
    user.with_status(status)
}

/// The findings after these logins were recorded in addition, and these roles were added to the server.
fn with_logins(recorded: &[(i64, UserStatus)], roles: &[&str]) -> Vec<Finding> {
    let add_roles = |server: &mut ServerView| {
        server.roles.extend(roles.iter().map(|name| (name.to_string(), role(name))));
    };
    let add_users =
        |tenant: &mut TenantView<'_>| tenant.users.extend(recorded.iter().map(|(n, status)| user(*n, *status)));
    find(add_roles, add_users)
}

#[test]
fn recorded_logins_that_disagree_with_the_server_are_found() {
    use UserStatus::{Dropped, Pending, Retiring};
    let retire = |generation: i64, before| {
        Some(Repair::RetireLogin { login: format!("t_1_v{generation}").parse().unwrap(), before })
    };
    for (recorded, roles, expected, repair) in [
        (vec![(2, Dropped)], vec!["t_1_v2"], vec![Code::LoginNotDropped], retire(2, Some(Dropped))),
        (vec![], vec!["t_1_v2"], vec![Code::LoginUnrecorded], retire(2, None)),
        (vec![(2, Dropped)], vec![], vec![], None),
        (vec![(2, Retiring)], vec!["t_1_v2"], vec![], None),
        (vec![], vec!["t_1_v02", "t_1_x_v2", "t_11_v2"], vec![], None),
    ] {
        let found = with_logins(&recorded, &roles);
        assert_eq!(codes(&found), expected, "{recorded:?} {roles:?}");
        assert_eq!(found.first().and_then(|finding| finding.repair.clone()), repair, "{recorded:?} {roles:?}");
    }
    for status in [Pending, Retiring] {
        assert_eq!(codes(&with_logins(&[(2, status)], &[])), [Code::LoginGone], "{status}");
    }
}

/// Retiring the login that the application uses would lock the tenant out.
#[test]
fn login_that_the_entry_names_is_never_retired_whatever_is_recorded_about_it() {
    for recorded in [Some(UserStatus::Dropped), Some(UserStatus::Pending), Some(UserStatus::Retiring), None] {
        let change =
            |tenant: &mut TenantView<'_>| tenant.users = recorded.map(|status| user(1, status)).into_iter().collect();
        let found = find(|_| {}, change);
        assert_eq!(codes(&found), [Code::UsersDisagree], "{recorded:?}");
        assert_eq!(found[0].repair, Some(Repair::SyncLogins), "{recorded:?}");
    }
}

#[test]
fn role_of_another_creator_is_reported_and_never_touched() {
    let foreign = |server: &mut ServerView| {
        for name in ["t_1_v2", "t_1_mig"] {
            server.roles.insert(name.into(), ObservedRole { is_ours: false, ..role(name) });
        }
    };
    let found = find(foreign, |_| {});
    assert_eq!(codes(&found), [Code::LoginUnrecorded, Code::MigratorLeft]);
    assert!(found.iter().all(|finding| finding.repair.is_none()), "{found:?}");
}

#[test]
fn migrator_is_left_unless_an_open_operation_uses_it() {
    let add = |server: &mut ServerView| drop(server.roles.insert("t_1_mig".into(), role("t_1_mig")));
    assert_eq!(codes(&find(add, |_| {})), [Code::MigratorLeft]);
    let in_use = |server: &mut ServerView| {
        add(server);
        server.temporary_logins = vec!["t_1_mig".parse().unwrap()];
    };
    assert_eq!(find(in_use, |_| {}), []);
    assert_eq!(with_role("t_1_v1", |login| login.comment = None), [Code::RoleMarker]);
}

#[test]
fn each_state_of_the_migrations_has_a_code_and_only_pending_ones_a_repair() {
    for (state, code, is_repaired) in [
        (MigrationState::Behind { pending: vec![2] }, Code::MigrationsBehind, true),
        (MigrationState::Ahead { version: 9 }, Code::MigrationsAhead, false),
        (MigrationState::Changed { version: 2 }, Code::MigrationsChanged, false),
        (MigrationState::Unfinished { version: 2 }, Code::MigrationsUnfinished, false),
    ] {
        let migrations = Some(MigrationStatus { applied: Some(3), newest: Some(3), state, missing: vec![] });
        let (acts_as, sequences) = (String::from("t_1_app"), Seen::Read(vec![]));
        let login = Seen::Read(LoginView::Entered { acts_as, migrations, sequences });
        let found = find(|_| {}, |tenant| tenant.login = login);
        assert_eq!(codes(&found), [code]);
        assert_eq!(found[0].repair.is_some(), is_repaired, "{found:?}");
    }
}

#[test]
fn gap_in_the_ledger_is_found_together_with_the_problem_that_keeps_it_from_being_filled() {
    let state = MigrationState::Ahead { version: 9 };
    let migrations = Some(MigrationStatus { applied: Some(9), newest: Some(3), state, missing: vec![2] });
    let (acts_as, sequences) = (String::from("t_1_app"), Seen::Read(vec![]));
    let login = Seen::Read(LoginView::Entered { acts_as, migrations, sequences });
    let found = find(|_| {}, |tenant| tenant.login = login);
    assert_eq!(codes(&found), [Code::MigrationsBehind, Code::MigrationsAhead]);
    assert_eq!(found[0].evidence["pending"], serde_json::json!([2]));
    assert!(found[0].repair.is_none() && found[0].no_repair.is_some(), "a migration would be refused: {found:?}");
}

/// The time of the views.
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn operation(status: OperationStatus, lane: Lane, subject: Subject) -> Record {
    let Intent { id, kind, request, .. } = Intent::new(OperationId::new(), "migrate", lane, subject.clone());
    Record {
        id,
        kind: kind.into_owned(),
        lane,
        subject,
        reason: None,
        request,
        status,
        step: String::new(),
        intended: 1,
        done: 0,
        total: 4,
        outputs: Default::default(),
        error: None,
        attempts: 0,
        epoch: 1,
        worker: String::new(),
        begun_at: NOW,
        leased_until: NOW,
        retry_at: None,
        recoverable: true,
    }
}

fn landlord() -> LandlordView {
    LandlordView {
        installation: Uuid::nil(),
        now: NOW,
        keys: KeyView::Usable { in_use: vec![], primary: None },
        operations: vec![],
        retiring: vec![],
        more_retiring: 0,
        live_nodes: 1,
        blockers: Seen::Read(vec![]),
        unreadable: vec![],
        clock: Clock { time: NOW, at: Instant::now(), tolerance: Duration::ZERO, node_time: NOW },
    }
}

fn find_in_landlord(change: impl FnOnce(&mut LandlordView)) -> Vec<Finding> {
    let (mut view, mut findings) = (landlord(), Findings::default());
    change(&mut view);
    let expected = Expected { blocking_after: Duration::from_secs(60), ..expected() };
    check_landlord(&view, &expected, &mut findings);
    findings.list
}

#[test]
fn open_operation_is_found_if_it_is_parked_has_no_worker_or_takes_too_long() {
    let tenant = Subject::Tenant(TenantId::from_uuid(Uuid::nil()));
    let running = operation(OperationStatus::Running, Lane::Change, tenant.clone());
    let found = |record: Record| codes(&find_in_landlord(|view| view.operations = vec![record]));
    assert_eq!(found(running.clone()), []);
    let hour = time::Duration::HOUR;
    let stalled = Record { leased_until: NOW - hour, ..running.clone() };
    assert_eq!(found(stalled.clone()), [Code::OperationStalled]);
    let waits = Record { retry_at: Some(NOW + hour), ..stalled.clone() };
    assert_eq!(found(waits), [], "it waits for its next attempt");
    assert_eq!(found(Record { begun_at: NOW - hour * 2, ..running.clone() }), [Code::OperationSlow]);
    let parked = |lane, subject| operation(OperationStatus::Parked, lane, subject);
    assert_eq!(found(parked(Lane::Change, Subject::Vault)), [Code::OperationParked]);
    assert_eq!(found(parked(Lane::Preempt, tenant.clone())), [Code::OperationParked]);
    assert_eq!(found(parked(Lane::Change, tenant)), [], "the tenant's status decides");
    let of_caller = find_in_landlord(|view| view.operations = vec![Record { recoverable: false, ..stalled }]);
    assert!(of_caller[0].repair.is_none() && of_caller[0].no_repair.is_some(), "{of_caller:?}");
}

#[test]
fn parked_change_of_a_tenant_is_normal_only_while_the_tenant_is_closed() {
    let subject = Subject::Tenant(TenantId::from_uuid(Uuid::nil()));
    for (status, expected) in [
        (TenantStatus::Active, vec![Code::OperationParked]),
        (TenantStatus::Provisioning, vec![Code::OperationParked]),
        (TenantStatus::Suspended, vec![]),
        (TenantStatus::Archived, vec![]),
    ] {
        let change = |tenant: &mut TenantView<'_>| {
            tenant.tenant = tenant.tenant.take().map(|t| t.with_status(status));
            tenant.parked = Some(operation(OperationStatus::Parked, Lane::Change, subject.clone()));
        };
        let found = codes(&find(|_| {}, change));
        let parked: Vec<_> = found.into_iter().filter(|code| *code == Code::OperationParked).collect();
        assert_eq!(parked, expected, "{status}");
    }
}

#[test]
fn provisioning_is_unfinished_only_if_no_operation_is_open_for_it() {
    for (has_open_operation, expected) in [(true, 0), (false, 1)] {
        let change = |tenant: &mut TenantView<'_>| {
            tenant.tenant = tenant.tenant.take().map(|t| t.with_status(TenantStatus::Provisioning));
            tenant.has_open_operation = has_open_operation;
        };
        let found = codes(&find(|_| {}, change));
        let unfinished = found.iter().filter(|code| **code == Code::TenantUnfinished).count();
        assert_eq!(unfinished, expected, "an operation is open: {has_open_operation}");
    }
}

#[test]
fn retiring_login_is_overdue_after_ten_attempts_or_without_a_time_of_the_next_one() {
    let overdue = || vec![Code::RetirementOverdue];
    let later = Some(OffsetDateTime::UNIX_EPOCH);
    for (attempts, retry_at, expected) in [(9, later, vec![]), (10, later, overdue()), (0, None, overdue())] {
        let retirement = Retirement::new(user(2, UserStatus::Retiring), attempts, retry_at);
        assert_eq!(codes(&find_in_landlord(|view| view.retiring = vec![retirement])), expected, "{attempts}");
    }
    assert_eq!(codes(&find_in_landlord(|view| view.more_retiring = 7)), [Code::CannotSee], "some were left out");
}

#[test]
fn session_that_blocks_is_found_only_while_it_is_idle_in_a_transaction_for_long() {
    let blocker = Blocker {
        pid: 17,
        database: Some("landlord".into()),
        login: Some("app".into()),
        application: Some("import".into()),
        state: Some("idle in transaction".into()),
        started_at: Some(NOW),
        transaction_at: Some(NOW),
        idle_seconds: Some(61.0),
        waiters: 1,
        waiting_statements: vec!["UPDATE".into()],
        can_signal: true,
    };
    let found = |blocker: Blocker| find_in_landlord(|view| view.blockers = Seen::Read(vec![blocker]));
    let blocks = found(blocker.clone());
    assert_eq!(codes(&blocks), [Code::SessionBlocks]);
    assert_eq!(blocks[0].repair, Some(Repair::EndSession { pid: 17, started_at: NOW, transaction_at: Some(NOW) }));
    assert_eq!(found(Blocker { idle_seconds: Some(59.0), ..blocker.clone() }), []);
    assert_eq!(found(Blocker { state: Some("active".into()), ..blocker.clone() }), []);
    let other = found(Blocker { can_signal: false, ..blocker.clone() });
    assert!(other[0].repair.is_none() && other[0].no_repair.is_some(), "{other:?}");
    assert_eq!(codes(&found(Blocker { state: None, ..blocker })), [Code::CannotSee]);
    let hidden = find_in_landlord(|view| view.blockers = Seen::Hidden("no answer".into()));
    assert_eq!(codes(&hidden), [Code::CannotSee]);
}

#[test]
fn every_code_has_a_section_in_the_manual() {
    let manual = include_str!("../../../manual/findings.rs");
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !manual.contains(&format!("//! ## {code}\n"))).collect();
    assert!(missing.is_empty(), "the manual has no section for {missing:?}");
}
