//! `servers().set_up()` and the life of a server: required rights, repetition, script for a DBA, removal, new
//! passwords.
//!
//! Submodules: the socket and the certificates of the admin's connection (`admin_options`), a set-up that is
//! interrupted or repeated (`again`), changes of the row while it runs (`concurrent`), failover (`failover`), a new
//! address (`relocate`), repair of logins (`repair`), options and placement (`settings`).
mod admin_options;
mod again;
mod concurrent;
mod failover;
mod relocate;
mod repair;
mod settings;

use crate::auditor::{self, assert_nothing, code};
use crate::provision::{migrated, statement_of};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tenantry::error::{ServerSetupError, VaultError};
use tenantry::operation::{FencingToken, OperationId};
use tenantry::secret::{CredentialId, KeyId, Purpose};
use tenantry::testing::Harness;
use tenantry::vault::{CredentialVault, KeyDisposal, LocalKeyring, PgVault, VaultWriter};
use tenantry::{TenantId, Tenantry, sqlx};

/// A server admin with the rights that a managed service gives: CREATEDB and CREATEROLE, no superuser.
async fn managed_admin(harness: &Harness, rights: &str) -> PgConnectOptions {
    let name = format!("{}_managed", harness.prefix());
    let mut server = auditor::superuser(harness).await;
    server.execute(statement_of(format!("CREATE ROLE {name} LOGIN {rights} PASSWORD 'p@ss/w?rd:1#%'"))).await.unwrap();
    harness.server().admin_options().username(&name).password("p@ss/w?rd:1#%")
}

/// A handle without any server set up.
async fn bare(harness: &Harness) -> Tenantry {
    migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone())).build().await.unwrap()
}

#[tokio::test]
async fn set_up_works_with_the_admin_of_a_managed_service() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = managed_admin(&harness, "CREATEDB CREATEROLE").await;
    let report = tenantry.servers().set_up("main", admin.clone()).prefix(harness.prefix()).await.unwrap();
    let is_refused = report.left_open.iter().any(|n| n.starts_with("pg_signal_backend"));
    let is_expected = harness.server().version_num() >= 160_000;
    assert_eq!(is_refused, is_expected, "before 16, CREATEROLE may grant pg_signal_backend: {report:?}");
    assert!(report.left_open.iter().any(|n| n.contains("stays open to PUBLIC")), "{report:?}");
    tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    tenantry.activate("acme").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
    assert_nothing(&harness, "after a purge by the admin of a managed service").await;
    tenantry.servers().set_up("main", admin).prefix(harness.prefix()).await.expect("a second set-up failed");
}

#[tokio::test]
async fn set_up_names_the_missing_right_and_begins_no_operation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = managed_admin(&harness, "CREATEDB").await;
    let error = tenantry.servers().set_up("main", admin.clone()).prefix(harness.prefix()).await.unwrap_err();
    assert!(matches!(&error, ServerSetupError::Rights { right: "CREATEROLE", .. }), "{error:?}");
    let mut server = auditor::superuser(&harness).await;
    let other = statement_of(format!("ALTER ROLE {}_managed NOCREATEDB CREATEROLE", harness.prefix()));
    server.execute(other).await.unwrap();
    let error = tenantry.servers().set_up("main", admin.clone()).prefix(harness.prefix()).await.unwrap_err();
    assert!(matches!(&error, ServerSetupError::Rights { right: "CREATEDB", .. }), "{error:?}");
    let error = tenantry.servers().set_up("main", admin.password("wrong")).await.unwrap_err();
    assert!(matches!(error, ServerSetupError::Connect(_)), "{error:?}");
    let error = tenantry.servers().set_up("Main Server", harness.server().admin_options()).await.unwrap_err();
    assert!(matches!(error, ServerSetupError::Invalid { field: "server", .. }), "{error:?}");
    assert!(tenantry.servers().list().await.unwrap().is_empty());
    assert!(tenantry.operations().open().await.unwrap().is_empty());
}

