//! The counters of one server's connection budget, as [`PooledResolver::stats`](crate::resolver::PooledResolver::stats)
//! returns them and the `metrics` feature publishes them.

/// State of one server's connection budget at one moment. Counters start at zero when this process first uses the
/// server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Maximum connections of this process to the server, over all tenants.
    pub budget: u32,
    /// Connections that are open, being opened, or being closed.
    pub open: u32,
    /// Open connections that no caller uses at this moment.
    pub idle: u32,
    /// Callers that wait for a connection at this moment.
    pub waiting: u32,
    /// How many connections may be opened at the same time now.
    pub connect_permits: u32,
    /// Connections that callers asked for.
    pub checkouts: u64,
    /// Checkouts that an idle connection served at once.
    pub hits: u64,
    /// Idle connections of one tenant that were closed because another tenant needed the slot.
    pub evictions: u64,
    /// Connections opened.
    pub connects: u64,
    /// Callers whose wait timed out.
    pub timeouts: u64,
}
