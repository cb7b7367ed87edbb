//! The connection budget that all tenants of a server share, against a real PostgreSQL: its upper bound, fairness
//! between tenants, the counters, what a released connection keeps, and how nodes share the budget.
use crate::provision::migrated;
use crate::resolver::sessions::ResolverSetup;
use futures_util::future::join_all;
use sqlx::{Connection, Executor, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tenantry::testing::Harness;
use tenantry::{ConnectionResolver, TenantPool, Tenantry, sqlx};

const BUDGET: u32 = 6;

/// Name of the database that this handle reaches, as PostgreSQL reports it.
async fn current_database(db: &TenantPool) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT current_database()::text").fetch_one(db).await
}

/// `acquire_and_release` takes a connection and returns it without waiting for the server, as if the server were very
/// fast. A task that calls it in a loop must still yield, or the other tasks of its thread starve.
#[tokio::test]
async fn acquire_in_a_loop_yields_to_other_tasks_of_the_thread() {
    let world = ResolverSetup::new().await;
    world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    current_database(&db).await.unwrap();
    let other = tokio::spawn(async {});
    for _ in 0..1000 {
        db.acquire_and_release().await.unwrap();
        if other.is_finished() {
            return resolver.close().await;
        }
    }
    panic!("another task of the same thread did not run during 1000 acquires");
}

