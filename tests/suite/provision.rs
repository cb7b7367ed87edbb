//! `provision`: it ends with a working database, or it fails and leaves nothing behind.
//!
//! Other modules use [`migrated`] to build a handle whose tenants have the migrations of the examples.
mod asked;

use crate::auditor::{self, assert_nothing, code};
use sqlx::{ConnectOptions, Executor};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{ClusterError, FailureState, ProvisionError, StoreError};
use tenantry::names::InvalidName;
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("examples/tenant_migrations");
static BROKEN: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/broken_migrations");

/// Configures the migrations of the examples, with a table `notes`.
pub(crate) fn migrated(builder: Builder) -> Builder {
    builder.tenant_migrations(&MIGRATIONS)
}

#[tokio::test]
async fn provision_creates_a_working_database_with_domain_and_link() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let events = Arc::new(Mutex::new(vec![]));
    let seen = events.clone();
    let call = tenantry.provision("acme").name("Acme Ltd").admin("ada@acme.example").domain("acme.example");
    let provisioned = call.on_event(move |e| seen.lock().unwrap().push((e.seq, e.done, e.total))).await.unwrap();

    let db = tenantry.resolve("acme").await.unwrap();
    sqlx::query("INSERT INTO notes (text) VALUES ('hello')").execute(&db).await.unwrap();
    let roles: (String, String) =
        sqlx::query_as("SELECT session_user::text, current_user::text").fetch_one(&db).await.unwrap();
    assert!(roles.0.ends_with("_v1") && roles.1.ends_with("_app"), "session_user and current_user: {roles:?}");
    assert_eq!(tenantry.resolve(provisioned.tenant.id()).await.unwrap().tenant(), &provisioned.tenant);
    let domain: tenantry::names::Domain = "acme.example".parse().unwrap();
    assert_eq!(tenantry.resolve(&domain).await.unwrap().tenant().name(), "Acme Ltd");

    let link = provisioned.link.expect("no link for the admin");
    assert!(link.expose_path().starts_with("/setup/credentials/tny_credentials_"));
    assert_eq!(
        tenantry.tokens().undelivered(provisioned.tenant.id()).await.unwrap().unwrap().expose_path(),
        link.expose_path()
    );
    tenantry.tokens().mark_delivered(link.id).await.unwrap();
    assert!(tenantry.tokens().undelivered(provisioned.tenant.id()).await.unwrap().is_none());

    let events = events.lock().unwrap().clone();
    let seqs: Vec<i64> = events.iter().map(|e| e.0).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>(), "sequence numbers of the events");
    assert_eq!(events.last().map(|e| (e.1, e.2)), events.last().map(|e| (e.2, e.2)));
}

#[tokio::test]
async fn domain_at_or_below_a_reserved_one_is_refused_before_anything_is_written() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).reserve_domain("Example.org")).await.unwrap();
    let acme = tenantry.provision("acme").domain("acme.example.com").await.unwrap().tenant.id();
    let registry = tenantry.registry_writer();
    for domain in ["example.org", "umbrella.example.org"] {
        let refused = tenantry.provision("umbrella").domain(domain).await.unwrap_err();
        let ProvisionError::Invalid { field: "domain", source: InvalidName::Reserved(of), .. } = &refused else {
            panic!("{domain}: {refused:?}")
        };
        assert_eq!(&**of, "example.org");
        let refused = registry.add_domain(acme, &domain.parse().unwrap(), None).await.unwrap_err();
        assert!(matches!(refused, StoreError::Refused(_)), "{domain}: {refused:?}");
    }
    assert_eq!(registry.domains(acme).await.unwrap(), ["acme.example.com".parse().unwrap()]);
    assert!(tenantry.resolve("umbrella").await.is_err(), "a refused provisioning has created a tenant");
}

#[tokio::test]
async fn names_with_invisible_characters_are_refused_with_their_field() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| migrated(b).database_name(|_, t| format!("t\u{200b}{t}"))).await.unwrap();
    let hidden = |error: ProvisionError| match error {
        ProvisionError::Invalid { field, source: InvalidName::Character { .. }, .. } => field,
        other => panic!("{other:?}"),
    };
    let call = |slug: &str| tenantry.provision(slug);
    assert_eq!(hidden(call("acme").name("Acme \u{202e}dtL").await.unwrap_err()), "name");
    assert_eq!(hidden(call("acme").admin("a\u{200d}da@acme.example").await.unwrap_err()), "admin");
    assert_eq!(hidden(call("acme").await.unwrap_err()), "database name");
}

