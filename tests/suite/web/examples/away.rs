//! The web examples while the landlord is unreachable, and after it has come back.
//!
//! A fault proxy in front of the landlord cuts all connections.
use super::site::{self, Site};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tenantry::Tenantry;
use tenantry::sqlx::postgres::{PgPoolOptions, PgSslMode};
use tenantry::testing::Harness;
use tenantry::testing::proxy::{Director, Point, Proxy, Verdict};

/// Cuts every message while the flag is set.
#[derive(Clone, Default)]
struct LandlordOutage(Arc<AtomicBool>);
#[async_trait::async_trait]
impl Director for LandlordOutage {
    async fn at(&self, _: Point) -> Verdict {
        if self.0.load(SeqCst) { Verdict::Cut } else { Verdict::Forward }
    }
}

const FORM: &str = "company=Acme&email=ada%40acme.example&slug=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_answer_503_and_serve_cached_tenants_while_the_landlord_is_unreachable() {
    let harness = Harness::start().await.unwrap();
    let (options, outage) = (harness.landlord().connect_options(), LandlordOutage::default());
    let upstream = tokio::net::lookup_host((options.get_host(), options.get_port())).await.unwrap().next().unwrap();
    let proxy = Proxy::start(upstream, outage.clone()).await.unwrap();
    let options = (*options).clone().host("127.0.0.1").port(proxy.port()).ssl_mode(PgSslMode::Disable);
    let landlord = PgPoolOptions::new().acquire_timeout(Duration::from_secs(3)).connect_lazy_with(options);
    let builder = Tenantry::builder(landlord).keys(harness.keys().clone()).tenant_migrations(&site::MIGRATIONS);
    let tenantry = builder.build().await.unwrap();
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
    let link = tenantry.provision("acme").admin("ada@acme.example").await.unwrap().link.unwrap().expose_path();
    for (site, slug) in [(Site::axum(&tenantry).await, "by-axum"), (Site::actix(&tenantry).await, "by-actix")] {
        let stranger = format!("stranger-{slug}");
        let (bare, host, form) = (site.host(""), site.host("acme"), format!("{FORM}{slug}"));
        assert_eq!(site.get(&host, "/health", "").await.status, 200);
        outage.0.store(true, SeqCst);
        proxy.cut_all();
        assert_eq!(site.get(&bare, "/", "").await.status, 200);
        assert_eq!(site.get(&host, "/health", "").await.status, 200, "the tenant is cached and its database answers");
        for answer in [
            site.post(&bare, "/signup", "", &form).await,
            site.get(&site.host(&stranger), "/notes", "").await,
            site.get(&host, &link, "").await,
            site.post(&host, &link, "", "").await,
        ] {
            assert!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
        }
        outage.0.store(false, SeqCst);
        assert_eq!(
            site.get(&site.host(&stranger), "/notes", "").await.status,
            404,
            "an unknown tenant, right after the landlord has come back"
        );
        assert_eq!(site.get(&host, &link, "").await.status, 200, "the link is valid after the outage");
        assert_eq!(site.post(&bare, "/signup", "", &form).await.status, 303);
        site.stop().await;
    }
    tenantry.close().await;
    proxy.stop().await;
}
