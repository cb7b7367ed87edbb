//! The layers of the crate, how a call travels through them, and where a new part goes.
//!
//! # The parts of an installation
//!
//! - The *landlord* is a database of the application. The schema `tenantry` in it holds tenants, directory entries,
//!   sealed secrets, operations and tokens. All durable state is there, so any number of nodes can share the work.
//! - A *database server* is a PostgreSQL cluster on which tenants have their databases. The *provisioner* is the login
//!   by which operations work there; see [`roles`](super::roles).
//! - A *node* is one process of the application that links this crate. It resolves tenants to connections, starts
//!   operations, and recovers operations of nodes that died.
//!
//! ```text
//!   application (axum, actix-web, jobs)
//!        │ resolve("acme")              │ provision, suspend, rotate, …
//!        ▼                              ▼
//!   resolver ─► pool ──────────┐   operations ─► saga ─► journal ─┐
//!        │                     │        │                         │
//!        │ registry, vault     │        │ cluster: provisioner's  │
//!        ▼                     ▼        ▼ sessions                ▼
//!     landlord            tenants' databases                   landlord
//! ```
//!
//! # Layers
//!
//! A file imports only from layers below its own. Modules of one layer do not import each other, except in layer 0, and
//! no two files import each other. The test `tests/suite/floors.rs` checks all three rules; its list of modules is this
//! table.
//!
//! | layer | modules | what they contain |
//! |---|---|---|
//! | 10 | `manual` | this manual; it only links to the other modules |
//! | 9 | `web`, `testing` | what an application mounts, or uses in its own tests |
//! | 8 | `facade`, `job` | [`Tenantry`](crate::Tenantry), its builder, calls and background loops; no logic of operations |
//! | 7 | `doctor`, `setup_link` | compositions of operations: the doctor over its findings, a one-time link over its token |
//! | 6 | `operations` | one folder for each operation: request and result, list of steps, steps, context |
//! | 5 | `resolver` | from a tenant to a handle: cache, single-flight load |
//! | 4 | `pool`, `cluster` | tenants' connections under one limit per server; the sessions of one operation on a server |
//! | 3 | `saga` | what a saga is, the runner, recovery |
//! | 2 | `store/*` | traits and their implementations: registry, vault, journal, tokens, nodes, tenant admins |
//! | 1 | `store/schema` | the landlord's schema and its migrations |
//! | 0 | `tenant`, `names`, `directory`, `server`, `operation`, `secret`, `placement`, `error`, `connect`, `query`, `rt`, `sql`, `sqlstate`, `json` | data without I/O, and helpers |
//!
//! # How a call travels
//!
//! `tenantry.suspend("acme").await`:
//!
//! 1. The facade gives the request to `operations/lifecycle`, which finds the tenant in the registry and refuses what
//!    its status does not allow.
//! 2. `Engine::begin` commits the intent in the journal: the operation, its lane and its first steps. From here on any
//!    node can finish it. The facade gets the new operation, bound to its saga, and drives it in a task.
//! 3. The runner of `saga` runs the steps that `operations/lifecycle/saga.rs` lists. Each step gets an `Execution` (the
//!    operation's record and fencing token) and the context of its saga (the worker's sessions).
//! 4. A step that works on the server asks for the `LockedSession`: `cluster` takes a permit, opens the provisioner's
//!    session, checks that the fencing token is the newest, and takes the tenant's advisory lock. Only after that the
//!    step reads the catalog and acts.
//! 5. A step that writes to the landlord passes its fencing token with each write. A write with an older token fails.
//! 6. A trigger in the landlord notifies all nodes. Each resolver invalidates its cached entry of the tenant.
//! 7. The last record ends the operation. The caller of most operations gets its result then. The caller of a
//!    suspension or an archive gets it after the step that ends sessions; if sessions are left, the operation
//!    continues. If the process dies in between, another node takes the operation over within seconds; see
//!    [`operations`](super::operations).
//!
//! `tenantry.resolve("acme").await`:
//!
//! 1. The look-up cache has the handle, or one task loads it for all waiting callers: tenant and entry from the
//!    registry, password from the vault.
//! 2. The handle holds no connection. A query asks the pool of its server for a slot; see
//!    [`connections`](super::connections).
//!
//! # Where a new part goes
//!
//! | you add | where |
//! |---|---|
//! | a step of an operation | the operation's steps file, and one line in its list of steps; its name is stored, so it never changes |
//! | an operation | a folder in `src/operations/` (a `Saga` that lists its steps, and a request that implements `CallVerb`), one line in the list of sagas in `src/facade/builder/assemble.rs`, and a method of `Tenantry` |
//! | a statement for a database server | a function in `src/cluster/pg/`. Only `src/cluster/pg/ddl.rs` and `src/store/admin/postgres.rs` make SQL from names, with the quoting functions of `src/sql.rs` |
//! | a store for another landlord | an implementation of the trait in `src/store/…`, tested by the trait's conformance suite |
//! | a key provider | an implementation of [`KeyProvider`](crate::vault::KeyProvider) |
//! | a web framework | a file in `src/web/`, next to `axum.rs` and `actix.rs`: it converts requests and responses; the rest is shared |
//! | a table or column of the landlord | a migration in `src/store/schema/migrations/`; released ones never change |
