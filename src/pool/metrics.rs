//! What the budgets say through the `metrics` facade (feature `metrics`). One label, `server` (host and port), never a tenant:
//! there may be ten thousand.
//!
//! | name | kind | what |
//! |---|---|---|
//! | `tenantry_connections_budget` | gauge | most connections at once |
//! | `tenantry_connections_open` | gauge | open, being opened, or being closed |
//! | `tenantry_connections_idle` | gauge | open, and nobody's at this moment |
//! | `tenantry_acquire_waiting` | gauge | callers that wait |
//! | `tenantry_acquire_total` | counter | connections asked for |
//! | `tenantry_acquire_hits_total` | counter | of them: answered at once by an idle connection |
//! | `tenantry_acquire_timeouts_total` | counter | of them: waited for in vain |
//! | `tenantry_connections_opened_total` | counter | connections opened |
//! | `tenantry_connections_stolen_total` | counter | connections of one tenant closed for another one |
//!
//! They are told every five seconds while [`Tenantry::run`](crate::Tenantry::run) runs, and whenever a host calls
//! [`publish`].
use super::PoolStats;
use metrics::{counter, gauge};

/// Tells how each server's budget stands: what [`PooledResolver::stats`](super::PooledResolver::stats) answers.
pub fn publish(stats: &[((String, u16), PoolStats)]) {
    for ((host, port), stats) in stats {
        let server = format!("{host}:{port}");
        let gauges = [
            ("tenantry_connections_budget", stats.budget),
            ("tenantry_connections_open", stats.open),
            ("tenantry_connections_idle", stats.idle),
            ("tenantry_acquire_waiting", stats.waiting),
        ];
        for (name, value) in gauges {
            gauge!(name, "server" => server.clone()).set(f64::from(value));
        }
        let counters = [
            ("tenantry_acquire_total", stats.checkouts),
            ("tenantry_acquire_hits_total", stats.hits),
            ("tenantry_acquire_timeouts_total", stats.timeouts),
            ("tenantry_connections_opened_total", stats.connects),
            ("tenantry_connections_stolen_total", stats.steals),
        ];
        for (name, value) in counters {
            counter!(name, "server" => server.clone()).absolute(value);
        }
    }
}
