//! What is told of connections: whose, and no secret.
use super::sessions::World;
use crate::canary::Log;
use sqlx::ConnectOptions;
use tenantry::{ConnectionResolver, TenantPool, sqlx};
use tracing_subscriber::fmt::format::FmtSpan;

async fn ask(db: &TenantPool) {
    sqlx::query("SELECT 1").execute(db).await.unwrap();
}

#[tokio::test]
async fn it_is_told_which_tenant_waits_and_whose_connection_is_closed_and_never_a_password() {
    // While there is one alone, `tracing` asks only the thread that comes first whether anybody listens: a test beside
    // this one would answer no for all.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let subscriber = subscriber.with_span_events(FmtSpan::NEW | FmtSpan::CLOSE);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let world = World::new().await;
    let made = [world.tenant("acme").await, world.tenant("globex").await];
    // A ping between two queries would be a span of its own; on a loaded machine one is due.
    let resolver = world.resolver().max_connections(1).ping_after(std::time::Duration::from_secs(60)).build();
    let acme = resolver.resolve("acme".into()).await.unwrap();
    let globex = resolver.resolve("globex".into()).await.unwrap();
    ask(&acme).await;
    ask(&globex).await;
    let before = log.text();
    ask(&globex).await;
    let of_a_hit = log.text()[before.len()..].to_owned();
    assert!(!of_a_hit.contains("tenantry::resolver"), "a hit is not told of: {of_a_hit}");
    resolver.close().await;

    let (text, acme, globex) = (log.text(), acme.tenant().id(), globex.tenant().id());
    for id in [acme, globex] {
        for span in ["wait for the budget", "open a connection"] {
            let (begins, ends) =
                (format!("acquire{{tenant={id}}}:{span}: "), "tenantry::resolver::budget::server: close ");
            assert!(text.lines().any(|l| l.contains(&begins) && l.contains(ends)), "{begins}{ends} in {text}");
        }
    }
    for (id, why) in [(acme, "another tenant needs its place"), (globex, "its tenant was forgotten, changed or closed")]
    {
        let told = format!("a connection is closed tenant={id} why=\"{why}\"");
        assert!(text.contains(&told), "{told} in {text}");
    }
    for made in made {
        let password = made.options().to_url_lossy().password().unwrap().to_owned();
        assert!(!text.contains(&password), "a password is told");
    }
}
