//! A set-up that dies anywhere: the same call, made again, ends it.
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

/// The piece alone, in a process whose journal does not answer for a while.
pub(super) fn unlucky(harness: &Harness, tenantry: &Tenantry, outage: Outage) -> (Servers, Arc<Failing>) {
    let journal = Failing::new(Arc::new(PgJournal::new(harness.landlord().clone())), outage);
    let mut settings = Settings::default();
    (settings.lease, settings.attempts) = (Duration::from_millis(500), 2);
    (settings.backoff, settings.backoff_limit) = (Duration::from_millis(1), Duration::from_millis(5));
    let engine = Engine::new(journal.clone(), vec![], settings, CancellationToken::new());
    (Servers::new(tenantry.workshop(), engine, harness.landlord().clone()), journal)
}

async fn until_it_is_free(tenantry: &Tenantry, harness: &Harness, name: &str, prefix: &str) -> ServerSetupReport {
    for _ in 0..200 {
        match tenantry.servers().set_up(name, harness.server().admin_options()).prefix(prefix).await {
            Err(ServerSetupError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            done => return done.unwrap(),
        }
    }
    panic!("{name} stays busy")
}

#[tokio::test]
async fn a_set_up_that_died_anywhere_is_ended_by_the_next_call() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let mut n = 0;
    loop {
        n += 1;
        let (name, prefix) = (format!("s{n}"), format!("{}_{n}", harness.prefix()));
        let (servers, journal) = unlucky(&harness, &tenantry, Outage::of(n..u32::MAX, Lost::Call).only("record"));
        let died = servers.set_up(&name, harness.server().admin_options()).prefix(&prefix).await;
        if journal.hit().is_empty() {
            died.expect("nothing happened to it");
            break;
        }
        assert!(died.is_err(), "{n}");
        assert!(until_it_is_free(&tenantry, &harness, &name, &prefix).await.server.ready, "{n}");
        let made = tenantry.provision(format!("acme-{n}")).server(&name).await;
        made.unwrap_or_else(|e| panic!("{n}: {e:?}"));
    }
    assert!(n > 8, "a set-up has nine steps");
    assert!(tenantry.operations().open().await.unwrap().is_empty());
}

/// A repetition that fails and is undone takes nothing away that was there before.
#[tokio::test]
async fn a_failed_repetition_leaves_a_ready_server_ready() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    for n in 1..5 {
        let (servers, journal) = unlucky(&harness, &tenantry, Outage::of(n..n + 2, Lost::Call).only("record"));
        servers.set_up("main", harness.server().admin_options()).weight(9).await.unwrap_err();
        assert_eq!(journal.hit().len(), 2);
        let main = &tenantry.servers().list().await.unwrap()[0];
        assert!(main.ready, "{n}: {main:?}");
        let slug = format!("acme-{n}");
        tenantry.provision(slug.as_str()).await.unwrap_or_else(|e| panic!("{n}: {e:?}"));
        tenantry.resolve(slug.as_str()).await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
    }
}
