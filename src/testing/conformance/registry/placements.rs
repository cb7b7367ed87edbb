use super::subject::{Subject, server, server_writer};
use crate::error::{NameConflict, StoreError};
use crate::operation::FencingToken;
use crate::server::{DatabaseServer, ServerStatus};
use crate::store::registry::{Placement, ServerRegistry};
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_winners, expect_some, expect_taken};
use futures_util::future::{join, join_all};

pub(super) async fn check(registry: &impl ServerRegistry) {
    let by = server_writer(registry).await;
    reasons(registry, by).await;
    capacity(registry, by).await;
    racing_for_one(registry, by).await;
    racing_with_removal(registry, by).await;
}

async fn home(registry: &impl ServerRegistry, capacity: u32) -> DatabaseServer {
    let home = server(capacity);
    expect_ok(registry.put_server(None, &home, None).await, "a server is added");
    home
}

async fn tenants(registry: &impl ServerRegistry, home: &DatabaseServer) -> u32 {
    expect_some(expect_ok(registry.server(&home.name).await, "a server is found"), "a server is found").tenants
}

async fn reasons(registry: &impl ServerRegistry, by: FencingToken) {
    let (home, other) = (home(registry, 2).await, home(registry, 2).await);
    let first = Subject::new().placement(&home.name);
    expect_ok(registry.reserve(&first, by).await, "a place is reserved");
    let found = expect_ok(registry.placement(first.tenant).await, "a place is found");
    assert_eq!(found.as_ref(), Some(&first), "expected: a place reads back as it was reserved");
    let found = expect_ok(registry.place(first.tenant).await, "a place and its server are found");
    let (place, there) = expect_some(found, "a place and its server are found");
    assert_eq!((&place, &there.name), (&first, &home.name), "expected: a place comes with its server");
    let none = expect_ok(registry.place(Subject::new().id()).await, "who has no place is asked for it");
    assert_eq!(none, None, "expected: who has no place has none");

    let elsewhere = Placement::new(first.tenant, other.name.clone(), first.database.clone());
    expect_conflict(registry.reserve(&elsewhere, by).await, "a second place");
    let second = Subject::new();
    let same_name = Placement::new(second.id(), home.name.clone(), first.database.clone());
    let database = NameConflict::Database(home.name.clone(), first.database.clone());
    expect_taken(registry.reserve(&same_name, by).await, &database, "another tenant's database");
    let there = Placement::new(second.id(), other.name.clone(), first.database.clone());
    expect_ok(registry.reserve(&there, by).await, "the same name is free on another server");
    expect_conflict(registry.reserve(&Subject::new().placement(&server(1).name), by).await, "a place on an unknown server");
    assert_eq!(tenants(registry, &home).await, 1, "expected: a place that is refused is not counted");

    for closed in [
        DatabaseServer { draining: true, ..server(9) },
        DatabaseServer { status: ServerStatus::SettingUp, ..server(9) },
        server(0),
    ] {
        expect_ok(registry.put_server(None, &closed, None).await, "a server is added");
        let room = NameConflict::ServerFull(closed.name.clone());
        let refused = registry.reserve(&Subject::new().placement(&closed.name), by).await;
        expect_taken(refused, &room, "a place on a server that is draining, not ready or full");
    }
    let draining = DatabaseServer { draining: true, ..home.clone() };
    expect_ok(registry.put_server(Some(&home), &draining, None).await, "a server is drained");
    expect_ok(registry.reserve(&first, by).await, "who has a place has it, whatever the server has become");
}

async fn capacity(registry: &impl ServerRegistry, by: FencingToken) {
    let home = home(registry, 5).await;
    let places: Vec<_> = (0..20).map(|_| Subject::new().placement(&home.name)).collect();
    let answers = join_all(places.iter().map(|place| registry.reserve(place, by))).await;
    let is_room = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::ServerFull(s)) if *s == home.name);
    expect_winners(answers, 5, is_room, "racing calls never exceed the capacity");
    assert_eq!(tenants(registry, &home).await, 5, "expected: who has a place is counted");

    let placed = join_all(places.iter().map(|place| registry.placement(place.tenant))).await;
    let placed: Vec<_> = placed.into_iter().filter_map(|p| expect_ok(p, "a place is found")).collect();
    assert_eq!(placed.len(), 5, "expected: who was refused has no place");
    let twice = placed.iter().chain(&placed).map(|place| registry.release(place.tenant, by));
    expect_winners(join_all(twice).await, 10, |_| false, "ten releases of five places");
    assert_eq!(tenants(registry, &home).await, 0, "expected: a place is given back once");
    expect_ok(registry.reserve(&placed[0], by).await, "a place that was given back is free");
    let heir = Placement::new(Subject::new().id(), home.name, placed[1].database.clone());
    expect_ok(registry.reserve(&heir, by).await, "a database's name that was given back is free");
}

async fn racing_for_one(registry: &impl ServerRegistry, by: FencingToken) {
    let home = home(registry, 5).await;
    let place = Subject::new().placement(&home.name);
    let answers = join_all((0..10).map(|_| registry.reserve(&place, by))).await;
    expect_winners(answers, 10, |_| false, "ten reservations of one place are one");
    assert_eq!(tenants(registry, &home).await, 1, "expected: a place is counted once");

    let rivals: Vec<_> = (0..3).map(|_| Subject::new().id()).collect();
    let name = Subject::new().entry.database;
    let rivals: Vec<_> = rivals.into_iter().map(|id| Placement::new(id, home.name.clone(), name.clone())).collect();
    let answers = join_all(rivals.iter().map(|place| registry.reserve(place, by))).await;
    let is_database = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Database(_, d)) if *d == name);
    expect_winners(answers, 1, is_database, "of three tenants one gets a database's name");
    assert_eq!(tenants(registry, &home).await, 2, "expected: a place that is refused is not counted");
}

async fn racing_with_removal(registry: &impl ServerRegistry, by: FencingToken) {
    for _ in 0..5 {
        let home = home(registry, 5).await;
        let place = Subject::new().placement(&home.name);
        let (removed, placed) = join(registry.remove_server(&home.name, None), registry.reserve(&place, by)).await;
        let won = u8::from(removed.is_ok()) + u8::from(placed.is_ok());
        assert_eq!(won, 1, "expected: a server is removed or taken; got: {removed:?} and {placed:?}");
    }
}
