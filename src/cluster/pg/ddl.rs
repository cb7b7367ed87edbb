//! Builds all DDL for PostgreSQL servers. This is the only module that puts names into SQL text for servers.
//!
//! The other modules of `pg` call these functions and run the returned [`Ddl`]. Every identifier and every literal is
//! quoted here. Statements that belong together are one `BEGIN … COMMIT` block, sent as one simple query, so they take
//! effect as a whole or not at all. A statement that cannot run in a transaction, or that may fail in normal use, is
//! sent alone.
//!
//! `set_up` holds the statements that set a server up, and `repair` those of the doctor; all others are for tenants.
use super::scram::Verifier;
use crate::directory::AppAccess;
use crate::error::ClusterError;
use crate::names::{DatabaseName, GroupRoles, RoleName, TenantNames};
pub(crate) use crate::sql::Ddl;
use crate::sql::{quote_identifier, quote_literal};
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;

mod repair;
mod set_up;
mod temporary_login;
pub(crate) use repair::*;
pub(crate) use set_up::*;
pub(crate) use temporary_login::*;

/// Tries to take the advisory lock; returns whether this session has it now. Also turns off statement logging, as
/// [`session::silence_statement_log`](super::session::silence_statement_log) does, to save a round trip.
pub(crate) fn try_lock(key: i64) -> Ddl {
    Ddl(format!(concat!("SELECT pg_try_advisory_lock('{}'::bigint), ", silence_statement_log!()), key))
}

/// Ends the failed transaction that an error inside a block leaves, so that the session is usable again. Without a
/// transaction it has no effect.
pub(crate) fn roll_back() -> Ddl {
    Ddl(String::from("ROLLBACK"))
}

// Provisioning a tenant.

/// CREATE ROLE for group roles (NOLOGIN), each with its marker as the comment.
pub(crate) fn create_groups(roles: &[&RoleName], marker: &str) -> Ddl {
    let create =
        |role: &&RoleName| format!("CREATE ROLE {0} NOLOGIN; {1}", quote_identifier(role), comment_role(role, marker));
    Ddl::block(roles.iter().map(create))
}

fn comment_role(role: &RoleName, marker: &str) -> String {
    format!("COMMENT ON ROLE {} IS {}", quote_identifier(role), quote_literal(marker))
}

/// The locale of a new database.
#[derive(Clone, Copy)]
pub(crate) enum Locale {
    /// The cluster's default. It may not fit the encoding UTF8: then CREATE DATABASE fails with 22023.
    Cluster,
    /// `C`, which fits every encoding.
    C,
}
impl Locale {
    /// The clauses of CREATE DATABASE for an empty database with the encoding UTF8, whatever the cluster's default is.
    /// Only `template0` may be copied into another encoding.
    fn utf8(self) -> &'static str {
        match self {
            Self::Cluster => "TEMPLATE template0 ENCODING 'UTF8'",
            Self::C => "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'",
        }
    }
}

/// CREATE DATABASE, closed to all connections. Sent alone, because it cannot run in a transaction.
pub(crate) fn create_database(database: &DatabaseName, locale: Locale) -> Ddl {
    Ddl(format!("CREATE DATABASE {} {} ALLOW_CONNECTIONS false", quote_identifier(database), locale.utf8()))
}

/// Revokes the rights of PUBLIC, grants those of the tenant's group roles, and only then lets the database accept
/// connections, so that at no moment another role can connect.
pub(crate) fn open_database(names: &TenantNames, marker: &str, temp_tables: bool) -> Ddl {
    let (db, owner, app) =
        (quote_identifier(&names.database), quote_identifier(&names.roles.owner), quote_identifier(&names.roles.app));
    let mut block = vec![
        format!("COMMENT ON DATABASE {db} IS {}", quote_literal(marker)),
        format!("REVOKE ALL ON DATABASE {db} FROM PUBLIC"),
        format!("GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {db} TO {owner}"),
        format!("GRANT CONNECT ON DATABASE {db} TO {app}"),
    ];
    if temp_tables {
        block.push(format!("GRANT TEMPORARY ON DATABASE {db} TO {app}"));
    }
    block.push(format!("ALTER DATABASE {db} ALLOW_CONNECTIONS true"));
    Ddl::block(block)
}

