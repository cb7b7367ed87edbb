use super::subject::{Subject, server, server_writer};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::server::{DatabaseServer, TlsMode};
use crate::store::registry::ServerRegistry;
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners, expect_some};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl ServerRegistry) {
    let by = server_writer(registry).await;
    let first = expect_ok(registry.installation().await, "an installation has an id");
    let second = expect_ok(registry.installation().await, "an installation has an id");
    assert_eq!(first, second, "expected: an installation's id is the same for its whole life");
    rows(registry).await;
    changes(registry, by).await;
    removal(registry, by).await;
}

async fn stored(registry: &impl ServerRegistry, like: &DatabaseServer) -> DatabaseServer {
    expect_some(expect_ok(registry.server(&like.name).await, "a server is found"), "a server is found").server
}

fn without_time(server: DatabaseServer) -> DatabaseServer {
    DatabaseServer { created_at: time::OffsetDateTime::UNIX_EPOCH, ..server }
}

async fn rows(registry: &impl ServerRegistry) {
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
        expect_ok(registry.put_server(None, server, None).await, "a server is added by hand");
        let found = without_time(stored(registry, server).await);
        assert_eq!(found, *server, "expected: a server reads back as it was put (left: actual, right: put)");
    }
    let all = expect_ok(registry.servers().await, "servers are listed");
    let sorted = all.windows(2).all(|two| two[0].server.name < two[1].server.name);
    assert!(sorted, "expected: servers are listed by name; got: {all:?}");
    let listed = |s: &DatabaseServer| all.iter().any(|load| load.server.name == s.name);
    assert!(listed(&plain) && listed(&rich), "expected: all servers are listed; got: {all:?}");
    let nobody = expect_ok(registry.server(&server(1).name).await, "an unknown server is no error");
    assert!(nobody.is_none(), "expected: an unknown server is nobody; got: {nobody:?}");
}

async fn changes(registry: &impl ServerRegistry, by: FencingToken) {
    let old = server(3);
    expect_ok(registry.put_server(None, &old, Some(by)).await, "a server is added");
    expect_ok(registry.reserve(&Subject::new().placement(&old.name), by).await, "a place is reserved");
    let read = stored(registry, &old).await;
    let new = DatabaseServer {
        host: "moved.example.test".into(),
        weight: 2,
        labels: serde_json::json!(["ssd"]),
        system_identifier: Some(1),
        ..read.clone()
    };
    expect_ok(registry.put_server(Some(&read), &new, Some(by)).await, "a server is changed, whoever lives there");
    let load = expect_some(expect_ok(registry.server(&old.name).await, "a server is found"), "a server is found");
    assert_eq!(load.server, new, "expected: a changed server reads back");
    assert_eq!(load.tenants, 1, "expected: a change leaves the places alone");

    expect_conflict(registry.put_server(Some(&old), &server_like(&old, 7), None).await, "changing a server that has changed");
    expect_conflict(registry.put_server(None, &server_like(&old, 7), None).await, "adding a server that is another one");
    let unknown = server(1);
    expect_conflict(registry.put_server(Some(&unknown), &server_like(&unknown, 7), None).await, "changing an unknown server");
    expect_conflict(registry.put_server(Some(&new), &server(1), None).await, "changing a server's name");
    let untouched = stored(registry, &old).await;
    assert_eq!(untouched, new, "expected: a server that is refused changes nothing");

    let wishes: Vec<_> = (10..15).map(|capacity| server_like(&new, capacity)).collect();
    let answers = join_all(wishes.iter().map(|wish| registry.put_server(Some(&new), wish, None))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    expect_winners(answers, 1, is_conflict, "of five changes of one state one takes place");
}

async fn removal(registry: &impl ServerRegistry, by: FencingToken) {
    let home = server(3);
    let place = Subject::new().placement(&home.name);
    expect_ok(registry.put_server(None, &home, None).await, "a server is added");
    expect_ok(registry.reserve(&place, by).await, "a place is reserved");
    expect_conflict(registry.remove_server(&home.name, None).await, "removing a server that somebody has a place on");
    expect_ok(registry.release(place.tenant, by).await, "a place is released");
    expect_ok(registry.remove_server(&home.name, None).await, "a server is removed by hand");
    expect_ok(registry.remove_server(&home.name, None).await, "removing a server is idempotent");
    let gone = expect_ok(registry.server(&home.name).await, "an unknown server is no error");
    assert!(gone.is_none(), "expected: a removed server is gone; got: {gone:?}");
}

fn server_like(server: &DatabaseServer, capacity: u32) -> DatabaseServer {
    DatabaseServer { capacity, ..server.clone() }
}
