//! Builds sqlx connection options from a directory entry.
//!
//! The resolver uses [`options`] for a tenant's connections, migrations and setup links use it for single sessions. The
//! options are set one by one and never pass through a URL, so no value needs escaping and no URL with a password
//! exists.
use crate::directory::{ConnectionSettings, TenantDatabase};
use crate::server::TlsMode;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// Options for the entry's login. Never format them: the `Debug` of `PgConnectOptions` prints the password. A type that
/// contains them must not derive `Debug`.
pub(crate) fn connect_options(entry: &TenantDatabase, password: &SecretString) -> PgConnectOptions {
    let settings = &entry.settings;
    let options = PgConnectOptions::new_without_pgpass()
        .host(&entry.host)
        .port(entry.port)
        .database(entry.database.as_str())
        .username(entry.login.as_str())
        .password(password.expose_secret())
        .application_name(settings.application_name.as_deref().unwrap_or("tenantry"))
        .options(session_settings(settings))
        .ssl_mode(ssl_mode(settings.tls.unwrap_or_else(|| TlsMode::default_for(&entry.host))))
        .disable_statement_logging();
    match &settings.root_certificate {
        Some(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
        None => options,
    }
}

fn session_settings(settings: &ConnectionSettings) -> Vec<(&'static str, String)> {
    let milliseconds = [
        ("statement_timeout", settings.statement_timeout_ms),
        ("lock_timeout", settings.lock_timeout_ms),
        ("idle_in_transaction_session_timeout", settings.idle_in_transaction_timeout_ms),
    ];
    let mut options: Vec<(&str, String)> =
        milliseconds.into_iter().filter_map(|(name, ms)| Some((name, ms?.to_string()))).collect();
    if !settings.search_path.is_empty() {
        let quoted = settings.search_path.iter().map(|s| format!("\"{}\"", s.replace('"', "\"\"")));
        options.push(("search_path", quoted.collect::<Vec<_>>().join(",")));
    }
    options
}

fn ssl_mode(mode: TlsMode) -> PgSslMode {
    match mode {
        TlsMode::Disable => PgSslMode::Disable,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_connect_options_still_prints_the_password() {
        let options = PgConnectOptions::new_without_pgpass().password("canary-secret");
        assert!(
            format!("{options:?}").contains("canary-secret"),
            "the Debug of PgConnectOptions no longer prints the password; update the comments that forbid Debug"
        );
    }
}
