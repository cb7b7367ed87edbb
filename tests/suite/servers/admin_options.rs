//! What a set-up takes from the admin's connection options: a Unix socket and a root certificate either reach every
//! connection of the application, or are refused before a role exists.
use super::bare;
use crate::auditor;
use crate::tls::sign_certificate;
use sqlx::Executor;
use sqlx::postgres::PgConnectOptions;
use std::os::unix::fs::PermissionsExt;
use tenantry::error::ServerSetupError;
use tenantry::server::TlsMode;
use tenantry::sqlx;
use tenantry::testing::{Harness, TestServer};

/// Number of roles that a set-up with the harness's prefix has created.
async fn count_roles(harness: &Harness) -> i64 {
    const ROLES: &str = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1 || '_')";
    let mut server = auditor::superuser(harness).await;
    sqlx::query_scalar(ROLES).bind(harness.prefix()).fetch_one(&mut server).await.unwrap()
}

#[tokio::test]
async fn set_up_refuses_a_socket_of_the_admin_before_it_creates_a_role() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = || harness.server().admin_options();
    let by_url: PgConnectOptions = "postgres://postgres@%2Frun%2Fpg/postgres".parse().unwrap();
    let by_query: PgConnectOptions = "postgres:///postgres?host=/run/pg".parse().unwrap();
    for options in [admin().socket("/run/pg"), admin().host("/run/pg"), by_url, by_query] {
        let error = tenantry.servers().set_up("main", options).prefix(harness.prefix()).await.unwrap_err();
        assert!(
            matches!(&error, ServerSetupError::Socket { directory, .. } if directory.trim_end_matches('/') == "/run/pg"),
            "{error:?}"
        );
    }
    assert!(tenantry.servers().list().await.unwrap().is_empty());
    assert_eq!(count_roles(&harness).await, 0);
}

#[tokio::test]
async fn socket_of_the_admin_serves_the_admin_and_if_named_as_address_every_connection() {
    const PEER: &str = "SELECT coalesce(host(inet_server_addr()), 'socket')";
    let directory = tempfile::tempdir().unwrap();
    // The server may run under another account.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().to_str().unwrap();
    let server = TestServer::builder().local_only().setting("unix_socket_directories", path).start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let port = server.admin_options().get_port();
    let admin = || server.admin_options().host("nowhere.invalid").socket(path);
    for (host, expected) in [("127.0.0.1", "127.0.0.1"), (path, "socket")] {
        let harness = Harness::on(server).await.unwrap();
        let tenantry = bare(&harness).await;
        tenantry.servers().set_up("main", admin()).address(host, port).prefix(harness.prefix()).await.unwrap();
        tenantry.provision("acme").await.unwrap();
        let db = tenantry.resolve("acme").await.unwrap();
        let peer: String = sqlx::query_scalar(PEER).fetch_one(&db).await.unwrap();
        assert_eq!(peer, expected, "how the tenant's pool reached the server at {host}");
        tenantry.suspend("acme").await.unwrap();
        if host == path {
            tenantry.servers().set_up("main", admin()).weight(2).await.expect("the stored socket was refused");
        }
    }
}

#[tokio::test]
async fn root_certificate_of_the_admin_is_used_for_every_connection() {
    let (root, certificate, key) = sign_certificate();
    let server = TestServer::builder().tls(certificate, key).start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("root.pem"), &root).unwrap();
    std::fs::write(file("empty.pem"), "").unwrap();
    let admin = || server.admin_options().host("localhost");
    for admin in [admin().ssl_root_cert(file("root.pem")), admin().ssl_root_cert_from_pem(root.clone().into_bytes())] {
        let harness = Harness::on(server).await.unwrap();
        let tenantry = bare(&harness).await;
        let set_up = tenantry.servers().set_up("main", admin).prefix(harness.prefix()).tls(TlsMode::VerifyFull);
        set_up.await.expect("the root certificate of the admin did not reach the provisioner");
        tenantry.provision("acme").await.unwrap();
        tenantry.resolve("acme").await.unwrap().execute("SELECT * FROM notes").await.unwrap();
    }
    let harness = Harness::on(server).await.unwrap();
    let tenantry = bare(&harness).await;
    let set_up = |admin| tenantry.servers().set_up("main", admin).prefix(harness.prefix());
    for call in [
        set_up(admin().ssl_root_cert(file("missing.pem"))),
        set_up(admin().ssl_root_cert(file("empty.pem"))),
        set_up(admin()).root_certificate("not a certificate"),
    ] {
        let error = call.await.unwrap_err();
        assert!(matches!(error, ServerSetupError::RootCertificate { .. }), "{error:?}");
    }
    assert_eq!(count_roles(&harness).await, 0);
}

/// The admin's own choice of TLS is never weakened: loopback is `prefer` by default.
#[tokio::test]
async fn tls_mode_of_the_admin_is_not_weakened() {
    let harness = Harness::start().await.unwrap();
    let tenantry = bare(&harness).await;
    let admin = harness.server().admin_options().ssl_mode(sqlx::postgres::PgSslMode::Require);
    let error = tenantry.servers().set_up("main", admin).prefix(harness.prefix()).await.unwrap_err();
    assert!(matches!(error, ServerSetupError::Connect(_)), "an admin that requires TLS connected without: {error:?}");
    assert_eq!(count_roles(&harness).await, 0);
}
