//! [`ServerRegistry`]: placements, their uniqueness, and the capacity of a server.
use super::subject::{Subject, create_server_token, server};
use crate::error::{NameConflict, StoreError};
use crate::names::DatabaseName;
use crate::operation::FencingToken;
use crate::server::{DatabaseServer, ServerStatus};
use crate::store::registry::{Placement, ServerRegistry};
use crate::testing::conformance::assertions::{expect_conflict, expect_ok, expect_some, expect_taken, expect_winners};
use futures_util::future::{join, join_all};

pub(super) async fn check(registry: &impl ServerRegistry) {
    let by = create_server_token(registry).await;
    check_reserve(registry, by).await;
    check_capacity(registry, by).await;
    check_pages(registry, by).await;
    check_concurrent_reserve(registry, by).await;
    check_reserve_and_remove_server(registry, by).await;
}

async fn add_server(registry: &impl ServerRegistry, capacity: u32) -> DatabaseServer {
    let server = server(capacity);
    expect_ok(registry.put_server(None, &server, None).await, "put_server() adds a server");
    server
}

async fn count_tenants(registry: &impl ServerRegistry, server: &DatabaseServer) -> u32 {
    let load = expect_ok(registry.server(&server.name).await, "server() returns a server");
    expect_some(load, "server() finds an added server").tenants
}

async fn check_reserve(registry: &impl ServerRegistry, by: FencingToken) {
    let (home, other) = (add_server(registry, 2).await, add_server(registry, 2).await);
    let first = Subject::new().placement(&home.name);
    expect_ok(registry.reserve(&first, by).await, "reserve() places a tenant");
    let found = expect_ok(registry.placement(first.tenant).await, "placement() returns a placement");
    assert_eq!(found.as_ref(), Some(&first), "expected: placement() returns the reserved placement");
    let found = expect_ok(
        registry.placement_and_server(first.tenant).await,
        "placement_and_server() returns a placement and its server",
    );
    let (placement, its_server) = expect_some(found, "placement_and_server() finds a reserved placement");
    assert_eq!(
        (&placement, &its_server.name),
        (&first, &home.name),
        "expected: placement_and_server() returns the placement and its server"
    );
    let none = expect_ok(
        registry.placement_and_server(Subject::new().id()).await,
        "placement_and_server() of an unplaced tenant is no error",
    );
    assert_eq!(none, None, "expected: placement_and_server() returns None for an unplaced tenant");

    let elsewhere = Placement::new(first.tenant, other.name.clone(), first.database.clone());
    expect_conflict(registry.reserve(&elsewhere, by).await, "reserve() of a second placement for one tenant");
    let second = Subject::new();
    let same_name = Placement::new(second.id(), home.name.clone(), first.database.clone());
    let database = NameConflict::Database(home.name.clone(), first.database.clone());
    expect_taken(registry.reserve(&same_name, by).await, &database, "reserve() of another tenant's database name");
    let same_name_elsewhere = Placement::new(second.id(), other.name.clone(), first.database.clone());
    let reserved = registry.reserve(&same_name_elsewhere, by).await;
    expect_ok(reserved, "reserve() accepts the same database name on another server");
    let unknown = Subject::new().placement(&server(1).name);
    expect_conflict(registry.reserve(&unknown, by).await, "reserve() on an unknown server");
    let count = count_tenants(registry, &home).await;
    assert_eq!(count, 1, "expected: a refused reserve() does not count");

    check_closed_servers(registry, by).await;
    let draining = DatabaseServer { draining: true, ..home.clone() };
    expect_ok(registry.put_server(Some(&home), &draining, None).await, "put_server() sets a server to draining");
    expect_ok(registry.reserve(&first, by).await, "reserve() can be repeated, whatever the server's state is now");
}
async fn check_closed_servers(registry: &impl ServerRegistry, by: FencingToken) {
    for closed in [
        DatabaseServer { draining: true, ..server(9) },
        DatabaseServer { status: ServerStatus::SettingUp, ..server(9) },
        server(0),
    ] {
        expect_ok(registry.put_server(None, &closed, None).await, "put_server() adds a server");
        let full = NameConflict::ServerFull(closed.name.clone());
        let refused = registry.reserve(&Subject::new().placement(&closed.name), by).await;
        expect_taken(refused, &full, "reserve() on a server that is draining, not ready or full");
    }
}

