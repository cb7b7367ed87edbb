//! A set-up whose process dies at any journal write: the same call, made again, completes it.
//!
//! [`servers_with_outage`] also serves `relocate`: it gives a `Servers` whose journal fails from a chosen call on.
use super::bare;
use crate::engine::failing::{Failing, Lost, Outage};
use crate::provision::migrated;
use sqlx::Executor;
use std::sync::Arc;
use std::time::Duration;
use tenantry::error::ServerSetupError;
use tenantry::journal::PgJournal;
use tenantry::saga::{Engine, Settings};
use tenantry::servers::{ServerSetupReport, Servers};
use tenantry::testing::Harness;
use tenantry::{Tenantry, sqlx};
use tokio_util::sync::CancellationToken;

/// A `Servers` of its own whose journal has this outage, as in a process that dies. The journal reports which calls it
/// failed.
pub(super) fn servers_with_outage(harness: &Harness, tenantry: &Tenantry, outage: Outage) -> (Servers, Arc<Failing>) {
    let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
    let mut settings = Settings::default();
    (settings.lease, settings.attempts) = (Duration::from_millis(500), 2);
    (settings.backoff, settings.backoff_limit) = (Duration::from_millis(1), Duration::from_millis(5));
    let engine = Engine::new(journal.clone(), vec![], settings, CancellationToken::new());
    (Servers::new(tenantry.operation_context(), engine, harness.landlord().clone()), journal)
}

/// Repeats the set-up until the lease of the dead process has expired and the server's lane is free.
async fn set_up_when_free(tenantry: &Tenantry, harness: &Harness, name: &str, prefix: &str) -> ServerSetupReport {
    for _ in 0..200 {
        match tenantry.servers().set_up(name, harness.server().admin_options()).prefix(prefix).await {
            Err(ServerSetupError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            done => return done.unwrap(),
        }
    }
    panic!("the lane of server {name} is still busy after 10 s")
}

#[tokio::test]
async fn set_up_interrupted_at_any_write_is_completed_by_the_next_call() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let mut n = 0;
    loop {
        n += 1;
        let (name, prefix) = (format!("s{n}"), format!("{}_{n}", harness.prefix()));
        let (servers, journal) =
            servers_with_outage(&harness, &tenantry, Outage::of(n..u32::MAX, Lost::Call).only("record"));
        let interrupted = servers.set_up(&name, harness.server().admin_options()).prefix(&prefix).await;
        if journal.hit().is_empty() {
            interrupted.expect("set_up failed without an outage");
            break;
        }
        assert!(interrupted.is_err(), "set_up succeeded although the journal failed from write {n} on");
        assert!(
            set_up_when_free(&tenantry, &harness, &name, &prefix).await.server.ready,
            "interrupted at write {n}: not ready"
        );
        let provisioned = tenantry.provision(format!("acme-{n}")).server(&name).await;
        provisioned.unwrap_or_else(|e| panic!("interrupted at write {n}: {e:?}"));
    }
    assert!(n > 8, "a set-up writes at least nine records, but only {n} were interrupted");
    assert!(tenantry.operations().open().await.unwrap().is_empty());
}

/// A repeated set-up that fails and is undone must not remove what the first one created.
#[tokio::test]
async fn failed_repeated_set_up_leaves_the_server_ready() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for n in 1..5 {
        let (servers, journal) =
            servers_with_outage(&harness, &tenantry, Outage::of(n..n + 2, Lost::Call).only("record"));
        servers.set_up("main", harness.server().admin_options()).weight(9).await.unwrap_err();
        assert_eq!(journal.hit().len(), 2, "journal calls that failed");
        let main = &tenantry.servers().list().await.unwrap()[0];
        assert!(main.ready, "the server is not ready after a set-up that failed at write {n}: {main:?}");
        let slug = format!("acme-{n}");
        tenantry.provision(slug.as_str()).await.unwrap_or_else(|e| panic!("{n}: {e:?}"));
        tenantry.resolve(slug.as_str()).await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    }
}