/// Sixty tasks query twenty tenants over six connections. They drop futures and leave transactions open, while the test
/// terminates sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_never_exceeds_the_budget_or_reaches_another_tenant() {
    let mut world = ResolverSetup::new().await;
    let mut databases = vec![];
    for n in 0..20 {
        databases.push(world.tenant(&format!("tenant-{n}")).await);
    }
    let resolver = world.resolver().max_connections(BUDGET).max_connections_per_tenant(3);
    // Long enough for a machine that is compiling at the same time.
    let resolver = resolver.acquire_timeout(Duration::from_secs(60)).build();
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = (0..60).map(|task| {
        let (resolver, stop) = (resolver.clone(), stop.clone());
        let names: Vec<_> = databases.iter().map(|m| m.name().to_owned()).collect();
        tokio::spawn(async move {
            let mut served = 0;
            for round in 0.. {
                if stop.load(SeqCst) {
                    break;
                }
                let n = (task * 7 + round * round) % names.len();
                let db = resolver.resolve(format!("tenant-{n}").as_str().into()).await.unwrap();
                match round % 5 {
                    0 => drop(tokio::time::timeout(Duration::from_micros(700), current_database(&db)).await),
                    1 => drop(db.begin().await),
                    2 => drop(sqlx::raw_sql("BEGIN; SELECT 1").execute(&db).await),
                    _ => {}
                }
                match current_database(&db).await {
                    Ok(name) => assert_eq!(name, names[n], "a query reached another tenant's database"),
                    Err(error) => assert_eq!(tenantry::sqlstate::code(&error).as_deref(), Some("57P01"), "{error:?}"),
                }
                if let Ok(row) = db.fetch_one(sqlx::raw_sql("SELECT now() <> statement_timestamp()")).await {
                    assert!(!row.get::<bool, _>(0), "a connection was still in an earlier caller's transaction");
                }
                served += 1;
            }
            served
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let names: Vec<_> = databases.iter().map(|m| m.name().to_owned()).collect();
    let until = Instant::now() + Duration::from_secs(6);
    let mut peak = 0;
    // Pauses between the kills: otherwise every session is terminated before its login has completed, and no task is
    // ever served.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while Instant::now() < until {
        pace.tick().await;
        peak = peak.max(world.sessions_of(&names).await);
        if peak % 2 == 0 {
            world.kill_one_of(&names).await;
        }
    }
    stop.store(true, SeqCst);
    let served: Vec<u64> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let (_, stats) = &resolver.stats()[0];
    assert!(peak <= i64::from(BUDGET), "{peak} sessions under a budget of {BUDGET}; {stats:?}");
    assert!(served.iter().all(|n| *n > 0), "a task starved: {served:?}; {stats:?}");
    resolver.close().await;
    world.wait_until_no_session_of(&names).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_with_many_tasks_does_not_starve_the_others() {
    let world = ResolverSetup::new().await;
    for slug in ["busy", "quiet"] {
        world.tenant(slug).await;
    }
    let resolver = world.resolver().max_connections(4).max_connections_per_tenant(4).build();
    let busy = resolver.resolve("busy".into()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..256)
        .map(|_| {
            let (busy, stop) = (busy.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    sqlx::query("SELECT pg_sleep(0.005)").execute(&busy).await.unwrap();
                }
            })
        })
        .collect();
    let quiet = resolver.resolve("quiet".into()).await.unwrap();
    for _ in 0..20 {
        let waited = Instant::now();
        current_database(&quiet).await.unwrap();
        assert!(waited.elapsed() < Duration::from_secs(3), "the quiet tenant waited {:?}", waited.elapsed());
    }
    stop.store(true, SeqCst);
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
}

#[tokio::test]
async fn checkout_is_counted_once_with_and_without_a_ping() {
    let world = ResolverSetup::new().await;
    for slug in ["acme", "globex"] {
        world.tenant(slug).await;
    }
    // With and without a ping before an idle connection is used.
    for ping_after in [Duration::ZERO, Duration::from_secs(60)] {
        let resolver = world.resolver().max_connections(1).pool(|p| p.ping_after(ping_after)).build();
        for slug in ["acme", "globex", "globex"] {
            current_database(&resolver.resolve(slug.into()).await.unwrap()).await.unwrap();
        }
        let (_, stats) = resolver.stats()[0];
        assert_eq!((stats.checkouts, stats.hits, stats.connects, stats.evictions), (3, 1, 2, 1), "{stats:?}");
        resolver.close().await;
    }
}

#[tokio::test]
async fn detached_or_closed_connection_frees_its_slot() {
    let world = ResolverSetup::new().await;
    world.tenant("acme").await;
    let resolver = world.resolver().max_connections(1).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let detached = db.acquire().await.unwrap().detach();
    current_database(&db).await.expect("a detached connection no longer uses a slot");
    db.acquire().await.unwrap().close().await.unwrap();
    current_database(&db).await.expect("a closed connection no longer uses a slot");
    detached.close().await.unwrap();
}

#[tokio::test]
async fn discard_on_release_resets_the_session() {
    let world = ResolverSetup::new().await;
    world.tenant("acme").await;
    let mark = "SELECT set_config('my.mark', 'left', false)";
    let read = "SELECT coalesce(current_setting('my.mark', true), '')";
    for (discard, left) in [(false, "left"), (true, "")] {
        let resolver = world.resolver().max_connections(1).pool(|p| p.discard_on_release(discard)).build();
        let db = resolver.resolve("acme".into()).await.unwrap();
        sqlx::query(mark).execute(&db).await.unwrap();
        let found: String = sqlx::query_scalar(read).fetch_one(&db).await.unwrap();
        assert_eq!(found, left, "setting of the next session, with discard_on_release({discard})");
        resolver.close().await;
    }
}

/// A program that keeps its handles in a static drops them after the runtime.
#[tokio::test]
async fn handles_can_be_dropped_after_their_runtime() {
    let world = ResolverSetup::new().await;
    world.tenant("acme").await;
    let builder = world.resolver();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (resolver, db) = runtime.block_on(async {
            let resolver = builder.build();
            let db = resolver.resolve("acme".into()).await.unwrap();
            current_database(&db).await.unwrap();
            (resolver, db)
        });
        drop(runtime);
        drop(db);
        resolver.invalidate_all();
        drop(resolver);
    });
    thread.join().expect("dropping the handles does not panic");
}

