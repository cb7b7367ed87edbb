//! The test server that an environment variable names by its URL.
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use super::ServerKind;
use super::error::NoServer;
use super::running::Running;
use super::session::Session;

/// Connects once to the server at `url`, to check that it can be used. It is neither configured nor stopped later.
pub(super) async fn find(variable: &'static str, url: &str) -> Result<Running, NoServer> {
    let unusable = |source| NoServer::Url { variable, source };
    let admin = PgConnectOptions::from_str(url).map_err(unusable)?;
    Session::open(&admin).await.map_err(unusable)?;
    let kind = ServerKind::Url { host: admin.get_host().to_owned(), port: admin.get_port() };
    Ok(Running { kind, admin, watcher: None })
}
