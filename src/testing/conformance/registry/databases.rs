use super::subject::{Subject, fencing_token};
use crate::directory::{
    ConnectionSettings, DatabaseKind, DatabaseStatus, Driver, Generation, TenantDatabase, UserStatus,
};
use crate::error::StoreError;
use crate::names::GroupRoles;
use crate::operation::FencingToken;
use crate::server::TlsMode;
use crate::store::registry::RegistryWriter;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl RegistryWriter) {
    let by = fencing_token(registry).await;
    kinds(registry, by).await;
    generations(registry, by).await;
    rotation(registry, by).await;
    racing_rotations(registry, by).await;
    replaced_login(registry, by).await;
    moving(registry, by).await;
}

async fn kinds(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
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
    expect_ok(registry.put_database(None, &backup, None).await, "a backup is added by hand, even of a driver not built yet");
    expect_ok(registry.put_database(None, &replica, None).await, "a replica is added by hand");
    let listed = expect_ok(registry.databases(subject.id()).await, "entries are listed");
    let expected = [subject.entry.clone(), replica.clone(), backup];
    assert_eq!(listed, expected, "expected: entries read back as they were put, primary first");

    let second = TenantDatabase { host: "second.test".into(), ..subject.entry.clone() };
    expect_conflict(registry.put_database(None, &second, None).await, "a second primary");
    let dropped = TenantDatabase { status: DatabaseStatus::Dropped, ..replica.clone() };
    expect_ok(registry.put_database(Some(Generation(1)), &dropped, None).await, "an entry is retired");
    let listed = expect_ok(registry.databases(subject.id()).await, "entries are listed");
    assert!(!listed.contains(&dropped), "expected: a dropped entry is not listed; got: {listed:?}");
    assert_eq!(listed.len(), 2, "expected: the others stay; got: {listed:?}");
    expect_ok(registry.put_database(Some(Generation(1)), &replica, None).await, "a dropped entry is taken up again");
    expect_conflict(registry.put_database(None, &Subject::new().entry, None).await, "an entry of nobody");
}

async fn generations(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    let before = subject.seen(registry).await;
    let other =
        TenantDatabase { settings: ConnectionSettings::default(), driver: Driver::MySql, ..subject.entry.clone() };
    expect_conflict(registry.put_database(None, &other, None).await, "adding an entry that is there and is another one");
    expect_conflict(registry.put_database(Some(Generation(2)), &other, None).await, "a generation that is not the stored one");
    let first = subject.rotated(1);
    expect_conflict(registry.put_database(Some(Generation(2)), &first, None).await, "a generation that goes back");
    let elsewhere = TenantDatabase { port: 9999, ..subject.entry.clone() };
    expect_conflict(
        registry.put_database(Some(Generation(1)), &elsewhere, None).await,
        "replacing an entry that is not there",
    );
    expect_conflict(
        registry.put_database(Some(Generation(1)), &subject.rotated(2), None).await,
        "a login that is not among the tenant's users",
    );
    let seen = subject.seen(registry).await;
    assert_eq!(seen, before, "expected: an entry that is refused changes nothing (left: actual, right: before)");
}

async fn rotation(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    // The third stands there before the flip to the second: no order of rows may matter.
    for generation in [3, 2] {
        expect_ok(registry.put_user(None, &subject.user(generation), by).await, "another login is added");
    }
    let flip = registry.put_database(Some(Generation(1)), &subject.rotated(2), Some(by)).await;
    expect_ok(flip, "an entry moves to a new login");
    let seen = subject.seen(registry).await;
    assert_eq!(seen.databases, [subject.rotated(2)], "expected: the entry names the new login");
    let logins = [(1, UserStatus::Retiring), (2, UserStatus::Active), (3, UserStatus::Pending)];
    assert_eq!(seen.logins(), logins, "expected: with the entry its login becomes active and the old one retires");

    let flip = registry.put_database(Some(Generation(2)), &subject.rotated(3), Some(by)).await;
    expect_ok(flip, "an entry moves on to a third login");
    let logins = [(1, UserStatus::Retiring), (2, UserStatus::Retiring), (3, UserStatus::Active)];
    let seen = subject.seen(registry).await.logins();
    assert_eq!(seen, logins, "expected: with the entry its login becomes active and the old one retires");
}

async fn racing_rotations(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    let rotations: Vec<_> = (2..7).map(|generation| subject.rotated(generation)).collect();
    for generation in 2..7 {
        expect_ok(registry.put_user(None, &subject.user(generation), by).await, "another login is added");
    }
    let flips = rotations.iter().map(|entry| registry.put_database(Some(Generation(1)), entry, Some(by)));
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(join_all(flips).await, 1, is_conflict, "of five rotations of one generation one takes place");
    let seen = subject.seen(registry).await;
    let now = seen.databases.first().map(|e| (e.generation.0, UserStatus::Active));
    let active: Vec<_> = seen.logins().into_iter().filter(|(_, status)| *status == UserStatus::Active).collect();
    assert_eq!(active, now.into_iter().collect::<Vec<_>>(), "expected: the entry's login is the only active one");
}

/// What a host changes while a rotation is under way stays.
async fn replaced_login(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    expect_ok(registry.put_user(None, &subject.user(2), by).await, "another login is added");
    let settings = ConnectionSettings { statement_timeout_ms: Some(4711), ..subject.entry.settings.clone() };
    let changed = TenantDatabase { settings: settings.clone(), ..subject.entry.clone() };
    expect_ok(registry.put_database(Some(Generation(1)), &changed, None).await, "settings are changed by hand");
    expect_conflict(registry.replace_login(Generation(7), &subject.rotated(8), by).await, "a generation that is not stored");
    expect_conflict(registry.replace_login(Generation(1), &subject.rotated(3), by).await, "a login that nobody knows");
    let fallback = TenantDatabase { status: DatabaseStatus::Fallback, ..subject.rotated(2) };
    expect_conflict(registry.replace_login(Generation(1), &fallback, by).await, "an entry in another status");
    let elsewhere = TenantDatabase { port: 9999, ..subject.rotated(2) };
    expect_conflict(registry.replace_login(Generation(1), &elsewhere, by).await, "an entry that is not there");
    for _ in 0..2 {
        expect_ok(registry.replace_login(Generation(1), &subject.rotated(2), by).await, "an entry gets a new login");
    }
    let seen = subject.seen(registry).await;
    let expected = TenantDatabase { settings, ..subject.rotated(2) };
    assert_eq!(seen.databases, [expected], "expected: the login is another one, and what a host has changed stays");
    let logins = [(1, UserStatus::Retiring), (2, UserStatus::Active)];
    assert_eq!(seen.logins(), logins, "expected: with the entry its login becomes active and the old one retires");
}

/// To another place: the old primary is dropped, then the new one is added.
async fn moving(registry: &impl RegistryWriter, by: FencingToken) {
    let subject = Subject::published(registry, by).await;
    let moved = TenantDatabase { host: "new.test".into(), server: None, ..subject.entry.clone() };
    let dropped = TenantDatabase { status: DatabaseStatus::Dropped, ..subject.entry.clone() };
    expect_conflict(registry.put_database(None, &moved, Some(by)).await, "a second primary");
    expect_ok(registry.put_database(Some(Generation(1)), &dropped, Some(by)).await, "the old primary is retired");
    expect_ok(registry.put_database(None, &moved, Some(by)).await, "a new primary is added");
    let listed = expect_ok(registry.databases(subject.id()).await, "entries are listed");
    assert_eq!(listed, [moved], "expected: the new primary is the one in use");
}