#[tokio::test]
async fn default_database_names_do_not_contain_the_slug() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("verysecretcustomer").await.unwrap();
    let found = auditor::on_server(&harness).await;
    assert_eq!(found.len(), 4, "expected a database, an owner, an app role and a login: {found:?}");
    assert!(found.iter().all(|n| !n.contains("secret")), "{found:?}");
    const COMMENTS: &str = "SELECT coalesce(string_agg(description, ' '), '') FROM pg_shdescription";
    let comments: String =
        sqlx::query_scalar(COMMENTS).fetch_one(&mut auditor::superuser(&harness).await).await.unwrap();
    assert!(!comments.contains("secretcustomer"), "a comment on the server contains the slug: {comments}");
}

#[tokio::test]
async fn failed_migration_is_undone_and_the_same_key_can_be_retried() {
    let harness = Harness::start().await.unwrap();
    let broken = harness.tenantry(|b| b.tenant_migrations(&BROKEN)).await.unwrap();
    let error = broken.provision("acme").admin("ada@acme.example").key("form-1").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("migrations.run", FailureState::Undone));
    assert_eq!(error.operation_id(), Some(failure.operation));
    assert!(
        failure.cause.downcast_ref::<sqlx::migrate::MigrateError>().is_some(),
        "the cause is not a MigrateError: {failure:?}"
    );
    assert_nothing(&harness, "after a failed migration").await;
    assert_eq!(
        auditor::operations(harness.landlord(), "provision", "undone").await,
        1,
        "the undone operation is missing from the history"
    );

    let working = harness.tenantry(migrated).await.unwrap();
    let provisioned = working.provision("acme").admin("ada@acme.example").key("form-1").await.unwrap();
    assert_ne!(
        Some(provisioned.operation),
        error.operation_id(),
        "the key returned the undone operation instead of starting a new one"
    );
    working.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
}

#[tokio::test]
async fn invalid_input_is_refused_before_an_operation_begins() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let long = "a".repeat(64);
    for slug in
        ["Acme", "ас", "аcme", "ac", "-acme", "xn--acme", "www", "acme'; DROP", "ac\0me", "acme\n", long.as_str()]
    {
        let error = tenantry.provision(slug).await.unwrap_err();
        assert!(matches!(&error, ProvisionError::Invalid { field: "slug", value, .. } if value == slug), "{error:?}");
    }
    let error = tenantry.provision("acme").domain("acme").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "domain", source: InvalidName::Shape(_), .. }));
    let error = tenantry.provision("acme").admin("ada").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "admin", .. }));
    let error = tenantry.provision("acme").name("Acme\nLtd").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "name", .. }));
    let error = tenantry.provision("acme").metadata(serde_json::json!({ "a": ["\0"] })).await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "metadata", .. }), "{error:?}");
    let error = tenantry.provision("acme").server("nowhere").await.unwrap_err();
    assert!(matches!(error, ProvisionError::UnknownServer { .. }));
    let begun: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.operations WHERE kind = 'provision'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(begun, 0, "operations that were begun for invalid input");
}

#[tokio::test]
async fn database_name_with_quotes_and_spaces_works_in_every_operation() {
    let harness = Harness::start().await.unwrap();
    let configure = |b: Builder| migrated(b).database_name(|n, _| format!("Ö \"{}\" it's; --", n.slug));
    let tenantry = harness.tenantry(configure).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    tenantry.activate("acme").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
    assert_nothing(&harness, "after a purge").await;
}

#[tokio::test]
async fn database_name_over_63_bytes_is_a_typed_error() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.database_name(|_, _| "x".repeat(64))).await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "database name", .. }), "{error:?}");
    assert_nothing(&harness, "after an invalid database name").await;
}

#[tokio::test]
async fn provision_with_a_taken_domain_names_the_domain() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").domain("shop.example").await.unwrap();
    let before = auditor::landlord_only(harness.landlord()).await;
    let error = tenantry.provision("globex").domain("shop.example").await.unwrap_err();
    assert!(
        matches!(&error, ProvisionError::DomainTaken { domain, .. } if domain.as_str() == "shop.example"),
        "{error:?}"
    );
    assert_eq!(auditor::landlord_only(harness.landlord()).await, before);
}

