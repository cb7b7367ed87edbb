//! Options of `set_up` (prefix, weight, labels, address, closed databases) and their effect on the placement of
//! tenants.
//!
//! A repeated set-up changes the options that it names and keeps the others.
use super::bare;
use crate::auditor::{self, code};
use crate::provision::migrated;
use serde_json::json;
use sqlx::{ConnectOptions, Executor};
use tenantry::error::ServerSetupError;
use tenantry::names::ServerName;
use tenantry::registry::{PgTenantRegistry, ServerRegistry, TenantRegistry};
use tenantry::server::{DatabaseServer, TlsMode};
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// The stored row of a server.
async fn stored(harness: &Harness, name: &str) -> DatabaseServer {
    let registry = PgTenantRegistry::new(harness.landlord().clone());
    let name: ServerName = name.parse().unwrap();
    registry.server(&name).await.unwrap().expect("a server").server
}

#[tokio::test]
async fn repeated_set_up_changes_only_the_options_that_it_names() {
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
    assert_eq!(stored(&harness, "main").await, before, "a set-up without options changed the stored row");
    set_up().weight(5).labels(json!(["ssd"])).await.unwrap();
    let mut after = before;
    (after.weight, after.labels) = (5, json!(["ssd"]));
    assert_eq!(stored(&harness, "main").await, after);
}

/// With another prefix, the roles that exist on the server would no longer be recognised.
#[tokio::test]
async fn set_up_refuses_another_prefix_for_a_ready_server() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let before = stored(&harness, "main").await;
    let other = format!("{}_x", harness.prefix());
    let set_up = tenantry.servers().set_up("main", harness.server().admin_options());
    let error = set_up.prefix(&other).await.unwrap_err();
    assert!(matches!(&error, ServerSetupError::Invalid { field: "prefix", value, .. } if *value == other), "{error:?}");
    assert_eq!(stored(&harness, "main").await, before);
    tenantry.provision("acme").await.expect("provision failed after a refused set-up");
}

#[tokio::test]
async fn tenant_entries_use_the_given_address() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = harness.server().admin_options().host("127.0.0.1");
    let port = admin.get_port();
    let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
    set_up.address("localhost", port).await.unwrap();
    let provisioned = tenantry.provision("acme").await.unwrap();
    let entry = tenantry.registry().primary(provisioned.tenant.id()).await.unwrap().unwrap();
    assert_eq!((entry.host.as_str(), entry.port), ("localhost", port));
    tenantry.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}

/// The name of the server on which the tenant's primary database is.
async fn server_of(tenantry: &Tenantry, slug: &str) -> String {
    let tenant = tenantry.registry().find(slug.into()).await.unwrap().unwrap();
    tenantry.registry().primary(tenant.id()).await.unwrap().unwrap().server.unwrap().to_string()
}

#[tokio::test]
async fn placement_follows_weight_labels_and_the_caller() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let big = tenantry.servers().set_up("big", harness.server().admin_options());
    big.prefix(format!("{}_b", harness.prefix())).weight(3).labels(json!({ "region": "us" })).await.unwrap();
    for n in 0..4 {
        tenantry.provision(format!("acme-{n}")).await.unwrap();
    }
    let tenants = async || tenantry.servers().list().await.unwrap().iter().map(|s| s.tenants).collect::<Vec<_>>();
    assert_eq!(tenants().await, [3, 1], "tenants per server do not follow the weights 3 and 1");
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

/// On a server of its own, because other tests rely on PUBLIC's right to connect to the shared databases.
#[tokio::test]
async fn close_shared_revokes_public_connect_on_shared_databases() {
    let server: &'static TestServer = Box::leak(Box::new(TestServer::builder().start().await.unwrap()));
    let harness = Harness::on(server).await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    login.clone().database("postgres").connect().await.expect("PUBLIC cannot connect before close_shared");
    let closing = tenantry.servers().set_up("main", server.admin_options()).close_shared(true);
    let report = closing.await.unwrap();
    assert_eq!(report.left_open, Vec::<String>::new());
    for database in ["postgres", "template1"] {
        assert_eq!(code(&login.clone().database(database).connect().await.unwrap_err()), "42501", "{database}");
    }
    tenantry
        .resolve("acme")
        .await
        .unwrap()
        .execute("SELECT 1 FROM notes")
        .await
        .expect("the tenant's own database was closed too");
}
