use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::session::{Session, connects, quote_literal};

/// What a server shows to its clients. No Debug: it holds the key.
#[derive(Clone)]
pub(super) struct Certificate {
    certificate_pem: String,
    key_pem: String,
}

impl Certificate {
    pub(super) fn new(certificate_pem: String, key_pem: String) -> Self {
        Self { certificate_pem, key_pem }
    }

    /// Through SQL, because the files must belong to the server's own account, wherever it runs.
    pub(super) async fn install(&self, admin: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let mut session = Session::open(admin).await?;
        session.run("SET log_statement = none".to_owned()).await?;
        session.run(write_file("tenantry.crt", &self.certificate_pem)).await?;
        session.run(write_file("tenantry.key", &self.key_pem)).await?;
        for (name, value) in [("ssl_cert_file", "tenantry.crt"), ("ssl_key_file", "tenantry.key"), ("ssl", "on")] {
            session.run(format!("ALTER SYSTEM SET {name} = {}", quote_literal(value))).await?;
        }
        session.run("SELECT pg_reload_conf()".to_owned()).await?;
        connects(&admin.clone().ssl_mode(PgSslMode::Require), Duration::from_secs(10)).await
    }
}

/// The server's programs run in its data directory.
fn write_file(name: &str, text: &str) -> String {
    let lines = format!("SELECT unnest(string_to_array({}, E'\\n'))", quote_literal(text.trim_end()));
    format!("COPY ({lines}) TO PROGRAM {}", quote_literal(&format!("umask 077; cat >{name}")))
}
