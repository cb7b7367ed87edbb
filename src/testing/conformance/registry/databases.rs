//! [`RegistryWriter`]: directory entries, and the logins that change with them.
use super::subject::{Subject, create_token};
use crate::directory::{
    ConnectionSettings, DatabaseKind, DatabaseStatus, Driver, Generation, TenantDatabase, UserStatus,
};
use crate::error::StoreError;
use crate::names::GroupRoles;
use crate::operation::FencingToken;
use crate::server::TlsMode;
use crate::store::registry::RegistryWriter;
use crate::testing::conformance::assertions::{expect_conflict, expect_fenced, expect_ok, expect_winners};
use futures_util::future::join_all;

/// A change of an entry's login changes the status of the logins too.
const LOGINS_FOLLOW: &str = "expected: the entry's login becomes Active and the former one becomes Retiring";

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = create_token(registry).await;
    check_kinds(registry, by).await;
    check_generations(registry, by).await;
    check_rotation(registry, by).await;
    check_concurrent_rotations(registry, by).await;
    check_replace_login(registry, by).await;
    check_move(registry, by).await;
    check_record_schema(registry, by).await;
}

async fn check_record_schema(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let replica = TenantDatabase { kind: DatabaseKind::Replica, host: "replica.test".into(), ..subject.entry.clone() };
    expect_ok(registry.put_database(None, &replica, None).await, "put_database() adds a replica entry");
    let recorded = TenantDatabase { schema_state: "a".into(), ..subject.entry.clone() };
    for _ in 0..2 {
        let answer = registry.record_schema(subject.id(), "a", by).await;
        expect_ok(answer, "record_schema() succeeds and can be repeated");
    }
    let stored = subject.snapshot(registry).await;
    let rule = "expected: record_schema() changes only the state of the primary entry";
    assert_eq!(stored.databases, [recorded.clone(), replica.clone()], "{rule}");
    assert_eq!(stored.logins(), [(1, UserStatus::Active)], "expected: record_schema() changes no login");

    let stale = FencingToken { epoch: by.epoch - 1, ..by };
    expect_fenced(registry.record_schema(subject.id(), "b", stale).await, "record_schema() of an older worker");
    let unknown = registry.record_schema(Subject::new().id(), "b", by).await;
    expect_ok(unknown, "record_schema() of a tenant without an entry changes nothing");

    expect_ok(registry.put_user(None, &subject.user(2), by).await, "put_user() adds a login");
    let rotated = registry.replace_login(Generation(1), &subject.rotated(2), by).await;
    expect_ok(rotated, "replace_login() succeeds");
    let stored = subject.snapshot(registry).await;
    let rotated = TenantDatabase { schema_state: "a".into(), ..subject.rotated(2) };
    assert_eq!(stored.databases, [rotated, replica], "expected: replace_login() keeps the state of the schema");
}

async fn check_kinds(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let backup = TenantDatabase {
        kind: DatabaseKind::Backup,
        driver: Driver::MySql,
        server: None,
        port: 3306,
        roles: Some(GroupRoles { owner: subject.user(8).role, app: subject.user(9).role }),
        settings: ConnectionSettings {
            search_path: vec!["app".into(), "with \"quote\"".into()],
            tls: Some(TlsMode::Require),
            statement_timeout_ms: Some(u32::MAX),
            ..ConnectionSettings::default()
        },
        ..subject.entry.clone()
    };
    let replica = TenantDatabase { kind: DatabaseKind::Replica, host: "replica.test".into(), ..subject.entry.clone() };
    expect_ok(
        registry.put_database(None, &backup, None).await,
        "put_database() adds a backup entry, also of a driver that the crate does not support",
    );
    expect_ok(registry.put_database(None, &replica, None).await, "put_database() adds a replica entry");
    let listed = expect_ok(registry.databases(subject.id()).await, "databases() lists entries");
    let expected = [subject.entry.clone(), replica.clone(), backup];
    assert_eq!(listed, expected, "expected: databases() returns the entries as they were put, the primary one first");

    let second = TenantDatabase { host: "second.test".into(), ..subject.entry.clone() };
    expect_conflict(registry.put_database(None, &second, None).await, "put_database() of a second primary entry");
    check_dropped_entry(registry, &subject, &replica).await;
    expect_conflict(
        registry.put_database(None, &Subject::new().entry, None).await,
        "put_database() of an unknown tenant's entry",
    );
}
async fn check_dropped_entry(registry: &impl RegistryWriter, subject: &Subject, replica: &TenantDatabase) {
    let dropped = TenantDatabase { status: DatabaseStatus::Dropped, ..replica.clone() };
    expect_ok(
        registry.put_database(Some(Generation(1)), &dropped, None).await,
        "put_database() retires an entry with the status Dropped",
    );
    let listed = expect_ok(registry.databases(subject.id()).await, "databases() lists entries");
    assert!(!listed.contains(&dropped), "expected: databases() does not list a dropped entry; got: {listed:?}");
    assert_eq!(listed.len(), 2, "expected: the other entries are still listed; got: {listed:?}");
    expect_ok(
        registry.put_database(Some(Generation(1)), replica, None).await,
        "put_database() can bring a dropped entry back",
    );
}