/// ALTER SCHEMA public OWNER TO the tenant's owner role. Run it in the tenant's database. The admin role is a member of
/// the owner during this block only: with thousands of permanent memberships each login of the provisioner takes
/// seconds.
pub(crate) fn transfer_schema(roles: &GroupRoles, admin: &RoleName) -> Ddl {
    let (owner, app, admin) = (quote_identifier(&roles.owner), quote_identifier(&roles.app), quote_identifier(admin));
    Ddl::block([
        format!("GRANT {owner} TO {admin}"),
        format!("ALTER SCHEMA public OWNER TO {owner}"),
        String::from("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
        format!("GRANT USAGE ON SCHEMA public TO {app}"),
        format!("REVOKE {owner} FROM {admin}"),
    ])
}

/// A login to create.
pub(crate) struct Login<'a> {
    pub(crate) name: &'a RoleName,
    /// Group role as which its sessions run.
    pub(crate) acts_as: &'a RoleName,
    /// CONNECTION LIMIT: maximum number of sessions over all nodes.
    pub(crate) limit: i32,
    pub(crate) verifier: &'a Verifier,
}

/// A change of a login in one transaction, sent as two messages. PostgreSQL logs the whole message of a statement that
/// fails. So everything that may fail, because the role exists or its row is locked, is in `first`, without the verifier.
pub(crate) struct LoginDdl {
    pub(crate) first: Ddl,
    /// Sets the password of the role that `first` has created or locked, and commits.
    pub(crate) password: Ddl,
}

impl LoginDdl {
    fn new(first: impl IntoIterator<Item = String>, login: &RoleName, verifier: &Verifier) -> Self {
        let (name, verifier) = (quote_identifier(login), quote_literal(verifier.as_str()));
        let password = Ddl(format!("ALTER ROLE {name} LOGIN PASSWORD {verifier}; COMMIT"));
        Self { first: Ddl::begin(first), password }
    }
    /// Runs both messages.
    pub(crate) async fn run(self, session: &mut PgConnection, phase: &'static str) -> Result<(), ClusterError> {
        self.first.run(session, phase).await?;
        self.password.run(session, phase).await
    }
}

/// CREATE ROLE … LOGIN for the migrator and for the application's login.
pub(crate) fn create_login(login: &Login<'_>, marker: &str) -> LoginDdl {
    let (name, group) = (quote_identifier(login.name), quote_identifier(login.acts_as));
    let first = [
        format!("CREATE ROLE {name} NOLOGIN CONNECTION LIMIT {}", login.limit),
        comment_role(login.name, marker),
        format!("GRANT {group} TO {name}"),
        format!("ALTER ROLE {name} SET role = {group}"),
    ];
    LoginDdl::new(first, login.name, login.verifier)
}

/// As [`create_login`], for a login that exists: sets its password, limit and membership whatever an earlier worker did
/// to it.
pub(crate) fn renew_login(login: &Login<'_>, admin: &RoleName) -> LoginDdl {
    let (name, group) = (quote_identifier(login.name), quote_identifier(login.acts_as));
    let first = [
        format!("ALTER ROLE {name} CONNECTION LIMIT {}", login.limit),
        format!("GRANT {group} TO {name}"),
        format!("ALTER ROLE {name} SET role = {group}"),
        format!("REVOKE {name} FROM {}", quote_identifier(admin)),
    ];
    LoginDdl::new(first, login.name, login.verifier)
}

/// Sets the connection limit of a login; LOGIN or NOLOGIN stays as it is. Waits at most a second for the row's lock,
/// because a tenant can keep the row of its own login locked.
pub(crate) fn limit_login(login: &RoleName, limit: i32) -> Ddl {
    let login = quote_identifier(login);
    Ddl::block([String::from("SET LOCAL lock_timeout = '1s'"), format!("ALTER ROLE {login} CONNECTION LIMIT {limit}")])
}

