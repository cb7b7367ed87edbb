use std::time::Duration;

use super::session::{Patience, Session, quote_literal, random_suffix};
use super::{ServerKind, TestServer, container, local};

/// Why the server's log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A server named by URL keeps its log to itself.
    #[error("the log of a server named by URL cannot be read; use a container or local binaries")]
    NotOurs,
    /// The server did not write a line when asked to.
    #[error("the server cannot be asked to write to its log")]
    Marker(#[source] sqlx::Error),
    /// The line that was asked for has not come.
    #[error("the server's log is not complete: a line that was just written is missing{}", .reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Incomplete {
        /// What the last look at it gave, if that failed.
        reason: Option<String>,
    },
}

impl TestServer {
    /// The server's log, complete up to this call: it ends with a line that this call had written.
    pub async fn log(&self) -> Result<String, LogError> {
        if matches!(self.kind, ServerKind::Url { .. }) {
            return Err(LogError::NotOurs);
        }
        let marker = format!("tenantry-log-marker-{}", random_suffix());
        self.write_to_log(&marker).await.map_err(LogError::Marker)?;
        let patience = Patience::new(Duration::from_secs(30));
        loop {
            let log = self.read_log().await;
            match log {
                Ok(log) if log.contains(&marker) => return Ok(log),
                log if !patience.wait().await => return Err(LogError::Incomplete { reason: log.err() }),
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
            ServerKind::Container { name, .. } => container::log(name).await,
            ServerKind::Local { directory, .. } => local::log(directory).map_err(|error| error.to_string()),
        }
    }
}