async fn check_generations(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let before = subject.snapshot(registry).await;
    let other =
        TenantDatabase { settings: ConnectionSettings::default(), driver: Driver::MySql, ..subject.entry.clone() };
    expect_conflict(
        registry.put_database(None, &other, None).await,
        "put_database() that adds an entry with a different stored row",
    );
    expect_conflict(
        registry.put_database(Some(Generation(2)), &other, None).await,
        "put_database() that expects another generation",
    );
    let first = subject.rotated(1);
    expect_conflict(
        registry.put_database(Some(Generation(2)), &first, None).await,
        "put_database() that expects another generation and lowers it",
    );
    let elsewhere = TenantDatabase { port: 9999, ..subject.entry.clone() };
    expect_conflict(
        registry.put_database(Some(Generation(1)), &elsewhere, None).await,
        "put_database() that replaces an absent entry",
    );
    expect_conflict(
        registry.put_database(Some(Generation(1)), &subject.rotated(2), None).await,
        "put_database() with a login that is not among the tenant's users",
    );
    let stored = subject.snapshot(registry).await;
    assert_eq!(stored, before, "expected: a refused put_database() changes nothing (left: actual, right: before)");
}

async fn check_rotation(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    // The third login is added before the second one becomes active, so the result must not depend on the order of
    // the rows.
    for generation in [3, 2] {
        expect_ok(registry.put_user(None, &subject.user(generation), by).await, "put_user() adds a login");
    }
    let changed = registry.put_database(Some(Generation(1)), &subject.rotated(2), Some(by)).await;
    expect_ok(changed, "put_database() moves an entry to a new login");
    let stored = subject.snapshot(registry).await;
    assert_eq!(stored.databases, [subject.rotated(2)], "expected: the stored entry names the new login");
    let logins = [(1, UserStatus::Retiring), (2, UserStatus::Active), (3, UserStatus::Pending)];
    assert_eq!(stored.logins(), logins, "{LOGINS_FOLLOW}");

    let changed = registry.put_database(Some(Generation(2)), &subject.rotated(3), Some(by)).await;
    expect_ok(changed, "put_database() moves an entry to a third login");
    let logins = [(1, UserStatus::Retiring), (2, UserStatus::Retiring), (3, UserStatus::Active)];
    let stored = subject.snapshot(registry).await.logins();
    assert_eq!(stored, logins, "{LOGINS_FOLLOW}");
}

async fn check_concurrent_rotations(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let rotations: Vec<_> = (2..7).map(|generation| subject.rotated(generation)).collect();
    for generation in 2..7 {
        expect_ok(registry.put_user(None, &subject.user(generation), by).await, "put_user() adds a login");
    }
    let answers = rotations.iter().map(|entry| registry.put_database(Some(Generation(1)), entry, Some(by)));
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(
        join_all(answers).await,
        1,
        is_conflict,
        "only one of five concurrent rotations of one generation takes effect",
    );
    let stored = subject.snapshot(registry).await;
    let expected = stored.databases.first().map(|e| (e.generation.0, UserStatus::Active));
    let active: Vec<_> = stored.logins().into_iter().filter(|(_, status)| *status == UserStatus::Active).collect();
    assert_eq!(
        active,
        expected.into_iter().collect::<Vec<_>>(),
        "expected: only the login of the stored entry is active"
    );
}

/// `replace_login` keeps a change that the application made to the entry while a rotation was running.
async fn check_replace_login(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    expect_ok(registry.put_user(None, &subject.user(2), by).await, "put_user() adds a login");
    let settings = ConnectionSettings { statement_timeout_ms: Some(4711), ..subject.entry.settings.clone() };
    let changed = TenantDatabase { settings: settings.clone(), ..subject.entry.clone() };
    expect_ok(
        registry.put_database(Some(Generation(1)), &changed, None).await,
        "put_database() changes settings outside any operation",
    );
    expect_conflict(
        registry.replace_login(Generation(7), &subject.rotated(8), by).await,
        "replace_login() that expects another generation",
    );
    expect_conflict(
        registry.replace_login(Generation(1), &subject.rotated(3), by).await,
        "replace_login() with a login that is not among the tenant's users",
    );
    let fallback = TenantDatabase { status: DatabaseStatus::Fallback, ..subject.rotated(2) };
    expect_conflict(
        registry.replace_login(Generation(1), &fallback, by).await,
        "replace_login() of an entry with another status",
    );
    let elsewhere = TenantDatabase { port: 9999, ..subject.rotated(2) };
    expect_conflict(registry.replace_login(Generation(1), &elsewhere, by).await, "replace_login() of an absent entry");
    for _ in 0..2 {
        expect_ok(
            registry.replace_login(Generation(1), &subject.rotated(2), by).await,
            "replace_login() succeeds and can be repeated",
        );
    }
    let stored = subject.snapshot(registry).await;
    let expected = TenantDatabase { settings, ..subject.rotated(2) };
    assert_eq!(
        stored.databases,
        [expected],
        "expected: replace_login() changes the login and keeps the changed settings"
    );
    let logins = [(1, UserStatus::Retiring), (2, UserStatus::Active)];
    assert_eq!(stored.logins(), logins, "{LOGINS_FOLLOW}");
}

/// A move to another server: the old primary entry is set to `Dropped`, then the new one is added.
async fn check_move(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::create_active(registry, by).await;
    let moved = TenantDatabase { host: "new.test".into(), server: None, ..subject.entry.clone() };
    let dropped = TenantDatabase { status: DatabaseStatus::Dropped, ..subject.entry.clone() };
    expect_conflict(registry.put_database(None, &moved, Some(by)).await, "put_database() of a second primary entry");
    expect_ok(
        registry.put_database(Some(Generation(1)), &dropped, Some(by)).await,
        "put_database() retires the old primary entry",
    );
    expect_ok(registry.put_database(None, &moved, Some(by)).await, "put_database() adds a new primary entry");
    let listed = expect_ok(registry.databases(subject.id()).await, "databases() lists entries");
    assert_eq!(listed, [moved], "expected: databases() lists the new primary entry only");
}
