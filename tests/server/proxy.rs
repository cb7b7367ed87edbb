//! The proxy of faults, in front of a real server: what the client sees, and what the server has done.

use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::testing::TestServer;
use tenantry::testing::proxy::{Director, Pass, Point, Proxy, Stage, Verdict};
use tokio::sync::Semaphore;

/// One fault: at the statements with this text, at this stage, of sessions that are called `faulty`.
struct Fault {
    text: &'static str,
    stage: Stage,
    verdict: Verdict,
    seen: Mutex<Vec<Point>>,
    /// Given by the test: until then the message is held.
    go: Semaphore,
    reached: Semaphore,
}
#[async_trait::async_trait]
impl Director for Fault {
    async fn at(&self, point: Point) -> Verdict {
        let hit = point.application == "faulty" && point.stage == self.stage && point.sql.contains(self.text);
        self.seen.lock().unwrap().push(point);
        if !hit {
            return Verdict::Forward;
        }
        self.reached.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        self.verdict.clone()
    }
}

struct World {
    direct: PgConnection,
    proxy: Proxy,
    fault: Arc<Fault>,
    options: PgConnectOptions,
}

async fn world(text: &'static str, stage: Stage, verdict: Verdict) -> World {
    let server = TestServer::shared().await.unwrap();
    let database = server.create_database("proxy").await.unwrap();
    let direct = database.options();
    let address = (direct.get_host().to_owned(), direct.get_port());
    let upstream = tokio::net::lookup_host(address).await.unwrap().next().unwrap();
    let (seen, go, reached) = (Mutex::default(), Semaphore::new(100), Semaphore::new(0));
    let fault = Arc::new(Fault { text, stage, verdict, seen, go, reached });
    let proxy = Proxy::start(upstream, fault.clone()).await.unwrap();
    let options = direct.clone().host("127.0.0.1").port(proxy.port()).application_name("faulty");
    let mut direct = direct.connect().await.unwrap();
    direct.execute("CREATE TABLE t (n int)").await.unwrap();
    World { direct, proxy, fault, options }
}

impl World {
    async fn rows(&mut self) -> Vec<i32> {
        sqlx::query_scalar("SELECT n FROM t ORDER BY n").fetch_all(&mut self.direct).await.unwrap()
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|c| c.into_owned())
}

#[tokio::test]
async fn what_nobody_disturbs_goes_through() {
    let mut world = world("nothing has this text", Stage::Before, Verdict::Cut).await;
    let mut session = world.options.connect().await.unwrap();
    let mut block = session.begin().await.unwrap();
    sqlx::query("INSERT INTO t VALUES ($1)").bind(1).execute(&mut *block).await.unwrap();
    block.commit().await.unwrap();
    let mut copy = session.copy_in_raw("COPY t FROM STDIN").await.unwrap();
    copy.send(&b"2\n3\n"[..]).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    let pool = sqlx::PgPool::connect_with(world.options.clone()).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("news").await.unwrap();
    world.direct.execute("NOTIFY news, 'hello'").await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "hello");
    assert_eq!(world.rows().await, [1, 2, 3]);
    assert!(session.execute("SELECT 1/0").await.is_err());
    session.execute("SELECT 1").await.expect("an error of the server's own ends nothing");
    let seen = world.fault.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|p| p.user == "postgres" || p.user.starts_with("proxy")), "{:?}", seen.first());
    let inserts: Vec<_> = seen.iter().filter(|p| p.sql.starts_with("INSERT")).map(|p| (p.statement, p.stage)).collect();
    let stages = [Stage::Before, Stage::Sent, Stage::Answered];
    assert_eq!(inserts, [2, 3].into_iter().flat_map(|n| stages.map(|s| (n, s))).collect::<Vec<_>>(), "prepared, run");
    world.proxy.stop().await;
    assert!(session.execute("SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_cut_before_loses_the_statement_and_one_after_it_loses_the_answer() {
    for (stage, verdict, rows) in [
        (Stage::Before, Verdict::Cut, vec![]),
        (Stage::Before, Verdict::CutClient, vec![7]),
        (Stage::Sent, Verdict::Cut, vec![7]),
        (Stage::Answered, Verdict::Cut, vec![7]),
    ] {
        let mut world = world("INSERT", stage, verdict.clone()).await;
        let mut session = world.options.connect().await.unwrap();
        let answer = session.execute("INSERT INTO t VALUES (7)").await;
        assert_eq!(answer.is_ok(), stage == Stage::Answered, "{stage:?} {verdict:?}: {answer:?}");
        assert!(session.execute("SELECT 1").await.is_err(), "the connection is gone");
        drop(session);
        // The server finishes what it got; its session is gone when it has.
        const SESSIONS: &str =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'faulty' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(SESSIONS).fetch_one(&mut world.direct).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.rows().await, rows, "{stage:?} {verdict:?}");
        world.options.connect().await.expect("the next connection is taken");
    }
}

