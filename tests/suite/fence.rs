//! A fence on one process ends the work of others within a second: two more processes, each at work on warm connections.
use crate::auditor;
use crate::migrate::{assert_no_migrator, migrations, running};
use crate::provision::migrated;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{ConnectOptions, Executor};
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use tenantry::registry::TenantRegistryExt;
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const WORK: &str = "TENANTRY_TEST_FENCE_WORK";

/// No test: the process that works for a tenant until it is refused is this binary again.
#[test]
fn worker() {
    let Ok(work) = std::env::var(WORK) else { return };
    let words: Vec<&str> = work.split('\n').collect();
    let [host, port, user, password, database] = words.as_slice() else { panic!("five lines") };
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass().host(host).port(port.parse().unwrap());
    let options = options.username(user).password(password).database(database);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let pool = sqlx::postgres::PgPoolOptions::new().min_connections(4).connect_with(options).await.unwrap();
        let busy = (0..3).map(|_| async {
            while pool.execute("SELECT pg_sleep(0.02)").await.is_ok() {}
            now()
        });
        println!("<fence> busy");
        let ended = futures_util::future::join_all(busy).await;
        println!("<fence> {}", ended.iter().max().unwrap());
    });
}

#[expect(clippy::disallowed_methods, reason = "three processes of one machine share its clock and no other")]
fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()
}

struct Worker {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts it, and waits until it is busy.
    async fn start(tenantry: &Tenantry, slug: &str) -> Self {
        let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
        let entry = tenantry.registry().primary(tenant.id()).await.unwrap().unwrap();
        let password: SecretString = tenantry.vault().open(&entry.credential).await.unwrap();
        let (host, port, user, database) = (&entry.host, entry.port, &entry.login, &entry.database);
        let work = format!("{host}\n{port}\n{user}\n{}\n{database}", password.expose_secret());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "fence::worker", "--nocapture"]).env(WORK, work).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut worker = Self { _child: child, lines };
        assert_eq!(worker.word().await, "busy");
        worker
    }
    async fn word(&mut self) -> String {
        loop {
            let line = self.lines.next_line().await.unwrap().expect("the worker goes on");
            if let Some((_, word)) = line.split_once("<fence> ") {
                return word.to_owned();
            }
        }
    }
    /// How long after `begun` its last session ended.
    async fn ended_after(&mut self, begun: u128) -> Duration {
        let at: u128 = self.word().await.parse().unwrap();
        Duration::from_micros(at.saturating_sub(begun) as u64)
    }
}

/// Connects again and again, each time stretching the moment in which it has no name yet.
async fn hostile(harness: &Harness, tenantry: &Tenantry) -> Vec<tokio::task::JoinHandle<()>> {
    let login =
        auditor::login(tenantry, "hostile").await.database(harness.server().admin_options().get_database().unwrap());
    let stretched = login.options([("post_auth_delay", "3")]);
    let one = |options: sqlx::postgres::PgConnectOptions| async move {
        loop {
            drop(options.connect().await);
        }
    };
    (0..2).map(|_| tokio::spawn(one(stretched.clone()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fence_ends_the_work_of_other_processes_within_a_second() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for slug in ["hostile", "suspend", "archive", "purge"] {
        tenantry.provision(slug).await.unwrap();
    }
    let hostile = hostile(&harness, &tenantry).await;
    for slug in ["suspend", "archive", "purge"] {
        let mut workers = [Worker::start(&tenantry, slug).await, Worker::start(&tenantry, slug).await];
        let begun = now();
        let fence = tenantry.clone();
        let fenced = tokio::spawn(async move {
            match slug {
                "suspend" => fence.suspend(slug).await.map(drop),
                "archive" => fence.archive(slug).await.map(drop),
                _ => fence.purge(slug).force().await.map(drop),
            }
        });
        for worker in &mut workers {
            let took = worker.ended_after(begun).await;
            assert!(took < Duration::from_secs(1), "{slug}: {took:?}");
        }
        fenced.await.unwrap().unwrap();
    }
    hostile.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_does_so_also_while_a_migration_runs() {
    const SLOW: &str = "SELECT pg_sleep(600)";
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let newer = harness.tenantry(|b| b.tenant_migrations(migrations(&[SLOW]))).await.unwrap();
    newer.migrate("acme").start().await.unwrap();
    running(&harness, "pg_sleep(600)").await;
    let mut workers = [Worker::start(&tenantry, "acme").await, Worker::start(&tenantry, "acme").await];
    let begun = now();
    let fence = tenantry.clone();
    let fenced = tokio::spawn(async move { fence.suspend("acme").await });
    for worker in &mut workers {
        let took = worker.ended_after(begun).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    fenced.await.unwrap().unwrap();
    tenantry.purge("acme").force().await.unwrap();
    assert_no_migrator(&harness).await;
}
