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
//! [`set_up`](crate::servers::Servers::set_up) makes the first three and a maintenance database, through which all
//! cluster statements and all locks go. Their names have a prefix of your choice, so two installations may share a
//! server and know nothing of each other. The provisioner is no superuser and needs none.
//!
//! Database names carry the tenant's id and not its slug, because every tenant can list them all.
//!
//! # What is ours
//!
//! A database is touched only if the admin role owns it *and* its exact name stands in a committed intent of the tenant;
//! a role only if its comment names this installation and the tenant. Anything else of the same name is reported
//! ([`ClusterError::Foreign`](crate::error::ClusterError)) and left alone.
//!
//! # What the application's login may do
//!
//! Read and write rows, use sequences, call functions; read the ledger of the migrations. Refused with 42501: CREATE,
//! ALTER and DROP of anything, temp tables (unless [`Builder::temp_tables`](crate::Builder::temp_tables)), TRUNCATE,
//! becoming the owner or the admin role, files and programs of the server, ending the provisioner's sessions, and CONNECT
//! to the landlord, the maintenance database and other tenants' databases. With
//! [`AppAccess::Owner`](crate::database::AppAccess) it may run DDL in its database, and still not drop, rename, alter or
//! open the database itself.
//!
//! # What cannot be prevented
//!
//! - A login may change its own password and its own settings (`ALTER ROLE self …`).
//! - It may make large objects, take advisory locks and NOTIFY in its own database, and say `SET ROLE NONE`.
//! - It may read the names of all databases and roles, and all comments on them.
//! - Where `postgres` and `template1` stay open to PUBLIC (the default; a managed service may not let you close them)
//!   every tenant's login can enter these two. `close_shared(true)` closes them; the report of `set_up` says what stayed
//!   open and why.
//! - On PostgreSQL 15 a role with CREATEROLE can change any other role that is no superuser, and can give itself the right
//!   to run programs on the server. Use 16 or later, or a server of its own.
//! - A backup of the landlord that was taken before a purge holds the tenant's sealed records, and the keys open them; the
//!   login and the database that they opened are gone.
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
