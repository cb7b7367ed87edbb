//! The shared parts of the benchmarks of connections: tenants, load, PgBouncer, and the competitors.
pub(crate) mod bouncer;
pub(crate) mod hosts;
pub(crate) mod load;
pub(crate) mod peers;
