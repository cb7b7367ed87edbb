//! Connection URLs of PostgreSQL. Their text contains a password, so no error shows any part of it.
use super::failure::CommandError;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use std::time::Duration;

/// The form of a URL, for errors.
const FORM: &str = "postgres://USER:PASSWORD@HOST:PORT/DATABASE";
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Parses a URL that was read from `source`, a variable or a file.
pub(super) fn parse(url: &SecretString, source: &str) -> Result<PgConnectOptions, CommandError> {
    let text = url.expose_secret().trim();
    let refused = |what: &str| CommandError::usage(format!("{source} {what}")).hint(format!("Its form is {FORM}"));
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("postgres" | "postgresql")) {
        return Err(refused("is not a URL of PostgreSQL"));
    }
    // Such a URL parses, with a part of the password as its host.
    if text.contains('#') || text.matches('@').count() > 1 {
        return Err(refused("has a # or a second @; in a password write %23 for # and %40 for @"));
    }
    let options: PgConnectOptions =
        text.parse().map_err(|_| refused("is not a valid URL; in a password write %2F for / and %25 for %"))?;
    Ok(options.disable_statement_logging())
}

/// Where the options connect to, without the password: `app@db.internal:5432/landlord`.
pub(super) fn describe(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(directory) => directory.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    format!("{}@{host}/{}", options.get_username(), options.get_database().unwrap_or(options.get_username()))
}

/// Opens one connection, so that a wrong address or password is reported at once and with its reason. A pool would repeat
/// the attempt until its own timeout.
pub(super) async fn verify_landlord(options: &PgConnectOptions) -> Result<(), CommandError> {
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await;
    let reason = match opened {
        Ok(Ok(session)) => {
            // The server ends the session anyway.
            let _ = session.close().await;
            return Ok(());
        }
        Ok(Err(error)) => crate::error::chain(&error),
        Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
    };
    let text = format!("the landlord {} cannot be connected to: {reason}", describe(options));
    Err(CommandError::failed(text).hint("Check its URL, and whether the server runs."))
}
