//! A healthy server and tenant, and what each check finds after one thing about them is changed.
use super::*;
use crate::cluster::pg::observe::{Membership, ObservedDatabase, ObservedObject, ObservedRole, ServerFacts};
use crate::directory::{AppAccess, DatabaseUser, Generation, TenantDatabase, UserStatus};
use crate::doctor::view::{LoginView, SecretView, Seen, ServerAccess};
use crate::doctor::{Finding, Repair};
use crate::names::TenantNames;
use crate::secret::{CredentialId, KeyId};
use crate::server::{DatabaseServer, ServerNames};
use crate::store::registry::Placement;
use crate::tenant::{Tenant, TenantId, TenantStatus};
use std::collections::HashSet;
use time::OffsetDateTime;
use uuid::Uuid;

mod records;

/// Name of the tenant's database, with the names of its roles as suffixes.
const DATABASE: &str = "t_1";

fn membership(group: &str) -> Membership {
    Membership { group: group.into(), grantor: Some("tenantry_admin".into()), admin: false, inherit: true, set: true }
}

fn role(name: &str) -> ObservedRole {
    ObservedRole {
        name: name.into(),
        can_login: false,
        privileges: vec![],
        connection_limit: -1,
        is_expired: false,
        comment: name.starts_with(DATABASE).then(|| format!("tenantry {0} {0}", Uuid::nil())),
        is_ours: true,
        memberships: vec![],
        settings: vec![],
        database_rights: vec![],
        sessions: 0,
    }
}

pub(crate) fn healthy_server() -> ServerView {
    let names = ServerNames::with_prefix("tenantry").unwrap();
    let server = DatabaseServer::new("main".parse().unwrap(), "127.0.0.1", 5432, names);
    let mut view = ServerView::new(Uuid::nil(), server, ServerAccess::Open);
    view.idle_login = Seen::Read(());
    view.facts = Some(ServerFacts {
        version: 160_000,
        clock: OffsetDateTime::UNIX_EPOCH,
        is_in_recovery: false,
        is_read_only: false,
        max_connections: 100,
        reserved_connections: 3,
        uses_tls: false,
        can_see_sessions: true,
        is_maintenance_public: false,
        locale: "UTF8 C C c".into(),
    });
    let rights = ["app/CONNECT", "owner/CONNECT", "owner/CREATE", "owner/TEMPORARY"];
    let database = ObservedDatabase {
        name: DATABASE.into(),
        owner: Some("tenantry_admin".into()),
        is_open: true,
        connection_limit: -1,
        comment: None,
        collation_version: None,
        actual_collation_version: None,
        has_login_trigger: false,
        grants: rights.map(|right| format!("{DATABASE}_{right}")).to_vec(),
    };
    view.databases.insert(DATABASE.into(), database);
    let login = ObservedRole {
        can_login: true,
        connection_limit: 43,
        memberships: vec![membership("t_1_app")],
        settings: vec!["role=t_1_app".into()],
        ..role("t_1_v1")
    };
    let blue = ObservedRole { memberships: vec![membership("tenantry_admin")], ..role("tenantry_blue") };
    for role in [login, blue, role("tenantry_admin"), role("t_1_owner"), role("t_1_app")] {
        view.roles.insert(role.name.clone(), role);
    }
    view.entrants.insert(DATABASE.into(), vec!["t_1_v1".into()]);
    view
}

pub(crate) fn healthy_tenant(server: &ServerView) -> TenantView<'_> {
    let (id, database) = (TenantId::from_uuid(Uuid::nil()), DATABASE.parse().unwrap());
    let names = TenantNames::of(&database).unwrap();
    let login = names.login(Generation(1)).unwrap();
    let credential = CredentialId::login(id, &database, &login, 1);
    let mut entry = TenantDatabase::primary(id, "127.0.0.1", 5432, database.clone(), login.clone(), credential);
    entry.server = Some(server.name().clone());
    let user = DatabaseUser::pending(id, server.name().clone(), database.clone(), login, Generation(1));
    TenantView {
        now: OffsetDateTime::UNIX_EPOCH,
        id,
        tenant: Some(Tenant::new(id, "acme".parse().unwrap(), TenantStatus::Active)),
        placement: Some(Placement::new(id, server.name().clone(), database)),
        names: Some(names),
        entries: vec![entry],
        users: vec![user.with_status(UserStatus::Active)],
        parked: None,
        has_open_operation: false,
        secret: Seen::Read(SecretView::Opens),
        server: Some(server),
        objects: Seen::Read(vec![]),
        login: Seen::Read(LoginView::Entered {
            acts_as: "t_1_app".into(),
            migrations: None,
            sequences: Seen::Read(vec![]),
        }),
        second: Seen::NotApplicable,
    }
}

