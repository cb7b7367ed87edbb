//! A test server with TLS: it presents the certificate that the builder was given.
//!
//! The certificate is made in the test, for `localhost`, and is its own root.

use sqlx::ConnectOptions;
use sqlx::postgres::PgSslMode;
use tenantry::testing::TestServer;

#[tokio::test]
async fn server_presents_the_given_certificate_and_clients_verify_it() -> Result<(), Box<dyn std::error::Error>> {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (generated.cert.pem(), generated.signing_key.serialize_pem());
    let server = TestServer::builder().tls(certificate.clone(), key).start().await?;

    let verified = server.admin_options().host("localhost").ssl_mode(PgSslMode::VerifyFull);
    let trusting = verified.clone().ssl_root_cert_from_pem(certificate.into_bytes());
    let mut session = trusting.clone().connect().await?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut session).await?);

    assert!(verified.connect().await.is_err(), "a client without the root certificate accepted the server");
    assert!(
        trusting.host("127.0.0.1").connect().await.is_err(),
        "a client accepted a certificate for another host name"
    );
    Ok(server.stop().await?)
}
