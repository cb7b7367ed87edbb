//! A set-up makes the server usable again: it repairs the provisioner's logins, ends an operation that could not log in,
//! and names a session that blocks it.
use super::bare;
use crate::auditor;
use crate::provision::{migrated, statement_of};
use sqlx::{ConnectOptions, Connection, Executor};
use std::time::{Duration, Instant};
use tenantry::error::ServerSetupError;
use tenantry::operation::OperationStatus;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// Runs these clauses of ALTER ROLE (or `DROP`) for the logins with these suffixes.
async fn damage(harness: &Harness, logins: &[&str], clause: &str) {
    let mut server = auditor::superuser(harness).await;
    for login in logins {
        let role = format!("{}_{login}", harness.prefix());
        let statement =
            if clause == "DROP" { format!("DROP ROLE {role}") } else { format!("ALTER ROLE {role} {clause}") };
        server.execute(statement_of(statement)).await.unwrap();
    }
}

async fn set_up(harness: &Harness, tenantry: &Tenantry) -> Result<(), ServerSetupError> {
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.map(drop)
}

#[tokio::test]
async fn set_up_repairs_both_logins_whatever_keeps_them_out() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let clauses =
        ["PASSWORD 'other'", "NOLOGIN", "VALID UNTIL '2020-01-01'", "CONNECTION LIMIT 0", "RESET role", "DROP"];
    for (n, clause) in clauses.into_iter().enumerate() {
        damage(&harness, &["blue", "green"], clause).await;
        set_up(&harness, &tenantry).await.unwrap_or_else(|error| panic!("{clause}: {error:?}"));
        let slug = format!("tenant-{n}");
        tenantry.provision(slug.as_str()).await.unwrap_or_else(|error| panic!("after {clause}: {error:?}"));
    }
    damage(&harness, &["admin"], "NOCREATEDB NOCREATEROLE").await;
    set_up(&harness, &tenantry).await.unwrap();
    tenantry.provision("last").await.expect("the admin role did not get its rights back");
    tenantry.rotate_server("main").await.expect("the repaired logins cannot be rotated");
}

/// With both logins broken the rotation cannot be undone; with the one in use broken it parks after its pivot step.
#[tokio::test]
async fn set_up_ends_a_rotation_that_could_not_log_in() {
    for (broken, ended) in [(&["blue", "green"][..], OperationStatus::Undone), (&["blue"], OperationStatus::Done)] {
        let harness = Harness::start().await.unwrap();
        let tenantry = harness.tenantry(migrated).await.unwrap();
        tenantry.provision("acme").await.unwrap();
        damage(&harness, broken, "PASSWORD 'other'").await;
        tenantry.rotate_server("main").await.expect_err("a rotation logged in with a password that does not exist");
        let open = tenantry.operations().open().await.unwrap();
        let [rotation] = open.readable.as_slice() else { panic!("{broken:?}: {open:?}") };
        set_up(&harness, &tenantry).await.unwrap_or_else(|error| panic!("{broken:?}: {error:?}"));
        let status = tenantry.operations().get(rotation.id).await.unwrap().unwrap().status;
        assert_eq!(status, ended, "{broken:?}");
        assert!(tenantry.operations().open().await.unwrap().readable.is_empty());
        tenantry.rotate_server("main").await.expect("the server cannot be rotated after the repair");
        tenantry.suspend("acme").await.unwrap();
        tenantry.provision("other").await.unwrap();
    }
}

#[tokio::test]
async fn set_up_names_the_session_that_blocks_it_and_succeeds_after_that_has_ended() {
    let server = TestServer::builder().local_only().start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = || server.admin_options();
    let mut blocker = admin().application_name("nightly backup").connect().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut blocker).await.unwrap();
    // It grants what the role has: nothing changes, but the row of the database is locked.
    blocker.execute("BEGIN; GRANT CONNECT ON DATABASE postgres TO postgres").await.unwrap();
    let call = || tenantry.servers().set_up("main", admin()).prefix(harness.prefix()).close_shared(true);
    let begun = Instant::now();
    let error = call().await.unwrap_err();
    let ServerSetupError::Blocked { by, .. } = &error else { panic!("{error:?}") };
    for expected in [&format!("process {pid} "), "nightly backup", "user postgres", "transaction since 2"] {
        assert!(by.contains(expected), "{expected} is missing: {by}");
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "the set-up waited for {:?}", begun.elapsed());
    assert!(tenantry.operations().open().await.unwrap().readable.is_empty());
    blocker.execute("ROLLBACK").await.unwrap();
    let report = call().await.unwrap();
    assert!(report.server.ready && report.left_open.is_empty(), "{report:?}");
    blocker.close().await.unwrap();
}
