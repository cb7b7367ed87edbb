//! `sql`: psql in a tenant's database, with a login that ends with it.
use crate::installation::{Installation, Ran};

const NOTES: [&str; 2] = ["--migrations", "examples/tenant_migrations"];
const COUNT: &str = "SELECT count(*) FROM pg_roles r WHERE r.rolname = session_user AND r.rolvaliduntil > now()";

fn psql(installation: &Installation, arguments: &[&str], statement: &str) -> Ran {
    installation.run(&[&["sql", "acme"], arguments, &["--", "-XAtqc", statement]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_by_default_writes_on_request_and_leaves_no_login() {
    let installation = Installation::start().await;
    installation.run(&[&["tenants", "create", "acme"][..], &NOTES].concat()).succeed();
    let read = psql(&installation, &["--reason", "ada: ticket 17"], COUNT).succeed();
    assert_eq!(read.stdout, "1\n", "the login that psql uses has an expiry");
    for told in ["is read-only and ends at", "The login is dropped."] {
        assert!(read.stderr.contains(told), "{told:?} is not in:\n{}", read.stderr);
    }
    const WRITE: &str = "INSERT INTO notes (text) VALUES ('by hand')";
    let refused = psql(&installation, &[], WRITE).exit(1);
    assert!(refused.stderr.contains("read-only transaction"), "{}", refused.stderr);
    psql(&installation, &["--write", "--for", "1h"], WRITE).succeed();
    assert_eq!(psql(&installation, &[], "SELECT text FROM notes").succeed().stdout, "by hand\n");
    let examined = installation.run(&[&["doctor"][..], &NOTES].concat()).succeed();
    assert!(examined.stdout.contains("Nothing was found"), "{}", examined.stdout);
    let left =
        psql(&installation, &[], "SELECT count(*) FROM pg_roles WHERE rolname LIKE current_database() || '\\_t%'");
    assert_eq!(left.succeed().stdout, "1\n", "temporary logins of the tenant while psql runs: only its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_without_psql_says_what_to_install_and_creates_no_login() {
    let installation = Installation::start().await;
    installation.run(&["tenants", "create", "acme"]).succeed();
    let mut command = installation.command(&["sql", "acme"]);
    let ran = Ran::new({
        command.env("PATH", "/nonexistent");
        command
    })
    .exit(2);
    assert!(ran.stderr.contains("postgresql-client"), "{}", ran.stderr);
    let shown = installation.run(&["operations", "list", "--json"]).succeed();
    assert!(!shown.stdout.contains("temporary_login"), "{}", shown.stdout);
    let long = installation.run(&["sql", "acme", "--for", "25h"]).exit(2);
    assert!(long.stderr.contains("24 hours"), "{}", long.stderr);
    installation.run(&["sql", "missing"]).exit(1);
}