/// Number of connections that the node may currently have to its one server.
fn budget_of(node: &Tenantry) -> u32 {
    node.pool_stats()[0].1.budget
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_budget_and_never_exceed_it() {
    let harness = Harness::start().await.unwrap();
    let configure =
        |b| migrated(b).max_connections(10).share_connections(true).acquire_timeout(Duration::from_secs(30));
    let (one, two) = (harness.tenantry(configure).await.unwrap(), harness.tenantry(configure).await.unwrap());
    one.provision("acme").await.unwrap();
    let (db, other_db) = (one.resolve("acme").await.unwrap(), two.resolve("acme").await.unwrap());
    assert_eq!((budget_of(&one), budget_of(&two)), (0, 0), "a node has no share before `run` has begun");
    let first = tokio::spawn(one.run(std::future::pending::<()>()));
    current_database(&db).await.expect("a node without peers has the whole budget");
    assert_eq!(budget_of(&one), 10);
    let connections = join_all((0..5).map(|_| db.acquire())).await;
    assert!(connections.iter().all(Result::is_ok));
    let second = tokio::spawn(two.run(std::future::pending::<()>()));
    let until = Instant::now() + Duration::from_secs(60);
    while (budget_of(&one), budget_of(&two)) != (5, 5) {
        assert!(budget_of(&one) + budget_of(&two) <= 10, "the shares of both nodes exceed the budget");
        assert!(Instant::now() < until, "the shares stay at {} and {}", budget_of(&one), budget_of(&two));
        tokio::task::yield_now().await;
    }
    current_database(&other_db).await.unwrap();
    drop(connections);
    // The second node dies. Its heartbeat row expires, and the first node gets its share.
    second.abort();
    while budget_of(&one) != 10 {
        assert!(Instant::now() < until, "the share stays at {}", budget_of(&one));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // If the application aborts `run` and calls it again, the node keeps its share throughout.
    first.abort();
    assert!(first.await.is_err_and(|e| e.is_cancelled()));
    let second_run = tokio::spawn(one.run(std::future::pending::<()>()));
    let mut heartbeats = std::collections::BTreeSet::new();
    while heartbeats.len() < 3 {
        assert!(Instant::now() < until, "fewer than three heartbeats within the limit");
        assert_eq!(budget_of(&one), 10);
        heartbeats.extend(one.nodes().list_live(Duration::from_secs(60)).await.unwrap().into_iter().map(|n| n.seen_at));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second_run.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_nodes_divide_the_limit_of_the_server_row() {
    let harness = Harness::start().await.unwrap();
    let configure = |b| migrated(b).max_connections(10);
    let (one, two) = (harness.tenantry(configure).await.unwrap(), harness.tenantry(configure).await.unwrap());
    let set_limit = async |connections: u32| {
        let set_up = one.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix());
        set_up.max_connections(connections).await.unwrap();
        for node in [&one, &two] {
            node.resolver().invalidate_all();
            node.resolve("acme").await.unwrap();
        }
    };
    one.provision("acme").await.unwrap();
    set_limit(6).await;
    assert_eq!((budget_of(&one), budget_of(&two)), (6, 6), "a node that does not run counts itself as the only one");

    let runs = [&one, &two].map(|node| tokio::spawn(node.run(std::future::pending::<()>())));
    let until = Instant::now() + Duration::from_secs(60);
    while (budget_of(&one), budget_of(&two)) != (3, 3) {
        assert!(Instant::now() < until, "the limits stay at {} and {}", budget_of(&one), budget_of(&two));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let db = one.resolve("acme").await.unwrap();
    let connections = join_all((0..3).map(|_| db.acquire())).await;
    assert!(connections.iter().all(Result::is_ok), "the node can use its part");

    set_limit(40).await;
    assert_eq!((budget_of(&one), budget_of(&two)), (10, 10), "no node exceeds its own limit");
    runs.iter().for_each(tokio::task::JoinHandle::abort);
}
