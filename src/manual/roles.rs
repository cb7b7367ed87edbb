//! What stands on a PostgreSQL server, who may do what there, and what cannot be prevented.
//!
//! # The roles
//!
//! | role | kind | owns | member of | why |
//! |---|---|---|---|---|
//! | `tenantry_admin` | NOLOGIN CREATEDB CREATEROLE | every tenant database, the maintenance database | nothing | creates roles and databases; stays the same when a login changes |
//! | `tenantry_blue`, `tenantry_green` | LOGIN | nothing | `tenantry_admin` | the provisioner's two logins: one is in use, the other is the next one |
//! | `<database>_owner` | NOLOGIN | schema `public`, all objects | nothing | what migrations create belongs to it; it does not own the database |
//! | `<database>_app` | NOLOGIN | what sessions create by accident | nothing | holds the application's grants |
//! | `<database>_mig` | LOGIN, for one operation | nothing | owner | runs migrations, seeds and the first admin's row |
//! | `<database>_v1`, … | LOGIN | nothing | app | the application's login, one per generation |
//!
//! [`set_up`](crate::operations::servers::Servers::set_up) makes the first three and a maintenance database, through which all
//! cluster statements and all locks go. A table in it, `public.tenantry_mark`, names the installation and the server;
//! [`relocate`](crate::operations::servers::Servers::relocate) looks for it before it believes a new address. It also reads
//! `pg_control_system()`, which PUBLIC may execute unless a managed service has revoked that. Their names have a prefix of your choice, so two installations may share a
//! server and know nothing of each other. The provisioner is no superuser and needs none.
//!
//! Database names carry the tenant's id and not its slug, because every tenant can list them all.
//!
//! # What is ours
//!
//! A database is changed only if the admin role owns it *and* its exact name stands in a committed intent or placement of
//! the tenant; a role only if its exact name stands there *and* the admin role has the ADMIN option that the creator of a
//! role gets. PostgreSQL 15 does not record who created a role: there the name decides for a tenant that exists; where a
//! role is being made, or its making undone, one with another comment than ours is left alone and named. Comments on roles
//! are for people and keep no tenant in; a changed one is written again and reported. What is not ours is named ([`ClusterError`](crate::error::ClusterError)) and left alone; where it keeps a
//! tenant from being shut out, the operation fails or is tried again, and never says that it is done.
//!
//! # What a suspension proves
//!
//! *Closed*: after NOLOGIN and the signal to each session, the operation reads back, over all roles that can log in, who
//! may connect to the tenant's database. Superusers are listed in the result. The provisioner's two logins, roles that you
//! named by [`allow_role`](crate::operations::servers::Servers::allow_role), and logins of operations of ours that are open are exempt.
//! Any other role is an obstacle, and so is a login of the tenant that is superuser or has CREATEROLE. *Empty*: no session
//! of the tenant is left. The call returns when it is empty, or after a second with the number of sessions that are left.
//!
//! # What the application's login may do
//!
//! Read and write rows, use sequences, call functions; read the ledger of the migrations. Refused with 42501: CREATE,
//! ALTER and DROP of anything, temp tables (unless [`Builder::temp_tables`](crate::Builder::temp_tables)), TRUNCATE,
//! becoming the owner or the admin role, files and programs of the server, ending the provisioner's sessions, and CONNECT
//! to the landlord, the maintenance database and other tenants' databases. With
//! [`AppAccess::Owner`](crate::directory::AppAccess) it may run DDL in its database, and still not drop, rename, alter or
//! open the database itself.
//!
//! # What cannot be prevented
//!
//! - A login may change its own password and its own settings (`ALTER ROLE self …`).
//! - It may make large objects, take advisory locks and NOTIFY in its own database, and say `SET ROLE NONE`.
//! - It may read the names of all databases and roles, and all comments on them.
//! - It may keep its own role locked, prepare transactions, grant rights on its objects to roles of other tenants, and lock
//!   the databases of others for a while. Operations end such sessions, roll such transactions back and remove such grants;
//!   they do not wait for the tenant. Before they do so in a database, they look for enabled event triggers there, whose
//!   functions would run with the provisioner's rights, and name one that they find.
//! - Where `postgres` and `template1` stay open to PUBLIC (the default; a managed service may not let you close them)
//!   every tenant's login can enter these two. What it makes there is removed before it is dropped. `close_shared(true)`
//!   closes them; the report of `set_up` says what stayed
//!   open and why.
//! - A login may fill the lock table of its server with advisory locks (`SELECT pg_advisory_lock(n)` for very many `n`). The
//!   table belongs to all databases of the server; statements of other tenants and of the provisioner then fail with 53200
//!   until the session that holds the locks ends. An operation that meets it is tried again. End the session by hand, as a
//!   superuser or with `pg_signal_backend` (`SELECT pid, count(*) FROM pg_locks WHERE locktype = 'advisory' GROUP BY pid`
//!   shows it), suspend the tenant, or raise `max_locks_per_transaction`, which only makes it take longer. Tenants that run
//!   SQL of their own belong on a server of their own.
//! - A login may fill the queue of notifications of its server. If the landlord lives there too, its notifications are left
//!   out from then on, and nodes see changes by polling, within seconds
//!   ([`Builder::change_poll_interval`](crate::Builder::change_poll_interval)).
//! - On PostgreSQL 15 a role with CREATEROLE can change any other role that is no superuser, and can give itself the right
//!   to run programs on the server. Use 16 or later, or a server of its own.
//! - A backup of the landlord that was taken before a purge holds the tenant's sealed records, and the keys open them; the
//!   login and the database that they opened are gone.
//!
//! # Connections
//!
//! Each tenant's login has a CONNECTION LIMIT: [`max_connections_per_tenant`](crate::Builder::max_connections_per_tenant) ×
//! [`max_nodes`](crate::Builder::max_nodes) + 3. Beyond it the server answers 53300, and a handle says
//! [`AcquireError::LoginLimit`](crate::pool::AcquireError). The limit is set when a login is made, and looked at again by
//! `set_up`, by each rotation and daily by [`Tenantry::run`](crate::Tenantry::run)
//! ([`limit_logins`](crate::operations::servers::Servers::limit_logins)). The limits of all tenants together may exceed the server's
//! `max_connections`: the limit keeps one tenant from using up the server, not many at once.
//!
//! On 16 and later the provisioner comes into a full server all the same, if a DBA has set `reserved_connections` (3, say;
//! it is 0 by default) and the admin role has `pg_use_reserved_connections`, which `set_up` grants where it may. On 15
//! there is no such role: while strangers or many tenants together hold every connection, only a superuser comes in,
//! and an operation (a suspension, too) is tried again until a connection is free. Keep `max_connections` there above what
//! all nodes and all others may use.
//!
//! # The server's log
//!
//! A server that logs statements logs the verifiers of passwords, never passwords. The provisioner's sessions keep theirs
//! out of the log if the admin role may: `GRANT SET ON PARAMETER log_statement TO tenantry_admin`.
//!
//! # Standbys
//!
//! A physical standby has all of this by replication, and nothing is set up there. To end a tenant's sessions there, the
//! provisioner's login connects to its maintenance database: let it in (`pg_hba.conf`) from wherever operations run. What
//! holds on the primary holds there as soon as it is replayed. Until then a fence ends sessions there by
//! `pg_signal_backend`, if the admin role has it.
//!
//! # Size
//!
//! From 16 on each role leaves one unremovable membership for its creator, and creating roles becomes slower with their
//! number: keep at most about 3,000 tenants under one prefix. Applications are not slowed by it.
