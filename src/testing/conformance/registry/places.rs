use super::subject::{Subject, server, server_writer};
use crate::error::{NameConflict, StoreError};
use crate::operation::FencingToken;
use crate::server::{DatabaseServer, ServerStatus};
use crate::store::registry::{Placement, ServerRegistry};
use crate::testing::conformance::answer::{conflict, done, race, some, taken};
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
    done(registry.put_server(None, &home, None).await, "a server is added");
    home
}

async fn tenants(registry: &impl ServerRegistry, home: &DatabaseServer) -> u32 {
    some(done(registry.server(&home.name).await, "a server is found"), "a server is found").tenants
}

async fn reasons(registry: &impl ServerRegistry, by: FencingToken) {
    let (home, other) = (home(registry, 2).await, home(registry, 2).await);
    let first = Subject::new().placement(&home.name);
    done(registry.reserve(&first, by).await, "a place is reserved");
    let found = done(registry.placement(first.tenant).await, "a place is found");
    assert_eq!(found.as_ref(), Some(&first), "promised: a place reads back as it was reserved");
    let found = done(registry.place(first.tenant).await, "a place and its server are found");
    let (place, there) = some(found, "a place and its server are found");
    assert_eq!((&place, &there.name), (&first, &home.name), "promised: a place comes with its server");
    let none = done(registry.place(Subject::new().id()).await, "who has no place is asked for it");
    assert_eq!(none, None, "promised: who has no place has none");

    let elsewhere = Placement::new(first.tenant, other.name.clone(), first.database.clone());
    conflict(registry.reserve(&elsewhere, by).await, "a second place");
    let second = Subject::new();
    let same_name = Placement::new(second.id(), home.name.clone(), first.database.clone());
    let database = NameConflict::Database(home.name.clone(), first.database.clone());
    taken(registry.reserve(&same_name, by).await, &database, "another tenant's database");
    let there = Placement::new(second.id(), other.name.clone(), first.database.clone());
    done(registry.reserve(&there, by).await, "the same name is free on another server");
    conflict(registry.reserve(&Subject::new().placement(&server(1).name), by).await, "a place on an unknown server");
    assert_eq!(tenants(registry, &home).await, 1, "promised: a place that is refused is not counted");

    for closed in [
        DatabaseServer { draining: true, ..server(9) },
        DatabaseServer { status: ServerStatus::SettingUp, ..server(9) },
        server(0),
    ] {
        done(registry.put_server(None, &closed, None).await, "a server is added");
        let room = NameConflict::ServerFull(closed.name.clone());
        let refused = registry.reserve(&Subject::new().placement(&closed.name), by).await;
        taken(refused, &room, "a place on a server that is draining, not ready or full");
    }
    let draining = DatabaseServer { draining: true, ..home.clone() };
    done(registry.put_server(Some(&home), &draining, None).await, "a server is drained");
    done(registry.reserve(&first, by).await, "who has a place has it, whatever the server has become");
}

async fn capacity(registry: &impl ServerRegistry, by: FencingToken) {
    let home = home(registry, 5).await;
    let places: Vec<_> = (0..20).map(|_| Subject::new().placement(&home.name)).collect();
    let answers = join_all(places.iter().map(|place| registry.reserve(place, by))).await;
    let is_room = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::ServerFull(s)) if *s == home.name);
    race(answers, 5, is_room, "racing calls never exceed the capacity");
    assert_eq!(tenants(registry, &home).await, 5, "promised: who has a place is counted");

    let placed = join_all(places.iter().map(|place| registry.placement(place.tenant))).await;
    let placed: Vec<_> = placed.into_iter().filter_map(|p| done(p, "a place is found")).collect();
    assert_eq!(placed.len(), 5, "promised: who was refused has no place");
    let twice = placed.iter().chain(&placed).map(|place| registry.release(place.tenant, by));
    race(join_all(twice).await, 10, |_| false, "ten releases of five places");
    assert_eq!(tenants(registry, &home).await, 0, "promised: a place is given back once");
    done(registry.reserve(&placed[0], by).await, "a place that was given back is free");
    let heir = Placement::new(Subject::new().id(), home.name, placed[1].database.clone());
    done(registry.reserve(&heir, by).await, "a database's name that was given back is free");
}

async fn racing_for_one(registry: &impl ServerRegistry, by: FencingToken) {
    let home = home(registry, 5).await;
    let place = Subject::new().placement(&home.name);
    let answers = join_all((0..10).map(|_| registry.reserve(&place, by))).await;
    race(answers, 10, |_| false, "ten reservations of one place are one");
    assert_eq!(tenants(registry, &home).await, 1, "promised: a place is counted once");

    let rivals: Vec<_> = (0..3).map(|_| Subject::new().id()).collect();
    let name = Subject::new().entry.database;
    let rivals: Vec<_> = rivals.into_iter().map(|id| Placement::new(id, home.name.clone(), name.clone())).collect();
    let answers = join_all(rivals.iter().map(|place| registry.reserve(place, by))).await;
    let is_database = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Database(_, d)) if *d == name);
    race(answers, 1, is_database, "of three tenants one gets a database's name");
    assert_eq!(tenants(registry, &home).await, 2, "promised: a place that is refused is not counted");
}

async fn racing_with_removal(registry: &impl ServerRegistry, by: FencingToken) {
    for _ in 0..5 {
        let home = home(registry, 5).await;
        let place = Subject::new().placement(&home.name);
        let (removed, placed) = join(registry.remove_server(&home.name, None), registry.reserve(&place, by)).await;
        let won = u8::from(removed.is_ok()) + u8::from(placed.is_ok());
        assert_eq!(won, 1, "promised: a server is removed or taken; seen: {removed:?} and {placed:?}");
    }
}
