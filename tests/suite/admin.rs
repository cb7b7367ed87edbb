//! The table of a tenant's admins in the tenant's own database (`PgAdminStore`): the conformance suite, privileges,
//! safety against a hostile `search_path`, and stored passwords. Each test has an empty database of its own.
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor};
use std::sync::Arc;
use tenantry::admin::{AdminError, AdminStore, PasswordPolicy, PgAdminStore};
use tenantry::error::StepError;
use tenantry::names::{Email, RoleName};
use tenantry::sqlx;
use tenantry::testing::{TestServer, conformance};

const PASSWORD: &str = "correct horse battery";

async fn create_database() -> PgConnectOptions {
    TestServer::shared().await.unwrap().create_database("admins").await.unwrap().options()
}

async fn connect(options: &PgConnectOptions) -> PgConnection {
    options.clone().disable_statement_logging().connect().await.unwrap()
}

fn admin_email() -> Email {
    "ada@acme.example".parse().unwrap()
}

#[tokio::test]
async fn pg_admin_store_passes_the_conformance_suite() {
    let mut db = connect(&create_database().await).await;
    conformance::admin_store(&PgAdminStore::default(), &mut db).await;
    let mut db = connect(&create_database().await).await;
    let any: Arc<dyn AdminStore> = Arc::new(PgAdminStore::default());
    conformance::admin_store(&any, &mut db).await;
}

/// In the collation of this database the lower case of the Kelvin sign is `k`, so the table's unique index takes both
/// addresses for one.
#[tokio::test]
async fn store_does_not_take_an_address_with_a_unicode_case_variant_for_the_admins() {
    let mut db = connect(&create_database().await).await;
    let store = PgAdminStore::default();
    store.prepare(&mut db, None).await.unwrap();
    db.execute("ALTER TABLE tenant_users ALTER email TYPE text COLLATE \"und-x-icu\"").await.unwrap();
    let (mike, kelvin): (Email, Email) =
        ("mike@acme.example".parse().unwrap(), "mi\u{212a}e@acme.example".parse().unwrap());
    store.ensure_admin(&mut db, &mike).await.unwrap();
    store.set_password(&mut db, &mike, &PASSWORD.into()).await.unwrap();
    let set = store.set_password(&mut db, &kelvin, &"another long password".into()).await;
    assert!(matches!(set, Err(AdminError::Unknown(_))), "an address with U+212A set a password: {set:?}");
    assert!(store.verify(&mut db, &mike, &PASSWORD.into()).await.unwrap(), "mike's password was replaced");
    assert!(!store.verify(&mut db, &kelvin, &PASSWORD.into()).await.unwrap());
    db.execute("UPDATE tenant_users SET is_admin = false").await.unwrap();
    let ensured = store.ensure_admin(&mut db, &kelvin).await;
    assert!(matches!(ensured, Err(AdminError::Similar(_))), "{ensured:?}");
    assert!(!store.verify(&mut db, &mike, &PASSWORD.into()).await.unwrap(), "mike became an admin again");

    // The other way round. Only the column has a collation that folds, so it is the stored address that is folded.
    let swap = sqlx::query("UPDATE tenant_users SET is_admin = true, email = $1").bind(kelvin.as_str());
    swap.execute(&mut db).await.unwrap();
    assert!(!store.verify(&mut db, &mike, &PASSWORD.into()).await.unwrap(), "mike logs in as the other address");
    let set = store.set_password(&mut db, &mike, &"another long password".into()).await;
    assert!(matches!(set, Err(AdminError::Unknown(_))), "mike has set the password of the other address: {set:?}");
}

#[tokio::test]
async fn prepare_reports_a_foreign_table_and_leaves_it_unchanged() {
    let mut db = connect(&create_database().await).await;
    db.execute("CREATE TABLE tenant_users (email text); INSERT INTO tenant_users VALUES ('theirs')").await.unwrap();
    let error = PgAdminStore::default().prepare(&mut db, None).await.unwrap_err();
    assert!(matches!(error, AdminError::Foreign("public.tenant_users")), "{error:?}");
    assert!(!StepError::from(error).is_retry());
    const INDEXES: &str = "SELECT count(*) FROM pg_indexes WHERE tablename = 'tenant_users'";
    assert_eq!(
        sqlx::query_scalar::<_, i64>(INDEXES).fetch_one(&mut db).await.unwrap(),
        0,
        "the foreign table got an index"
    );
}

