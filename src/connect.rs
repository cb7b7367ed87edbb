//! Connection options that the environment of the process does not change.
//!
//! sqlx's constructors read the `PG*` variables and `~/.pgpass`. Every connection that this crate opens by itself has
//! the options that [`LoginOptions::build`] returns; `clippy.toml` forbids sqlx's constructors everywhere else.
//!
//! Invariants:
//! - Every setting that a variable can change is set explicitly, except those of [`find_inherited_variable`], for which
//!   sqlx has no way to unset them. `build()` and `set_up` refuse these.
//! - Options never pass through a URL, so no value needs escaping and no URL with a password exists.
//! - Options of an application's own, such as those of a server admin, are not changed.
use crate::server::TlsMode;
use secrecy::{ExposeSecret, SecretString};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::path::PathBuf;

/// A login of a database, its password, and how to connect.
pub(crate) struct LoginOptions<'a> {
    /// Host name, IP address, or the directory of a Unix socket, which begins with `/`.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) role: &'a str,
    pub(crate) password: &'a SecretString,
    pub(crate) application_name: &'a str,
    pub(crate) tls: TlsMode,
    /// Certificates of the trusted authorities in PEM format, in addition to the system's.
    pub(crate) root_certificate: Option<&'a str>,
}

impl LoginOptions<'_> {
    /// Options for this login, without statement logging. Never format them: the `Debug` of `PgConnectOptions` prints
    /// the password. A type that contains them must not derive `Debug`.
    pub(crate) fn build(&self) -> PgConnectOptions {
        self.build_logged().disable_statement_logging()
    }

    /// As [`build`](Self::build), with sqlx's default logging of statements.
    pub(crate) fn build_logged(&self) -> PgConnectOptions {
        #[expect(clippy::disallowed_methods, reason = "the one place that sets every field which the variables set")]
        let options = PgConnectOptions::new_without_pgpass()
            .host(self.host)
            .port(self.port)
            .database(self.database)
            .username(self.role)
            .password(self.password.expose_secret())
            .application_name(self.application_name);
        trust(options, self.tls, self.root_certificate)
    }
}

/// Sets the TLS mode and the root certificate. Without a certificate, one that `PGSSLROOTCERT` has set is replaced by
/// none: sqlx cannot unset it, but a text without certificates adds none to the system's.
pub(crate) fn trust(options: PgConnectOptions, tls: TlsMode, root_certificate: Option<&str>) -> PgConnectOptions {
    let options = options.ssl_mode(ssl_mode(tls));
    match root_certificate {
        Some(pem) => options.ssl_root_cert_from_pem(pem.as_bytes().to_vec()),
        None if std::env::var_os("PGSSLROOTCERT").is_some() => options.ssl_root_cert_from_pem(vec![]),
        None => options,
    }
}

pub(crate) fn ssl_mode(mode: TlsMode) -> PgSslMode {
    match mode {
        TlsMode::Disable => PgSslMode::Disable,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    }
}

/// The mode of these options. sqlx connects without TLS for `allow`.
pub(crate) fn tls_mode(options: &PgConnectOptions) -> TlsMode {
    match options.get_ssl_mode() {
        PgSslMode::Disable | PgSslMode::Allow => TlsMode::Disable,
        PgSslMode::Prefer => TlsMode::Prefer,
        PgSslMode::Require => TlsMode::Require,
        PgSslMode::VerifyCa => TlsMode::VerifyCa,
        PgSslMode::VerifyFull => TlsMode::VerifyFull,
    }
}

/// The first of the variables that sqlx reads, that is set, and that its options cannot unset: session settings
/// (`PGOPTIONS`), and the certificate and key of a client.
pub(crate) fn find_inherited_variable() -> Option<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| *name != "PGOPTIONS" || !value.is_empty());
    ["PGOPTIONS", "PGSSLCERT", "PGSSLKEY"].into_iter().find(is_set)
}

/// A root certificate in an application's options.
pub(crate) enum RootCertificate {
    /// Certificates in PEM format.
    Pem(String),
    /// A file with such certificates.
    File(PathBuf),
}

/// The root certificate in these options, if any. An empty text is none: see [`trust`].
pub(crate) fn root_certificate(options: &PgConnectOptions) -> Option<RootCertificate> {
    // The options show it only in their URL. All else is replaced first: the URL must not contain the password, and
    // sqlx panics on a host or name that does not fit into a URL.
    let shown = options.clone().host("host").username("user").password("").database("database").to_url_lossy();
    let (_, value) = shown.query_pairs().find(|(name, value)| name == "sslrootcert" && !value.is_empty())?;
    Some(match value.strip_prefix("file: ") {
        Some(path) => RootCertificate::File(path.into()),
        None => RootCertificate::Pem(value.into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> PgConnectOptions {
        let password = SecretString::from("canary-secret");
        let login = LoginOptions {
            host: "::1",
            port: 5432,
            database: "d",
            role: "a@b/c:d",
            password: &password,
            application_name: "test",
            tls: TlsMode::Prefer,
            root_certificate: None,
        };
        login.build()
    }

    #[test]
    fn debug_of_connect_options_still_prints_the_password() {
        assert!(
            format!("{:?}", options()).contains("canary-secret"),
            "the Debug of PgConnectOptions no longer prints the password; update the comments that forbid Debug"
        );
    }

    #[test]
    fn root_certificate_of_options_is_found_whatever_their_host_and_user_are() {
        assert!(root_certificate(&options()).is_none());
        let file = root_certificate(&options().ssl_root_cert("/etc/a b?.pem").socket("/run/x"));
        assert!(matches!(file, Some(RootCertificate::File(path)) if path.to_str() == Some("/etc/a b?.pem")));
        let pem = "-----BEGIN CERTIFICATE-----\nMA+/=&\n-----END CERTIFICATE-----\n";
        let text = root_certificate(&options().ssl_root_cert_from_pem(pem.into()));
        assert!(matches!(text, Some(RootCertificate::Pem(found)) if found == pem));
    }
}
