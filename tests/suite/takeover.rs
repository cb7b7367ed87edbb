//! A process that is killed in the middle of an operation. Another process continues the operation within seconds,
//! although the lease of the killed process is valid for 30 s.
use crate::provision::migrated;
use sqlx::postgres::PgConnectOptions;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tenantry::error::{FailureState, ProvisionError};
use tenantry::journal::{Claim, Intent, Journal, PgJournal};
use tenantry::operation::{Lane, OperationEvent, OperationId, OperationStatus, Subject};
use tenantry::step::{Compensate, Step, StepContext, StepError};
use tenantry::testing::Harness;
use tenantry::vault::LocalKeyring;
use tenantry::{Builder, Tenantry, sqlx};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

/// Environment variable of the child process: the number of the event after which it waits to be killed, the slug, the
/// keys and the landlord's URL, separated by spaces.
const TASK: &str = "TENANTRY_TAKEOVER_TASK";
/// Number of kills in the measured test. The default keeps the test short.
const KILLS: &str = "TENANTRY_TAKEOVER_KILLS";
const KEYS: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn configure(builder: Builder) -> Builder {
    migrated(builder).keys(LocalKeyring::from_text(KEYS).unwrap())
}

/// The entry point of the child process. In an ordinary test run it passes at once.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let [n, slug, url]: [&str; 3] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(provision_until_killed(n.parse().unwrap(), slug, url.parse().unwrap()));
}

/// Provisions a tenant. The worker stops after its `n`-th event, while the rest of the process lives.
async fn provision_until_killed(n: i64, slug: &str, landlord: PgConnectOptions) {
    let tenantry = configure(Tenantry::builder(sqlx::PgPool::connect_lazy_with(landlord))).build().await.unwrap();
    let stop_at = move |event: &OperationEvent| {
        if event.seq == n {
            println!("\n<stopped>");
            std::thread::park_timeout(Duration::from_secs(60));
        }
    };
    let _ = tenantry.provision(slug).key(slug).on_event(stop_at).await;
}

/// Starts a process that provisions `slug`, and returns when it has written its `n`-th event.
async fn start_child(harness: &Harness, n: i64, slug: &str) -> Child {
    use sqlx::ConnectOptions;
    let url = harness.landlord().connect_options().to_url_lossy();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "takeover::child", "--nocapture", "--test-threads=1"]);
    command.env(TASK, format!("{n} {slug} {url}")).kill_on_drop(true);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "<stopped>" {
            return child;
        }
    }
    panic!("the child ended before its event {n}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn same_call_completes_within_seconds_after_its_process_was_killed() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    let kills: i64 = std::env::var(KILLS).map_or(4, |n| n.parse().unwrap());
    let mut times = vec![];
    for kill in 0..kills {
        // A provisioning without an admin and a domain has 16 events. The points are spread over them.
        let (n, slug) = (1 + kill * 11 % 15, format!("killed-{kill}"));
        let mut child = start_child(&harness, n, &slug).await;
        child.kill().await.unwrap();
        let killed = Instant::now();
        let provisioned = tenantry.provision(&slug).key(&slug).await.unwrap_or_else(|e| panic!("event {n}: {e}"));
        times.push(killed.elapsed());
        let operation = tenantry.operations().get(provisioned.operation).await.unwrap().unwrap();
        assert_eq!(operation.status, OperationStatus::Done, "event {n}");
        let db = tenantry.resolve(&slug).await.unwrap();
        sqlx::query("INSERT INTO notes (text) VALUES ('works')").execute(&db).await.unwrap();
    }
    times.sort();
    println!("{kills} kills: p50 {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
    assert!(times[times.len() - 1] < Duration::from_secs(10), "times from the kill to the result: {times:?}");
    tenantry.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_continues_an_operation_at_once_after_its_process_was_killed() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    let mut child = start_child(&harness, 5, "acme").await;
    let report = tenantry.operations().recover().await.unwrap();
    assert_eq!(report, Default::default(), "the process lives, so its operation must be left alone");
    child.kill().await.unwrap();
    let killed = Instant::now();
    while tenantry.operations().recover().await.unwrap().finished == 0 {
        assert!(killed.elapsed() < Duration::from_secs(10), "recovery waits for the lease of a dead process");
        tokio::task::yield_now().await;
    }
    tenantry.resolve("acme").await.unwrap();
    tenantry.close().await;
}

/// A step that waits until the test lets it through.
struct Gate(Arc<Semaphore>, Arc<Semaphore>);
#[async_trait::async_trait]
impl Step for Gate {
    const NAME: &'static str = "seed.gate";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.0.add_permits(1);
        self.1.acquire().await.map_err(StepError::fail)?.forget();
        Ok(())
    }
}

