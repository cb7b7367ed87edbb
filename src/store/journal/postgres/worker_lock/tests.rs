//! The lock on a real server, directly and behind PgBouncer.
use super::WorkerLock;
use crate::testing::{Harness, TestServer};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PGBOUNCER: &str = "/usr/sbin/pgbouncer";
const LOGIN: &str = "behind_pgbouncer";
const PASSWORD: &str = "a password for one test";
const CREATE_LOGIN: &str = "CREATE ROLE behind_pgbouncer LOGIN PASSWORD 'a password for one test'";

/// A PgBouncer in front of the test server. Dropping it stops the process and removes its files.
struct Bouncer {
    process: Child,
    directory: PathBuf,
    port: u16,
}

impl Bouncer {
    async fn start(server: &TestServer, mode: &str, size: u32, round_robin: u32) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("tenantry-bouncer-{port}"));
        std::fs::create_dir_all(&directory).unwrap();
        let (ini, users) = (directory.join("pgbouncer.ini"), directory.join("users.txt"));
        std::fs::write(&users, format!("\"{LOGIN}\" \"{PASSWORD}\"\n")).unwrap();
        let upstream = server.admin_options();
        let (host, upstream_port, users) = (upstream.get_host(), upstream.get_port(), users.display());
        let settings = format!(
            "[databases]\n* = host={host} port={upstream_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n\
             pool_mode = {mode}\ndefault_pool_size = {size}\nserver_round_robin = {round_robin}\n\
             ignore_startup_parameters = extra_float_digits,options\n"
        );
        std::fs::write(&ini, settings).unwrap();
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n");
        let mut command = Command::new(if is_root { "setpriv" } else { PGBOUNCER });
        if is_root {
            // PgBouncer does not run as root.
            Command::new("chown").arg("-R").arg("postgres").arg(&directory).status().unwrap();
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", PGBOUNCER]);
        }
        let process = command.arg("-q").arg(&ini).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let bouncer = Self { process, directory, port };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return bouncer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("PgBouncer does not listen");
    }
    fn pool(&self, options: PgConnectOptions) -> PgPool {
        let options = options.host("127.0.0.1").port(self.port).username(LOGIN).password(PASSWORD);
        PgPoolOptions::new().connect_lazy_with(options.extra_float_digits(None))
    }
}
impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The sessions of this database that hold a worker's lock.
async fn holders(harness: &Harness) -> i64 {
    const HOLDERS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1953395833
        AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(HOLDERS).fetch_one(harness.landlord()).await.unwrap()
}

async fn wait_for_holders(harness: &Harness, expected: i64) {
    for _ in 0..500 {
        if holders(harness).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} sessions hold a worker's lock after 10 s; expected {expected}", holders(harness).await);
}

#[tokio::test]
async fn lock_is_held_until_it_is_closed_or_dropped() {
    let harness = Harness::start().await.unwrap();
    let (closed, dropped) = (WorkerLock::new(harness.landlord().clone()), WorkerLock::new(harness.landlord().clone()));
    let (one, two) = (closed.key().await.unwrap(), dropped.key().await.unwrap());
    assert_ne!(one, two, "two nodes must have different keys");
    assert_eq!(closed.clone().key().await, Some(one), "all handles must share one lock");
    assert_eq!(holders(&harness).await, 2);
    closed.close().await;
    wait_for_holders(&harness, 1).await;
    assert_eq!(closed.key().await, None, "a closed lock must not be taken again");
    drop(dropped);
    wait_for_holders(&harness, 0).await;
}

#[tokio::test]
async fn lock_is_taken_again_with_the_same_key_after_its_session_broke() {
    let harness = Harness::start().await.unwrap();
    let lock = WorkerLock::new(harness.landlord().clone());
    let key = lock.key().await.unwrap();
    const TERMINATE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'tenantry worker lock'";
    let ended: i64 = sqlx::query_scalar(TERMINATE).fetch_one(harness.landlord()).await.unwrap();
    assert_eq!(ended, 1, "one session has the lock, and the session of the check for a pooler has ended");
    wait_for_holders(&harness, 0).await;
    wait_for_holders(&harness, 1).await;
    assert_eq!(lock.key().await, Some(key), "operations are stored with the first key");
    lock.close().await;
}

#[tokio::test]
async fn lock_is_not_taken_behind_a_transaction_pooler() {
    if !std::path::Path::new(PGBOUNCER).exists() {
        println!("!!! SKIPPED: {PGBOUNCER} is not installed !!!");
        return;
    }
    let harness = Harness::start().await.unwrap();
    let mut admin = harness.server().admin_options().connect().await.unwrap();
    sqlx::raw_sql(CREATE_LOGIN).execute(&mut admin).await.unwrap();
    let direct = harness.landlord().connect_options().as_ref().clone();
    for (mode, size, round_robin, expected) in [
        ("transaction", 1, 0, false),
        ("transaction", 5, 0, false),
        ("transaction", 5, 1, false),
        ("session", 5, 0, true),
    ] {
        let bouncer = Bouncer::start(harness.server(), mode, size, round_robin).await;
        let pool = bouncer.pool(direct.clone());
        // Several server connections are idle, as with an application that uses them.
        let sessions = if expected { 1 } else { size };
        let busy = futures_util::future::join_all((0..sessions).map(|_| pool.begin())).await;
        for transaction in busy {
            transaction.unwrap().rollback().await.unwrap();
        }
        let lock = WorkerLock::new(pool.clone());
        let key = lock.key().await;
        assert_eq!(key.is_some(), expected, "{mode} mode, {size} sessions, round robin {round_robin}: key {key:?}");
        assert_eq!(holders(&harness).await, i64::from(expected), "sessions with a lock behind PgBouncer");
        lock.close().await;
        pool.close().await;
        drop(bouncer);
        wait_for_holders(&harness, 0).await;
    }
}
