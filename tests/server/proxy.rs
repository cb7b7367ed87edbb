//! The fault proxy (`tenantry::testing::proxy`) in front of a real server.
//!
//! Each test injects one fault and checks both sides: what the client sees, and what the server has executed.

use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::testing::TestServer;
use tenantry::testing::proxy::{Director, Pass, Point, Proxy, Stage, Verdict};
use tokio::sync::Semaphore;

/// Injects one fault: at this stage of every statement that contains this text, in sessions named `faulty`.
struct Fault {
    text: &'static str,
    stage: Stage,
    verdict: Verdict,
    /// Every point that the proxy has reported, in order.
    seen: Mutex<Vec<Point>>,
    /// Permits that the test gives. Each message at the fault waits for one before the verdict is applied.
    go: Semaphore,
    /// Gains one permit for each message that has reached the fault.
    reached: Semaphore,
}
#[async_trait::async_trait]
impl Director for Fault {
    async fn at(&self, point: Point) -> Verdict {
        let matches = point.application == "faulty" && point.stage == self.stage && point.sql.contains(self.text);
        self.seen.lock().unwrap().push(point);
        if !matches {
            return Verdict::Forward;
        }
        self.reached.add_permits(1);
        self.go.acquire().await.unwrap().forget();
        self.verdict.clone()
    }
}

/// A database with a table `t (n int)`, and a proxy in front of it.
struct ProxySetup {
    /// A session that bypasses the proxy.
    direct: PgConnection,
    proxy: Proxy,
    fault: Arc<Fault>,
    /// Connects through the proxy, as `faulty`.
    options: PgConnectOptions,
}

async fn proxy_setup(text: &'static str, stage: Stage, verdict: Verdict) -> ProxySetup {
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
    ProxySetup { direct, proxy, fault, options }
}

impl ProxySetup {
    async fn rows(&mut self) -> Vec<i32> {
        sqlx::query_scalar("SELECT n FROM t ORDER BY n").fetch_all(&mut self.direct).await.unwrap()
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|c| c.into_owned())
}

#[tokio::test]
async fn proxy_forwards_unmatched_traffic_unchanged() {
    let mut setup = proxy_setup("nothing has this text", Stage::Before, Verdict::Cut).await;
    let mut session = setup.options.connect().await.unwrap();
    let mut transaction = session.begin().await.unwrap();
    sqlx::query("INSERT INTO t VALUES ($1)").bind(1).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let mut copy = session.copy_in_raw("COPY t FROM STDIN").await.unwrap();
    copy.send(&b"2\n3\n"[..]).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    let pool = sqlx::PgPool::connect_with(setup.options.clone()).await.unwrap();
    let mut listener = PgListener::connect_with(&pool).await.unwrap();
    listener.listen("news").await.unwrap();
    setup.direct.execute("NOTIFY news, 'hello'").await.unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "hello");
    assert_eq!(setup.rows().await, [1, 2, 3]);
    assert!(session.execute("SELECT 1/0").await.is_err());
    session.execute("SELECT 1").await.expect("the proxy closed the session after an error of the server");
    let seen = setup.fault.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|p| p.user == "postgres" || p.user.starts_with("proxy")), "{:?}", seen.first());
    let inserts: Vec<_> = seen.iter().filter(|p| p.sql.starts_with("INSERT")).map(|p| (p.statement, p.stage)).collect();
    let stages = [Stage::Before, Stage::Sent, Stage::Answered];
    assert_eq!(
        inserts,
        [2, 3].into_iter().flat_map(|n| stages.map(|s| (n, s))).collect::<Vec<_>>(),
        "stages of the prepared INSERT: once prepared, once executed"
    );
    setup.proxy.stop().await;
    assert!(session.execute("SELECT 1").await.is_err());
}

#[tokio::test]
async fn cut_loses_the_statement_before_it_is_sent_and_the_answer_afterwards() {
    for (stage, verdict, rows) in [
        (Stage::Before, Verdict::Cut, vec![]),
        (Stage::Before, Verdict::CutClient, vec![7]),
        (Stage::Sent, Verdict::Cut, vec![7]),
        (Stage::Answered, Verdict::Cut, vec![7]),
    ] {
        let mut setup = proxy_setup("INSERT", stage, verdict.clone()).await;
        let mut session = setup.options.connect().await.unwrap();
        let answer = session.execute("INSERT INTO t VALUES (7)").await;
        assert_eq!(answer.is_ok(), stage == Stage::Answered, "{stage:?} {verdict:?}: {answer:?}");
        assert!(session.execute("SELECT 1").await.is_err(), "{stage:?} {verdict:?}: the connection survived the cut");
        drop(session);
        // The server finishes the statement that it has received; when its session has ended, the result is final.
        const SESSIONS: &str =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'faulty' AND datname = current_database()";
        while sqlx::query_scalar::<_, i64>(SESSIONS).fetch_one(&mut setup.direct).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(setup.rows().await, rows, "{stage:?} {verdict:?}");
        setup.options.connect().await.expect("the proxy refused a new connection after a cut");
    }
}

