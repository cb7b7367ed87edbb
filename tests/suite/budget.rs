//! One budget for all tenants of a server, on a real one.
use crate::provision::migrated;
use crate::resolver::sessions::World;
use futures_util::future::join_all;
use sqlx::{Connection, Executor, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tenantry::testing::Harness;
use tenantry::{ConnectionResolver, TenantPool, Tenantry, sqlx};

const BUDGET: u32 = 6;

/// Whose database it is, by the server's own word.
async fn whose(db: &TenantPool) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT current_database()::text").fetch_one(db).await
}

/// Where nothing ever waits for the server: as a fast one looks to a slow program.
#[tokio::test]
async fn a_task_that_asks_without_a_pause_lets_the_others_of_its_thread_run() {
    let world = World::new().await;
    world.tenant("acme").await;
    let resolver = world.resolver().build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    whose(&db).await.unwrap();
    let other = tokio::spawn(async {});
    for _ in 0..1000 {
        db.out_and_in().await.unwrap();
        if other.is_finished() {
            return resolver.close().await;
        }
    }
    panic!("a thousand calls, and nobody else had a turn");
}

/// Twenty tenants, sixty tasks, six connections; futures are dropped, transactions left, sessions killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_never_sees_more_than_the_budget_and_nobody_another_ones_rows() {
    let mut world = World::new().await;
    let mut made = vec![];
    for n in 0..20 {
        made.push(world.tenant(&format!("tenant-{n}")).await);
    }
    let resolver = world.resolver().max_connections(BUDGET).max_connections_per_tenant(3);
    // Long enough for a machine that builds something else at the same time.
    let resolver = resolver.acquire_timeout(Duration::from_secs(60)).build();
    let over = Arc::new(AtomicBool::new(false));
    let tasks = (0..60).map(|task| {
        let (resolver, over) = (resolver.clone(), over.clone());
        let names: Vec<_> = made.iter().map(|m| m.name().to_owned()).collect();
        tokio::spawn(async move {
            let mut served = 0;
            for round in 0.. {
                if over.load(SeqCst) {
                    break;
                }
                let n = (task * 7 + round * round) % names.len();
                let db = resolver.resolve(format!("tenant-{n}").as_str().into()).await.unwrap();
                match round % 5 {
                    0 => drop(tokio::time::timeout(Duration::from_micros(700), whose(&db)).await),
                    1 => drop(db.begin().await),
                    2 => drop(sqlx::raw_sql("BEGIN; SELECT 1").execute(&db).await),
                    _ => {}
                }
                match whose(&db).await {
                    Ok(name) => assert_eq!(name, names[n], "another tenant's connection"),
                    Err(error) => assert_eq!(tenantry::sqlstate::code(&error).as_deref(), Some("57P01"), "{error:?}"),
                }
                if let Ok(row) = db.fetch_one(sqlx::raw_sql("SELECT now() <> statement_timestamp()")).await {
                    assert!(!row.get::<bool, _>(0), "somebody else's transaction");
                }
                served += 1;
            }
            served
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let names: Vec<_> = made.iter().map(|m| m.name().to_owned()).collect();
    let until = Instant::now() + Duration::from_secs(6);
    let mut most = 0;
    // Paced: without a pause every session is killed before its login has ended, and nobody is served.
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while Instant::now() < until {
        pace.tick().await;
        most = most.max(world.sessions_of(&names).await);
        if most % 2 == 0 {
            world.kill_one_of(&names).await;
        }
    }
    over.store(true, SeqCst);
    let served: Vec<u64> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let (_, stats) = &resolver.stats()[0];
    assert!(most <= i64::from(BUDGET), "{most} sessions under a budget of {BUDGET}; {stats:?}");
    assert!(served.iter().all(|n| *n > 0), "a task starved: {served:?}; {stats:?}");
    resolver.close().await;
    assert_eq!(world.sessions_of(&names).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_many_tasks_does_not_starve_the_others() {
    let world = World::new().await;
    for slug in ["hog", "meek"] {
        world.tenant(slug).await;
    }
    let resolver = world.resolver().max_connections(4).max_connections_per_tenant(4).build();
    let hog = resolver.resolve("hog".into()).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..256)
        .map(|_| {
            let (hog, over) = (hog.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(SeqCst) {
                    sqlx::query("SELECT pg_sleep(0.005)").execute(&hog).await.unwrap();
                }
            })
        })
        .collect();
    let meek = resolver.resolve("meek".into()).await.unwrap();
    for _ in 0..20 {
        let waited = Instant::now();
        whose(&meek).await.unwrap();
        assert!(waited.elapsed() < Duration::from_secs(3), "{:?}", waited.elapsed());
    }
    over.store(true, SeqCst);
    join_all(tasks).await.into_iter().for_each(Result::unwrap);
}

#[tokio::test]
async fn whoever_asks_is_counted_once_whether_it_waits_or_not() {
    let world = World::new().await;
    for slug in ["acme", "globex"] {
        world.tenant(slug).await;
    }
    // Whether or not a connection is asked first whether it lives.
    for ping_after in [Duration::ZERO, Duration::from_secs(60)] {
        let resolver = world.resolver().max_connections(1).ping_after(ping_after).build();
        for slug in ["acme", "globex", "globex"] {
            whose(&resolver.resolve(slug.into()).await.unwrap()).await.unwrap();
        }
        let (_, stats) = resolver.stats()[0];
        assert_eq!((stats.checkouts, stats.hits, stats.connects, stats.steals), (3, 1, 2, 1), "{stats:?}");
        resolver.close().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_taken_out_or_closed_leaves_its_place() {
    let world = World::new().await;
    world.tenant("acme").await;
    let resolver = world.resolver().max_connections(1).build();
    let db = resolver.resolve("acme".into()).await.unwrap();
    let detached = db.acquire().await.unwrap().detach();
    whose(&db).await.expect("a detached connection is the host's own");
    db.acquire().await.unwrap().close().await.unwrap();
    whose(&db).await.expect("a closed one is gone");
    detached.close().await.unwrap();
}

#[tokio::test]
async fn what_a_user_leaves_in_a_session_ends_with_it_if_the_host_wants_that() {
    let world = World::new().await;
    world.tenant("acme").await;
    let mark = "SELECT set_config('my.mark', 'left', false)";
    let read = "SELECT coalesce(current_setting('my.mark', true), '')";
    for (discard, left) in [(false, "left"), (true, "")] {
        let resolver = world.resolver().max_connections(1).discard_on_release(discard).build();
        let db = resolver.resolve("acme".into()).await.unwrap();
        sqlx::query(mark).execute(&db).await.unwrap();
        let found: String = sqlx::query_scalar(read).fetch_one(&db).await.unwrap();
        assert_eq!(found, left);
        resolver.close().await;
    }
}

/// As at the end of a program that keeps its handles in a static.
#[tokio::test]
async fn handles_may_outlive_their_runtime() {
    let world = World::new().await;
    world.tenant("acme").await;
    let builder = world.resolver();
    let ended = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (resolver, db) = runtime.block_on(async {
            let resolver = builder.build();
            let db = resolver.resolve("acme".into()).await.unwrap();
            whose(&db).await.unwrap();
            (resolver, db)
        });
        drop(runtime);
        drop(db);
        resolver.invalidate_all();
        drop(resolver);
    });
    ended.join().expect("nothing panics");
}

fn budget(node: &Tenantry) -> u32 {
    node.pool_stats()[0].1.budget
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_divide_the_connections_and_never_have_more_than_all() {
    let harness = Harness::start().await.unwrap();
    let shared = |b| migrated(b).max_connections(10).share_connections(true).acquire_timeout(Duration::from_secs(30));
    let (one, two) = (harness.tenantry(shared).await.unwrap(), harness.tenantry(shared).await.unwrap());
    one.provision("acme").await.unwrap();
    let (db, there) = (one.resolve("acme").await.unwrap(), two.resolve("acme").await.unwrap());
    assert_eq!((budget(&one), budget(&two)), (0, 0), "nothing before it has a part");
    let first = tokio::spawn(one.run(std::future::pending::<()>()));
    whose(&db).await.expect("alone it has all");
    assert_eq!(budget(&one), 10);
    let held = join_all((0..5).map(|_| db.acquire())).await;
    assert!(held.iter().all(Result::is_ok));
    let second = tokio::spawn(two.run(std::future::pending::<()>()));
    let until = Instant::now() + Duration::from_secs(60);
    while (budget(&one), budget(&two)) != (5, 5) {
        assert!(budget(&one) + budget(&two) <= 10, "more than there are");
        assert!(Instant::now() < until, "{} and {}", budget(&one), budget(&two));
        tokio::task::yield_now().await;
    }
    whose(&there).await.unwrap();
    drop(held);
    // It dies: its row expires, and its part with it.
    second.abort();
    while budget(&one) != 10 {
        assert!(Instant::now() < until, "{}", budget(&one));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // A host that starts it again keeps what is its own.
    first.abort();
    assert!(first.await.is_err_and(|e| e.is_cancelled()));
    let again = tokio::spawn(one.run(std::future::pending::<()>()));
    let mut beats = std::collections::BTreeSet::new();
    while beats.len() < 3 {
        assert!(Instant::now() < until);
        assert_eq!(budget(&one), 10);
        beats.extend(one.nodes().live(Duration::from_secs(60)).await.unwrap().into_iter().map(|n| n.seen_at));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    again.abort();
}
