//! TLS for a test server: installs a certificate and switches `ssl` on.
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::session::{Session, quote_literal, wait_until_accepting};

/// The server's certificate and its private key. It has no `Debug`, so the key cannot be logged.
#[derive(Clone)]
pub(super) struct Certificate {
    certificate_pem: String,
    key_pem: String,
}

impl Certificate {
    pub(super) fn new(certificate_pem: String, key_pem: String) -> Self {
        Self { certificate_pem, key_pem }
    }

    /// Writes the files, sets `ssl`, and waits at most 10 s until the server accepts TLS connections. It uses SQL,
    /// because the files must belong to the server's account, which may be in a container.
    pub(super) async fn install(&self, admin: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let mut session = Session::open(admin).await?;
        session.run("SET log_statement = none".to_owned()).await?;
        session.run(write_file("tenantry.crt", &self.certificate_pem)).await?;
        session.run(write_file("tenantry.key", &self.key_pem)).await?;
        for (name, value) in [("ssl_cert_file", "tenantry.crt"), ("ssl_key_file", "tenantry.key"), ("ssl", "on")] {
            session.run(format!("ALTER SYSTEM SET {name} = {}", quote_literal(value))).await?;
        }
        session.run("SELECT pg_reload_conf()".to_owned()).await?;
        wait_until_accepting(&admin.clone().ssl_mode(PgSslMode::Require), Duration::from_secs(10)).await
    }
}

/// A `COPY … TO PROGRAM` that writes a file readable by the server only. PostgreSQL runs the program in its data
/// directory, so the name is relative to it.
fn write_file(name: &str, text: &str) -> String {
    let lines = format!("SELECT unnest(string_to_array({}, E'\\n'))", quote_literal(text.trim_end()));
    format!("COPY ({lines}) TO PROGRAM {}", quote_literal(&format!("umask 077; cat >{name}")))
}
