//! External obstacles to an operation: open sessions, prepared transactions, replication slots, full servers and disks.
//!
//! While an obstacle exists, the recorded error names it. Once it is removed, recovery brings the operation to its end.
use crate::auditor::{self, assert_nothing};
use crate::provision::migrated;
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use std::process::Command;
use std::time::Duration;
use tenantry::error::{ChangeError, FailureState, ProvisionError};
use tenantry::testing::server::{NoServer, ServerKind};
use tenantry::testing::{Harness, TestServer};
use tenantry::{Builder, Tenantry, sqlx};

/// One attempt per step, so that an obstacle is reported at once. Recovery retries the step.
pub(crate) fn impatient(builder: Builder) -> Builder {
    migrated(builder).attempts(1).backoff(Duration::from_millis(20), Duration::from_millis(100))
}

/// A server with these settings. `None`, with a note in the output, where a URL names the server.
pub(crate) async fn server(settings: &[(&str, &str)]) -> Option<TestServer> {
    let builder = settings.iter().fold(TestServer::builder(), |b, (name, value)| b.setting(*name, *value));
    match builder.start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => {
            println!("!!! SKIPPED: a server named by URL does not accept settings !!!");
            None
        }
        started => Some(started.unwrap()),
    }
}

/// The recorded errors of all open operations, joined. Every node can read them.
pub(crate) async fn told(tenantry: &Tenantry) -> String {
    let open = tenantry.operations().open().await.unwrap();
    open.iter().filter_map(|o| o.error.clone()).collect::<Vec<_>>().join("; ")
}

/// The recorded error and outputs of one operation that has ended.
async fn recorded_error(harness: &Harness, id: Option<tenantry::OperationId>) -> String {
    const ERROR: &str = "SELECT coalesce(error, '') || outputs::text FROM tenantry.operations WHERE id = $1";
    let id = id.expect("the error carries no operation id").as_uuid();
    sqlx::query_scalar(ERROR).bind(id).fetch_one(harness.landlord()).await.unwrap()
}

