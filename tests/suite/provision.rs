//! From a name to a working database, and what is left when it fails: nothing.
mod asked;

use crate::auditor::{self, assert_nothing, code};
use sqlx::{ConnectOptions, Executor};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{ClusterError, FailureState, ProvisionError};
use tenantry::names::InvalidName;
use tenantry::testing::Harness;
use tenantry::{Builder, Tenantry, sqlx};

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("examples/tenant_migrations");
static BROKEN: sqlx::migrate::Migrator = sqlx::migrate!("tests/suite/broken_migrations");

pub(crate) fn migrated(builder: Builder) -> Builder {
    builder.tenant_migrations(&MIGRATIONS)
}

#[tokio::test]
async fn a_name_becomes_a_working_database() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let events = Arc::new(Mutex::new(vec![]));
    let seen = events.clone();
    let call = tenantry.provision("acme").name("Acme Ltd").admin("ada@acme.example").domain("acme.example");
    let made = call.on_event(move |e| seen.lock().unwrap().push((e.seq, e.done, e.total))).await.unwrap();

    let db = tenantry.resolve("acme").await.unwrap();
    sqlx::query("INSERT INTO notes (text) VALUES ('hello')").execute(&db).await.unwrap();
    let who: (String, String) =
        sqlx::query_as("SELECT session_user::text, current_user::text").fetch_one(&db).await.unwrap();
    assert!(who.0.ends_with("_v1") && who.1.ends_with("_app"), "{who:?}");
    assert_eq!(tenantry.resolve(made.tenant.id()).await.unwrap().tenant(), &made.tenant);
    let domain: tenantry::names::Domain = "acme.example".parse().unwrap();
    assert_eq!(tenantry.resolve(&domain).await.unwrap().tenant().name(), "Acme Ltd");

    let link = made.link.expect("a link for the admin");
    assert!(link.expose_path().starts_with("/setup/credentials/tny_credentials_"));
    assert_eq!(
        tenantry.tokens().undelivered(made.tenant.id()).await.unwrap().unwrap().expose_path(),
        link.expose_path()
    );
    tenantry.tokens().delivered(link.id).await.unwrap();
    assert!(tenantry.tokens().undelivered(made.tenant.id()).await.unwrap().is_none());

    let events = events.lock().unwrap().clone();
    let seqs: Vec<i64> = events.iter().map(|e| e.0).collect();
    assert_eq!(seqs, (1..=seqs.len() as i64).collect::<Vec<_>>(), "no event is missing");
    assert_eq!(events.last().map(|e| (e.1, e.2)), events.last().map(|e| (e.2, e.2)));
}

#[tokio::test]
async fn default_names_tell_nobody_who_the_tenants_are() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("verysecretcustomer").await.unwrap();
    let found = auditor::on_server(&harness).await;
    assert_eq!(found.len(), 4, "database, owner, app, login: {found:?}");
    assert!(found.iter().all(|n| !n.contains("secret")), "{found:?}");
    const COMMENTS: &str = "SELECT coalesce(string_agg(description, ' '), '') FROM pg_shdescription";
    let comments: String =
        sqlx::query_scalar(COMMENTS).fetch_one(&mut auditor::superuser(&harness).await).await.unwrap();
    assert!(!comments.contains("secretcustomer"));
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_and_a_retry_works() {
    let harness = Harness::start().await.unwrap();
    let broken = harness.tenantry(|b| b.tenant_migrations(&BROKEN)).await.unwrap();
    let error = broken.provision("acme").admin("ada@acme.example").key("form-1").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("migrations.run", FailureState::Undone));
    assert_eq!(error.operation_id(), Some(failure.operation));
    assert!(failure.cause.downcast_ref::<sqlx::migrate::MigrateError>().is_some(), "the cause is at hand");
    assert_nothing(&harness, "after a failed migration").await;
    assert_eq!(auditor::operations(harness.landlord(), "provision", "undone").await, 1, "the history stays");

    let working = harness.tenantry(migrated).await.unwrap();
    let made = working.provision("acme").admin("ada@acme.example").key("form-1").await.unwrap();
    assert_ne!(Some(made.operation), error.operation_id(), "after an undo the key starts again");
    working.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_written() {
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
    assert_eq!(begun, 0);
}

#[tokio::test]
async fn names_with_quotes_and_spaces_work_through_the_whole_life() {
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
async fn a_name_that_does_not_fit_is_a_typed_error() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(|b| b.database_name(|_, _| "x".repeat(64))).await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "database name", .. }), "{error:?}");
    assert_nothing(&harness, "after a bad name").await;
}

#[tokio::test]
async fn a_taken_domain_names_it() {
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
async fn a_full_or_draining_server_takes_nobody() {
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
    assert_nothing(&harness, "after two refusals").await;
    tenantry.servers().undrain("main").await.unwrap();
    tenantry.provision("globex").await.unwrap();
}

#[tokio::test]
async fn what_is_not_ours_is_reported_and_never_touched() {
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
    assert_nothing(&harness, "after finding foreign things").await;
    const STILL: &str = "SELECT (SELECT count(*) FROM pg_database WHERE datname = $1 || '_acme')
        + (SELECT count(*) FROM pg_roles WHERE rolname = $1 || '_globex_app')";
    let still: i64 = sqlx::query_scalar(STILL).bind(harness.prefix()).fetch_one(&mut server).await.unwrap();
    assert_eq!(still, 2, "both are as they were");
}

#[expect(clippy::disallowed_methods, reason = "names of the test's own")]
pub(crate) fn statement_of(text: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(text)
}

#[tokio::test]
async fn missing_rights_are_named_and_everything_is_undone() {
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
async fn a_caller_that_hangs_up_stops_nothing() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let call = std::future::IntoFuture::into_future(tenantry.provision("acme").key("form"));
    assert!(tokio::time::timeout(Duration::from_millis(30), call).await.is_err(), "it takes longer than this");
    let made = tenantry.provision("acme").key("form").await.unwrap();
    assert_eq!(made.tenant.slug().as_str(), "acme");
    assert_eq!(auditor::operations(harness.landlord(), "provision", "done").await, 1);
}

#[tokio::test]
async fn two_installations_on_one_server_know_nothing_of_each_other() {
    let (one, two) = (Harness::start().await.unwrap(), Harness::start().await.unwrap());
    let (a, b): (Tenantry, Tenantry) = (one.tenantry(migrated).await.unwrap(), two.tenantry(migrated).await.unwrap());
    a.provision("acme").await.unwrap();
    b.provision("acme").await.unwrap();
    let there = auditor::on_server(&two).await;
    let stranger = auditor::login(&a, "acme").await;
    let database = there.iter().find_map(|n| n.strip_prefix("database ")).unwrap();
    let refused = stranger.database(database).connect().await.unwrap_err();
    assert_eq!(code(&refused), "42501");
    a.purge("acme").force().await.unwrap();
    assert_eq!(auditor::on_server(&two).await, there);
    b.resolve("acme").await.unwrap().execute("SELECT 1 FROM notes").await.unwrap();
}