#[tokio::test]
async fn full_or_draining_server_accepts_no_tenant() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let admin = harness.server().admin_options();
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).capacity(1).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let error = tenantry.provision("globex").await.unwrap_err();
    assert!(matches!(error, ProvisionError::NoRoom { servers: 1, full: 1, draining: 0, .. }), "{error:?}");
    tenantry.purge("acme").force().await.unwrap();
    tenantry.servers().drain("main").await.unwrap();
    let error = tenantry.provision("globex").await.unwrap_err();
    assert!(matches!(error, ProvisionError::NoRoom { servers: 1, full: 0, draining: 1, .. }), "{error:?}");
    assert_nothing(&harness, "after two refused calls").await;
    tenantry.servers().undrain("main").await.unwrap();
    tenantry.provision("globex").await.unwrap();
}

#[tokio::test]
async fn provision_reports_foreign_objects_and_leaves_them_unchanged() {
    let harness = Harness::start().await.unwrap();
    let prefix = harness.prefix().to_owned();
    let name = move |n: &tenantry::placement::PlacementRequest, _| format!("{prefix}_{}", n.slug);
    let tenantry = harness.tenantry(move |b| migrated(b).database_name(name)).await.unwrap();
    let mut server = auditor::superuser(&harness).await;
    let database = format!("CREATE DATABASE {}_acme", harness.prefix());
    let role = format!("CREATE ROLE {}_globex_app", harness.prefix());
    for statement in [database, role] {
        server.execute(statement_of(statement)).await.unwrap();
    }
    for (slug, kind) in [("acme", "database"), ("globex", "role")] {
        let error = tenantry.provision(slug).await.unwrap_err();
        let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
        let Some(ClusterError::Foreign { kind: found, .. }) = failure.cause.downcast_ref() else { panic!("{error:?}") };
        assert_eq!((*found, failure.state), (kind, FailureState::Undone));
    }
    assert_nothing(&harness, "after finding foreign objects").await;
    const COUNT: &str = "SELECT (SELECT count(*) FROM pg_database WHERE datname = $1 || '_acme')
        + (SELECT count(*) FROM pg_roles WHERE rolname = $1 || '_globex_app')";
    let left: i64 = sqlx::query_scalar(COUNT).bind(harness.prefix()).fetch_one(&mut server).await.unwrap();
    assert_eq!(left, 2, "the foreign database and the foreign role still exist");
}

#[expect(clippy::disallowed_methods, reason = "the statement contains names that the test itself made")]
pub(crate) fn statement_of(text: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(text)
}

#[tokio::test]
async fn provision_without_createdb_names_the_failed_step_and_is_undone() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let mut server = auditor::superuser(&harness).await;
    let right = |what: &str| statement_of(format!("ALTER ROLE {}_admin {what}", harness.prefix()));
    server.execute(right("NOCREATEDB")).await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    let Some(ClusterError::Sql { phase, source, .. }) = failure.cause.downcast_ref() else { panic!("{error:?}") };
    assert_eq!(
        (*phase, code(source).as_str(), failure.state),
        ("creating the database", "42501", FailureState::Undone)
    );
    assert_nothing(&harness, "without CREATEDB").await;
    server.execute(right("CREATEDB")).await.unwrap();
    tenantry.provision("acme").await.unwrap();
}

#[tokio::test]
async fn dropped_provision_future_does_not_stop_the_operation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let call = std::future::IntoFuture::into_future(tenantry.provision("acme").key("form"));
    assert!(
        tokio::time::timeout(Duration::from_millis(30), call).await.is_err(),
        "the call ended before its future could be dropped"
    );
    let provisioned = tenantry.provision("acme").key("form").await.unwrap();
    assert_eq!(provisioned.tenant.slug().as_str(), "acme");
    assert_eq!(auditor::operations(harness.landlord(), "provision", "done").await, 1);
}

#[tokio::test]
async fn two_installations_on_one_server_are_isolated() {
    let (first, second) = (Harness::start().await.unwrap(), Harness::start().await.unwrap());
    let (a, b): (Tenantry, Tenantry) =
        (first.tenantry(migrated).await.unwrap(), second.tenantry(migrated).await.unwrap());
    a.provision("acme").await.unwrap();
    b.provision("acme").await.unwrap();
    let objects = auditor::on_server(&second).await;
    let first_login = auditor::login(&a, "acme").await;
    let database = objects.iter().find_map(|n| n.strip_prefix("database ")).unwrap();
    let refused = first_login.database(database).connect().await.unwrap_err();
    assert_eq!(code(&refused), "42501");
    a.purge("acme").force().await.unwrap();
    assert_eq!(auditor::on_server(&second).await, objects, "a purge changed objects of another installation");
    b.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}
