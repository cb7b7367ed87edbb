//! Block (a), by a superuser and by a managed service's admin.
use super::{By, Installation, Outcome, ask, code, sql};
use crate::cluster::pg::script::{Landlord, script};
use crate::cluster::pg::{bootstrap, ddl, scram};
use crate::error::ClusterError;
use crate::testing::TestServer;
use sqlx::{ConnectOptions, PgConnection};

const BOTH: [By; 2] = [By::Superuser, By::Managed];

/// Without SET and INHERIT a membership is no more than the creator's right to administer the role.
async fn lent(it: &Installation) -> Outcome<Vec<String>> {
    const LENT: &str = "SELECT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
        WHERE m.roleid = (SELECT oid FROM pg_roles WHERE rolname = $1)
          AND (coalesce((to_jsonb(m) ->> 'set_option')::bool, true)
            OR coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true)) ORDER BY 1";
    let admin = it.server.names.admin.as_str();
    Ok(sqlx::query_scalar(LENT).bind(admin).fetch_all(&mut it.superuser("postgres").await?).await?)
}

fn logins(it: &Installation) -> [String; 2] {
    [it.server.names.blue.to_string(), it.server.names.green.to_string()]
}

#[tokio::test]
async fn the_provisioner_has_what_it_needs_and_is_no_superuser() -> Outcome {
    for by in BOTH {
        let it = Installation::new(by).await?;
        for (login, password) in [(&it.server.names.blue, &it.blue), (&it.server.names.green, &it.green)] {
            let mut session = it.login(login, password, &it.server.names.maintenance).await?;
            let rights = bootstrap::admin(&mut session).await?;
            assert_eq!(rights.role, it.server.names.admin.as_str());
            assert!(!rights.superuser && rights.create_db && rights.create_role, "{rights:?}");
        }
        assert_eq!(lent(&it).await?, logins(&it), "the admin has taken its own membership back");
        assert!(bootstrap::is_closed(&mut it.admin().await?, it.server.names.maintenance.as_str()).await?);
    }
    Ok(())
}

#[tokio::test]
async fn it_may_be_repeated_from_every_half_done_state() -> Outcome {
    for by in BOTH {
        for died_after in 0..5 {
            let it = Installation::planned(by).await?;
            half(&it, died_after).await?;
            for _ in 0..2 {
                it.set_up().await?;
                assert_eq!(lent(&it).await?, logins(&it), "{by:?}, {died_after}");
            }
            bootstrap::optional(&mut it.admin().await?, &it.server.names.admin).await?;
            it.provisioner().await?;
        }
    }
    Ok(())
}

/// What a set-up that died had done.
async fn half(it: &Installation, statements: usize) -> Outcome {
    let names = &it.server.names;
    let mut admin = it.admin().await?;
    let verifier = scram::verifier(&scram::password()).await;
    let all = [
        ddl::create_admin(&names.admin, &it.marker()),
        ddl::create_provisioner(&names.blue, &names.admin, &verifier, &it.marker()),
        ddl::lend_admin(&names.admin, true),
        ddl::create_maintenance(&names.maintenance, &names.admin),
    ];
    for statement in all.into_iter().take(statements) {
        statement.run(&mut admin, "test").await?;
    }
    Ok(())
}

#[tokio::test]
async fn somebody_else_s_names_are_reported_and_left_alone() -> Outcome {
    let it = Installation::planned(By::Superuser).await?;
    let (mut superuser, names) = (it.superuser("postgres").await?, &it.server.names);
    for role in [&names.admin, &names.blue, &names.green] {
        sql(&mut superuser, &format!("CREATE ROLE \"{role}\"")).await?;
        let refused = it.set_up().await.unwrap_err();
        let named = matches!(refused.downcast_ref(), Some(ClusterError::Foreign { kind: "role", name }) if name == role.as_str());
        assert!(named, "{refused:?}");
        sql(&mut superuser, &format!("DROP ROLE \"{role}\"")).await?;
    }
    let left = format!("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{}')", it.prefix());
    assert_eq!(ask::<i64>(&mut superuser, &left).await?, 1, "its DBA alone: it looked at all of them first");

    sql(&mut superuser, &format!("CREATE DATABASE \"{}\" TEMPLATE template0", names.maintenance)).await?;
    let refused = it.set_up().await.unwrap_err();
    assert!(matches!(refused.downcast_ref(), Some(ClusterError::Foreign { kind: "database", .. })), "{refused:?}");
    Ok(())
}

