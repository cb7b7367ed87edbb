//! Suspend, archive and purge on one process end the work of all other processes within a second. Each test starts
//! child processes that query a tenant's database over warm connections, and measures when their last session ends.
use crate::auditor;
use crate::migrate::{assert_no_migrator, migrations, running};
use crate::provision::migrated;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, Executor};
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use tenantry::registry::TenantRegistry;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const WORK: &str = "TENANTRY_TEST_FENCE_WORK";

/// Not a test, but the entry point of the child process, which is this binary. It queries a tenant's database until
/// every query fails. Without the environment variable it does nothing.
#[test]
fn child_process() {
    let Ok(target) = std::env::var(WORK) else { return };
    let lines: Vec<&str> = target.split('\n').collect();
    let [host, port, user, password, database] = lines.as_slice() else { panic!("{WORK} must have five lines") };
    let options = tenantry::testing::connect_options(host, port.parse().unwrap(), user, password, database);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let pool = sqlx::postgres::PgPoolOptions::new().min_connections(4).connect_with(options).await.unwrap();
        let queries = (0..3).map(|_| async {
            while pool.execute("SELECT pg_sleep(0.02)").await.is_ok() {}
            now()
        });
        println!("<fence> busy");
        let end_times = futures_util::future::join_all(queries).await;
        println!("<fence> {}", end_times.iter().max().unwrap());
    });
}

/// Microseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "the processes share only the system clock of their machine")]
fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()
}

/// A child process that queries a tenant's database.
struct ChildProcess {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl ChildProcess {
    /// Starts the process, and waits until it runs queries.
    async fn start(tenantry: &Tenantry, slug: &str) -> Self {
        let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
        let entry = tenantry.registry().primary(tenant.id()).await.unwrap().unwrap();
        let password: SecretString = tenantry.vault().open(&entry.credential).await.unwrap();
        let (host, port, user, database) = (&entry.host, entry.port, &entry.login, &entry.database);
        let target = format!("{host}\n{port}\n{user}\n{}\n{database}", password.expose_secret());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "fence::child_process", "--nocapture"]).env(WORK, target).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Self { _child: child, lines };
        assert_eq!(process.next_word().await, "busy");
        process
    }
    /// Next word that the process reports.
    async fn next_word(&mut self) -> String {
        loop {
            let line = self.lines.next_line().await.unwrap().expect("the child process reports a word before it exits");
            if let Some((_, word)) = line.split_once("<fence> ") {
                return word.to_owned();
            }
        }
    }
    /// Waits until the last session of the process has ended. Returns the time from `started` to that moment.
    async fn wait_for_end(&mut self, started: u128) -> Duration {
        let at: u128 = self.next_word().await.parse().unwrap();
        Duration::from_micros(at.saturating_sub(started) as u64)
    }
}

/// Starts tasks that connect in a loop as the tenant `hostile`. `post_auth_delay` prolongs the phase of a connection in
/// which `pg_stat_activity` shows no user for it yet.
async fn start_hostile_connects(harness: &Harness, tenantry: &Tenantry) -> Vec<tokio::task::JoinHandle<()>> {
    let login =
        auditor::login(tenantry, "hostile").await.database(harness.server().admin_options().get_database().unwrap());
    let delayed = login.options([("post_auth_delay", "3")]);
    let connect_in_loop = |options: sqlx::postgres::PgConnectOptions| async move {
        loop {
            drop(options.connect().await);
        }
    };
    (0..2).map(|_| tokio::spawn(connect_in_loop(delayed.clone()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_archive_and_purge_end_sessions_of_other_processes_within_a_second() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["hostile", "suspend", "archive", "purge"] {
        tenantry.provision(slug).await.unwrap();
    }
    let hostile = start_hostile_connects(&harness, &tenantry).await;
    for slug in ["suspend", "archive", "purge"] {
        let mut processes = [ChildProcess::start(&tenantry, slug).await, ChildProcess::start(&tenantry, slug).await];
        let started = now();
        let node = tenantry.clone();
        let preempting = tokio::spawn(async move {
            match slug {
                "suspend" => node.suspend(slug).await.map(drop),
                "archive" => node.archive(slug).await.map(drop),
                _ => node.purge(slug).force().await.map(drop),
            }
        });
        for process in &mut processes {
            let took = process.wait_for_end(started).await;
            assert!(took < Duration::from_secs(1), "{slug}: the sessions of another process ended only after {took:?}");
        }
        preempting.await.unwrap().unwrap();
    }
    hostile.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_ends_sessions_of_other_processes_while_a_migration_runs() {
    const SLOW: &str = "SELECT pg_sleep(600)";
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let newer = harness.tenantry(|b| b.tenant_migrations(migrations(&[SLOW]))).await.unwrap();
    newer.migrate("acme").start().await.unwrap();
    running(&harness, "pg_sleep(600)").await;
    let mut processes = [ChildProcess::start(&tenantry, "acme").await, ChildProcess::start(&tenantry, "acme").await];
    let started = now();
    let node = tenantry.clone();
    let preempting = tokio::spawn(async move { node.suspend("acme").await });
    for process in &mut processes {
        let took = process.wait_for_end(started).await;
        assert!(took < Duration::from_secs(1), "the sessions of another process ended only after {took:?}");
    }
    preempting.await.unwrap().unwrap();
    tenantry.purge("acme").force().await.unwrap();
    assert_no_migrator(&harness).await;
}