#[tokio::test]
async fn an_error_inside_a_block_is_one_until_the_block_ends() {
    let mut world = world("VALUES (2)", Stage::Before, Verdict::Answer("40P01")).await;
    let mut session = world.options.connect().await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(code(&session.execute("INSERT INTO t VALUES (2)").await.unwrap_err()).as_deref(), Some("40P01"));
    let after = sqlx::query("INSERT INTO t VALUES ($1)").bind(3).execute(&mut session).await.unwrap_err();
    assert_eq!(code(&after).as_deref(), Some("25P02"));
    session.execute("COMMIT").await.expect("it ends the block, as a rollback");
    assert_eq!(world.rows().await, Vec::<i32>::new());
    session.execute("INSERT INTO t VALUES (4)").await.unwrap();
    assert_eq!(world.rows().await, [4]);
}

#[tokio::test]
async fn an_error_in_place_of_the_answer_hides_what_was_done() {
    let mut world = world("INSERT", Stage::Sent, Verdict::Answer("57014")).await;
    let mut session = world.options.connect().await.unwrap();
    assert_eq!(code(&session.execute("INSERT INTO t VALUES (1)").await.unwrap_err()).as_deref(), Some("57014"));
    session.execute("SELECT 1").await.expect("the session goes on");
    assert_eq!(world.rows().await, [1]);
}

#[tokio::test]
async fn what_a_server_dies_of_ends_the_connection() {
    let mut world = world("INSERT", Stage::Before, Verdict::Answer("57P01")).await;
    let mut session = world.options.connect().await.unwrap();
    assert_eq!(code(&session.execute("INSERT INTO t VALUES (1)").await.unwrap_err()).as_deref(), Some("57P01"));
    assert!(session.execute("SELECT 1").await.is_err());
    assert_eq!(world.rows().await, Vec::<i32>::new());
    let full = self::world("", Stage::Connect, Verdict::Answer("53300")).await;
    assert_eq!(code(&full.options.connect().await.unwrap_err()).as_deref(), Some("53300"));
}

#[tokio::test]
async fn a_statement_is_held_while_something_else_happens() {
    let mut world = world("INSERT", Stage::Before, Verdict::Forward).await;
    world.fault.go.forget_permits(100);
    let mut session = world.options.connect().await.unwrap();
    let held = tokio::spawn(async move { session.execute("INSERT INTO t SELECT count(*) FROM t").await.map(drop) });
    world.fault.reached.acquire().await.unwrap().forget();
    world.direct.execute("INSERT INTO t VALUES (100)").await.unwrap();
    world.fault.go.add_permits(1);
    held.await.unwrap().unwrap();
    assert_eq!(world.rows().await, [1, 100], "the held statement came second");
}

#[tokio::test]
async fn a_half_open_connection_answers_nothing_until_it_is_cut() {
    let world = world("INSERT", Stage::Before, Verdict::Stall).await;
    let mut session = world.options.connect().await.unwrap();
    let mut waiting = tokio::spawn(async move { session.execute("INSERT INTO t VALUES (1)").await.map(drop) });
    world.fault.reached.acquire().await.unwrap().forget();
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "no answer, no end");
    world.proxy.cut_all();
    assert!(waiting.await.unwrap().is_err());
    let mut other = world.options.connect().await.expect("and new ones are taken");
    other.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn it_stands_in_front_of_any_number_of_sessions() {
    let world = world("nothing", Stage::Before, Verdict::Cut).await;
    let upstream = (world.options.get_host().to_owned(), world.proxy.port());
    let upstream = tokio::net::lookup_host(upstream).await.unwrap().next().unwrap();
    let twice = Proxy::start(upstream, Pass).await.unwrap();
    let options = world.options.clone().port(twice.port());
    let all = (0..20).map(|n| {
        let options = options.clone();
        async move { sqlx::query_scalar::<_, i32>("SELECT $1").bind(n).fetch_one(&mut options.connect().await?).await }
    });
    let answers = futures_util::future::try_join_all(all).await.unwrap();
    assert_eq!(answers, (0..20).collect::<Vec<_>>());
}
