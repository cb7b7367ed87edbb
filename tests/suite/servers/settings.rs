//! What a host says of a server, and what becomes of it.
use super::bare;
use crate::auditor::{self, code};
use crate::provision::migrated;
use serde_json::json;
use sqlx::{ConnectOptions, Executor};
use tenantry::error::ServerSetupError;
use tenantry::names::ServerName;
use tenantry::registry::{PgTenantRegistry, ServerRegistry, TenantRegistryExt};
use tenantry::server::{DatabaseServer, TlsMode};
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

async fn stored(harness: &Harness, name: &str) -> DatabaseServer {
    let registry = PgTenantRegistry::new(harness.landlord().clone());
    let name: ServerName = name.parse().unwrap();
    registry.server(&name).await.unwrap().expect("a server").server
}

#[tokio::test]
async fn a_repetition_changes_what_it_names_and_nothing_else() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let set_up = || tenantry.servers().set_up("main", harness.server().admin_options());
    let first = set_up().prefix(harness.prefix()).tls(TlsMode::Disable).capacity(7).weight(3).max_connections(33);
    first.labels(json!({ "region": "eu" })).await.unwrap();
    tenantry.servers().drain("main").await.unwrap();
    tenantry.provision("acme").await.unwrap_err();
    let before = stored(&harness, "main").await;
    assert_eq!((before.capacity, before.weight, before.max_connections), (7, 3, 33));
    assert_eq!((before.tls, &before.labels, before.draining), (TlsMode::Disable, &json!({ "region": "eu" }), true));
    set_up().await.unwrap();
    assert_eq!(stored(&harness, "main").await, before, "it named nothing");
    set_up().weight(5).labels(json!(["ssd"])).await.unwrap();
    let mut after = before;
    (after.weight, after.labels) = (5, json!(["ssd"]));
    assert_eq!(stored(&harness, "main").await, after);
}

/// Its roles and its tenants would be nobody's.
#[tokio::test]
async fn a_server_that_is_ready_keeps_its_prefix() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let before = stored(&harness, "main").await;
    let other = format!("{}_x", harness.prefix());
    let set_up = tenantry.servers().set_up("main", harness.server().admin_options());
    let error = set_up.prefix(&other).await.unwrap_err();
    assert!(matches!(&error, ServerSetupError::Invalid { field: "prefix", value, .. } if *value == other), "{error:?}");
    assert_eq!(stored(&harness, "main").await, before);
    tenantry.provision("acme").await.expect("it works as before");
}

#[tokio::test]
async fn the_application_goes_to_the_address_that_was_given() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = harness.server().admin_options().host("127.0.0.1");
    let port = admin.get_port();
    let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
    set_up.address("localhost", port).await.unwrap();
    let made = tenantry.provision("acme").await.unwrap();
    let entry = tenantry.registry().primary(made.tenant.id()).await.unwrap().unwrap();
    assert_eq!((entry.host.as_str(), entry.port), ("localhost", port));
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}

async fn server_of(tenantry: &Tenantry, slug: &str) -> String {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
    tenantry.registry().primary(tenant.id()).await.unwrap().unwrap().server.unwrap().to_string()
}

#[tokio::test]
async fn tenants_go_where_weight_labels_and_the_caller_say() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let big = tenantry.servers().set_up("big", harness.server().admin_options());
    big.prefix(format!("{}_b", harness.prefix())).weight(3).labels(json!({ "region": "us" })).await.unwrap();
    for n in 0..4 {
        tenantry.provision(format!("acme-{n}")).await.unwrap();
    }
    let tenants = async || tenantry.servers().list().await.unwrap().iter().map(|s| s.tenants).collect::<Vec<_>>();
    assert_eq!(tenants().await, [3, 1], "three times the weight, three times the tenants");
    tenantry.provision("here").server("main").await.unwrap();
    tenantry.provision("here-too").server("main").await.unwrap();
    assert_eq!((server_of(&tenantry, "here").await, tenants().await), ("main".into(), vec![3, 3]));

    let in_us = |b| {
        migrated(b)
            .placement(|_, candidates| candidates.iter().find(|c| c.labels["region"] == "us").map(|c| c.server.clone()))
    };
    let by_label =
        in_us(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone())).build().await.unwrap();
    for n in 4..6 {
        let slug = format!("acme-{n}");
        by_label.provision(slug.as_str()).await.unwrap();
        assert_eq!(server_of(&tenantry, &slug).await, "big");
    }
}

/// On a server of its own: others live on PUBLIC's right.
#[tokio::test]
async fn shared_databases_are_closed_if_the_host_says_so() {
    let server: &'static TestServer = Box::leak(Box::new(TestServer::builder().start().await.unwrap()));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    login.clone().database("postgres").connect().await.expect("open, as the report says");
    let closing = tenantry.servers().set_up("main", server.admin_options()).close_shared(true);
    let report = closing.await.unwrap();
    assert_eq!(report.left_open, Vec::<String>::new());
    for database in ["postgres", "template1"] {
        assert_eq!(code(&login.clone().database(database).connect().await.unwrap_err()), "42501", "{database}");
    }
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.expect("its own stays open");
}