/// Runs recovery until no operation is open.
pub(crate) async fn recovered(tenantry: &Tenantry) {
    for _ in 0..300 {
        tenantry.operations().recover().await.unwrap();
        if tenantry.operations().open().await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("operations are still open after 15 s: {:?}", tenantry.operations().open().await);
}

/// Purges a tenant that an obstacle blocks: the operation stays open for recovery, and its error contains `for_what`.
async fn assert_purge_waits(tenantry: &Tenantry, slug: &str, for_what: &str) {
    let error = tenantry.purge(slug).force().await.unwrap_err();
    let ChangeError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!(failure.state, FailureState::Continuing, "{failure:?}");
    assert!(failure.retry_after.is_some(), "{failure:?}");
    let errors = told(tenantry).await;
    assert!(errors.contains(for_what), "the error does not name {for_what:?}: {errors}");
}

#[tokio::test]
async fn purge_names_what_blocks_drop_database_and_ends_once_it_is_gone() {
    let Some(server) = server(&[("max_prepared_transactions", "10"), ("wal_level", "logical")]).await else { return };
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let tenantry = harness.tenantry(impatient).await.unwrap();
    for slug in ["session", "prepared", "slot"] {
        tenantry.provision(slug).await.unwrap();
    }
    let inside = async |slug| -> PgConnection {
        let database = auditor::login(&tenantry, slug).await.get_database().unwrap().to_owned();
        harness.server().admin_options().database(&database).connect().await.unwrap()
    };
    let (session, mut prepared, mut slot) = (inside("session").await, inside("prepared").await, inside("slot").await);
    // DROP DATABASE drops inactive slots with the database. It fails while a slot is active; the error names its
    // session.
    slot.execute("SELECT pg_create_logical_replication_slot('stuck', 'pgoutput')").await.unwrap();
    slot.close().await.unwrap();
    prepared.execute("BEGIN; CREATE TABLE mine (n int); PREPARE TRANSACTION 'a stranger''s'").await.unwrap();
    prepared.close().await.unwrap();

    assert_purge_waits(&tenantry, "session", "(postgres)").await;
    session.close().await.unwrap();
    recovered(&tenantry).await;
    assert_purge_waits(&tenantry, "prepared", "a stranger's").await;
    roll_back_prepared(&harness).await;
    recovered(&tenantry).await;
    tenantry.purge("slot").force().await.unwrap();
    assert_nothing(&harness, "after all obstacles were removed").await;
}

/// The path of `pg_recvlogical`, which follows a replication slot. `None`, with a note in the output, if it is not
/// installed.
fn recvlogical() -> Option<std::path::PathBuf> {
    let named = std::env::var_os("TENANTRY_TEST_PG_BIN").map(std::path::PathBuf::from).into_iter();
    let packaged = (15..=18).map(|version| format!("/usr/lib/postgresql/{version}/bin").into());
    let found = named.chain(packaged).map(|bin| bin.join("pg_recvlogical")).find(|path| path.exists());
    if found.is_none() {
        println!("!!! SKIPPED: pg_recvlogical is not installed, so no slot can be followed !!!");
    }
    found
}

#[tokio::test]
async fn purge_waits_for_an_active_replication_slot() {
    let Some(program) = recvlogical() else { return };
    let Some(server) = server(&[("wal_level", "logical")]).await else { return };
    let harness = Harness::on(Box::leak(Box::new(server))).await.unwrap();
    let tenantry = harness.tenantry(impatient).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let database = auditor::login(&tenantry, "acme").await.get_database().unwrap().to_owned();
    let mut admin = auditor::superuser(&harness).await;
    admin.execute("CREATE ROLE follower SUPERUSER REPLICATION LOGIN PASSWORD 'of this test alone'").await.unwrap();
    let options = harness.server().admin_options();
    let mut follower = Command::new(program)
        .args(["-h", options.get_host(), "-p", &options.get_port().to_string(), "-U", "follower", "-d", &database])
        // Built into every server.
        .args(["--slot", "followed", "--create-slot", "--start", "-f", "/dev/null", "-n", "-P", "pgoutput"])
        .args(["-o", "proto_version=1", "-o", "publication_names=nobodys"])
        .env("PGPASSWORD", "of this test alone")
        .spawn()
        .unwrap();
    const ACTIVE: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = 'followed' AND active)";
    while !sqlx::query_scalar::<_, bool>(ACTIVE).fetch_one(&mut admin).await.unwrap() {
        assert!(follower.try_wait().unwrap().is_none(), "pg_recvlogical ended before its slot was active");
        tokio::task::yield_now().await;
    }
    assert_purge_waits(&tenantry, "acme", "(follower)").await;
    follower.kill().unwrap();
    follower.wait().unwrap();
    recovered(&tenantry).await;
    assert_nothing(&harness, "after the slot became inactive").await;
}

/// Rolls the prepared transaction back. That needs a session in its database, to which the purge has forbidden
/// connections, so a superuser allows them again.
async fn roll_back_prepared(harness: &Harness) {
    const WHERE: &str = "SELECT database::text FROM pg_prepared_xacts WHERE gid = 'a stranger''s'";
    let mut admin = auditor::superuser(harness).await;
    let database: String = sqlx::query_scalar(WHERE).fetch_one(&mut admin).await.unwrap();
    sqlx::query("UPDATE pg_database SET datallowconn = true WHERE datname = $1")
        .bind(&database)
        .execute(&mut admin)
        .await
        .unwrap();
    let mut inside = harness.server().admin_options().database(&database).connect().await.unwrap();
    inside.execute("ROLLBACK PREPARED 'a stranger''s'").await.unwrap();
    inside.close().await.unwrap();
}

