/// A server's budget at one moment; counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// Most connections at once.
    pub budget: u32,
    /// Open, being opened, or being closed.
    pub open: u32,
    /// Open, and nobody's at this moment.
    pub idle: u32,
    /// Callers that wait.
    pub waiting: u32,
    /// Connections asked for.
    pub checkouts: u64,
    /// Of them: answered at once by an idle connection.
    pub hits: u64,
    /// Connections of one tenant that were closed for another one.
    pub steals: u64,
    /// Connections opened.
    pub connects: u64,
    /// Callers that waited in vain.
    pub timeouts: u64,
}
