//! Connection options for a test's own logins.
use crate::connect::LoginOptions;
use crate::server::TlsMode;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

/// Options to connect to a database as this login, with TLS if the server offers it. Unlike those of sqlx's
/// constructors, they do not depend on `PGHOST`, `PGPASSWORD` and other variables of the process, or on `~/.pgpass`.
pub fn connect_options(host: &str, port: u16, login: &str, password: &str, database: &str) -> PgConnectOptions {
    let login = LoginOptions {
        host,
        port,
        database,
        role: login,
        password: &SecretString::from(password),
        application_name: "tenantry test",
        tls: TlsMode::Prefer,
        root_certificate: None,
    };
    login.build_logged()
}