#[tokio::test]
async fn set_up_refuses_roles_of_another_installation() {
    let (first, second) = (Harness::start().await.unwrap(), Harness::start().await.unwrap());
    first.tenantry(migrated).await.unwrap();
    let tenantry = bare(&second).await;
    let error =
        tenantry.servers().set_up("main", second.server().admin_options()).prefix(first.prefix()).await.unwrap_err();
    assert!(matches!(&error, ServerSetupError::Foreign { kind: "role", .. }), "{error:?}");
    assert!(tenantry.servers().list().await.unwrap().is_empty(), "a refused set-up left a server in the landlord");
    tenantry.servers().set_up("main", second.server().admin_options()).prefix(second.prefix()).await.unwrap();
}

/// Set-up revokes CONNECT on the landlord from PUBLIC. A role of the application that has a session there only by that
/// right gets a grant.
#[tokio::test]
async fn set_up_keeps_connected_host_roles_able_to_connect_to_the_landlord() {
    let harness = Harness::start().await.unwrap();
    let mut server = auditor::superuser(&harness).await;
    let (name, landlord) = (format!("{}_reports", harness.prefix()), harness.landlord().connect_options());
    server.execute(statement_of(format!("CREATE ROLE {name} LOGIN PASSWORD 'reports'"))).await.unwrap();
    let reports = (*landlord).clone().username(&name).password("reports");
    let session = reports.connect().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    session.close().await.unwrap();
    reports.connect().await.expect("a role of the application that had a session can no longer connect");
    tenantry.registry().page(None, 1).await.expect("the role of the landlord pool can no longer read");
    let stranger = format!("{}_stranger", harness.prefix());
    server.execute(statement_of(format!("CREATE ROLE {stranger} LOGIN PASSWORD 'x'"))).await.unwrap();
    let refused = (*landlord).clone().username(&stranger).password("x").connect().await.unwrap_err();
    assert_eq!(code(&refused), "42501");
}

#[tokio::test]
async fn server_is_ready_after_a_dba_runs_the_script_and_confirm() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = harness.server().admin_options();
    let set_up = || tenantry.servers().set_up("main", admin.clone()).prefix(harness.prefix());
    let script = set_up().script().await.unwrap();
    let error = tenantry.provision("acme").await.unwrap_err();
    assert!(
        matches!(error, tenantry::error::ProvisionError::NoRoom { .. }),
        "a server accepted a tenant before its script was run: {error:?}"
    );
    let mut server = auditor::superuser(&harness).await;
    // Like psql: one statement per line, without comments and psql's own commands.
    for line in script.lines().filter(|l| !l.starts_with('\\') && !l.starts_with("--")) {
        server.execute(statement_of(line.to_owned())).await.unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    let report = set_up().confirm().await.unwrap();
    assert!(report.server.ready);
    tenantry.provision("acme").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
}

#[tokio::test]
async fn remove_refuses_a_server_with_tenants() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let error = tenantry.servers().remove("main").await.unwrap_err();
    assert!(matches!(error, ServerSetupError::InUse { tenants: 1, .. }), "{error:?}");
    tenantry.purge("acme").force().await.unwrap();
    tenantry.servers().remove("main").await.unwrap();
    let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.credentials WHERE owner LIKE 'server:%'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    assert_eq!(secrets, 0, "secrets of a removed server in the vault");
    assert!(matches!(tenantry.servers().remove("main").await, Err(ServerSetupError::Unknown { .. })));
}

