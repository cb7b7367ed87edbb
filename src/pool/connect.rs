//! Builds sqlx connection options from a directory entry.
//!
//! The resolver uses [`connect_options`] for a tenant's connections, migrations and setup links use it for single
//! sessions.
use crate::connect::LoginOptions;
use crate::directory::{ConnectionSettings, TenantDatabase};
use crate::server::TlsMode;
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

/// Options for the entry's login. Never format them: see [`LoginOptions::build`].
pub(crate) fn connect_options(entry: &TenantDatabase, password: &SecretString) -> PgConnectOptions {
    let settings = &entry.settings;
    let login = LoginOptions {
        host: &entry.host,
        port: entry.port,
        database: entry.database.as_str(),
        role: entry.login.as_str(),
        password,
        application_name: settings.application_name.as_deref().unwrap_or("tenantry"),
        tls: settings.tls.unwrap_or_else(|| TlsMode::default_for(&entry.host)),
        root_certificate: settings.root_certificate.as_deref(),
    };
    login.build().options(session_settings(settings))
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