pub(crate) fn expected() -> Expected {
    Expected {
        access: Some(AppAccess::App),
        temp_tables: Some(false),
        connection_limit: Some(43),
        ..Expected::default()
    }
}

/// The findings of all checks of a tenant, after both views were changed.
fn find(change_server: impl FnOnce(&mut ServerView), change: impl FnOnce(&mut TenantView<'_>)) -> Vec<Finding> {
    let mut server = healthy_server();
    change_server(&mut server);
    let mut tenant = healthy_tenant(&server);
    change(&mut tenant);
    let mut findings = Findings::default();
    check_tenant(&tenant, &expected(), &mut findings);
    findings.list
}

fn codes(findings: &[Finding]) -> Vec<Code> {
    findings.iter().map(|finding| finding.code).collect()
}

fn with_role(name: &'static str, change: impl FnOnce(&mut ObservedRole)) -> Vec<Code> {
    codes(&find(|server| change(server.roles.get_mut(name).unwrap()), |_| {}))
}

fn with_database(status: TenantStatus, change: impl FnOnce(&mut ObservedDatabase)) -> Vec<Code> {
    let set = |tenant: &mut TenantView<'_>| tenant.tenant = tenant.tenant.take().map(|t| t.with_status(status));
    let close = |server: &mut ServerView| {
        change(server.databases.get_mut(DATABASE).unwrap());
        if status != TenantStatus::Active {
            server.roles.get_mut("t_1_v1").unwrap().can_login = false;
            server.entrants.clear();
        }
    };
    codes(&find(close, set))
}

#[test]
fn healthy_tenant_and_server_have_no_finding() {
    assert_eq!(find(|_| {}, |_| {}), []);
    let mut findings = Findings::default();
    check_server(&healthy_server(), &expected(), &mut findings);
    assert_eq!(findings.list, []);
    assert_eq!(with_database(TenantStatus::Suspended, |_| {}), []);
    assert_eq!(with_database(TenantStatus::Archived, |database| database.is_open = false), []);
}

#[test]
fn closed_tenant_that_can_be_entered_is_found_whatever_lets_it_in() {
    let suspend = |tenant: &mut TenantView<'_>| {
        tenant.tenant = tenant.tenant.take().map(|t| t.with_status(TenantStatus::Suspended));
    };
    assert_eq!(codes(&find(|_| {}, suspend)), [Code::ClosedTenantOpen], "the login is not refused");
    let stranger = |server: &mut ServerView| {
        server.roles.get_mut("t_1_v1").unwrap().can_login = false;
        server.entrants.insert(DATABASE.into(), vec!["stranger".into()]);
    };
    assert_eq!(codes(&find(stranger, suspend)), [Code::ClosedTenantOpen], "another role may connect");
    let allowed = |server: &mut ServerView| {
        stranger(server);
        server.server.allowed_roles = vec!["stranger".parse().unwrap()];
    };
    assert_eq!(find(allowed, suspend), [], "the application allows the role");
    assert_eq!(with_database(TenantStatus::Archived, |_| {}), [Code::ClosedTenantOpen], "the database is open");
    let left_open = |database: &mut ObservedDatabase| {
        database.connection_limit = crate::cluster::pg::ddl::CLEAN_UP_LIMIT;
    };
    assert_eq!(with_database(TenantStatus::Archived, left_open), [Code::DatabaseLeftOpen]);
}

#[test]
fn entrant_of_an_active_tenant_is_found_unless_it_is_a_login_of_the_tenant() {
    let enter = |role: &str| {
        let entrants = vec!["t_1_v1".into(), role.to_owned()];
        find(move |server| drop(server.entrants.insert(DATABASE.into(), entrants)), |_| {})
    };
    for role in ["tenantry_blue", "tenantry_green"] {
        assert_eq!(enter(role), [], "{role}");
    }
    let of_public = enter("PUBLIC");
    assert_eq!(codes(&of_public), [Code::ForeignEntrant]);
    assert_eq!(of_public[0].repair, Some(Repair::RestoreAccess));
    let of_stranger = enter("stranger");
    assert_eq!(codes(&of_stranger), [Code::ForeignEntrant]);
    assert!(of_stranger[0].repair.is_none() && of_stranger[0].no_repair.is_some());
    let of_neighbour = enter("t_11_v1");
    assert_eq!(codes(&of_neighbour), [Code::ForeignEntrant], "the name only begins as this tenant's do");
}

