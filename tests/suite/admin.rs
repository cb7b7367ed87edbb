//! The tenant's admins in its own database.
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor};
use std::sync::Arc;
use tenantry::admin::{AdminError, AdminStore, PasswordPolicy, PgAdminStore};
use tenantry::error::StepError;
use tenantry::names::{Email, RoleName};
use tenantry::sqlx;
use tenantry::testing::{TestServer, conformance};

const PASSWORD: &str = "correct horse battery";

async fn database() -> PgConnectOptions {
    TestServer::shared().await.unwrap().create_database("admins").await.unwrap().options()
}

async fn session(options: &PgConnectOptions) -> PgConnection {
    options.clone().disable_statement_logging().connect().await.unwrap()
}

fn ada() -> Email {
    "ada@acme.example".parse().unwrap()
}

#[tokio::test]
async fn the_table_in_the_tenants_database_keeps_the_promises() {
    let mut db = session(&database().await).await;
    conformance::admin_store(&PgAdminStore::default(), &mut db).await;
    let mut db = session(&database().await).await;
    let any: Arc<dyn AdminStore> = Arc::new(PgAdminStore::default());
    conformance::admin_store(&any, &mut db).await;
}

#[tokio::test]
async fn a_table_of_another_origin_is_reported_and_left_alone() {
    let mut db = session(&database().await).await;
    db.execute("CREATE TABLE tenant_users (email text); INSERT INTO tenant_users VALUES ('theirs')").await.unwrap();
    let error = PgAdminStore::default().prepare(&mut db, None).await.unwrap_err();
    assert!(matches!(error, AdminError::Foreign("public.tenant_users")), "{error:?}");
    assert!(!StepError::from(error).is_retry());
    const TOUCHED: &str = "SELECT count(*) FROM pg_indexes WHERE tablename = 'tenant_users'";
    assert_eq!(sqlx::query_scalar::<_, i64>(TOUCHED).fetch_one(&mut db).await.unwrap(), 0);
}

#[tokio::test]
async fn a_search_path_leads_nowhere_else() {
    let mut db = session(&database().await).await;
    db.execute("CREATE SCHEMA trap; CREATE TABLE trap.tenant_users (email text); SET search_path = trap, pg_catalog")
        .await
        .unwrap();
    conformance::admin_store(&PgAdminStore::default(), &mut db).await;
    let trapped: i64 = sqlx::query_scalar("SELECT count(*) FROM trap.tenant_users").fetch_one(&mut db).await.unwrap();
    assert_eq!(trapped, 0);
}

#[tokio::test]
async fn the_application_may_use_what_the_migrator_made() {
    let server = TestServer::shared().await.unwrap();
    let made = server.create_database("admins").await.unwrap();
    let other = server.create_database("app").await.unwrap();
    let app: RoleName = other.name().parse().unwrap();
    let mut owner = session(&made.options()).await;
    let store = PgAdminStore::default();
    store.prepare(&mut owner, None).await.unwrap();
    store.ensure_admin(&mut owner, &ada()).await.unwrap();

    let mut login = session(&other.options().database(made.name())).await;
    let refused = store.set_password(&mut login, &ada(), &PASSWORD.into()).await.unwrap_err();
    assert!(matches!(&refused, AdminError::Database(e) if e.as_database_error().unwrap().code().unwrap() == "42501"));
    store.prepare(&mut owner, Some(&app)).await.unwrap();
    store.set_password(&mut login, &ada(), &PASSWORD.into()).await.unwrap();
    assert!(store.verify(&mut login, &ada(), &PASSWORD.into()).await.unwrap());
}

#[tokio::test]
async fn who_is_no_admin_gets_in_by_no_password() {
    let mut db = session(&database().await).await;
    let store = PgAdminStore::default();
    store.prepare(&mut db, None).await.unwrap();
    store.ensure_admin(&mut db, &ada()).await.unwrap();
    store.set_password(&mut db, &ada(), &PASSWORD.into()).await.unwrap();
    db.execute("UPDATE tenant_users SET is_admin = false").await.unwrap();
    assert!(!store.verify(&mut db, &ada(), &PASSWORD.into()).await.unwrap());
    assert!(matches!(store.set_password(&mut db, &ada(), &PASSWORD.into()).await, Err(AdminError::Unknown(_))));
    store.ensure_admin(&mut db, &ada()).await.unwrap();
    assert!(store.verify(&mut db, &ada(), &PASSWORD.into()).await.unwrap(), "made admin again, with the old password");
}

#[tokio::test]
async fn only_a_hash_is_stored_and_a_damaged_one_is_an_error() {
    let mut db = session(&database().await).await;
    let store = PgAdminStore::with_policy(PasswordPolicy::default());
    store.prepare(&mut db, None).await.unwrap();
    store.ensure_admin(&mut db, &ada()).await.unwrap();
    store.set_password(&mut db, &ada(), &PASSWORD.into()).await.unwrap();
    let row: String = sqlx::query_scalar("SELECT u::text FROM tenant_users u").fetch_one(&mut db).await.unwrap();
    assert!(row.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !row.contains(PASSWORD), "{row}");
    db.execute("UPDATE tenant_users SET password_hash = 'x'").await.unwrap();
    let error = store.verify(&mut db, &ada(), &PASSWORD.into()).await.unwrap_err();
    assert!(matches!(error, AdminError::Password(_)), "{error:?}");
    assert!(!format!("{error:?} {error}").contains(PASSWORD));
}

#[tokio::test]
async fn it_takes_part_in_the_callers_transaction() {
    let mut db = session(&database().await).await;
    let store = PgAdminStore::default();
    db.execute("BEGIN").await.unwrap();
    store.prepare(&mut db, None).await.unwrap();
    store.ensure_admin(&mut db, &ada()).await.unwrap();
    db.execute("ROLLBACK").await.unwrap();
    let found: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('public.tenant_users')::text").fetch_one(&mut db).await.unwrap();
    assert_eq!(found, None);
}