/// ALTER DEFAULT PRIVILEGES for the application's group role. Run it as the migrator. Without `IN SCHEMA`, so that it
/// also applies to schemas that migrations create later.
pub(crate) fn set_default_privileges(app: &RoleName) -> Ddl {
    let app = quote_identifier(app);
    let change = |what: &str| format!("ALTER DEFAULT PRIVILEGES {what}");
    Ddl::block([
        change(&format!("GRANT USAGE ON SCHEMAS TO {app}")),
        change(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}")),
        change(&format!("GRANT USAGE, SELECT ON SEQUENCES TO {app}")),
        change("REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"),
        change(&format!("GRANT EXECUTE ON FUNCTIONS TO {app}")),
        change("REVOKE USAGE ON TYPES FROM PUBLIC"),
        change(&format!("GRANT USAGE ON TYPES TO {app}")),
    ])
}

/// Revokes the application's right to write the table of applied migrations. Run it as the migrator. `table` is SQL
/// from the application's own code, with its quotes and perhaps a schema, as sqlx's `Migrator` takes it.
pub(crate) fn close_ledger(table: &str, app: &RoleName) -> Ddl {
    Ddl(format!("REVOKE INSERT, UPDATE, DELETE ON TABLE {table} FROM {}", quote_identifier(app)))
}

// The ledger: the table of applied migrations. `table` is SQL, as in `close_ledger`.

/// Inserts the row of a migration outside a transaction before it runs, with `success = false`.
pub(crate) fn insert_ledger_row(table: &str, version: i64, description: &str, checksum: &[u8]) -> Ddl {
    let checksum = data_encoding::HEXLOWER.encode(checksum);
    Ddl(format!(
        "INSERT INTO {table} (version, description, success, checksum, execution_time) \
         VALUES ({version}, {}, false, '\\x{checksum}', -1)",
        quote_literal(description)
    ))
}

/// Sets `success = true` and the execution time after the migration has succeeded.
pub(crate) fn complete_ledger_row(table: &str, version: i64, took: Duration) -> Ddl {
    Ddl(format!("UPDATE {table} SET success = true, execution_time = {} WHERE version = {version}", took.as_nanos()))
}

/// Reads version, checksum and success of every row, oldest version first.
pub(crate) async fn read_ledger(
    table: &str, session: &mut PgConnection,
) -> Result<Vec<(i64, Vec<u8>, bool)>, sqlx::Error> {
    let rows = format!("SELECT version, checksum, success FROM {table} ORDER BY version");
    #[expect(clippy::disallowed_methods, reason = "built in this module; the table name is the application's own SQL")]
    sqlx::query_as(AssertSqlSafe(rows)).fetch_all(session).await
}

// Refusing, admitting and dropping a login.

/// Makes the admin role a member of a login, which allows it to terminate the login's sessions. Sent alone: it changes
/// `pg_auth_members` only, where the login cannot lock a row.
pub(crate) fn grant_to_admin(role: &RoleName, admin: &RoleName) -> Ddl {
    Ddl(format!("GRANT {} TO {}", quote_identifier(role), quote_identifier(admin)))
}

/// Revokes the membership that [`grant_to_admin`] has granted.
pub(crate) fn revoke_from_admin(role: &RoleName, admin: &RoleName) -> Ddl {
    Ddl(format!("REVOKE {} FROM {}", quote_identifier(role), quote_identifier(admin)))
}

/// ALTER ROLE … NOLOGIN: refuses new sessions of a login. A tenant can keep its own row in `pg_authid` locked. Then
/// this fails with 55P03 after 100 ms, and the caller terminates the session that has the lock.
pub(crate) fn forbid_login(login: &RoleName) -> Ddl {
    Ddl::block([String::from(SHORT_LOCK_TIMEOUT), format!("ALTER ROLE {} NOLOGIN", quote_identifier(login))])
}

