//! SCRAM verifiers of this crate, compared with those that PostgreSQL derives from the same passwords.
use super::{By, Installation, Outcome, ask, code, sql};
use crate::cluster::pg::{ddl, ensure, scram};
use crate::testing::TestServer;
use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;

/// Passwords with special cases of SASLprep: it changes `½` and `ﬁ`, and removes a soft hyphen. U+0378 is unassigned,
/// so SASLprep rejects the password and PostgreSQL uses it unchanged.
const PASSWORDS: [&str; 7] =
    ["p@ss/w?rd:1#%", "it's", "b\\ack \"slash\" ", "Größe ½ ﬁ", "soft\u{ad}hyphen", "a\u{a0}b", "\u{378}x"];

#[tokio::test]
async fn derive_gives_the_verifier_that_postgresql_stores() -> Outcome {
    let mut superuser = TestServer::shared().await?.admin_options().connect().await?;
    for (n, password) in PASSWORDS.into_iter().enumerate() {
        let role = format!("\"v{}_{n}\"", uuid::Uuid::now_v7().simple());
        let quoted = password.replace('\'', "''");
        sql(&mut superuser, &format!("CREATE ROLE {role} PASSWORD '{quoted}'")).await?;
        let stored: String =
            ask(&mut superuser, &format!("SELECT rolpassword FROM pg_authid WHERE oid = '{role}'::regrole")).await?;
        sql(&mut superuser, &format!("DROP ROLE {role}")).await?;
        let salt = stored.split(['$', ':']).nth(2).unwrap();
        let ours = scram::derive(password, &BASE64.decode(salt.as_bytes())?, 4096);
        assert_eq!(ours.as_str(), stored, "verifier of {password:?}");
    }
    Ok(())
}

/// PostgreSQL writes the text of a failing statement to its log. Creating a login that exists fails, and so does
/// renewing one whose row a session of the tenant keeps locked.
#[tokio::test]
async fn statements_that_fail_show_no_verifier_in_the_servers_log() -> Outcome {
    let server: &'static TestServer =
        Box::leak(Box::new(TestServer::builder().setting("log_statement", "none").start().await?));
    let it = Installation::new_without_set_up_on(server, By::Superuser).await?;
    it.set_up().await?;
    let mut provisioner = it.provisioner().await?;
    let group = format!("{}_g", it.prefix()).parse()?;
    ddl::create_groups(&[&group], "x").run(&mut provisioner, "test").await?;
    let (name, password) = (format!("{}_v1", it.prefix()).parse()?, SecretString::from("some password"));
    let verifier = scram::derive_verifier(&password).await;
    let login = ddl::Login { name: &name, acts_as: &group, limit: 2, verifier: &verifier };
    for _ in 0..2 {
        ensure::create_login(&mut provisioner, &login, &it.ownership()).await?;
    }
    let mut tenant = it.options(&name, &password).database("postgres").connect().await?;
    sql(&mut tenant, "SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'x'").await?;
    sql(&mut provisioner, "SET lock_timeout = '50ms'").await?;
    let renewed = ensure::create_login(&mut provisioner, &login, &it.ownership()).await;
    assert!(renewed.is_err(), "the login was renewed although its row is locked");
    let log = server.log().await?;
    assert!(log.contains("CREATE ROLE") && log.contains("CONNECTION LIMIT"), "no statement has failed: {log}");
    assert!(!log.contains("SCRAM-SHA-256"), "a verifier is in the server's log: {log}");
    Ok(())
}

#[tokio::test]
async fn login_created_with_a_verifier_accepts_only_its_password() -> Outcome {
    let it = Installation::new(By::Superuser).await?;
    let mut provisioner = it.provisioner().await?;
    let group = format!("{}_g", it.prefix()).parse()?;
    ddl::create_groups(&[&group], "x").run(&mut provisioner, "test").await?;
    for (n, password) in PASSWORDS.iter().take(6).enumerate() {
        let (name, password) = (format!("{}_v{n}", it.prefix()).parse()?, SecretString::from(*password));
        let verifier = scram::derive_verifier(&password).await;
        let login = ddl::Login { name: &name, acts_as: &group, limit: 2, verifier: &verifier };
        ensure::create_login(&mut provisioner, &login, &it.ownership()).await?;
        let database = "postgres";
        let options = |password: &SecretString| it.options(&name, password).database(database);
        assert_eq!(code(options(&password).connect().await), "00000", "login with {:?}", password.expose_secret());
        assert_eq!(
            code(options(&SecretString::from("other")).connect().await),
            "28P01",
            "a wrong password must be refused"
        );
        let stored: String = ask(
            &mut it.superuser(database).await?,
            &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{name}'"),
        )
        .await?;
        assert_eq!(stored, verifier.as_str(), "PostgreSQL must store the verifier as it is and not hash it again");
    }
    Ok(())
}