#[test]
fn login_that_cannot_be_used_is_found_with_its_cause() {
    assert_eq!(with_role("t_1_v1", |login| login.can_login = false), [Code::LoginRefused]);
    assert_eq!(with_role("t_1_v1", |login| login.is_expired = true), [Code::LoginExpired]);
    assert_eq!(with_role("t_1_v1", |login| login.settings.clear()), [Code::LoginMembership]);
    assert_eq!(with_role("t_1_v1", |login| login.memberships.clear()), [Code::LoginMembership]);
    assert_eq!(with_role("t_1_v1", |login| login.memberships[0].set = false), [Code::LoginMembership]);
    assert_eq!(with_role("t_1_v1", |login| login.connection_limit = -1), [Code::LoginLimit]);
    let extra = |login: &mut ObservedRole| login.memberships.push(membership("t_1_owner"));
    assert_eq!(with_role("t_1_v1", extra), [Code::LoginExtraMembership]);
    let setting = |login: &mut ObservedRole| login.settings.push("t_1: search_path=x".into());
    assert_eq!(with_role("t_1_v1", setting), [Code::LoginSettings]);
    assert_eq!(with_role("t_1_v1", |login| login.privileges = vec!["SUPERUSER".into()]), [Code::RolePrivileged]);
    let missing = find(|server| drop(server.roles.remove("t_1_v1")), |_| {});
    assert_eq!(codes(&missing), [Code::LoginMissing]);
    let refused = find(|_| {}, |tenant| tenant.login = Seen::Read(LoginView::Refused("28P01".into())));
    assert_eq!(codes(&refused), [Code::LoginPassword]);
    assert_eq!(with_role("t_1_owner", |role| role.is_ours = false), [Code::RoleForeign]);
}

/// A new login would be refused by the same line of pg_hba.conf.
#[test]
fn refusal_for_another_reason_than_the_password_is_found_and_answered_by_no_rotation() {
    for (sqlstate, code, is_repaired) in [("28P01", Code::LoginPassword, true), ("28000", Code::LoginRejected, false)] {
        let found = find(|_| {}, |tenant| tenant.login = Seen::Read(LoginView::Refused(sqlstate.into())));
        assert_eq!(codes(&found), [code]);
        assert_eq!((found[0].repair.is_some(), found[0].no_repair.is_some()), (is_repaired, !is_repaired), "{found:?}");
        let expired = |server: &mut ServerView| server.roles.get_mut("t_1_v1").unwrap().is_expired = true;
        let found = find(expired, |tenant| tenant.login = Seen::Read(LoginView::Refused(sqlstate.into())));
        assert_eq!(codes(&found), [Code::LoginExpired], "the catalog says why");
    }
}

#[test]
fn rights_of_a_login_are_repaired_only_on_its_own_database() {
    let with = |rights: &[&str]| {
        let rights: Vec<_> = rights.iter().map(|right| right.to_string()).collect();
        find(|server| server.roles.get_mut("t_1_v1").unwrap().database_rights = rights, |_| {})
    };
    let own = with(&["t_1/CREATE", "t_1/TEMPORARY"]);
    assert_eq!((codes(&own), own[0].object.as_deref()), (vec![Code::LoginRights], Some("t_1_v1")));
    assert_eq!(own[0].repair, Some(Repair::RevokeRights { login: "t_1_v1".parse().unwrap() }));
    for (right, advice) in [("postgres/CONNECT", "REVOKE ALL ON DATABASE"), ("other/OWNER", "ALTER DATABASE")] {
        let found = with(&[right]);
        assert_eq!(codes(&found), [Code::LoginRights]);
        assert!(found[0].no_repair.as_ref().is_some_and(|reason| reason.contains(advice)), "{found:?}");
    }
}

#[test]
fn database_that_cannot_be_used_is_found_with_its_cause() {
    use TenantStatus::Active;
    assert_eq!(with_database(Active, |database| database.is_open = false), [Code::DatabaseClosed]);
    assert_eq!(with_database(Active, |database| database.connection_limit = -2), [Code::DatabaseInvalid]);
    assert_eq!(with_database(Active, |database| database.owner = None), [Code::DatabaseOwner]);
    assert_eq!(
        with_database(Active, |database| database.grants.retain(|g| g != "t_1_app/CONNECT")),
        [Code::DatabaseRights]
    );
    let missing = find(|server| server.databases.clear(), |_| {});
    assert_eq!(codes(&missing), [Code::DatabaseMissing]);
}

#[test]
fn entry_is_only_restored_for_a_database_of_this_installation() {
    let without_entry = |tenant: &mut TenantView<'_>| {
        tenant.entries.clear();
        (tenant.secret, tenant.login) = (Seen::NotApplicable, Seen::NotApplicable);
    };
    let found = find(|_| {}, without_entry);
    assert_eq!(codes(&found), [Code::EntryMissing]);
    assert_eq!(found[0].repair, Some(Repair::RestoreEntry));
    let foreign = |server: &mut ServerView| {
        server.databases.get_mut(DATABASE).unwrap().owner = Some("stranger".into());
    };
    for found in [find(|server| server.databases.clear(), without_entry), find(foreign, without_entry)] {
        let entry = found.iter().find(|finding| finding.code == Code::EntryMissing).unwrap();
        assert!(entry.repair.is_none() && entry.no_repair.is_some(), "{entry:?}");
    }
    let unplaced = find(|_| {}, |tenant| tenant.placement = None);
    assert_eq!(codes(&unplaced), [Code::PlacementMissing]);
    let elsewhere = find(|_| {}, |tenant| tenant.entries[0].database = "other".parse().unwrap());
    assert_eq!(codes(&elsewhere), [Code::EntryElsewhere]);
}

