use super::subject::{Subject, server, server_writer};
use crate::error::StoreError;
use crate::operation::FencingToken;
use crate::server::{DatabaseServer, TlsMode};
use crate::store::registry::ServerRegistry;
use crate::testing::conformance::answer::{conflict, done, race, some};
use futures_util::future::join_all;

pub(super) async fn check(registry: &impl ServerRegistry) {
    let by = server_writer(registry).await;
    let first = done(registry.installation().await, "an installation has an id");
    let second = done(registry.installation().await, "an installation has an id");
    assert_eq!(first, second, "promised: an installation's id is the same for its whole life");
    rows(registry).await;
    changes(registry, by).await;
    removal(registry, by).await;
}

async fn stored(registry: &impl ServerRegistry, like: &DatabaseServer) -> DatabaseServer {
    some(done(registry.server(&like.name).await, "a server is found"), "a server is found").server
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
        done(registry.put_server(None, server, None).await, "a server is added by hand");
        let found = without_time(stored(registry, server).await);
        assert_eq!(found, *server, "promised: a server reads back as it was put (left: seen, right: put)");
    }
    let all = done(registry.servers().await, "servers are listed");
    let sorted = all.windows(2).all(|two| two[0].server.name < two[1].server.name);
    assert!(sorted, "promised: servers are listed by name; seen: {all:?}");
    let listed = |s: &DatabaseServer| all.iter().any(|load| load.server.name == s.name);
    assert!(listed(&plain) && listed(&rich), "promised: all servers are listed; seen: {all:?}");
    let nobody = done(registry.server(&server(1).name).await, "an unknown server is no error");
    assert!(nobody.is_none(), "promised: an unknown server is nobody; seen: {nobody:?}");
}

async fn changes(registry: &impl ServerRegistry, by: FencingToken) {
    let old = server(3);
    done(registry.put_server(None, &old, Some(by)).await, "a server is added");
    done(registry.reserve(&Subject::new().placement(&old.name), by).await, "a place is reserved");
    let read = stored(registry, &old).await;
    let new = DatabaseServer {
        host: "moved.example.test".into(),
        weight: 2,
        labels: serde_json::json!(["ssd"]),
        system_identifier: Some(1),
        ..read.clone()
    };
    done(registry.put_server(Some(&read), &new, Some(by)).await, "a server is changed, whoever lives there");
    let load = some(done(registry.server(&old.name).await, "a server is found"), "a server is found");
    assert_eq!(load.server, new, "promised: a changed server reads back");
    assert_eq!(load.tenants, 1, "promised: a change leaves the places alone");

    conflict(registry.put_server(Some(&old), &server_like(&old, 7), None).await, "changing a server that has changed");
    conflict(registry.put_server(None, &server_like(&old, 7), None).await, "adding a server that is another one");
    let unknown = server(1);
    conflict(registry.put_server(Some(&unknown), &server_like(&unknown, 7), None).await, "changing an unknown server");
    conflict(registry.put_server(Some(&new), &server(1), None).await, "changing a server's name");
    let untouched = stored(registry, &old).await;
    assert_eq!(untouched, new, "promised: a server that is refused changes nothing");

    let wishes: Vec<_> = (10..15).map(|capacity| server_like(&new, capacity)).collect();
    let answers = join_all(wishes.iter().map(|wish| registry.put_server(Some(&new), wish, None))).await;
    let is_conflict = |e: &StoreError| matches!(e, StoreError::Conflict(_));
    race(answers, 1, is_conflict, "of five changes of one state one takes place");
}

async fn removal(registry: &impl ServerRegistry, by: FencingToken) {
    let home = server(3);
    let place = Subject::new().placement(&home.name);
    done(registry.put_server(None, &home, None).await, "a server is added");
    done(registry.reserve(&place, by).await, "a place is reserved");
    conflict(registry.remove_server(&home.name, None).await, "removing a server that somebody has a place on");
    done(registry.release(place.tenant, by).await, "a place is released");
    done(registry.remove_server(&home.name, None).await, "a server is removed by hand");
    done(registry.remove_server(&home.name, None).await, "removing a server is idempotent");
    let gone = done(registry.server(&home.name).await, "an unknown server is no error");
    assert!(gone.is_none(), "promised: a removed server is gone; seen: {gone:?}");
}

fn server_like(server: &DatabaseServer, capacity: u32) -> DatabaseServer {
    DatabaseServer { capacity, ..server.clone() }
}