/// A vault that replaces each generated password with one that would break an unescaped URL.
struct UrlBreakingVault(PgVault);
const URL_BREAKING: &str = "p@ss/w?rd:1#% 'ü\\\"";
#[async_trait::async_trait]
impl CredentialVault for UrlBreakingVault {
    async fn open(&self, id: &CredentialId) -> Result<SecretString, VaultError> {
        self.0.open(id).await
    }
}
#[async_trait::async_trait]
impl VaultWriter for UrlBreakingVault {
    async fn fence(&self, operation: OperationId, epoch: i64) -> Result<(), VaultError> {
        self.0.fence(operation, epoch).await
    }
    async fn put(
        &self, id: &CredentialId, secret: &SecretString, writer: FencingToken,
    ) -> Result<SecretString, VaultError> {
        let url_breaking = SecretString::from(URL_BREAKING);
        let login = matches!(id.purpose, Purpose::Login | Purpose::Provisioner);
        self.0.put(id, if login { &url_breaking } else { secret }, writer).await
    }
    async fn forget(&self, id: &CredentialId, writer: FencingToken) -> Result<(), VaultError> {
        self.0.forget(id, writer).await
    }
    async fn forget_tenant(&self, tenant: TenantId, writer: FencingToken) -> Result<(u64, KeyDisposal), VaultError> {
        self.0.forget_tenant(tenant, writer).await
    }
    async fn rewrap(&self, limit: u32) -> Result<u64, VaultError> {
        self.0.rewrap(limit).await
    }
    async fn keys_in_use(&self) -> Result<Vec<KeyId>, VaultError> {
        self.0.keys_in_use().await
    }
    async fn check_keys(&self) -> Result<(), VaultError> {
        self.0.check_keys().await
    }
}

#[tokio::test]
async fn url_breaking_passwords_work_for_every_login() {
    let harness = Harness::start().await.unwrap();
    let keys = std::sync::Arc::new(harness.keys().clone());
    let vault = UrlBreakingVault(PgVault::new(harness.landlord().clone(), keys));
    let tenantry = harness.tenantry(|b| migrated(b).vault(vault)).await.unwrap();
    tenantry.provision("acme").admin("ada@acme.example").await.unwrap();
    tenantry.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
    let login = auditor::login(&tenantry, "acme").await;
    let blue = format!("{}_blue", harness.prefix());
    let maintenance = format!("{}_maintenance", harness.prefix());
    login.clone().username(&blue).database(&maintenance).password(URL_BREAKING).connect().await.unwrap();
    let wrong = login.password("p@ss").connect().await.unwrap_err();
    assert_eq!(code(&wrong), "28P01", "the server does not check the password");
}

#[tokio::test]
async fn build_fails_with_a_wrong_or_missing_key() {
    use tenantry::error::BuildError;
    use tenantry::vault::LocalKeyring;
    let harness = Harness::start().await.unwrap();
    harness.tenantry(migrated).await.unwrap();
    let build = |keys: LocalKeyring| Tenantry::builder(harness.landlord().clone()).keys(keys).build();
    let wrong = build(LocalKeyring::random()).await.unwrap_err();
    assert!(matches!(wrong, BuildError::KeyWrong(_)), "{wrong:?}");
    let other = LocalKeyring::from_text("k2:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=").unwrap();
    let missing = build(other).await.unwrap_err();
    assert!(matches!(missing, BuildError::KeyMissing(_)), "{missing:?}");
    let none = Tenantry::builder(harness.landlord().clone()).build().await.unwrap_err();
    assert!(matches!(none, BuildError::NoKeys));
}

#[tokio::test]
async fn rotate_server_changes_both_logins_while_operations_run() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let secrets = async || -> Vec<(String, i64)> {
        const KEPT: &str = "SELECT role, version FROM tenantry.credentials WHERE owner = 'server:main' ORDER BY 1";
        sqlx::query_as(KEPT).fetch_all(harness.landlord()).await.unwrap()
    };
    let login = async || -> String {
        const LOGIN: &str = "SELECT login FROM tenantry.database_servers";
        sqlx::query_scalar(LOGIN).fetch_one(harness.landlord()).await.unwrap()
    };
    let (login_before, before) = (login().await, secrets().await);
    let (rotated, provisioned) =
        tokio::join!(tenantry.rotate_server("main").into_future(), tenantry.provision("other").into_future());
    assert_eq!(rotated.unwrap().name.as_str(), "main");
    provisioned.expect("a provisioning failed because the server's logins were rotated");
    assert_ne!(login().await, login_before, "the server still uses the same login");
    let after = secrets().await;
    let expected: Vec<_> = before.into_iter().map(|(role, version)| (role, version + 1)).collect();
    assert_eq!(after, expected, "one secret per login, each with the next version");
    tenantry.rotate_server("main").await.unwrap();
    assert_eq!(login().await, login_before);
    for slug in ["acme", "other"] {
        tenantry.suspend(slug).await.unwrap();
        tenantry.purge(slug).force().await.unwrap();
    }
    let unknown = tenantry.rotate_server("elsewhere").await;
    assert!(matches!(unknown, Err(tenantry::error::ChangeError::UnknownServer { .. })), "{unknown:?}");
    // A repeated set-up accepts the rotated logins.
    tenantry.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
    tenantry.provision("again").await.unwrap();
}

