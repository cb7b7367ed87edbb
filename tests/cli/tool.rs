//! The program is not the application: it must not apply its own defaults, or drive what it does not have the parts of.
use crate::installation::Installation;
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};
use tenantry::testing::TestServer;

/// Sets the limit of every login of this tenant by SQL, as an application with other settings would have it.
#[expect(clippy::disallowed_methods, reason = "SQL of the test itself")]
async fn set_limit(login: &str, limit: i32) {
    let mut session = TestServer::shared().await.unwrap().admin_options().connect().await.unwrap();
    session.execute(AssertSqlSafe(format!("ALTER ROLE {login} CONNECTION LIMIT {limit}"))).await.unwrap();
}

async fn read_limit(login: &str) -> i32 {
    let mut session = TestServer::shared().await.unwrap().admin_options().connect().await.unwrap();
    let read = sqlx::query("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1").bind(login);
    read.fetch_one(&mut session).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_application_survive_a_set_up_and_a_repair_by_the_program() {
    let installation = Installation::start().await;
    let notes = "examples/tenant_migrations";
    installation.run(&["tenants", "create", "acme", "--migrations", notes]).succeed();
    let shown = installation.run(&["tenants", "show", "acme", "--json"]).succeed().json();
    let login = shown["databases"][0]["login"].as_str().unwrap().to_owned();
    set_limit(&login, 77).await;
    installation.run(&["servers", "set-up", "main"]).succeed();
    let examined = installation.run(&["doctor", "--tenant", "acme", "--migrations", notes]).succeed();
    assert!(examined.stdout.contains("Nothing was found"), "{}", examined.stdout);
    installation.run(&["doctor", "--fix", "--yes", "--migrations", notes]);
    assert_eq!(read_limit(&login).await, 77, "the program has set the default of a library that it does not configure");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_without_migrations_does_not_call_a_tenant_migrated() {
    let installation = Installation::start().await;
    installation.run(&["tenants", "create", "acme"]).succeed();
    for arguments in [&["migrate", "status"][..], &["migrate", "run", "acme"], &["migrate", "run", "--all"]] {
        let ran = installation.run(arguments).exit(2);
        assert!(ran.stderr.contains("TENANTRY_MIGRATIONS"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_with_one_failure_exits_with_4_and_lists_it() {
    let installation = Installation::start().await;
    let notes = "examples/tenant_migrations";
    installation.run(&["tenants", "create", "acme"]).succeed();
    let behind = installation.run(&["migrate", "status", "--migrations", notes]).exit(3);
    assert!(behind.stdout.contains("behind"), "{}", behind.stdout);
    let run = ["migrate", "run", "acme", "missing", "--migrations", notes];
    let text = installation.run(&run).exit(4);
    assert!(text.stdout.contains("no tenant has the slug, id or domain missing"), "{}", text.stdout);
    let json = installation.run(&[&run[..], &["--json"]].concat()).exit(4).json();
    assert_eq!(json["failed"][0]["tenant"], "missing");
    assert_eq!(json["done"][0]["tenant"], "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_without_a_terminal_changes_nothing_unless_it_is_confirmed() {
    let installation = Installation::start().await;
    installation.run(&["tenants", "create", "acme", "--domain", "acme.example"]).succeed();
    let refused = installation.run(&["tenants", "purge", "acme", "--force"]).exit(2);
    for lost in ["the database t_", "the domain acme.example", "Add --yes"] {
        assert!(refused.stderr.contains(lost), "{lost:?} is not in:\n{}", refused.stderr);
    }
    assert_eq!(installation.run(&["tenants", "show", "acme", "--json"]).succeed().json()["tenant"]["status"], "active");
    installation.run(&["tenants", "purge", "acme", "--force", "--yes"]).succeed();
    installation.run(&["tenants", "show", "acme"]).exit(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_link_is_not_listed_any_more() {
    let installation = Installation::start().await;
    installation.run(&["tenants", "create", "acme"]).succeed();
    let issued = installation.run(&["links", "issue", "acme", "ada@acme.example", "--json"]).succeed().json();
    let (id, path) = (issued["id"].as_str().unwrap(), issued["link"]["path"].as_str().unwrap());
    let listed = installation.run(&["links", "list", "acme", "--json"]).succeed();
    assert_eq!(listed.json()["links"][0]["id"], id);
    assert!(!listed.stdout.contains(path.rsplit('/').next().unwrap()), "the list shows the token");
    installation.run(&["links", "revoke", "acme", id]).succeed();
    assert_eq!(installation.run(&["links", "list", "acme", "--json"]).succeed().json()["links"], serde_json::json!([]));
    installation.run(&["links", "revoke", "acme", id]).exit(1);
}
