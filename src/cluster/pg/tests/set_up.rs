//! Setting up a server, as a superuser and as a managed service's admin.
use super::{By, Installation, Outcome, ask, code, sql};
use crate::cluster::pg::script::{Landlord, build_script};
use crate::cluster::pg::{bootstrap, ddl, scram};
use crate::error::ClusterError;
use crate::sql::Ddl;
use crate::testing::TestServer;
use sqlx::{ConnectOptions, PgConnection};

const BOTH: [By; 2] = [By::Superuser, By::Managed];

/// The roles that can act as the admin role. Memberships without SET and INHERIT are left out: they are only the
/// creator's right to administer the role.
async fn members_of_admin(it: &Installation) -> Outcome<Vec<String>> {
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
async fn set_up_gives_the_provisioner_createdb_and_createrole_only() -> Outcome {
    for by in BOTH {
        let it = Installation::new(by).await?;
        for (login, password) in [(&it.server.names.blue, &it.blue), (&it.server.names.green, &it.green)] {
            let mut session = it.login(login, password, &it.server.names.maintenance).await?;
            let rights = bootstrap::read_admin_rights(&mut session).await?;
            assert_eq!(rights.role, it.server.names.admin.as_str());
            assert!(!rights.superuser && rights.create_db && rights.create_role, "{rights:?}");
        }
        assert_eq!(
            members_of_admin(&it).await?,
            logins(&it),
            "{by:?}: only the provisioner's logins may be members of the admin role"
        );
        assert!(bootstrap::is_closed(&mut it.admin().await?, it.server.names.maintenance.as_str()).await?);
    }
    Ok(())
}

#[tokio::test]
async fn set_up_completes_after_dying_at_any_statement() -> Outcome {
    for by in BOTH {
        for died_after in 0..5 {
            let it = Installation::new_without_set_up(by).await?;
            run_first_statements(&it, died_after).await?;
            for _ in 0..2 {
                it.set_up().await?;
                assert_eq!(
                    members_of_admin(&it).await?,
                    logins(&it),
                    "{by:?}: members of the admin role after a set-up that died after statement {died_after}"
                );
            }
            bootstrap::grant_optional_roles(&mut it.admin().await?, &it.server.names.admin).await?;
            it.provisioner().await?;
        }
    }
    Ok(())
}

/// Runs the first statements of a set-up, as one that died after them.
async fn run_first_statements(it: &Installation, statements: usize) -> Outcome {
    let names = &it.server.names;
    let mut admin = it.admin().await?;
    let verifier = scram::derive_verifier(&scram::generate_password()).await;
    let blue = ddl::create_provisioner(&names.blue, &names.admin, &verifier, &it.marker());
    let all = [
        ddl::create_admin(&names.admin, &it.marker()),
        Ddl(format!("{}; {}", blue.first.text(), blue.password.text())),
        ddl::lend_admin(&names.admin),
        ddl::create_maintenance(&names.maintenance, &names.admin),
    ];
    for statement in all.into_iter().take(statements) {
        statement.run(&mut admin, "test").await?;
    }
    Ok(())
}

#[tokio::test]
async fn set_up_refuses_names_that_another_party_uses() -> Outcome {
    let it = Installation::new_without_set_up(By::Superuser).await?;
    let (mut superuser, names) = (it.superuser("postgres").await?, &it.server.names);
    for role in [&names.admin, &names.blue, &names.green] {
        sql(&mut superuser, &format!("CREATE ROLE \"{role}\"")).await?;
        let error = it.set_up().await.unwrap_err();
        let foreign = error.downcast_ref();
        let is_named = matches!(foreign, Some(ClusterError::Foreign { kind: "role", name }) if name == role.as_str());
        assert!(is_named, "the error must name the role {role}: {error:?}");
        sql(&mut superuser, &format!("DROP ROLE \"{role}\"")).await?;
    }
    let left = format!("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, '{}')", it.prefix());
    assert_eq!(
        ask::<i64>(&mut superuser, &left).await?,
        1,
        "a refused set-up must create no role: only its DBA may exist"
    );

    sql(&mut superuser, &format!("CREATE DATABASE \"{}\" TEMPLATE template0", names.maintenance)).await?;
    let error = it.set_up().await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(ClusterError::Foreign { kind: "database", .. })), "{error:?}");
    Ok(())
}

