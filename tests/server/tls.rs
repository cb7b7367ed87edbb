//! TLS with a certificate of our own making.

use sqlx::ConnectOptions;
use sqlx::postgres::PgSslMode;
use tenantry::testing::TestServer;

#[tokio::test]
async fn a_certificate_of_our_own_is_served_and_verified() -> Result<(), Box<dyn std::error::Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let server = TestServer::builder().tls(certificate.clone(), key).start().await?;

    let verified = server.admin_options().host("localhost").ssl_mode(PgSslMode::VerifyFull);
    let trusting = verified.clone().ssl_root_cert_from_pem(certificate.into_bytes());
    let mut session = trusting.clone().connect().await?;
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut session).await?);

    assert!(verified.connect().await.is_err(), "a certificate nobody vouches for");
    assert!(trusting.host("127.0.0.1").connect().await.is_err(), "a certificate of another name");
    Ok(server.stop().await?)
}
