//! Publishes the state of the connection budgets through the `metrics` facade (feature `metrics`).
//!
//! The only label is `server` (host and port). There is no label for the tenant, because a server may have ten
//! thousand.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | `tenantry_connections_budget` | gauge | maximum connections of this process to the server |
//! | `tenantry_connections_open` | gauge | connections that are open, being opened, or being closed |
//! | `tenantry_connections_idle` | gauge | open connections that no caller uses |
//! | `tenantry_acquire_waiting` | gauge | callers that wait for a connection |
//! | `tenantry_connect_permits` | gauge | how many connections may be opened at the same time now |
//! | `tenantry_acquire_total` | counter | connections that callers asked for |
//! | `tenantry_acquire_hits_total` | counter | of those, served at once by an idle connection |
//! | `tenantry_acquire_timeouts_total` | counter | of those, timed out |
//! | `tenantry_connections_opened_total` | counter | connections opened |
//! | `tenantry_connections_evicted_total` | counter | idle connections closed because another tenant needed the slot |
//!
//! [`Tenantry::run`](crate::Tenantry::run) publishes them every five seconds. An application that does not run it calls
//! [`publish`].
use super::PoolStats;
use metrics::{counter, gauge};

/// Publishes one set of metrics per server. `stats` is the result of
/// [`PooledResolver::stats`](crate::resolver::PooledResolver::stats).
pub fn publish(stats: &[((String, u16), PoolStats)]) {
    for ((host, port), stats) in stats {
        let server = format!("{host}:{port}");
        let gauges = [
            ("tenantry_connections_budget", stats.budget),
            ("tenantry_connections_open", stats.open),
            ("tenantry_connections_idle", stats.idle),
            ("tenantry_acquire_waiting", stats.waiting),
            ("tenantry_connect_permits", stats.connect_permits),
        ];
        for (name, value) in gauges {
            gauge!(name, "server" => server.clone()).set(f64::from(value));
        }
        let counters = [
            ("tenantry_acquire_total", stats.checkouts),
            ("tenantry_acquire_hits_total", stats.hits),
            ("tenantry_acquire_timeouts_total", stats.timeouts),
            ("tenantry_connections_opened_total", stats.connects),
            ("tenantry_connections_evicted_total", stats.evictions),
        ];
        for (name, value) in counters {
            counter!(name, "server" => server.clone()).absolute(value);
        }
    }
}