#[tokio::test]
async fn injected_error_in_a_transaction_aborts_it_until_its_end() {
    let mut setup = proxy_setup("VALUES (2)", Stage::Before, Verdict::Answer("40P01")).await;
    let mut session = setup.options.connect().await.unwrap();
    session.execute("BEGIN").await.unwrap();
    session.execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(code(&session.execute("INSERT INTO t VALUES (2)").await.unwrap_err()).as_deref(), Some("40P01"));
    let after = sqlx::query("INSERT INTO t VALUES ($1)").bind(3).execute(&mut session).await.unwrap_err();
    assert_eq!(code(&after).as_deref(), Some("25P02"));
    session.execute("COMMIT").await.expect("COMMIT of an aborted transaction rolls back");
    assert_eq!(setup.rows().await, Vec::<i32>::new());
    session.execute("INSERT INTO t VALUES (4)").await.unwrap();
    assert_eq!(setup.rows().await, [4]);
}

#[tokio::test]
async fn error_in_place_of_the_answer_keeps_the_effect() {
    let mut setup = proxy_setup("INSERT", Stage::Sent, Verdict::Answer("57014")).await;
    let mut session = setup.options.connect().await.unwrap();
    assert_eq!(code(&session.execute("INSERT INTO t VALUES (1)").await.unwrap_err()).as_deref(), Some("57014"));
    session.execute("SELECT 1").await.expect("the session is unusable after an injected error");
    assert_eq!(setup.rows().await, [1]);
}

#[tokio::test]
async fn injected_fatal_error_closes_the_connection() {
    let mut setup = proxy_setup("INSERT", Stage::Before, Verdict::Answer("57P01")).await;
    let mut session = setup.options.connect().await.unwrap();
    assert_eq!(code(&session.execute("INSERT INTO t VALUES (1)").await.unwrap_err()).as_deref(), Some("57P01"));
    assert!(session.execute("SELECT 1").await.is_err());
    assert_eq!(setup.rows().await, Vec::<i32>::new());
    let full = proxy_setup("", Stage::Connect, Verdict::Answer("53300")).await;
    assert_eq!(code(&full.options.connect().await.unwrap_err()).as_deref(), Some("53300"));
}

#[tokio::test]
async fn statement_is_delayed_until_the_director_answers() {
    let mut setup = proxy_setup("INSERT", Stage::Before, Verdict::Forward).await;
    setup.fault.go.forget_permits(100);
    let mut session = setup.options.connect().await.unwrap();
    let delayed = tokio::spawn(async move { session.execute("INSERT INTO t SELECT count(*) FROM t").await.map(drop) });
    setup.fault.reached.acquire().await.unwrap().forget();
    setup.direct.execute("INSERT INTO t VALUES (100)").await.unwrap();
    setup.fault.go.add_permits(1);
    delayed.await.unwrap().unwrap();
    assert_eq!(setup.rows().await, [1, 100], "the delayed statement ran before the direct one");
}

#[tokio::test]
async fn stalled_connection_stays_silent_until_it_is_cut() {
    let setup = proxy_setup("INSERT", Stage::Before, Verdict::Stall).await;
    let mut session = setup.options.connect().await.unwrap();
    let mut waiting = tokio::spawn(async move { session.execute("INSERT INTO t VALUES (1)").await.map(drop) });
    setup.fault.reached.acquire().await.unwrap().forget();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err(),
        "a stalled connection answered or ended"
    );
    setup.proxy.cut_all();
    assert!(waiting.await.unwrap().is_err());
    let mut other = setup.options.connect().await.expect("the proxy refused a new connection after cut_all()");
    other.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn two_chained_proxies_serve_many_sessions_at_once() {
    let setup = proxy_setup("nothing", Stage::Before, Verdict::Cut).await;
    let upstream = (setup.options.get_host().to_owned(), setup.proxy.port());
    let upstream = tokio::net::lookup_host(upstream).await.unwrap().next().unwrap();
    let outer = Proxy::start(upstream, Pass).await.unwrap();
    let options = setup.options.clone().port(outer.port());
    let all = (0..20).map(|n| {
        let options = options.clone();
        async move { sqlx::query_scalar::<_, i32>("SELECT $1").bind(n).fetch_one(&mut options.connect().await?).await }
    });
    let answers = futures_util::future::try_join_all(all).await.unwrap();
    assert_eq!(answers, (0..20).collect::<Vec<_>>());
}
