use super::ServerKind;
use super::watcher::Watcher;
use sqlx::postgres::PgConnectOptions;

/// A server that answers; how it came about is behind it.
pub(super) struct Running {
    pub(super) kind: ServerKind,
    pub(super) admin: PgConnectOptions,
    pub(super) watcher: Option<Watcher>,
}
