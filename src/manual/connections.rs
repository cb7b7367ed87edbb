//! How a query gets a connection: slots, connect permits, eviction, and what is reset between two users.
//!
//! A PostgreSQL connection belongs to one database. One pool for each tenant would need tenants × pool size
//! connections, and the server answers 53300 long before. Here all tenants of a process share one limit for each server.
//!
//! # Slots
//!
//! The pool of a server has a fixed number of slots
//! ([`max_connections`](crate::resolver::PooledResolverBuilder::max_connections)); a slot holds at most one connection, so the
//! limit cannot be exceeded. A query gets a slot in this order:
//!
//! 1. An idle connection of its own tenant. This takes no I/O.
//! 2. If its tenant has a connection in use, or one that is being opened, it waits about as long as opening one takes: it is
//!    most likely to get that one.
//! 3. A free slot, or the slot of an idle connection of another tenant, which is closed. Before it takes the slot it
//!    waits for a *connect permit*: few connections are opened at a time, because a login costs both sides much CPU. The permit
//!    comes first, since a slot that waits for a permit is of no use to any query.
//!
//! A tenant has at most
//! [`max_connections_per_tenant`](crate::resolver::PooledResolverBuilder::max_connections_per_tenant) slots. Each wait has a
//! deadline ([`acquire_timeout`](crate::resolver::PooledResolverBuilder::acquire_timeout)), and the error names what was
//! waited for: [`PoolExhausted`](crate::pool::AcquireError::PoolExhausted) (all slots in use),
//! [`ConnectQueue`](crate::pool::AcquireError::ConnectQueue) (no permit), or
//! [`ConnectTimeout`](crate::pool::AcquireError::ConnectTimeout) (the server did not let the connection in).
//!
//! # Eviction
//!
//! The connection of the tenant that is asked for least is closed first. Requests are counted for each tenant, and the
//! counts are halved from time to time, so an old favourite loses its place. `cargo bench --bench pool` compares the
//! misses with those of an optimal choice.
//!
//! A connection that comes back serves a waiting query of the same tenant first, unless a query of another tenant has
//! waited over 100 ms.
//!
//! # What is reset between two users
//!
//! Between two tenants nothing has to be: a connection has one tenant for its whole life. Between two users of one
//! tenant an open transaction is rolled back, and a connection whose query was dropped or failed is tested before it
//! is used again. `SET`, temporary tables, session advisory locks and `LISTEN` stay, unless
//! [`discard_on_release`](crate::resolver::PooledResolverBuilder::discard_on_release) is set. See
//! [`TenantPool`](crate::TenantPool).
//!
//! # What a connection notices
//!
//! - *A new login* (rotation): the entry has a new generation. Idle connections of the old one are closed, those in use
//!   when they come back.
//! - *A refused tenant* (suspension): its handles fail with the reason, and the server has ended its sessions.
//! - *A new address* (relocation): the connections to the old one are closed.
//! - *A broken server*: after a failure to connect the others wait a moment before they try. Idle connections are
//!   tested before their next use.
//!
//! # Several nodes
//!
//! With [`Builder::share_connections`](crate::Builder::share_connections) the live nodes share the limit of a server. A login has a CONNECTION
//! LIMIT on the server as well; see [`roles`](super::roles).