/// Lock timeout of statements that may wait for a lock which a tenant's session keeps on purpose.
const SHORT_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// Revokes the group roles, and with them CONNECT, from a login whose own row is locked. A tenant cannot lock the rows
/// of memberships.
pub(crate) fn revoke_groups(login: &RoleName, roles: &GroupRoles) -> Ddl {
    let login = quote_identifier(login);
    let revoke = |group: &RoleName| format!("REVOKE {} FROM {login}", quote_identifier(group));
    Ddl::block([String::from(SHORT_LOCK_TIMEOUT), revoke(&roles.owner), revoke(&roles.app)])
}

/// Admits a refused login again: LOGIN, the membership in the group role, and no membership of the admin role in the
/// login.
pub(crate) fn admit_login(login: &RoleName, acts_as: &RoleName, admin: &RoleName) -> Ddl {
    let (login, group, admin) = (quote_identifier(login), quote_identifier(acts_as), quote_identifier(admin));
    Ddl::block([
        format!("GRANT {group} TO {login}"),
        format!("ALTER ROLE {login} LOGIN"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// Lets a closed database accept connections, with this connection limit, and admits a refused login, in one
/// transaction.
pub(crate) fn reopen_database(
    database: &DatabaseName, limit: i32, login: &RoleName, acts_as: &RoleName, admin: &RoleName,
) -> Ddl {
    let (database, login, group, admin) =
        (quote_identifier(database), quote_identifier(login), quote_identifier(acts_as), quote_identifier(admin));
    Ddl::block([
        format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true CONNECTION LIMIT {limit}"),
        format!("GRANT {group} TO {login}"),
        format!("ALTER ROLE {login} LOGIN"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// DROP ROLE. Sent alone, because it fails with 2BP01 if an object depends on the role, which must not abort other
/// statements.
pub(crate) fn drop_role(role: &RoleName) -> Ddl {
    Ddl(format!("DROP ROLE {}", quote_identifier(role)))
}

/// REASSIGN OWNED and DROP OWNED: what the login owns goes to the group role that it acted as. Run it in the tenant's
/// database after DROP ROLE has failed with 2BP01. It runs no code of the tenant.
pub(crate) fn reassign_owned(login: &RoleName, new_owner: &RoleName) -> Ddl {
    let (login, new_owner) = (quote_identifier(login), quote_identifier(new_owner));
    Ddl::block([format!("REASSIGN OWNED BY {login} TO {new_owner}"), format!("DROP OWNED BY {login}")])
}

// Dropping a tenant's database.

/// Makes a database refuse all connections, also of superusers. The lock timeout is short, because a tenant's session
/// can keep the database's row locked.
pub(crate) fn close_database(database: &DatabaseName) -> Ddl {
    Ddl::block([
        String::from(SHORT_LOCK_TIMEOUT),
        format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", quote_identifier(database)),
    ])
}

/// Connection limit that marks a database which is open only for a clean-up, so that recovery knows which databases to
/// close again. An unlikely number, to avoid a collision with a limit that a person has set.
pub(crate) const CLEAN_UP_LIMIT: i32 = 1_618_033_988;

/// Lets a closed database accept connections, for a session of the provisioner. All its logins must have been refused.
pub(crate) fn open_for_clean_up(database: &str) -> Ddl {
    Ddl(format!(
        "ALTER DATABASE {} ALLOW_CONNECTIONS true CONNECTION LIMIT {CLEAN_UP_LIMIT}",
        quote_identifier(&database)
    ))
}

/// Closes a database that [`open_for_clean_up`] has opened and restores its connection limit.
pub(crate) fn close_after_clean_up(database: &str, limit: i32) -> Ddl {
    Ddl(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}", quote_identifier(&database)))
}

/// DROP DATABASE, sent alone, because it cannot run in a transaction. Without FORCE: with FORCE, PostgreSQL raises
/// 42501 while an autovacuum worker is in the database, whereas the plain statement cancels autovacuum.
pub(crate) fn drop_database(database: &DatabaseName) -> Ddl {
    Ddl(format!("DROP DATABASE {}", quote_identifier(database)))
}

/// Sets the session's lock timeout to one second until [`restore_lock_timeout`]. For a statement that cannot run in a
/// transaction, so that it soon fails with 55P03 if another session has the lock.
pub(crate) fn shorten_lock_timeout() -> Ddl {
    Ddl(String::from("SET lock_timeout = '1s'"))
}

/// Restores the lock timeout with which the session was opened.
pub(crate) fn restore_lock_timeout() -> Ddl {
    Ddl(String::from("RESET lock_timeout"))
}

/// DROP OWNED: removes what a role owns in the current database and what was granted to it there. If a grantor is
/// named, the admin role is a member of it meanwhile. Only for a role that is dropped next, because DROP OWNED also
/// revokes rights on shared objects. The memberships exist only within this transaction, so a crash leaves none.
pub(crate) fn drop_owned(role: &RoleName, grantor: Option<&RoleName>, admin: &RoleName) -> Ddl {
    let mut block = drop_owned_statements(role, grantor, admin);
    block.push(format!("REVOKE {} FROM {}", quote_identifier(role), quote_identifier(admin)));
    Ddl::block(block)
}

/// As [`drop_owned`], and drops the role. If DROP ROLE fails, DROP OWNED is rolled back too; the caller then
/// runs [`drop_owned`] alone.
pub(crate) fn drop_owned_and_role(role: &RoleName, grantor: Option<&RoleName>, admin: &RoleName) -> Ddl {
    let mut block = drop_owned_statements(role, grantor, admin);
    block.push(format!("DROP ROLE {}", quote_identifier(role)));
    Ddl::block(block)
}

fn drop_owned_statements(role: &RoleName, grantor: Option<&RoleName>, admin: &RoleName) -> Vec<String> {
    let (role, admin) = (quote_identifier(role), quote_identifier(admin));
    let mut block = vec![String::from("SET LOCAL lock_timeout = '2s'"), format!("GRANT {role} TO {admin}")];
    block.extend(grantor.map(|grantor| format!("GRANT {} TO {admin}", quote_identifier(grantor))));
    block.push(format!("DROP OWNED BY {role}"));
    block.extend(grantor.map(|grantor| format!("REVOKE {} FROM {admin}", quote_identifier(grantor))));
    block
}

/// Terminates a session of a login in which the admin role has no membership. The membership exists only within this
/// transaction.
pub(crate) fn terminate_as_member(pid: i32, login: &RoleName, admin: &RoleName) -> Ddl {
    let (login, admin) = (quote_identifier(login), quote_identifier(admin));
    Ddl::block([
        format!("GRANT {login} TO {admin}"),
        format!("SELECT pg_catalog.pg_terminate_backend({pid})"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// Sets the comment of a role to the marker again.
pub(crate) fn restore_comment(role: &RoleName, marker: &str) -> Ddl {
    Ddl(comment_role(role, marker))
}

/// SET ROLE to the owner and ROLLBACK PREPARED, as two statements: ROLLBACK PREPARED cannot run in a transaction, and
/// only the role that prepared a transaction may roll it back.
pub(crate) fn roll_back_prepared(gid: &str, owner: &str) -> [Ddl; 2] {
    [Ddl(format!("SET ROLE {}", quote_identifier(&owner))), Ddl(format!("ROLLBACK PREPARED {}", quote_literal(gid)))]
}

/// Returns the group role as which the application's login runs.
pub(crate) fn acts_as(roles: &GroupRoles, access: AppAccess) -> &RoleName {
    match access {
        AppAccess::Owner => &roles.owner,
        AppAccess::App => &roles.app,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ddl_quotes_identifiers_and_literals() {
        let role: RoleName = "a\"; DROP ROLE x; --".parse().unwrap();
        assert_eq!(drop_role(&role).text(), "DROP ROLE \"a\"\"; DROP ROLE x; --\"");
        let [_, roll] = roll_back_prepared("it's", role.as_str());
        assert_eq!(roll.text(), "ROLLBACK PREPARED 'it''s'");
    }

    #[test]
    fn drop_database_has_no_force() {
        assert_eq!(drop_database(&"t".parse().unwrap()).text(), "DROP DATABASE \"t\"");
    }
}