#[tokio::test]
async fn store_ignores_the_search_path_of_the_session() {
    let mut db = connect(&create_database().await).await;
    db.execute("CREATE SCHEMA trap; CREATE TABLE trap.tenant_users (email text); SET search_path = trap, pg_catalog")
        .await
        .unwrap();
    conformance::admin_store(&PgAdminStore::default(), &mut db).await;
    let written: i64 = sqlx::query_scalar("SELECT count(*) FROM trap.tenant_users").fetch_one(&mut db).await.unwrap();
    assert_eq!(written, 0, "the store wrote to the table that the search_path names");
}

#[tokio::test]
async fn application_can_use_the_table_after_prepare_grants_it() {
    let server = TestServer::shared().await.unwrap();
    let made = server.create_database("admins").await.unwrap();
    let other = server.create_database("app").await.unwrap();
    let app: RoleName = other.name().parse().unwrap();
    let mut owner = connect(&made.options()).await;
    let store = PgAdminStore::default();
    store.prepare(&mut owner, None).await.unwrap();
    store.ensure_admin(&mut owner, &admin_email()).await.unwrap();

    let mut login = connect(&other.options().database(made.name())).await;
    let refused = store.set_password(&mut login, &admin_email(), &PASSWORD.into()).await.unwrap_err();
    assert!(matches!(&refused, AdminError::Database(e) if e.as_database_error().unwrap().code().unwrap() == "42501"));
    store.prepare(&mut owner, Some(&app)).await.unwrap();
    store.set_password(&mut login, &admin_email(), &PASSWORD.into()).await.unwrap();
    assert!(store.verify(&mut login, &admin_email(), &PASSWORD.into()).await.unwrap());
}

#[tokio::test]
async fn verify_rejects_a_user_without_the_admin_flag() {
    let mut db = connect(&create_database().await).await;
    let store = PgAdminStore::default();
    store.prepare(&mut db, None).await.unwrap();
    store.ensure_admin(&mut db, &admin_email()).await.unwrap();
    store.set_password(&mut db, &admin_email(), &PASSWORD.into()).await.unwrap();
    db.execute("UPDATE tenant_users SET is_admin = false").await.unwrap();
    assert!(!store.verify(&mut db, &admin_email(), &PASSWORD.into()).await.unwrap());
    assert!(matches!(store.set_password(&mut db, &admin_email(), &PASSWORD.into()).await, Err(AdminError::Unknown(_))));
    store.ensure_admin(&mut db, &admin_email()).await.unwrap();
    assert!(
        store.verify(&mut db, &admin_email(), &PASSWORD.into()).await.unwrap(),
        "the old password must be valid again after the admin flag is restored"
    );
}

#[tokio::test]
async fn set_password_stores_only_a_hash_and_verify_rejects_a_damaged_one() {
    let mut db = connect(&create_database().await).await;
    let store = PgAdminStore::with_policy(PasswordPolicy::default());
    store.prepare(&mut db, None).await.unwrap();
    store.ensure_admin(&mut db, &admin_email()).await.unwrap();
    store.set_password(&mut db, &admin_email(), &PASSWORD.into()).await.unwrap();
    let row: String = sqlx::query_scalar("SELECT u::text FROM tenant_users u").fetch_one(&mut db).await.unwrap();
    assert!(row.contains("$argon2id$v=19$m=19456,t=2,p=1$") && !row.contains(PASSWORD), "{row}");
    db.execute("UPDATE tenant_users SET password_hash = 'x'").await.unwrap();
    let error = store.verify(&mut db, &admin_email(), &PASSWORD.into()).await.unwrap_err();
    assert!(matches!(error, AdminError::Password(_)), "{error:?}");
    assert!(!format!("{error:?} {error}").contains(PASSWORD));
}

#[tokio::test]
async fn store_writes_roll_back_with_the_callers_transaction() {
    let mut db = connect(&create_database().await).await;
    let store = PgAdminStore::default();
    db.execute("BEGIN").await.unwrap();
    store.prepare(&mut db, None).await.unwrap();
    store.ensure_admin(&mut db, &admin_email()).await.unwrap();
    db.execute("ROLLBACK").await.unwrap();
    let found: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('public.tenant_users')::text").fetch_one(&mut db).await.unwrap();
    assert_eq!(found, None, "the table still exists after the rollback");
}