#[test]
fn secret_that_needs_another_key_is_not_replaced() {
    for (secret, code, is_repaired) in [
        (SecretView::Missing, Code::SecretMissing, true),
        (SecretView::DoesNotOpen, Code::SecretUnreadable, true),
        (SecretView::NeedsKey(KeyId::new("k1")), Code::SecretUnreadable, false),
    ] {
        let change = |tenant: &mut TenantView<'_>| {
            (tenant.secret, tenant.login) = (Seen::Read(secret), Seen::NotApplicable);
        };
        let found = find(|_| {}, change);
        assert_eq!(codes(&found), [code]);
        assert_eq!(found[0].repair.is_some(), is_repaired, "{found:?}");
    }
}

#[test]
fn hidden_part_is_a_finding_of_its_own() {
    let found = find(|_| {}, |tenant| tenant.objects = Seen::Hidden("no right".into()));
    assert_eq!(codes(&found), [Code::CannotSee]);
    let found = find(|_| {}, |tenant| tenant.login = Seen::Hidden("the login's limit".into()));
    assert_eq!(codes(&found), [Code::CannotSee]);
}

#[test]
fn right_to_create_is_found_and_repaired_only_in_the_schema_public() {
    for (schema, is_repaired) in [("public", true), ("reports", false)] {
        let object = ObservedObject { kind: "app_can_create".into(), object: schema.into(), role: None };
        let found = find(|_| {}, |tenant| tenant.objects = Seen::Read(vec![object]));
        assert_eq!(codes(&found), [Code::AppCanCreate]);
        assert_eq!(found[0].repair.is_some(), is_repaired, "{schema}");
    }
}

#[test]
fn deviation_of_a_server_is_found() {
    let find = |change: &dyn Fn(&mut ServerView)| {
        let (mut view, mut findings) = (healthy_server(), Findings::default());
        change(&mut view);
        check_server(&view, &expected(), &mut findings);
        codes(&findings.list)
    };
    assert_eq!(find(&|view| view.facts.as_mut().unwrap().is_maintenance_public = true), [Code::MaintenancePublic]);
    assert_eq!(find(&|view| view.facts.as_mut().unwrap().can_see_sessions = false), [Code::CannotSee]);
    assert_eq!(find(&|view| view.idle_login = Seen::Hidden("refused".into())), [Code::IdleProvisionerRefused]);
    let stranger = |view: &mut ServerView| {
        let stranger = ObservedRole { memberships: vec![membership("tenantry_admin")], ..role("stranger") };
        view.roles.insert(stranger.name.clone(), stranger);
    };
    assert_eq!(find(&stranger), [Code::AdminMember]);
    let join = |view: &mut ServerView, group: &str| {
        view.roles.get_mut("tenantry_blue").unwrap().memberships.push(membership(group));
    };
    assert_eq!(find(&|view| join(view, "pg_read_all_stats")), [], "the documentation recommends it");
    assert_eq!(find(&|view| join(view, "pg_write_all_data")), [Code::ProvisionerMembership]);
    for (access, code) in [
        (ServerAccess::Refused(String::new()), Code::ProvisionerRefused),
        (ServerAccess::NoSecret(String::new()), Code::ProvisionerRefused),
        (ServerAccess::Unreachable(String::new()), Code::ServerUnreachable),
        (ServerAccess::Untrusted, Code::ServerUntrusted),
        (ServerAccess::NotReady, Code::ServerNotReady),
        (ServerAccess::Replaced(String::new()), Code::ServerReplaced),
    ] {
        let server = healthy_server().server;
        let (view, mut findings) = (ServerView::new(Uuid::nil(), server, access), Findings::default());
        check_server(&view, &expected(), &mut findings);
        assert_eq!(codes(&findings.list), [code]);
    }
}

#[test]
fn every_code_belongs_to_one_check() {
    let codes = || CHECKS.iter().flat_map(|check| check.codes).filter(|code| **code != Code::CannotSee);
    let distinct: HashSet<_> = codes().collect();
    assert_eq!(distinct.len(), codes().count(), "two checks have the same code");
    let missing: Vec<_> =
        Code::ALL.iter().filter(|code| **code != Code::CannotSee && !distinct.contains(code)).collect();
    assert!(missing.is_empty(), "no check produces {missing:?}");
}
