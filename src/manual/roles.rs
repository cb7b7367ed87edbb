//! Roles and rights on a database server, what a suspension proves, and what cannot be prevented.
//!
//! This page has no code. The statements behind it are in `src/cluster/pg/`.
//!
//! # The roles
//!
//! | role | kind | owns | member of | why |
//! |---|---|---|---|---|
//! | `tenantry_admin` | NOLOGIN CREATEDB CREATEROLE | every tenant database, the maintenance database | nothing | creates roles and databases; stays the same when a login is replaced |
//! | `tenantry_blue`, `tenantry_green` | LOGIN | nothing | `tenantry_admin` | the provisioner's two logins: one is in use, the other is used after the next rotation |
//! | `<database>_owner` | NOLOGIN | schema `public`, all objects | nothing | owns what migrations create; does not own the database |
//! | `<database>_app` | NOLOGIN | objects that application sessions create by accident | nothing | holds the application's grants |
//! | `<database>_mig` | LOGIN, for one operation | nothing | owner | runs migrations and seeds, and inserts the row of the tenant's first admin |
//! | `<database>_v1`, … | LOGIN | nothing | app | the application's login, one per generation |
//!
//! [`set_up`](crate::operations::servers::Servers::set_up) creates the first three roles and a maintenance database.
//! All statements about the cluster and all locks of operations use sessions in the maintenance database. Its table
//! `public.tenantry_mark` names the installation and the server.
//! [`relocate`](crate::operations::servers::Servers::relocate) accepts a new address only if that table is there. It
//! also reads `pg_control_system()`, which PUBLIC may execute unless a managed service has revoked that right.
//!
//! The names of these three roles and of the maintenance database begin with a prefix that you choose, so two
//! installations can share a server without touching each other's objects. The provisioner is not a superuser and does
//! not need to be one.
//!
//! A database name contains the tenant's id and not its slug, because every login can list the names of all databases.
//!
//! # Which objects tenantry changes
//!
//! - *Database*: only if the admin role owns it *and* a committed intent or placement of the tenant names it exactly.
//! - *Role*: only if a committed intent or placement names it exactly *and* the admin role has the ADMIN option on it,
//!   which PostgreSQL gives to the creator of a role.
//! - *Role on PostgreSQL 15*, which does not record the creator: for an existing tenant the name alone decides. While
//!   an operation creates a role or undoes that, it leaves a role with a different comment unchanged and reports it.
//!
//! Comments on roles are information for people. A changed comment does not protect a tenant from suspension: the
//! operation restores the comment and reports the change.
//!
//! An object that fails these conditions is left unchanged, and a [`ClusterError`](crate::error::ClusterError) names
//! it. If it prevents that a tenant is shut out, the operation fails or is retried. It never reports success.
//!
//! # What a suspension proves
//!
//! - *Closed*: the operation sets NOLOGIN and signals every session of the tenant. Then it reads back, over all roles
//!   that can log in, which ones may connect to the tenant's database. Any such role is an obstacle. So is a login of
//!   the tenant that is a superuser or has CREATEROLE. Exempt are the provisioner's two logins, roles that you named
//!   with [`allow_role`](crate::operations::servers::Servers::allow_role), and logins of open operations of this
//!   installation. Superusers are listed in the result.
//! - *Empty*: no session of the tenant is left.
//!
//! The call returns when the tenant is empty, or after one second with the number of sessions that are left.
//!
//! # What the application's login may do
//!
//! It may read and write rows, use sequences, call functions, and read the ledger of the migrations. PostgreSQL refuses
//! the following with 42501:
//!
//! - CREATE, ALTER and DROP of anything, and TRUNCATE;
//! - temporary tables (unless [`Builder::temp_tables`](crate::Builder::temp_tables) allows them);
//! - SET ROLE to the owner or the admin role;
//! - files and programs of the server;
//! - terminating the provisioner's sessions;
//! - CONNECT to the landlord, the maintenance database and other tenants' databases.
//!
//! With [`AppAccess::Owner`](crate::directory::AppAccess) it may also run DDL in its database. It still cannot drop,
//! rename, alter or reopen the database itself.
//!
//! # What cannot be prevented
//!
//! - A login can change its own password and its own settings (`ALTER ROLE self …`).
//! - It can create large objects, take advisory locks and NOTIFY in its own database, and run `SET ROLE NONE`.
//! - It can read the names of all databases and roles, and all comments on them.
//! - It can keep a lock on its own role, prepare transactions, grant rights on its objects to roles of other tenants,
//!   and lock databases of other tenants for a while. Operations do not wait for the tenant: they terminate such
//!   sessions, roll back such transactions and revoke such grants. Before they do so in a database, they look for
//!   enabled event triggers there, because the functions of these would run with the provisioner's rights. An operation
//!   that finds one fails and names it.
//! - It can connect to `postgres` and `template1` as long as PUBLIC may connect to them. That is PostgreSQL's default,
//!   and a managed service may not let you change it. Objects that the login creates there are removed before the login
//!   is dropped. `close_shared(true)` revokes the right; the report of `set_up` says what stayed open and why.
//! - It can fill the lock table of its server with advisory locks (`SELECT pg_advisory_lock(n)` for very many `n`). All
//!   databases of the server share this table. Statements of other tenants and of the provisioner then fail with 53200
//!   until the session that holds the locks ends; an operation that meets this error is retried. To find the session,
//!   run `SELECT pid, count(*) FROM pg_locks WHERE locktype = 'advisory' GROUP BY pid`. Terminate it as a superuser or
//!   with `pg_signal_backend`, or suspend the tenant. A higher `max_locks_per_transaction` only makes the attack take
//!   longer. Put tenants that run SQL of their own on a server of their own.
//! - It can fill the notification queue of its server. If the landlord is on that server too, it then sends no more
//!   notifications, and nodes find changes by polling, within seconds
//!   ([`Builder::change_poll_interval`](crate::Builder::change_poll_interval)).
//! - On PostgreSQL 15 a role with CREATEROLE can change any other role that is not a superuser, and can give itself the
//!   right to run programs on the server. Use 16 or later, or a separate server.
//! - A backup of the landlord from before a purge contains the tenant's sealed records, and the keys still decrypt
//!   them. The login and the database that these credentials belonged to no longer exist.
//!
//! # Connections
//!
//! Each tenant's login has a CONNECTION LIMIT:
//! [`max_connections_per_tenant`](crate::Builder::max_connections_per_tenant) ×
//! [`max_nodes`](crate::Builder::max_nodes) + 3. Beyond it the server answers 53300, and the query fails with
//! [`AcquireError::LoginLimit`](crate::pool::AcquireError). The limit is set when a login is created. `set_up`, each
//! rotation and a daily pass of [`Tenantry::run`](crate::Tenantry::run)
//! ([`limit_logins`](crate::operations::servers::Servers::limit_logins)) correct it. The limits of all tenants together
//! may exceed the server's `max_connections`: a limit stops a single tenant from using up the server, but not many
//! tenants at once.
//!
//! On PostgreSQL 16 and later the provisioner can connect to a full server if two conditions hold. A DBA has set
//! `reserved_connections` (to 3, for example; the default is 0), and the admin role has `pg_use_reserved_connections`,
//! which `set_up` grants where it may. PostgreSQL 15 does not have that role. While other applications or many tenants
//! together hold every connection there, only a superuser can connect, and an operation (a suspension, too) is retried
//! until a connection is free. On 15, set `max_connections` above the sum of what all nodes and all other clients may
//! use.
//!
//! # The server's log
//!
//! A server that logs statements logs verifiers of passwords, never passwords. PostgreSQL also logs a statement that
//! fails, so a verifier is only in statements that are sent after everything that may fail. The provisioner's sessions keep their
//! own statements out of the log if the admin role may set that parameter: `GRANT SET ON PARAMETER log_statement TO
//! tenantry_admin`.
//!
//! # Standbys
//!
//! A physical standby has the same roles and databases by replication, so nothing is set up there. To terminate a
//! tenant's sessions on a standby, the provisioner's login connects to the maintenance database there: allow that in
//! `pg_hba.conf` for every host on which operations run. A change on the primary takes effect on the standby as soon as
//! it is replayed. Until then a preempting operation terminates the tenant's sessions there with
//! `pg_terminate_backend`, if the admin role is a member of `pg_signal_backend`.
//!
//! # Size
//!
//! From PostgreSQL 16 on, each role leaves its creator one membership that cannot be removed, and the more roles there
//! are, the longer it takes to create another. Keep at most about 3,000 tenants under one prefix. Queries of
//! applications are not slower because of it.
