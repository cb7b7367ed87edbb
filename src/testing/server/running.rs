//! The result of every way to get a server.
use super::ServerKind;
use super::kept::KeptData;
use super::watcher::Watcher;
use sqlx::postgres::PgConnectOptions;

/// A server that accepts connections. `url`, `container` and `local` return it; [`TestServer`](super::TestServer) is
/// built from it.
pub(super) struct Running {
    pub(super) kind: ServerKind,
    /// How to connect as the superuser.
    pub(super) admin: PgConnectOptions,
    /// The process that removes the server. `None` if this process did not start it.
    pub(super) watcher: Option<Watcher>,
    /// The directory that keeps the server's data, if it is not removed with the server.
    pub(super) kept: Option<KeptData>,
}
