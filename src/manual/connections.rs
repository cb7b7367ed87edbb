//! How a query gets a connection: slots, connect permits, eviction, and what is reset between two users.
//!
//! A PostgreSQL connection belongs to one database. One pool for each tenant would need tenants × pool size
//! connections, and the server refuses logins with SQLSTATE 53300 long before that. Here all tenants of a process share
//! one limit for each server.
//!
//! # Slots
//!
//! The pool of a server has a limited number of slots
//! ([`max_connections`](crate::resolver::PooledResolverBuilder::max_connections), which can be changed while the pool
//! is in use). A slot holds at most one connection, so the pool exceeds the limit only while a lowered limit takes
//! effect. A query gets a slot in this order:
//!
//! 1. An idle connection of its own tenant. This takes no I/O.
//! 2. If its tenant has a connection in use, or one that is being opened, it waits about as long as opening one takes:
//!    it is most likely to get that one.
//! 3. A free slot, or the slot of an idle connection of another tenant, which is closed. Before it takes the slot it
//!    waits for a *connect permit*: few connections are opened at a time, because a login costs both sides much CPU.
//!    The permit comes first, since a slot that waits for a permit is of no use to any query.
//!
//! A tenant has at most
//! [`max_connections_per_tenant`](crate::resolver::PooledResolverBuilder::max_connections_per_tenant) slots. Each wait
//! has a deadline ([`acquire_timeout`](crate::resolver::PooledResolverBuilder::acquire_timeout)), and the error names
//! what was waited for: [`PoolExhausted`](crate::pool::AcquireError::PoolExhausted) (all slots are in use, or the
//! tenant has as many connections as it may have), [`ConnectQueue`](crate::pool::AcquireError::ConnectQueue) (no
//! connect permit), [`LoginLimit`](crate::pool::AcquireError::LoginLimit) (the tenant's login has as many sessions as
//! its CONNECTION LIMIT allows), or [`ConnectTimeout`](crate::pool::AcquireError::ConnectTimeout) (the server accepted
//! no connection).
//!
//! # Eviction
//!
//! When no slot is free, the pool closes an idle connection of the tenant that is queried least often. The pool counts
//! the checkouts of each tenant and halves all counts from time to time, so recent checkouts weigh more than old ones.
//! A miss is a query for which a connection must be opened. `cargo bench --bench pool` compares the number of misses
//! with that of an optimal choice.
//!
//! A returned connection serves a waiting query of the same tenant first, unless a query of another tenant has
//! waited over 100 ms.
//!
//! # What is reset between two users
//!
//! Between two tenants nothing has to be: a connection has one tenant for its whole life. Between two users of one
//! tenant an open transaction is rolled back, and a connection whose query was dropped or failed is tested before it
//! is used again. A connection from `acquire()` or `begin()` also loses its session advisory locks and its `LISTEN`s, in
//! one round trip in the background. `SET` and temporary tables stay, unless
//! [`discard_on_release`](crate::resolver::PoolSettings::discard_on_release) is set. See
//! [`TenantPool`](crate::TenantPool).
//!
//! # What closes connections
//!
//! - *A new login* (rotation): the directory entry has a new generation. The pool closes idle connections of the old
//!   login at once, and connections in use when they are returned.
//! - *A migration*: the directory entry has a new state of the schema. The same happens as for a new login. A session
//!   that reports 0A000 (its prepared statement no longer matches the tables) is closed, also if a person has changed them by hand.
//! - *Age*: a connection that is half an hour old, or was idle for ten minutes
//!   ([`max_lifetime`](crate::resolver::PoolSettings::max_lifetime),
//!   [`idle_timeout`](crate::resolver::PoolSettings::idle_timeout)).
//! - *A refused tenant* (suspension): its handles fail with the reason, and the server has ended its sessions.
//! - *A new address* (relocation): the connections to the old one are closed.
//! - *A lost connection*: all idle connections to that server are tested before their next use.
//! - *A standby that fails*: reads use the primary. One attempt per second tests the standby, until one succeeds. Idle
//!   connections to the standby remain in use. There is no such circuit breaker for a primary.
//!
//! # TLS
//!
//! sqlx 0.9.0 opens its sockets without TCP_NODELAY. Over TLS, Nagle's algorithm then delays the messages of a login.
//! [transact-rs/sqlx#4336](https://github.com/transact-rs/sqlx/pull/4336) corrects this and is not released. Until it
//! is, an application can take `sqlx-core` from that commit. Put this into the `Cargo.toml` of the application's
//! workspace, and remove it when sqlx releases a newer version:
//!
//! ```toml
//! [patch.crates-io]
//! sqlx-core = { git = "https://github.com/transact-rs/sqlx", rev = "6e57d05490859f31aa364ca69fcb379f3a2995e6" }
//! ```
//!
//! Take exactly this commit: the newest one changes an interface between `sqlx-core` and `sqlx-postgres`, so that 0.9.0
//! of the latter does not compile. A library cannot correct this from outside, because sqlx opens the socket itself.
//!
//! # Several nodes
//!
//! The nodes divide the limit of a server in one of two ways:
//!
//! - By default, each live node takes an equal part of the limit in the server's row, and at most its own
//!   [`max_connections`](crate::Builder::max_connections). A node that joins does not wait, so all nodes together may
//!   exceed the limit until the other nodes have reduced their parts.
//! - With [`share_connections`](crate::Builder::share_connections), `max_connections` is the limit of all nodes
//!   together. A node claims its share in the landlord and opens no connection before that. A node that joins waits for
//!   the connections that the others give back, so the shares never add up to more than the limit.
//!
//! Both need [`Tenantry::run`](crate::Tenantry::run), which updates the node's part each second. A login also has a
//! CONNECTION LIMIT on the server; see [`roles`](super::roles).
