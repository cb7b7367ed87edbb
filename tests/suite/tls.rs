//! TLS to tenant servers: with `verify_full`, set-up and every later connection verify the certificate and the host
//! name.
//!
//! The test makes a certificate authority of its own, whose root is passed to `set_up`.
use crate::provision::migrated;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tenantry::error::ServerSetupError;
use tenantry::server::TlsMode;
use tenantry::testing::{Harness, TestServer};
use tenantry::{Tenantry, sqlx};

/// The root certificate of a new authority, and the certificate for `localhost` that it signed, with its key. All in
/// PEM.
pub(crate) fn sign_certificate() -> (String, String, String) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    (root, server.pem(), server_key.serialize_pem())
}

#[tokio::test]
async fn verify_full_applies_to_set_up_and_to_every_tenant_connection() {
    let (root, certificate, key) = sign_certificate();
    let server = TestServer::builder().tls(certificate, key).start().await.unwrap();
    let server: &'static TestServer = Box::leak(Box::new(server));
    let harness = Harness::on(server).await.unwrap();
    let tenantry: Tenantry =
        migrated(Tenantry::builder(harness.landlord().clone()).keys(harness.keys().clone())).build().await.unwrap();
    let admin = || server.admin_options().host("localhost");
    let set_up = |admin| tenantry.servers().set_up("main", admin).prefix(harness.prefix()).tls(TlsMode::VerifyFull);

    let unknown = set_up(admin()).await.unwrap_err();
    assert!(
        matches!(unknown, ServerSetupError::Connect(_)),
        "set-up accepted a certificate of an unknown authority: {unknown:?}"
    );
    let other = set_up(server.admin_options().host("127.0.0.1")).root_certificate(&root).await.unwrap_err();
    assert!(
        matches!(other, ServerSetupError::Connect(_)),
        "set-up accepted a certificate for another host name: {other:?}"
    );

    set_up(admin()).root_certificate(&root).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let db = tenantry.resolve("acme").await.unwrap();
    let _open = db.begin().await.unwrap();
    const SSL: &str =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname LIKE 't\\_%'";
    let mut superuser = crate::auditor::superuser(&harness).await;
    assert_eq!(sqlx::query_scalar::<_, Option<bool>>(SSL).fetch_one(&mut superuser).await.unwrap(), Some(true));
    tenantry.suspend("acme").await.unwrap();
    tenantry.purge("acme").force().await.unwrap();
}
