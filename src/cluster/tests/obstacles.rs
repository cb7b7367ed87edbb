//! What keeps a database from being dropped, on a server with settings of its own.
use super::{Tenant, ask, sql};
use crate::cluster::pg::ddl;
use crate::cluster::pg::tests::{By, Installation, Outcome};
use crate::directory::AppAccess;
use crate::testing::TestServer;
use crate::testing::server::NoServer;

/// Autovacuum comes at once and works slowly; transactions can be prepared.
const SETTINGS: [(&str, &str); 6] = [
    ("max_prepared_transactions", "10"),
    ("autovacuum_naptime", "1s"),
    ("autovacuum_vacuum_threshold", "1"),
    ("autovacuum_vacuum_scale_factor", "0"),
    ("autovacuum_vacuum_cost_delay", "100ms"),
    ("autovacuum_vacuum_cost_limit", "1"),
];

/// A server that is named by URL takes no settings: there it cannot be tried.
async fn server() -> Outcome<Option<TestServer>> {
    let builder = SETTINGS.iter().fold(TestServer::builder(), |builder, (name, value)| builder.setting(*name, *value));
    match builder.start().await {
        Err(NoServer::UrlTakesNoSettings { .. }) => Ok(None),
        started => Ok(Some(started?)),
    }
}

#[tokio::test]
async fn neither_prepared_transactions_nor_autovacuum_keep_a_tenant() -> Outcome {
    let Some(server) = server().await? else { return Ok(()) };
    let it = Installation::planned_on(&server, By::Managed).await?;
    it.set_up().await?;
    prepared(&it).await?;
    strangers(&it).await?;
    autovacuum(&it).await?;
    Ok(server.stop().await?)
}

/// Also where the database was closed with them in it, as a worker that died may leave it.
async fn prepared(it: &Installation) -> Outcome {
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

/// One that a superuser prepared is named; and one in somebody else's database is none of our business.
async fn strangers(it: &Installation) -> Outcome {
    let tenant = Tenant::provisioned(it, "_strange", AppAccess::App).await?;
    let mut stranger = it.superuser(tenant.names.database.as_str()).await?;
    sql(&mut stranger, "BEGIN; SELECT lo_create(0); PREPARE TRANSACTION 'a stranger''s'").await?;
    let mut locked = tenant.locked_session().await?;
    let logins = std::slice::from_ref(&tenant.login);
    let refused = locked.remove(&tenant.names, logins).await.unwrap_err();
    assert!(refused.is_retry());
    assert!(refused.into_cause().to_string().contains("a stranger's"));
    let mut superuser = it.superuser("postgres").await?;
    let (database, admin) = (&tenant.names.database, &it.server.names.admin);
    sql(&mut superuser, &format!("ALTER DATABASE \"{database}\" OWNER TO CURRENT_USER")).await?;
    let mut locked = tenant.locked_session().await?;
    let refused = locked.remove_database(&tenant.names, logins).await.unwrap_err().into_cause().to_string();
    assert!(refused.contains("belongs to the role"), "{refused}");
    assert_eq!(ask::<i64>(&mut superuser, "SELECT count(*) FROM pg_prepared_xacts").await?, 1);
    sql(&mut superuser, &format!("ALTER DATABASE \"{database}\" OWNER TO \"{admin}\"")).await?;
    sql(&mut stranger, "ROLLBACK PREPARED 'a stranger''s'").await?;
    drop(stranger);
    tenant.locked_session().await?.remove(&tenant.names, logins).await?;
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}

/// Rule 5: with FORCE this would be 42501.
async fn autovacuum(it: &Installation) -> Outcome {
    let tenant = Tenant::provisioned(it, "_busy", AppAccess::App).await?;
    let mut superuser = it.superuser("postgres").await?;
    let mut app = tenant.app().await?;
    sql(&mut app, "INSERT INTO notes (note) SELECT repeat('x', 1000) FROM generate_series(1, 20000)").await?;
    sql(&mut app, "DELETE FROM notes WHERE id % 2 = 0").await?;
    let there = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = '{}')",
        tenant.names.database
    );
    let mut patience = 600;
    while !ask::<bool>(&mut superuser, &there).await? {
        patience -= 1;
        assert!(patience > 0, "no autovacuum came");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut provisioner = it.provisioner().await?;
    let (forced, admin) = (format!("DROP DATABASE \"{}\" WITH (FORCE)", tenant.names.database), &it.server.names.admin);
    ddl::grant_to_admin(&tenant.login, admin).run(&mut provisioner, "test").await?;
    ddl::forbid_login(&tenant.login).run(&mut provisioner, "test").await?;
    assert_eq!(super::refusal(&mut provisioner, &forced).await, "42501", "which is why it is not used");
    assert!(ask::<bool>(&mut superuser, &there).await?, "autovacuum is still there");
    tenant.locked_session().await?.remove(&tenant.names, std::slice::from_ref(&tenant.login)).await?;
    assert_eq!(tenant.left().await?, Vec::<String>::new());
    Ok(())
}