#[tokio::test]
async fn rekey_allows_the_old_key_to_be_removed() {
    const K1: &str = "k1:oRqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
    const K2: &str = "k2:pBqXTi4jD3PHGrDq0bR3rV4nXB6Vd1pD9yVYCyG0l3Q=";
    let harness = Harness::start().await.unwrap();
    let node = async |keys: String| {
        let builder =
            migrated(Tenantry::builder(harness.landlord().clone())).keys(LocalKeyring::from_text(&keys).unwrap());
        builder.build().await
    };
    let old = node(K1.into()).await.unwrap();
    old.servers().set_up("main", harness.server().admin_options()).prefix(harness.prefix()).await.unwrap();
    old.provision("acme").await.unwrap();
    let both = node(format!("{K2},{K1}")).await.unwrap();
    let refused = node(K2.into()).await.expect_err("a node started without a key that records still need");
    assert!(matches!(refused, tenantry::error::BuildError::KeyMissing(_)), "{refused:?}");
    let keys = both.rekey().reason("yearly").await.unwrap().keys;
    assert_eq!(keys.iter().map(|k| k.as_str()).collect::<Vec<_>>(), ["k2"]);
    let new = node(K2.into()).await.expect("a node needs the old key after rekey()");
    new.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
    new.rotate("acme").await.unwrap();
}

/// Rotates the passwords of the server's logins before it forwards the first `CREATE DATABASE`.
#[derive(Clone, Default)]
struct RotateAtCreateDatabase(std::sync::Arc<std::sync::Mutex<Option<Tenantry>>>);
#[async_trait::async_trait]
impl tenantry::testing::proxy::Director for RotateAtCreateDatabase {
    async fn at(&self, point: tenantry::testing::proxy::Point) -> tenantry::testing::proxy::Verdict {
        let now = point.stage == tenantry::testing::proxy::Stage::Before && point.sql.starts_with("CREATE DATABASE");
        let tenantry = if now { self.0.lock().unwrap().take() } else { None };
        if let Some(tenantry) = tenantry {
            tenantry.rotate_server("main").await.expect("rotate_server failed");
        }
        tenantry::testing::proxy::Verdict::Forward
    }
}

#[tokio::test]
async fn provision_continues_with_the_new_password_after_a_server_rotation() {
    let harness = Harness::start().await.unwrap();
    let tenantry = migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone()));
    let tenantry = tenantry.build().await.unwrap();
    let (admin, middle) = (harness.server().admin_options(), RotateAtCreateDatabase::default());
    let upstream = tokio::net::lookup_host((admin.get_host(), admin.get_port())).await.unwrap().next().unwrap();
    let proxy = tenantry::testing::proxy::Proxy::start(upstream, middle.clone()).await.unwrap();
    let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix());
    set_up.address("127.0.0.1", proxy.port()).await.unwrap();
    *middle.0.lock().unwrap() = Some(tenantry.clone());
    tenantry.provision("acme").await.expect("provision failed after its login had got a new password");
    assert!(middle.0.lock().unwrap().is_none(), "no CREATE DATABASE was seen, so no password was changed");
    tenantry.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
    tenantry.close().await;
    proxy.stop().await;
}