#[async_trait::async_trait]
impl Compensate for Gate {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caller_that_joins_is_told_whose_lease_it_waits_for() {
    let harness = Harness::start().await.unwrap();
    let (entered, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gate = || Gate(entered.clone(), open.clone());
    let first = harness.tenantry(|b| configure(b).before_activation(gate())).await.unwrap();
    let second = harness.tenantry(|b| configure(b).before_activation(gate())).await.unwrap();
    let id = first.provision("acme").key("acme").start().await.unwrap();
    entered.acquire().await.unwrap().forget();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let stored = Arc::new(Mutex::new(vec![]));
    let seen = stored.clone();
    let joined = second.provision("acme").key("acme").on_event(move |event| match &event.waits_for {
        Some(_) => sender.send(event.clone()).unwrap(),
        None => seen.lock().unwrap().push(event.seq),
    });
    let joined = tokio::spawn(joined.into_future());
    let event = receiver.recv().await.unwrap();
    let holder = event.waits_for.clone().unwrap();
    let process = format!("/{}", std::process::id());
    assert!(holder.node.ends_with(&process), "the event must name the worker's node: {holder:?}");
    assert!(holder.leased_until > event.at, "the lease must be valid: {holder:?} at {}", event.at);
    assert_eq!((event.operation, event.step.as_str()), (id, OperationEvent::WAITING));
    assert!(event.to_string().contains("waiting for the lease of node"), "{event}");
    assert_eq!(Some(event.seq), stored.lock().unwrap().last().copied(), "a stream can resume after this event");
    open.add_permits(1);
    assert_eq!(joined.await.unwrap().unwrap().operation, id);
    assert!(receiver.try_recv().is_err(), "one event for one worker");
    first.close().await;
    second.close().await;
}

/// The worker's lock session ends although its process lives, as after a cut of the network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_whose_lock_session_broke_is_fenced_and_its_operation_ends_once() {
    let harness = Harness::start().await.unwrap();
    let (entered, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gate = || Gate(entered.clone(), open.clone());
    let first = harness.tenantry(|b| configure(b).before_activation(gate())).await.unwrap();
    let second = harness.tenantry(|b| configure(b).before_activation(gate())).await.unwrap();
    let call = tokio::spawn(first.provision("acme").into_future());
    entered.acquire().await.unwrap().forget();
    const HOLD: &str = "UPDATE tenantry.operations SET worker_lock = 1 WHERE kind = 'provision'
        AND worker_lock_of = worker AND worker_lock IS NOT NULL";
    let held = sqlx::query(HOLD).execute(harness.landlord()).await.unwrap().rows_affected();
    assert_eq!(held, 1, "the operation must be stored with the lock of its worker");
    let recovering = tokio::spawn(async move {
        let report = second.operations().recover().await;
        (second, report)
    });
    // The second worker is in the step too, so it has taken the operation over.
    entered.acquire().await.unwrap().forget();
    // The first worker waits for longer, so it leaves the step first.
    open.add_permits(1);
    let error = call.await.unwrap().unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.state, FailureState::Continuing);
    let cause = failure.cause.to_string();
    assert!(cause.starts_with("a worker of node ") && cause.ends_with(" has taken it over"), "{cause}");
    assert!(cause.contains(&format!("/{} ", std::process::id())), "{cause}");
    let operation = failure.operation;
    open.add_permits(1);
    let (second, report) = recovering.await.unwrap();
    assert_eq!(report.unwrap().finished, 1);
    let ends: i64 =
        sqlx::query_scalar("SELECT count(*) FROM tenantry.operation_events WHERE operation = $1 AND status = 'done'")
            .bind(operation.as_uuid())
            .fetch_one(harness.landlord())
            .await
            .unwrap();
    assert_eq!(ends, 1, "the operation must end once");
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_the_lock_session() {
    const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'tenantry worker lock'";
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(configure).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let sessions: i64 = sqlx::query_scalar(SESSIONS).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(sessions, 1, "a process that begins an operation must hold one session with its lock");
    tenantry.close().await;
    for _ in 0..500 {
        let left: i64 = sqlx::query_scalar(SESSIONS).fetch_one(harness.landlord()).await.unwrap();
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the lock session is still open 10 s after close()");
}

/// What is stored beside the lease decides whether it protects an operation. `claim`, `due` and `lease_holder` agree.
#[tokio::test]
async fn valid_lease_is_ignored_only_for_a_lock_of_its_worker_that_no_session_holds() {
    let landlord = crate::landlord::installed().await;
    let mut holder = landlord.acquire().await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(1953395833, 8), pg_advisory_lock(1953395833, -1)")
        .execute(&mut *holder)
        .await
        .unwrap();
    let journal = PgJournal::new(landlord.clone());
    macro_rules! set {
        ($columns:literal) => {
            concat!("UPDATE tenantry.operations SET ", $columns, " WHERE id = $1")
        };
    }
    let cases = [
        (true, set!("worker_lock = 7, worker_lock_of = worker"), "its process has died"),
        (false, set!("worker_lock = 8, worker_lock_of = worker"), "its process lives"),
        (
            false,
            set!("worker_lock = 7, worker_lock_of = 'another'"),
            "a node of an earlier version has claimed it since",
        ),
        (false, set!("worker_lock = NULL, worker_lock_of = worker"), "its worker has no lock"),
        (
            false,
            set!("worker_lock = 7, worker_lock_of = worker, retry_at = now() + interval '1 h'"),
            "it waits for a retry",
        ),
        (false, set!("worker_lock = 7, worker_lock_of = worker, status = 'parked'"), "it is parked"),
    ];
    for (is_claimable, stored, case) in cases {
        let mut intent =
            Intent::new(OperationId::new(), "takeover", Lane::Change, Subject::Tenant(tenantry::TenantId::new()));
        (intent.total, intent.lease, intent.worker) = (3, Duration::from_secs(3600), String::from("web-1/4711/1"));
        journal.begin(&intent).await.unwrap();
        sqlx::query(stored).bind(intent.id.as_uuid()).execute(&landlord).await.unwrap();
        let is_due = journal.due(100).await.unwrap().contains(&intent.id);
        assert_eq!(is_due, is_claimable, "due, if {case}");
        let protected = journal.lease_holder(intent.id).await.unwrap().is_some_and(|h| h.node == "web-1/4711");
        // A parked operation and one that waits for a retry have no such worker, and cannot be claimed for that reason.
        let is_protected = !is_claimable && !stored.contains("parked") && !stored.contains("retry_at");
        assert_eq!(protected, is_protected, "lease_holder, if {case}");
        let claim = journal.claim(intent.id, "web-2/815/1", Duration::from_secs(3600)).await.unwrap();
        assert_eq!(matches!(claim, Claim::Taken(_)), is_claimable, "claim, if {case}");
        if is_claimable {
            assert!(!journal.due(100).await.unwrap().contains(&intent.id), "the new worker has a lease and no lock");
        }
    }
}