/// A managed service's admin may grant predefined roles on 15 alone.
#[tokio::test]
async fn a_right_that_is_refused_is_told_with_what_follows() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let refused = bootstrap::optional(&mut it.admin().await?, &it.server.names.admin).await?;
    if TestServer::shared().await?.version_num() < 160_000 {
        assert!(refused.is_empty(), "{refused:?}");
    } else {
        assert!(refused[0].contains("pg_signal_backend") && refused[1].contains("pg_read_all_stats"), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn closing_a_database_locks_nobody_out_who_is_in_it() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let server = TestServer::shared().await?;
    let (landlord, inside) = (server.create_database("landlord").await?, server.create_database("host").await?);
    let stranger = server.create_database("stranger").await?;
    let mut provisioner = it.provisioner().await?;
    let (tenant, password) = super::ending::login(&it, &mut provisioner, "_v1").await?;

    let options = inside.options().database(landlord.name());
    let _living_on_public = options.connect().await?;
    let _a_tenant = it.options(&tenant, &password).database(landlord.name()).connect().await?;
    let mut admin = it.admin().await?;
    for _ in 0..2 {
        let keep = [landlord.name().to_owned()];
        assert_eq!(bootstrap::close_to_public(&mut admin, landlord.name(), &keep).await?, None);
    }
    assert_eq!(code(options.connect().await), "00000");
    assert_eq!(code(landlord.options().connect().await), "00000");
    assert_eq!(code(stranger.options().database(landlord.name()).connect().await), "42501");
    // A tenant's login has no business there, and a right of its own would keep its role from being dropped.
    let again = it.options(&tenant, &password).database(landlord.name());
    assert_eq!(code(again.connect().await), "42501");
    Ok(())
}

#[tokio::test]
async fn what_could_not_be_closed_is_told() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let landlord = TestServer::shared().await?.create_database("landlord").await?;
    let mut admin = it.admin().await?;
    let keep = [landlord.name().to_owned()];
    let told = bootstrap::close_to_public(&mut admin, landlord.name(), &keep).await?.expect("it is not his");
    assert!(told.contains(landlord.name()), "{told}");
    // The session goes on, and nothing is half done.
    sql(&mut admin, "SELECT 1").await?;
    assert!(!bootstrap::is_closed(&mut admin, landlord.name()).await?);
    Ok(())
}

/// By psql itself, twice; where there is no psql it cannot be tried.
#[tokio::test]
async fn a_dba_s_psql_does_the_same() -> Outcome {
    for by in BOTH {
        let it = Installation::planned(by).await?;
        let server = TestServer::shared().await?;
        let (landlord, elsewhere) = (server.create_database("landlord").await?, server.create_database("other").await?);
        let reports = server.create_database("reports").await?;
        let verifiers = (scram::verifier(&it.blue).await, scram::verifier(&it.green).await);
        let cluster = bootstrap::cluster_of(&mut it.admin().await?).await?;
        let told = |name: &str, cluster: &str| {
            let (database, role) = (name.to_owned(), landlord.name().to_owned());
            let landlord = Landlord { database, role, cluster: cluster.to_owned() };
            script(&it.server.names, [&verifiers.0, &verifiers.1], &it.marker(), Some(&landlord), false)
        };
        let _inside = reports.options().database(landlord.name()).connect().await?;
        for _ in 0..2 {
            for text in [told(landlord.name(), &cluster), told(elsewhere.name(), "another one")] {
                if !psql(&it, &text).await? {
                    return Ok(());
                }
            }
            assert_eq!(lent(&it).await?, logins(&it), "{by:?}");
        }
        it.provisioner().await?;
        let mut admin = it.admin().await?;
        assert!(bootstrap::is_closed(&mut admin, it.server.names.maintenance.as_str()).await?);
        assert_eq!(
            bootstrap::is_closed(&mut admin, landlord.name()).await?,
            by == By::Superuser,
            "its admin does not own it"
        );
        assert!(!bootstrap::is_closed(&mut admin, elsewhere.name()).await?, "of another cluster");
        assert_eq!(code(reports.options().database(landlord.name()).connect().await), "00000");
        // And the set-up finds it all.
        it.set_up().await?;
    }
    Ok(())
}

async fn psql(it: &Installation, script: &str) -> Outcome<bool> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), script)?;
    let (host, port) = (it.admin.get_host().to_owned(), it.admin.get_port().to_string());
    let mut command = tokio::process::Command::new("psql");
    command.args(["-X", "-h", &host, "-p", &port, "-U", it.admin.get_username(), "-d", "postgres", "-f"]);
    command.arg(file.path()).env("PGPASSWORD", super::DBA);
    let output = match command.output().await {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        output => output?,
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    Ok(true)
}

#[tokio::test]
async fn one_cluster_is_told_from_another_whatever_the_time_zone() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let seen = bootstrap::cluster_of(&mut it.admin().await?).await?;
    let mut elsewhere = it.superuser("template1").await?;
    sql(&mut elsewhere, "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'").await?;
    assert_eq!(bootstrap::cluster_of(&mut elsewhere).await?, seen);
    Ok(())
}

#[tokio::test]
async fn a_session_is_pinned_and_says_nothing_to_the_log_where_it_may() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let mut session = it.provisioner().await?;
    assert_eq!(show(&mut session, "search_path").await?, "pg_catalog");
    for (setting, value) in
        [("standard_conforming_strings", "on"), ("lock_timeout", "10s"), ("statement_timeout", "5min")]
    {
        assert_eq!(show(&mut session, setting).await?, value);
    }
    assert_eq!(show(&mut session, "application_name").await?, "tenantry/test");
    let (blue, admin) = (&it.server.names.blue, &it.server.names.admin);
    let mut superuser = it.superuser("postgres").await?;
    sql(&mut superuser, &format!("ALTER ROLE \"{blue}\" SET log_statement = 'ddl'")).await?;
    assert_eq!(show(&mut it.provisioner().await?, "log_statement").await?, "ddl", "it may not");
    sql(&mut superuser, &format!("GRANT SET ON PARAMETER log_statement TO \"{admin}\"")).await?;
    assert_eq!(show(&mut it.provisioner().await?, "log_statement").await?, "none");
    sql(&mut superuser, &format!("REVOKE SET ON PARAMETER log_statement FROM \"{admin}\"")).await?;
    Ok(())
}

async fn show(session: &mut PgConnection, setting: &str) -> Result<String, sqlx::Error> {
    ask(session, &format!("SELECT current_setting('{setting}')")).await
}
