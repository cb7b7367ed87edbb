//! The builder's settings: each has an effect, or `build` refuses it.
use crate::provision::{MIGRATIONS, migrated};
use sqlx::Executor;
use std::time::Duration;
use tenantry::directory::AppAccess;
use tenantry::error::BuildError;
use tenantry::testing::{FixedResolver, Harness, HarnessError};
use tenantry::vault::PgVault;
use tenantry::{Builder, sqlx};

#[tokio::test]
async fn build_refuses_a_setting_that_would_have_no_effect() {
    let harness = Harness::start().await.unwrap();
    let vault = || PgVault::new(harness.landlord().clone(), std::sync::Arc::new(harness.keys().clone()));
    type Configure<'a> = Box<dyn FnOnce(Builder) -> Builder + 'a>;
    let own = |configure: fn(Builder) -> Builder| -> Configure<'_> {
        Box::new(move |b| configure(b).resolver(FixedResolver::default()))
    };
    let cases: Vec<(&str, &str, Configure<'_>)> = vec![
        ("require_head", "resolver", own(|b| b.tenant_migrations(&MIGRATIONS).require_head(true))),
        ("share_connections", "resolver", own(|b| b.share_connections(true))),
        ("max_connections", "resolver", own(|b| b.max_connections(90))),
        ("acquire_timeout", "resolver", own(|b| b.acquire_timeout(Duration::from_secs(10)))),
        ("pool", "resolver", own(|b| b.pool(|pool| pool.max_opening(4)))),
        ("temp_tables", "app_access", Box::new(|b| b.temp_tables(false).app_access(AppAccess::Owner))),
        ("keys", "vault", Box::new(|b| b.keys(harness.keys().clone()).vault(vault()))),
    ];
    for (first, second, configure) in cases {
        let error = harness.tenantry(configure).await.expect_err(&format!("{first} is ignored because of {second}"));
        let HarnessError::Build(error) = error else { panic!("{first} and {second}: {error:?}") };
        let named =
            matches!(&error, BuildError::Contradiction { setting, with, .. } if (*setting, *with) == (first, second));
        assert!(named, "{first} and {second}: {error:?}");
        assert!(error.to_string().contains(first) && error.to_string().contains(second), "{error}");
    }
    let error = harness.tenantry(|b| b.require_head(true)).await.expect_err("require_head compares with no migrations");
    assert!(matches!(error, HarnessError::Build(BuildError::Setting("require_head", _))), "{error:?}");
    harness
        .tenantry(|b| migrated(b).max_connections_per_tenant(2).resolver(FixedResolver::default()))
        .await
        .expect("the limit of the tenants' logins is refused with an own resolver");
}

#[tokio::test]
async fn pool_settings_of_the_builder_reach_the_connections() {
    let harness = Harness::start().await.unwrap();
    let settings = |b: Builder| migrated(b).pool(|pool| pool.discard_on_release(true)).max_connections_per_tenant(1);
    let tenantry = harness.tenantry(|b| settings(b).pool(|pool| pool.ping_after(Duration::ZERO))).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    db.execute("SET application_name = 'left by the first caller'").await.unwrap();
    let seen: String = sqlx::query_scalar("SHOW application_name").fetch_one(&db).await.unwrap();
    assert_eq!(seen, "tenantry", "discard_on_release, set on the builder, did not reset the connection");
}
