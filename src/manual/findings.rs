//! Findings of the [doctor](crate::doctor): what each code means, how it comes about, and what its repair does.
//!
//! A repair is offered only for what this installation owns: its name derives from a placement, and the admin role owns
//! the database or has the ADMIN option on the role. Where no repair is offered, the finding says why and what a person
//! can do. No repair destroys data.
//!
//! A repair of its own is an operation of the kind `repair`. It has the reason that the caller gave, the time, and the
//! whole finding, so the state before. It examines its subject again before it acts, under the subject's lock, and
//! changes nothing if it then sees something else. Other repairs begin a rotation, a migration, a set-up or the like, and
//! examine the subject before without its lock. Such an operation stores the reason and, in its request under
//! `$repairs`, the whole finding. An operation that was open before and is continued gets an event with the reason; the
//! event has the step, the status and the error before. Each repair examines its subject once more afterwards, and one
//! whose finding is still there is reported as such. If its process dies, recovery continues it, except a set-up: repeat
//! that one.
//!
//! A finding is reported only if two looks at its subject have made it with the same evidence. What has changed in
//! between is not reported, and [`Plan::busy`](crate::doctor::Plan::busy) counts its subject.
//!
//! # Isolation
//!
//! ## closed_tenant_open
//! A role can enter the database of a suspended tenant, or log in as one of its logins, or the database of an archived
//! tenant accepts connections. LOGIN was set, a membership was granted, or the database was opened outside tenantry.
//! The repair begins the operation `close_again`: it refuses the tenant's logins, ends their sessions, revokes the
//! rights of PUBLIC, and reads back that no role can enter. It is offered only if no other role than PUBLIC and the
//! tenant's recorded logins can enter, because the operation would stay open otherwise.
//!
//! ## foreign_entrant
//! Another role than the tenant's logins can enter the database of an active tenant: PUBLIC, or a role to which a
//! person has granted CONNECT or a membership. The repair revokes the rights of PUBLIC, or the membership if the admin
//! role may. A role that has to enter can be allowed for a server:
//! [`Servers::allow_role`](crate::servers::Servers::allow_role).
//!
//! ## admin_member
//! Another role than the provisioner's logins acts as the admin role or as one of those logins, and with it as every
//! tenant. Only a server admin can revoke that. From PostgreSQL 16 on a REVOKE takes a membership only from the role that
//! has granted it, so the finding names that role with GRANTED BY. A membership with the ADMIN option alone, as the creator
//! of a role has it, is no finding.
//!
//! ## provisioner_membership
//! A login of the provisioner is a member of a role that the set-up does not grant, apart from `pg_read_all_stats`,
//! `pg_signal_backend` and `pg_monitor`. Its sessions could do what that role may. Only a server admin can revoke it.
//!
//! ## maintenance_public
//! PUBLIC may connect to the maintenance database. A tenant could take the advisory locks there and stop operations.
//! The repair revokes the rights of PUBLIC.
//!
//! ## role_privileged
//! A role of the tenant is superuser, or has CREATEROLE, CREATEDB, REPLICATION or BYPASSRLS. It could undo a
//! suspension. The repair takes CREATEROLE and CREATEDB; the others can only be taken by a superuser.
//!
//! ## app_can_create
//! The application's role may create objects in a schema, although its login acts as that role so that it runs no DDL.
//! The repair restores owner and rights of the schema `public`. Rights on other schemas are revoked by a migration.
//!
//! ## login_rights
//! Rights were granted to a login of the tenant itself: on a database, or on objects in the tenant's database. Its
//! sessions can use them after SET ROLE NONE, and the next login does not have them. The repair revokes those on the
//! tenant's own database, and on schemas, tables, sequences and functions that belong to its group roles. Rights on other
//! databases are revoked by the owner of that database.
//!
//! ## database_rights
//! The rights of PUBLIC and of the tenant's group roles on the database are not those that a provisioning grants. Without
//! CONNECT the application cannot enter; with CREATE it can make schemas. The repair grants and revokes them again.
//!
//! # Whether the tenant can be used
//!
//! ## entry_missing
//! An active tenant has no directory entry for a primary database, so nothing can resolve it. If its database exists
//! and belongs to the admin role, the repair begins the operation `restore_entry`: it creates a login of a new
//! generation, probes it, and only then writes the entry. The logins that the tenant had before are dropped.
//!
//! ## placement_missing
//! The entry names a registered server, and the tenant has no placement there. No operation can act on such a tenant.
//! The repair stores the placement, if the admin role owns the database and the server has room.
//!
//! ## entry_elsewhere
//! Entry and placement name different databases or servers. Which one is right is not known, so no repair is offered:
//! correct the entry with [`RegistryWriter::put_database`](crate::registry::RegistryWriter::put_database).
//!
//! ## database_missing
//! The tenant's database does not exist. Restore a backup under its name, or purge the tenant.
//!
//! ## database_owner
//! The admin role does not own the tenant's database and can neither close nor drop it. Only a superuser can give it
//! back.
//!
//! ## database_invalid
//! An interrupted DROP DATABASE has left the database invalid. PostgreSQL can only drop it.
//!
//! ## database_closed
//! The database of an active tenant accepts no connections. The repair restores its rights and opens it.
//!
//! ## database_left_open
//! A worker has opened the database of an archived tenant for a clean-up and died. No login can enter it. The repair
//! closes it; recovery of that worker's operation does the same.
//!
//! ## role_missing
//! A group role of the tenant does not exist. A new role of its name would not own what the old one owned, so no repair
//! is offered.
//!
//! ## role_foreign
//! A role has the name of one of the tenant's roles, and the admin role has no ADMIN option on it (PostgreSQL 16 and
//! later). It is never touched.
//!
//! ## login_missing
//! The login of an active tenant does not exist. The repair rotates: it creates a login of the next generation and
//! moves all nodes to it.
//!
//! ## login_refused
//! The login of an active tenant is NOLOGIN. The repair restores LOGIN, its group role and its role setting; its
//! password stays.
//!
//! ## login_expired
//! VALID UNTIL of the login has passed. The repair is that of [`login_refused`](#login_refused).
//!
//! ## login_password
//! The server refuses the stored password. It was changed outside tenantry, or a backup of the landlord was restored.
//! The repair rotates.
//!
//! ## login_rejected
//! The server refuses the login of an active tenant, which may log in and has not expired, for another reason than its
//! password (SQLSTATE 28000): a line of pg_hba.conf, or a certificate that it demands. A new login would be refused too, so
//! no repair is offered.
//!
//! ## login_membership
//! The login is no member of its group role, has not the setting `role`, or its sessions do not act as that role. What
//! it creates then belongs to the login, and other logins cannot use it. The repair is that of
//! [`login_refused`](#login_refused).
//!
//! ## login_extra_membership
//! A login of the tenant is a member of further roles; logins that are pending or retiring count too. The repair revokes
//! the membership, if the admin role may: from PostgreSQL 16 on only what it has granted itself. Otherwise the finding names
//! the grantor, and a superuser revokes the membership with GRANTED BY. A membership of one of the tenant's group roles is
//! critical, because the application acts as that role; a person revokes it.
//!
//! ## login_settings
//! The login has other settings than its role. A login can set them itself. The repair resets them.
//!
//! ## login_limit
//! The CONNECTION LIMIT of the login is not the configured one. The repair sets it; so does the daily check of
//! [`Tenantry::run`](crate::Tenantry::run).
//!
//! ## secret_missing
//! The vault has no password for the login of an active tenant. The repair rotates, which needs no old password.
//!
//! ## secret_unreadable
//! The stored password does not open: its record was changed, or the key provider lacks its key. With the key present
//! the repair rotates. A missing key has to be added instead.
//!
//! # The recorded logins
//!
//! ## users_disagree
//! The entry's login exists, and is not the one that is recorded as active. The entry is what the application uses, so
//! the repair records its login as active, and another active one as retiring.
//!
//! ## login_not_dropped
//! A login is recorded as dropped and still exists. The repair records it as retiring, waits up to 30
//! seconds until its sessions have ended, refuses it, ends the sessions that are left and drops it. Those of a suspended
//! or archived tenant are ended at once. The finding has the number of sessions. If the login cannot be dropped now, the
//! queue of replaced logins tries again.
//!
//! ## login_unrecorded
//! A role with the name of one of the tenant's logins exists, and the landlord has no row for it. The repair is
//! that of [`login_not_dropped`](#login_not_dropped).
//!
//! ## login_gone
//! A login is recorded as pending or retiring and does not exist. The repair records it as dropped.
//!
//! ## retirement_overdue
//! A replaced login could not be dropped for more than half an hour; the finding has the reason. Or it has no time at
//! which it is dropped, because an entry was written by hand or a rotation was abandoned. It may still be able to log
//! in. The repair refuses it and drops it, which succeeds after the reason is removed.
//!
//! ## migrator_left
//! The migrator's login exists, and no operation uses it: its operation was abandoned. The repair drops it.
//!
//! ## role_marker
//! The comment on a role of the tenant was changed. No decision depends on it. The repair restores it.
//!
//! # Migrations, operations and sessions
//!
//! ## migrations_behind
//! Migrations have not run, at the end or in the middle; the finding lists them. The repair runs them. If another
//! finding about the migrations keeps them from running, such as `migrations_ahead`, that one comes first.
//!
//! ## migrations_ahead
//! The database has a migration that this program does not have: a newer program has migrated it.
//!
//! ## migrations_changed
//! A migration has run with another text than this program has. An applied migration must not be edited.
//!
//! ## migrations_unfinished
//! A migration outside a transaction was begun and did not end. Check what it did, then correct its row.
//!
//! ## operation_parked
//! An operation waits for an administrator. The change of a suspended or archived tenant is parked by that suspension
//! and is no finding. The repair lets the operation continue in the direction that it had.
//!
//! ## operation_stalled
//! The lease of an operation has expired for more than a minute, and no node continues it: no process runs
//! [`Tenantry::run`](crate::Tenantry::run), or none has the steps of its kind. The repair takes it over in this
//! process.
//!
//! ## operation_slow
//! An operation is open for longer than its deadline, and for more than an hour. Or it has failed, is open for more than
//! a minute, and waits for its next attempt. Correct the cause that its error names.
//!
//! ## tenant_unfinished
//! A tenant is in provisioning or purging, and no operation is open for it: it was abandoned. Purge the tenant with
//! `force()`.
//!
//! ## session_blocks
//! A session is idle in a transaction for more than a minute, and others wait for it, on a server or in the landlord.
//! The finding shows its process id, user and application, for how long it is idle, and the first word of the
//! statements that wait. The repair terminates it, if it is still the same session in the same
//! transaction.
//!
//! # Servers, keys and the landlord
//!
//! ## cannot_see
//! A right is missing, or a part did not answer, so that a check could not look. It never means healthy. The finding
//! names the part, and the codes that could not be checked.
//!
//! ## provisioner_refused
//! The server refuses the provisioner's login in use, or its session does not act as the admin role, or its password is
//! not in the vault. With an admin's connection ([`Doctor::admin`](crate::doctor::Doctor::admin)) the repair sets the
//! server up again, which changes nothing that is right.
//!
//! ## idle_provisioner_refused
//! As [`provisioner_refused`](#provisioner_refused), for the login that is not in use. The next rotation of the server
//! would fail.
//!
//! ## server_unreachable
//! A server does not answer. Its tenants were not examined.
//!
//! ## server_untrusted
//! The address in the server's row is not authenticated or not allowed, so nothing was connected to.
//!
//! ## server_not_ready
//! The set-up of a server has not ended. Call [`set_up`](crate::servers::Servers::set_up) again.
//!
//! ## server_replaced
//! The cluster at the server's address is not the one that was set up: it lacks the mark, or has another system
//! identifier. Nothing on it is changed.
//!
//! ## key_missing
//! Stored secrets need a key that the key provider does not have. Add it.
//!
//! ## key_wrong
//! The key provider has other bytes under the name of a key.
//!
//! ## secrets_on_old_key
//! Secrets are sealed with a key that is not the primary one: a rekey has not run or not ended. The repair rekeys.
//!
//! ## schema_missing
//! The landlord's schema is not installed, or is older than this program. Call
//! [`schema::install`](crate::schema::install).
//!
//! ## schema_newer
//! A newer program has migrated the landlord. Use that version.
//!
//! ## schema_damaged
//! The landlord has lost tables, columns, indexes or triggers. Restore them from a backup.
//!
//! ## schema_rights
//! The landlord's role lacks rights on the schema.
//!
//! ## row_unreadable
//! A row of the landlord cannot be parsed, so its tenant, server or operation is left out everywhere.
//!
//! # Content of the tenants' databases
//!
//! ## schema_owner
//! Another role than the tenant's owner role owns the schema `public`, so that migrations cannot create objects there.
//! The repair gives the schema back if it belongs to `pg_database_owner`, as in a new database; from another role only a
//! superuser can take it.
//!
//! ## schema_public
//! PUBLIC has rights on a schema. The repair revokes those on the schema `public`. Rights on other schemas are revoked by
//! a migration.
//!
//! ## object_owner
//! Another role than the tenant's group roles owns objects in its database. A person or a migration of a superuser has
//! created them, or a login has given up its role. What a login of the tenant owns cannot be used by its next login; the
//! repair gives it to the group role. What another role owns is left to a superuser: REASSIGN OWNED would also hand over
//! the databases of that role.
//!
//! ## object_public
//! PUBLIC has rights on tables or functions. Only roles that can enter the database can use them.
//!
//! ## object_granted
//! A role outside the tenant has rights on objects in its database, and is not one that the application allows.
//!
//! ## index_invalid
//! CREATE INDEX CONCURRENTLY or REINDEX CONCURRENTLY has failed. No query uses the index, and every write maintains it. A
//! table on which such a statement runs now is left out, and so is an index of a partitioned table that was created with
//! `ON ONLY`: it is invalid until an index of each partition is attached, and PostgreSQL keeps no data in it.
//!
//! ## event_trigger
//! The database has an enabled event trigger. Operations that would fire it with the provisioner's rights refuse to act
//! there. A login event trigger (PostgreSQL 17 and later) would run at every login, so the doctor does not enter such a
//! database as the provisioner.
//!
//! ## sequence_exhausted
//! A sequence has used at least 80 % of the range of its column's type; from 95 % on the finding is critical. Sequences
//! of extensions are left out.
//!
//! ## sources_disagree
//! The application's second registry ([`Doctor::compare_with`](crate::doctor::Doctor::compare_with)) names another
//! database than the directory entry, or none.
//!
//! # Servers and nodes together
//!
//! ## server_read_only
//! A server is a standby, or new sessions are read-only by default, as a managed service sets it when the disk is full.
//!
//! ## transaction_prepared
//! A prepared transaction in a tenant's database is older than ten minutes. It keeps its locks, and the database cannot be
//! dropped. Only its transaction manager knows whether to commit it.
//!
//! ## slot_holds
//! A replication slot belongs to a tenant's database, which cannot be dropped as long as it exists, or it holds more than
//! 1 GiB of WAL, or it is about to lose WAL that its reader needs.
//!
//! ## budget_exceeds_server
//! The connections that all live nodes may open exceed what the server allows. Rows of the landlord with the same system
//! identifier are one server.
//!
//! ## locale_differs
//! Servers of the installation have different encodings or locales. A tenant that moves between them gets another sort
//! order.
//!
//! ## collation_outdated
//! The operating system sorts texts in another way than when the database's indexes were built. Indexes on texts may miss
//! rows until they are built again.
//!
//! ## clock_skew
//! The clock of this node or of a server differs from the landlord's by more than two seconds, after the time of the
//! answers was taken off. The clocks of other nodes are not known here: run the doctor on each of them.
//!
//! ## tls_off
//! Connections to a server on another machine may be unencrypted.
//!
//! # What is left over
//!
//! ## orphan_database
//! The admin role owns a database that no placement names, for example because the landlord was restored from an old
//! backup. It may hold the only copy of a tenant's data, so it is never changed.
//!
//! ## orphan_role
//! A role has the comment of this installation and derives from no placement.
//!
//! ## look_alike
//! A database or role has the comment of this installation, but another owner, or the admin role has no ADMIN option on
//! it. It is reported and never changed: every role can write such a comment.
//!
//! ## placement_left
//! A placement belongs to no tenant, or to a deleted one. It keeps its database name and its place on the server.
//!
//! ## address_outdated
//! The address in a directory entry is not that of its server. After a relocation that is normal: connections use the
//! server's row.
//!
//! ## purge_overdue
//! The retention of an archived tenant has ended. [`Tenantry::purge_due`](crate::Tenantry::purge_due) destroys its data.
