//! [`ServerRegistry`]: rows of servers, their changes and their removal.
use super::subject::{Subject, create_server_token, server};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::server::{DatabaseServer, TlsMode};
use crate::store::registry::ServerRegistry;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_some, expect_winners};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl ServerRegistry) {
    let by = create_server_token(registry).await;
    let first = expect_ok(registry.installation().await, "installation() returns an id");
    let second = expect_ok(registry.installation().await, "installation() returns an id");
    assert_eq!(first, second, "expected: installation() always returns the same id");
    check_rows(registry).await;
    check_changes(registry, by).await;
    check_removal(registry, by).await;
}

async fn read_stored(registry: &impl ServerRegistry, like: &DatabaseServer) -> DatabaseServer {
    let load = expect_ok(registry.server(&like.name).await, "server() returns a server");
    expect_some(load, "server() finds an added server").server
}

fn without_time(server: DatabaseServer) -> DatabaseServer {
    DatabaseServer { created_at: time::OffsetDateTime::UNIX_EPOCH, ..server }
}

async fn check_rows(registry: &impl ServerRegistry) {
    let plain = server(10);
    let rich = DatabaseServer {
        tls: TlsMode::VerifyCa,
        root_certificate: Some("-----BEGIN CERTIFICATE-----".into()),
        capacity: u32::MAX,
        weight: u32::MAX,
        max_connections: u32::MAX,
        labels: serde_json::json!({ "region": "eu", "null": null }),
        allowed_roles: "support \"team\"".parse().into_iter().collect(),
        system_identifier: Some(7_351_234_567_890_123_456),
        ..server(10)
    };
    for server in [&plain, &rich] {
        expect_ok(registry.put_server(None, server, None).await, "put_server() adds a server outside any operation");
        let found = without_time(read_stored(registry, server).await);
        assert_eq!(found, *server, "expected: server() returns a server as it was put (left: actual, right: put)");
    }
    let all = expect_ok(registry.servers().await, "servers() lists servers");
    let is_sorted = all.windows(2).all(|two| two[0].server.name < two[1].server.name);
    assert!(is_sorted, "expected: servers() lists servers in ascending order of their names; got: {all:?}");
    let is_listed = |s: &DatabaseServer| all.iter().any(|load| load.server.name == s.name);
    assert!(is_listed(&plain) && is_listed(&rich), "expected: servers() lists every server; got: {all:?}");
    let unknown = expect_ok(registry.server(&server(1).name).await, "server() with an unknown name is no error");
    assert!(unknown.is_none(), "expected: server() with an unknown name returns None; got: {unknown:?}");
}

async fn check_changes(registry: &impl ServerRegistry, by: FencingToken) {
    let old = server(3);
    expect_ok(registry.put_server(None, &old, Some(by)).await, "put_server() adds a server");
    expect_ok(registry.reserve(&Subject::new().placement(&old.name), by).await, "reserve() places a tenant");
    let read = read_stored(registry, &old).await;
    let new = DatabaseServer {
        host: "moved.example.test".into(),
        weight: 2,
        labels: serde_json::json!(["ssd"]),
        system_identifier: Some(1),
        ..read.clone()
    };
    expect_ok(registry.put_server(Some(&read), &new, Some(by)).await, "put_server() changes a server with placements");
    let load = expect_ok(registry.server(&old.name).await, "server() returns a server");
    let load = expect_some(load, "server() finds a changed server");
    assert_eq!(load.server, new, "expected: server() returns the changed server");
    assert_eq!(load.tenants, 1, "expected: a change of a server leaves its placements");

    let stale = registry.put_server(Some(&old), &with_capacity(&old, 7), None).await;
    expect_conflict(stale, "put_server() that expects a former state");
    let existing = registry.put_server(None, &with_capacity(&old, 7), None).await;
    expect_conflict(existing, "put_server() that adds a server with a different stored row");
    let unknown = server(1);
    let changed = registry.put_server(Some(&unknown), &with_capacity(&unknown, 7), None).await;
    expect_conflict(changed, "put_server() that changes an unknown server");
    expect_conflict(registry.put_server(Some(&new), &server(1), None).await, "put_server() that changes the name");
    let stored = read_stored(registry, &old).await;
    assert_eq!(stored, new, "expected: a refused put_server() changes nothing");

    let changes: Vec<_> = (10..15).map(|capacity| with_capacity(&new, capacity)).collect();
    let answers = join_all(changes.iter().map(|change| registry.put_server(Some(&new), change, None))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(answers, 1, is_conflict, "only one of five concurrent changes of one state takes effect");
}

async fn check_removal(registry: &impl ServerRegistry, by: FencingToken) {
    let home = server(3);
    let placement = Subject::new().placement(&home.name);
    expect_ok(registry.put_server(None, &home, None).await, "put_server() adds a server");
    expect_ok(registry.reserve(&placement, by).await, "reserve() places a tenant");
    expect_conflict(registry.remove_server(&home.name, None).await, "remove_server() of a server with a placement");
    expect_ok(registry.release(placement.tenant, by).await, "release() removes a placement");
    for _ in 0..2 {
        let removed = registry.remove_server(&home.name, None).await;
        expect_ok(removed, "remove_server() succeeds outside any operation and can be repeated");
    }
    let removed = expect_ok(registry.server(&home.name).await, "server() of a removed server is no error");
    assert!(removed.is_none(), "expected: server() does not find a removed server; got: {removed:?}");
}

fn with_capacity(server: &DatabaseServer, capacity: u32) -> DatabaseServer {
    DatabaseServer { capacity, ..server.clone() }
}
