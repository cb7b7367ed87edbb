//! Prepared transactions and autovacuum, which can keep a database from being dropped. They need a server with settings
//! of its own.
use super::{Tenant, ask, sql};
use crate::cluster::pg::ddl;
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;
use crate::testing::TestServer;
use crate::testing::server::NoServer;

/// Autovacuum starts at once and works slowly; transactions can be prepared.
const SETTINGS: [(&str, &str); 6] = [
    ("max_prepared_transactions", "10"),
    ("autovacuum_naptime", "1s"),
    ("autovacuum_vacuum_threshold", "1"),
    ("autovacuum_vacuum_scale_factor", "0"),
    ("autovacuum_vacuum_cost_delay", "100ms"),
    ("autovacuum_vacuum_cost_limit", "1"),
];

/// Starts the server; `None` if the tests use a server given by URL, whose settings they cannot change.
async fn start_server() -> Outcome<Option<TestServer>> {
    let builder = SETTINGS.iter().fold(TestServer::builder(), |builder, (name, value)| builder.setting(*name, *value));
    match builder.start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => Ok(None),
        started => Ok(Some(started?)),
    }
}

#[tokio::test]
async fn remove_succeeds_despite_prepared_transactions_and_autovacuum() -> Outcome {
    let Some(server) = start_server().await? else { return Ok(()) };
    let it = Installation::new_without_set_up_on(&server, By::Managed).await?;
    it.set_up().await?;
    remove_with_own_prepared_transactions(&it).await?;
    remove_with_foreign_prepared_transaction(&it).await?;
    remove_during_autovacuum(&it).await?;
    Ok(server.stop().await?)
}

/// The tenant's prepared transactions are rolled back, also in a closed database, which a dead worker may have left.
async fn remove_with_own_prepared_transactions(it: &Installation) -> Outcome {
    for closed in [false, true] {
        for access in [AppAccess::App, AppAccess::Owner] {
            let tenant = Tenant::provisioned(it, "_it's", access).await?;
            let mut app = tenant.app().await?;
            sql(&mut app, "BEGIN; INSERT INTO notes (note) VALUES ('x'); PREPARE TRANSACTION 'it''s \\ prepared'")
                .await?;
            sql(&mut app, "SET ROLE NONE").await?;
            sql(&mut app, "BEGIN; SELECT lo_create(0); PREPARE TRANSACTION 'as itself'").await?;
            if closed {
                ddl::close_database(&tenant.names.database).run(&mut it.provisioner().await?, "test").await?;
            }
            tenant.locked_session().await?.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
            assert_eq!(tenant.left().await?, Vec::<String>::new(), "{access}, closed: {closed}");
        }
    }
    Ok(())
}

/// A superuser's prepared transaction is named in the error. One in a database with another owner is left alone.
async fn remove_with_foreign_prepared_transaction(it: &Installation) -> Outcome {
    let tenant = Tenant::provisioned(it, "_strange", AppAccess::App).await?;
    let mut stranger = it.superuser(tenant.names.database.as_str()).await?;
    sql(&mut stranger, "BEGIN; SELECT lo_create(0); PREPARE TRANSACTION 'a stranger''s'").await?;
    let mut locked = tenant.locked_session().await?;
    let logins = std::slice::from_ref(&tenant.login);
    let error = locked.remove(&tenant.names, logins).await.unwrap_err();
    assert!(error.is_retry(), "the error must be retried: {error:?}");
    let message = error.into_cause().to_string();
    assert!(message.contains("a stranger's"), "the error must name the prepared transaction: {message}");
    let mut superuser = it.superuser("postgres").await?;
    let (database, admin) = (&tenant.names.database, &it.server.names.admin);
    sql(&mut superuser, &format!("ALTER DATABASE \"{database}\" OWNER TO CURRENT_USER")).await?;
    let mut locked = tenant.locked_session().await?;
    let message = locked.remove_database(&tenant.names, logins).await.unwrap_err().into_cause().to_string();
    assert!(message.contains("belongs to the role"), "{message}");
    assert_eq!(ask::<i64>(&mut superuser, "SELECT count(*) FROM pg_prepared_xacts").await?, 1);
    sql(&mut superuser, &format!("ALTER DATABASE \"{database}\" OWNER TO \"{admin}\"")).await?;
    sql(&mut stranger, "ROLLBACK PREPARED 'a stranger''s'").await?;
    drop(stranger);
    tenant.locked_session().await?.remove(&tenant.names, logins).await?;
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}

/// DROP DATABASE runs without FORCE, because with FORCE it fails with 42501 while autovacuum is in the database.
async fn remove_during_autovacuum(it: &Installation) -> Outcome {
    let tenant = Tenant::provisioned(it, "_busy", AppAccess::App).await?;
    let mut superuser = it.superuser("postgres").await?;
    let mut app = tenant.app().await?;
    sql(&mut app, "INSERT INTO notes (note) SELECT repeat('x', 1000) FROM generate_series(1, 20000)").await?;
    sql(&mut app, "DELETE FROM notes WHERE id % 2 = 0").await?;
    let is_vacuuming = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '{}')",
        tenant.names.database
    );
    let mut polls_left = 600;
    while !ask::<bool>(&mut superuser, &is_vacuuming).await? {
        polls_left -= 1;
        assert!(polls_left > 0, "autovacuum did not start within 30 s");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut provisioner = it.provisioner().await?;
    let (forced, admin) = (format!("DROP DATABASE \"{}\" WITH (FORCE)", tenant.names.database), &it.server.names.admin);
    ddl::grant_to_admin(&tenant.login, admin).run(&mut provisioner, "test").await?;
    ddl::forbid_login(&tenant.login).run(&mut provisioner, "test").await?;
    assert_eq!(
        super::sqlstate_of(&mut provisioner, &forced).await,
        "42501",
        "DROP DATABASE WITH (FORCE) is expected to fail while autovacuum runs"
    );
    assert!(
        ask::<bool>(&mut superuser, &is_vacuuming).await?,
        "autovacuum must still run when the database is dropped"
    );
    tenant.locked_session().await?.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}
