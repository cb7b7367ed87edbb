//! Reading the log of a test server.
use std::time::Duration;

use super::session::{Deadline, Session, quote_literal, random_suffix};
use super::{ServerKind, TestServer, container, local};

/// The error for a server's log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The server is named by URL, so its log is out of reach.
    #[error("the log of a server named by URL cannot be read; use a container or local binaries")]
    NotOurs,
    /// The statement that writes a marker line to the log failed.
    #[error("the server did not write a marker line to its log")]
    Marker(#[source] sqlx::Error),
    /// The marker line did not appear in the log within 30 s.
    #[error(
        "the server's log is incomplete: the marker line did not appear within 30 s{}",
        .reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default()
    )]
    Incomplete {
        /// Error of the last attempt to read the log, if it failed.
        reason: Option<String>,
    },
}

impl TestServer {
    /// Reads the server's log, up to this call. It writes a marker line and waits at most 30 s until the log contains
    /// it.
    ///
    /// # Errors
    /// [`LogError::NotOurs`] for a server named by URL.
    pub async fn log(&self) -> Result<String, LogError> {
        if matches!(self.kind, ServerKind::Url { .. }) {
            return Err(LogError::NotOurs);
        }
        let marker = format!("tenantry-log-marker-{}", random_suffix());
        self.write_to_log(&marker).await.map_err(LogError::Marker)?;
        let deadline = Deadline::new(Duration::from_secs(30));
        loop {
            let log = self.read_log().await;
            match log {
                Ok(log) if log.contains(&marker) => return Ok(log),
                log if !deadline.sleep().await => return Err(LogError::Incomplete { reason: log.err() }),
                _ => {}
            }
        }
    }

    async fn write_to_log(&self, marker: &str) -> Result<(), sqlx::Error> {
        let block = format!("BEGIN RAISE LOG '%', {}; END", quote_literal(marker));
        Session::open(&self.admin).await?.run(format!("DO {}", quote_literal(&block))).await
    }

    async fn read_log(&self) -> Result<String, String> {
        match &self.kind {
            ServerKind::Url { .. } => Ok(String::new()),
            ServerKind::Container { name, .. } => container::read_log(name).await,
            ServerKind::Local { directory, .. } => local::read_log(directory).map_err(|error| error.to_string()),
        }
    }
}