async fn check_capacity(registry: &impl ServerRegistry, by: FencingToken) {
    let home = add_server(registry, 5).await;
    let placements: Vec<_> = (0..20).map(|_| Subject::new().placement(&home.name)).collect();
    let answers = join_all(placements.iter().map(|placement| registry.reserve(placement, by))).await;
    let is_full = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::ServerFull(s)) if *s == home.name);
    expect_winners(answers, 5, is_full, "concurrent calls of reserve() never exceed the capacity");
    assert_eq!(count_tenants(registry, &home).await, 5, "expected: each reserved placement counts");

    let placed = join_all(placements.iter().map(|placement| registry.placement(placement.tenant))).await;
    let placed: Vec<_> =
        placed.into_iter().filter_map(|p| expect_ok(p, "placement() returns a placement or None")).collect();
    assert_eq!(placed.len(), 5, "expected: a refused reserve() leaves no placement");
    let twice = placed.iter().chain(&placed).map(|placement| registry.release(placement.tenant, by));
    expect_winners(join_all(twice).await, 10, |_| false, "release() can be repeated, also concurrently");
    let count = count_tenants(registry, &home).await;
    assert_eq!(count, 0, "expected: a repeated release() frees a placement once");
    expect_ok(registry.reserve(&placed[0], by).await, "reserve() accepts a released placement");
    let new_owner = Placement::new(Subject::new().id(), home.name, placed[1].database.clone());
    expect_ok(registry.reserve(&new_owner, by).await, "reserve() accepts a released database name for another tenant");
}

async fn check_pages(registry: &impl ServerRegistry, by: FencingToken) {
    let (home, other) = (add_server(registry, 9).await, add_server(registry, 9).await);
    let mut placed = vec![];
    for _ in 0..5 {
        let placement = Subject::new().placement(&home.name);
        expect_ok(registry.reserve(&placement, by).await, "reserve() places a tenant");
        placed.push(placement);
    }
    expect_ok(registry.reserve(&Subject::new().placement(&other.name), by).await, "reserve() places a tenant");
    let page = async |after: Option<&DatabaseName>, limit| {
        expect_ok(registry.placements_on(&home.name, after, limit).await, "placements_on() returns a page").readable
    };
    let all = page(None, 100).await;
    let mut sorted = (all.clone(), placed);
    sorted.0.sort_by_key(|placement| placement.tenant);
    sorted.1.sort_by_key(|placement| placement.tenant);
    assert_eq!(sorted.0, sorted.1, "expected: placements_on() returns every placement of the server and no other");
    let mut paged: Vec<Placement> = vec![];
    loop {
        let next = page(paged.last().map(|placement| &placement.database), 2).await;
        if next.is_empty() {
            break;
        }
        assert!(next.len() <= 2, "expected: placements_on() returns at most `limit` placements; got: {next:?}");
        paged.extend(next);
    }
    assert_eq!(paged, all, "expected: the pages of placements_on() contain each placement once, in one order");
    let unknown = expect_ok(registry.placements_on(&server(1).name, None, 2).await, "placements_on() of no server");
    assert!(unknown.is_empty(), "expected: an unknown server has no placements; got: {unknown:?}");
}

async fn check_concurrent_reserve(registry: &impl ServerRegistry, by: FencingToken) {
    let home = add_server(registry, 5).await;
    let placement = Subject::new().placement(&home.name);
    let answers = join_all((0..10).map(|_| registry.reserve(&placement, by))).await;
    expect_winners(answers, 10, |_| false, "concurrent calls of reserve() with one placement all succeed");
    assert_eq!(count_tenants(registry, &home).await, 1, "expected: a repeated reserve() counts once");

    let rivals: Vec<_> = (0..3).map(|_| Subject::new().id()).collect();
    let name = Subject::new().entry.database;
    let rivals: Vec<_> = rivals.into_iter().map(|id| Placement::new(id, home.name.clone(), name.clone())).collect();
    let answers = join_all(rivals.iter().map(|placement| registry.reserve(placement, by))).await;
    let is_database = |e: &StoreError| matches!(e, StoreError::Taken(NameConflict::Database(_, d)) if *d == name);
    expect_winners(answers, 1, is_database, "only one of three tenants gets a database name");
    assert_eq!(count_tenants(registry, &home).await, 2, "expected: a refused reserve() does not count");
}

async fn check_reserve_and_remove_server(registry: &impl ServerRegistry, by: FencingToken) {
    for _ in 0..5 {
        let home = add_server(registry, 5).await;
        let placement = Subject::new().placement(&home.name);
        let remove = registry.remove_server(&home.name, None);
        let (removed, placed) = join(remove, registry.reserve(&placement, by)).await;
        let won = u8::from(removed.is_ok()) + u8::from(placed.is_ok());
        let rule = "expected: of concurrent remove_server() and reserve() exactly one succeeds";
        assert_eq!(won, 1, "{rule}; got: {removed:?} and {placed:?}");
    }
}