/// A managed service's admin may grant predefined roles only on PostgreSQL 15.
#[tokio::test]
async fn optional_reports_each_refused_right() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let refused = bootstrap::grant_optional_roles(&mut it.admin().await?, &it.server.names.admin).await?;
    if TestServer::shared().await?.version_num() < 160_000 {
        assert!(refused.is_empty(), "{refused:?}");
    } else {
        assert!(refused[0].contains("pg_signal_backend") && refused[1].contains("pg_read_all_stats"), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn close_to_public_keeps_connected_roles_and_refuses_others_and_tenants() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let server = TestServer::shared().await?;
    let (landlord, inside) = (server.create_database("landlord").await?, server.create_database("host").await?);
    let stranger = server.create_database("stranger").await?;
    let mut provisioner = it.provisioner().await?;
    let (tenant, password) = super::termination::login(&it, &mut provisioner, "_v1").await?;

    let options = inside.options().database(landlord.name());
    let _session_by_public_right = options.connect().await?;
    let _tenant_session = it.options(&tenant, &password).database(landlord.name()).connect().await?;
    let mut admin = it.admin().await?;
    for _ in 0..2 {
        let keep = [landlord.name().to_owned()];
        assert_eq!(bootstrap::close_to_public(&mut admin, landlord.name(), &keep).await?, None);
    }
    assert_eq!(code(options.connect().await), "00000", "a role that was connected must keep its right");
    assert_eq!(code(landlord.options().connect().await), "00000", "the landlord's own role must keep its right");
    assert_eq!(code(stranger.options().database(landlord.name()).connect().await), "42501");
    // A tenant's login gets no grant, although it is connected: the grant would keep its role from being dropped.
    let again = it.options(&tenant, &password).database(landlord.name());
    assert_eq!(code(again.connect().await), "42501");
    Ok(())
}

#[tokio::test]
async fn close_to_public_reports_a_database_that_a_managed_admin_does_not_own() -> Outcome {
    let it = Installation::new(By::Managed).await?;
    let landlord = TestServer::shared().await?.create_database("landlord").await?;
    let mut admin = it.admin().await?;
    // The database's owner has the same name.
    let roles_to_keep = [landlord.name().to_owned()];
    let reason = bootstrap::close_to_public(&mut admin, landlord.name(), &roles_to_keep).await?;
    let reason = reason.expect("a database that the server admin does not own must be reported as open");
    assert!(reason.contains(landlord.name()), "{reason}");
    // The session must be usable, outside a failed transaction.
    sql(&mut admin, "SELECT 1").await?;
    assert!(!bootstrap::is_closed(&mut admin, landlord.name()).await?);
    Ok(())
}

/// Runs the script twice with psql. Skipped on a machine without psql.
#[tokio::test]
async fn psql_script_sets_the_server_up() -> Outcome {
    for by in BOTH {
        let it = Installation::new_without_set_up(by).await?;
        let server = TestServer::shared().await?;
        let (landlord, elsewhere) = (server.create_database("landlord").await?, server.create_database("other").await?);
        let reports = server.create_database("reports").await?;
        let verifiers = (scram::derive_verifier(&it.blue).await, scram::derive_verifier(&it.green).await);
        let cluster = bootstrap::read_cluster_id(&mut it.admin().await?).await?;
        let script_for = |name: &str, cluster: &str| {
            let (database, role) = (name.to_owned(), landlord.name().to_owned());
            let landlord = Landlord { database, role, cluster: cluster.to_owned() };
            build_script(&it.server.names, [&verifiers.0, &verifiers.1], &it.marker(), Some(&landlord), false)
        };
        let _inside = reports.options().database(landlord.name()).connect().await?;
        for _ in 0..2 {
            for text in [script_for(landlord.name(), &cluster), script_for(elsewhere.name(), "another one")] {
                if !run_psql(&it, &text).await? {
                    return Ok(());
                }
            }
            assert_eq!(members_of_admin(&it).await?, logins(&it), "{by:?}: members of the admin role");
        }
        it.provisioner().await?;
        let mut admin = it.admin().await?;
        assert!(bootstrap::is_closed(&mut admin, it.server.names.maintenance.as_str()).await?);
        assert_eq!(
            bootstrap::is_closed(&mut admin, landlord.name()).await?,
            by == By::Superuser,
            "{by:?}: only a superuser can close a landlord database that the server admin does not own"
        );
        assert!(
            !bootstrap::is_closed(&mut admin, elsewhere.name()).await?,
            "a database of another cluster must stay as it is"
        );
        let connected = reports.options().database(landlord.name()).connect().await;
        assert_eq!(code(connected), "00000", "{by:?}: a role that was connected must keep its right");
        // The set-up accepts what the script has created.
        it.set_up().await?;
    }
    Ok(())
}

/// Runs a script with psql as the server admin; `false` if this machine has no psql.
async fn run_psql(it: &Installation, script: &str) -> Outcome<bool> {
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
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "psql failed: {stderr}");
    Ok(true)
}

#[tokio::test]
async fn cluster_of_is_equal_in_every_time_zone_and_date_style() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let expected = bootstrap::read_cluster_id(&mut it.admin().await?).await?;
    let mut elsewhere = it.superuser("template1").await?;
    sql(&mut elsewhere, "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'").await?;
    assert_eq!(bootstrap::read_cluster_id(&mut elsewhere).await?, expected);
    Ok(())
}

#[tokio::test]
async fn session_has_pinned_settings_and_turns_statement_logging_off_if_allowed() -> Outcome {
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
    assert_eq!(
        show(&mut it.provisioner().await?, "log_statement").await?,
        "ddl",
        "without the right the setting must stay"
    );
    sql(&mut superuser, &format!("GRANT SET ON PARAMETER log_statement TO \"{admin}\"")).await?;
    assert_eq!(show(&mut it.provisioner().await?, "log_statement").await?, "none");
    sql(&mut superuser, &format!("REVOKE SET ON PARAMETER log_statement FROM \"{admin}\"")).await?;
    Ok(())
}

/// Reads a setting of the session.
async fn show(session: &mut PgConnection, setting: &str) -> Result<String, sqlx::Error> {
    ask(session, &format!("SELECT current_setting('{setting}')")).await
}