#[tokio::test]
async fn operations_on_a_server_without_free_connections_are_retried() {
    let Some(small) = server(&[("max_connections", "16")]).await else { return };
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry_on(&small, impatient).await.unwrap();
    tenantry.provision("before").await.unwrap();
    let mut admin = small.admin_options().connect().await.unwrap();
    admin.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'").await.unwrap();
    let guest = small.admin_options().username("guest").password("guest");
    let mut guests = vec![];
    let full = loop {
        match guest.connect().await {
            Ok(session) => guests.push(session),
            Err(error) => break auditor::code(&error),
        }
    };
    assert_eq!(full, "53300");

    let error = tenantry.provision("late").await.unwrap_err();
    // The operation has created nothing on the server yet, so it is undone at once instead of waiting.
    assert!(matches!(&error, ProvisionError::Failed(f) if f.state == FailureState::Undone), "{error:?}");
    assert!(recorded_error(&harness, error.operation_id()).await.contains("53300"));
    let error = tenantry.suspend("before").await.unwrap_err();
    assert!(matches!(&error, ChangeError::Failed(f) if f.state == FailureState::Continuing), "{error:?}");
    assert!(told(&tenantry).await.contains("53300"), "{}", told(&tenantry).await);
    drop(guests);
    recovered(&tenantry).await;
    let before = tenantry.registry().find("before".into()).await.unwrap().unwrap();
    assert_eq!(before.status(), tenantry::tenant::TenantStatus::Suspended);
    tenantry.provision("late").await.unwrap();
    for slug in ["before", "late"] {
        tenantry.purge(slug).force().await.unwrap();
    }
    assert_eq!(auditor::landlord_only(harness.landlord()).await, Vec::<String>::new());
    tenantry.close().await;
    small.stop().await.unwrap();
}

/// A tmpfs of a few megabytes for the files of databases. Dropping it unmounts it.
struct SmallDisk(std::path::PathBuf);
impl SmallDisk {
    /// `None`, with a note in the output, where this process may not mount a tmpfs.
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("tenantry-small-disk-").tempdir().unwrap().keep();
        let run = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).arg(&directory).status().is_ok_and(|status| status.success())
        };
        if !run("mount", &["-t", "tmpfs", "-o", size, "tenantry"]) {
            println!("!!! SKIPPED: a tmpfs cannot be mounted here: A FULL DISK IS UNTESTED !!!");
            let _ = std::fs::remove_dir(&directory);
            return None;
        }
        let disk = Self(directory.clone());
        assert!(run("chown", &["postgres"]) || run("chown", &["nobody"]), "neither account can own the tmpfs");
        Some(disk)
    }
    /// Writes a file until no space is left.
    fn fill(&self) {
        let zeros = format!("of={}", self.0.join("ballast").display());
        let _ = Command::new("dd").args(["if=/dev/zero", "bs=64k", "status=none"]).arg(zeros).output();
    }
    /// Removes that file.
    fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn full_disk_is_named_and_operations_end_once_space_is_free() {
    let server = TestServer::builder().start().await.unwrap();
    if !matches!(server.kind(), ServerKind::Local { .. }) {
        println!("!!! SKIPPED: only the disk of a local server can be filled: A FULL DISK IS UNTESTED HERE !!!");
        return;
    }
    let Some(disk) = SmallDisk::mount("size=30m") else { return };
    let mut admin = server.admin_options().connect().await.unwrap();
    // A new database is created in the tablespace of its template, `template0`.
    #[expect(clippy::disallowed_methods, reason = "a path of the test's own")]
    let small = sqlx::AssertSqlSafe(format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display()));
    admin.execute(small).await.unwrap();
    admin.execute("ALTER DATABASE template0 SET TABLESPACE small").await.unwrap();
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry_on(&server, impatient).await.unwrap();
    tenantry.provision("first").await.unwrap();
    disk.fill();

    let error = tenantry.provision("second").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert!(matches!(failure.state, FailureState::Undone | FailureState::Undoing), "{failure:?}");
    let recorded = recorded_error(&harness, error.operation_id()).await;
    assert!(recorded.contains("53100"), "{recorded}");
    let purged = tenantry.purge("first").force().await;
    if let Err(error) = &purged {
        assert!(matches!(error, ChangeError::Failed(f) if f.state == FailureState::Continuing), "{error:?}");
        // DROP DATABASE begins with a checkpoint. On a full disk PostgreSQL reports its failure as XX000 (internal
        // error).
        let errors = told(&tenantry).await;
        let is_disk_full = errors.contains("XX000") || errors.contains("53100");
        assert!(errors.contains("dropping the database") && is_disk_full, "{errors}");
    }
    disk.free();
    recovered(&tenantry).await;
    tenantry.provision("second").await.unwrap();
    tenantry.purge("second").force().await.unwrap();
    assert_eq!(auditor::landlord_only(harness.landlord()).await, Vec::<String>::new());
    tenantry.close().await;
    server.stop().await.unwrap();
}
