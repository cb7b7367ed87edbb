//! Tracing of the pool: spans and events name the tenant of a connection and contain no password.
//!
//! A query that finds an idle connection must not create a span.
use super::sessions::ResolverSetup;
use crate::canary::Log;
use sqlx::ConnectOptions;
use tenantry::{ConnectionResolver, TenantPool, sqlx};
use tracing_subscriber::fmt::format::FmtSpan;

async fn run_query(db: &TenantPool) {
    sqlx::query("SELECT 1").execute(db).await.unwrap();
}

#[tokio::test]
async fn pool_traces_name_the_tenant_and_contain_no_password() {
    // With a single dispatcher, `tracing` caches the interest of the thread that reaches a callsite first. A test that
    // runs in parallel without a subscriber would disable the callsite for this test too.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let subscriber = subscriber.with_span_events(FmtSpan::NEW | FmtSpan::CLOSE);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let world = ResolverSetup::new().await;
    let databases = [world.tenant("acme").await, world.tenant("globex").await];
    // A ping would create a span of its own, and on a slow machine one would be due between two queries.
    let resolver =
        world.resolver().max_connections(1).pool(|p| p.ping_after(std::time::Duration::from_secs(60))).build();
    let acme = resolver.resolve("acme".into()).await.unwrap();
    let globex = resolver.resolve("globex".into()).await.unwrap();
    run_query(&acme).await;
    run_query(&globex).await;
    let before = log.text();
    run_query(&globex).await;
    let hit_log = log.text()[before.len()..].to_owned();
    assert!(!hit_log.contains("tenantry::pool"), "a query on an idle connection was traced: {hit_log}");
    resolver.close().await;

    let (text, acme, globex) = (log.text(), acme.tenant().id(), globex.tenant().id());
    for id in [acme, globex] {
        for (span, module) in [("wait for the budget", "acquire"), ("open a connection", "server")] {
            let begins = format!("acquire{{tenant={id}}}:{span}: ");
            let ends = format!("tenantry::pool::budget::{module}: close ");
            assert!(
                text.lines().any(|l| l.contains(&begins) && l.contains(&ends)),
                "the log has no line with {begins:?} and {ends:?}: {text}"
            );
        }
    }
    for (id, why) in [(acme, "another tenant needs its slot"), (globex, "its tenant was evicted, changed or closed")] {
        let event = format!("a connection is closed tenant={id} why=\"{why}\"");
        assert!(text.contains(&event), "the log has no event {event:?}: {text}");
    }
    for database in databases {
        let password = database.options().to_url_lossy().password().unwrap().to_owned();
        assert!(!text.contains(&password), "the log contains a password");
    }
}
