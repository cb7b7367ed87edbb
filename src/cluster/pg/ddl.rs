//! The one module that makes SQL from names. It quotes every identifier and every literal itself.
//!
//! The blocks are those of the crate's page on rights. A block in BEGIN … COMMIT is one call of the simple protocol: it
//! happens as a whole or not at all. What cannot stand in a transaction, or may fail by design, stands alone.
use super::scram::Verifier;
use crate::directory::AppAccess;
use crate::names::{DatabaseName, RoleName, ServerName};
use crate::names::{GroupRoles, TenantNames};
pub(crate) use crate::sql::Ddl;
use crate::sql::{id, literal};
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;

/// Whether this session has the lock now. From here on it is quiet, as [`session::quiet`](super::session::quiet) makes it.
pub(crate) fn try_lock(key: i64) -> Ddl {
    Ddl(format!(concat!("SELECT pg_try_advisory_lock('{}'::bigint), ", quiet!()), key))
}

/// After an error inside a block: the session is usable again. Outside one it does nothing.
pub(crate) fn roll_back() -> Ddl {
    Ddl(String::from("ROLLBACK"))
}

// Block (b): provision.

/// b1: roles that are missing, each with its marker.
pub(crate) fn create_groups(roles: &[&RoleName], marker: &str) -> Ddl {
    let create = |role: &&RoleName| format!("CREATE ROLE {0} NOLOGIN; {1}", id(role), comment_role(role, marker));
    Ddl::block(roles.iter().map(create))
}

fn comment_role(role: &RoleName, marker: &str) -> String {
    format!("COMMENT ON ROLE {} IS {}", id(role), literal(marker))
}

/// b2, alone: it cannot stand in a transaction.
pub(crate) fn create_database(database: &DatabaseName) -> Ddl {
    Ddl(format!("CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false", id(database)))
}

/// b3: PUBLIC is out before anybody can come in.
pub(crate) fn open_database(names: &TenantNames, marker: &str, temp_tables: bool) -> Ddl {
    let (db, owner, app) = (id(&names.database), id(&names.roles.owner), id(&names.roles.app));
    let mut block = vec![
        format!("COMMENT ON DATABASE {db} IS {}", literal(marker)),
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

/// b4, in the tenant's database. The membership lasts for the block alone: with thousands of permanent ones the
/// provisioner's connect takes seconds.
pub(crate) fn own_schema(roles: &GroupRoles, admin: &RoleName) -> Ddl {
    let (owner, app, admin) = (id(&roles.owner), id(&roles.app), id(admin));
    Ddl::block([
        format!("GRANT {owner} TO {admin}"),
        format!("ALTER SCHEMA public OWNER TO {owner}"),
        String::from("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
        format!("GRANT USAGE ON SCHEMA public TO {app}"),
        format!("REVOKE {owner} FROM {admin}"),
    ])
}

/// A login: what it is called, whom it acts as, and how many sessions it may have.
pub(crate) struct Login<'a> {
    pub(crate) name: &'a RoleName,
    pub(crate) acts_as: &'a RoleName,
    pub(crate) limit: i32,
    pub(crate) verifier: &'a Verifier,
}

/// b5 and b7: a new login.
pub(crate) fn create_login(login: &Login<'_>, marker: &str) -> Ddl {
    let (name, group) = (id(login.name), id(login.acts_as));
    let (limit, verifier) = (login.limit, literal(login.verifier.as_str()));
    Ddl::block([
        format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT {limit} PASSWORD {verifier}"),
        comment_role(login.name, marker),
        format!("GRANT {group} TO {name}"),
        format!("ALTER ROLE {name} SET role = {group}"),
    ])
}

/// The same for one that is there: whatever an earlier worker did to it, it is now as it should be.
pub(crate) fn renew_login(login: &Login<'_>, admin: &RoleName) -> Ddl {
    let (name, group) = (id(login.name), id(login.acts_as));
    let (limit, verifier) = (login.limit, literal(login.verifier.as_str()));
    Ddl::block([
        format!("ALTER ROLE {name} LOGIN CONNECTION LIMIT {limit} PASSWORD {verifier}"),
        format!("GRANT {group} TO {name}"),
        format!("ALTER ROLE {name} SET role = {group}"),
        format!("REVOKE {name} FROM {}", id(admin)),
    ])
}

/// The sessions that a login may have; whether it may log in stays as it is. A second for the row's lock: a tenant can
/// hold that of its own login.
pub(crate) fn limit_login(login: &RoleName, limit: i32) -> Ddl {
    let login = id(login);
    Ddl::block([String::from("SET LOCAL lock_timeout = '1s'"), format!("ALTER ROLE {login} CONNECTION LIMIT {limit}")])
}

/// b6, as the migrator: no `IN SCHEMA`, so that it holds for schemas that migrations make later.
pub(crate) fn defaults(app: &RoleName) -> Ddl {
    let app = id(app);
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

/// b9, as the migrator. The table's name is the host's own, possibly with a schema: it comes as SQL from the host's
/// code, as sqlx itself takes it.
pub(crate) fn close_ledger(table: &str, app: &RoleName) -> Ddl {
    Ddl(format!("REVOKE INSERT, UPDATE, DELETE ON TABLE {table} FROM {}", id(app)))
}

// The ledger of migrations. The table's name comes as in `close_ledger`.

/// Before a migration outside a transaction: begun, and not known to have ended.
pub(crate) fn ledger_begins(table: &str, version: i64, description: &str, checksum: &[u8]) -> Ddl {
    let checksum = data_encoding::HEXLOWER.encode(checksum);
    Ddl(format!(
        "INSERT INTO {table} (version, description, success, checksum, execution_time) \
         VALUES ({version}, {}, false, '\\x{checksum}', -1)",
        literal(description)
    ))
}

/// After it.
pub(crate) fn ledger_ends(table: &str, version: i64, took: Duration) -> Ddl {
    Ddl(format!("UPDATE {table} SET success = true, execution_time = {} WHERE version = {version}", took.as_nanos()))
}

/// Every row, oldest version first.
pub(crate) async fn ledger(table: &str, session: &mut PgConnection) -> Result<Vec<(i64, Vec<u8>, bool)>, sqlx::Error> {
    let rows = format!("SELECT version, checksum, success FROM {table} ORDER BY version");
    #[expect(clippy::disallowed_methods, reason = "made in this module; the table's name is the host's own SQL")]
    sqlx::query_as(AssertSqlSafe(rows)).fetch_all(session).await
}

// Block (c): retire a login.

/// Makes the admin role a member of a login, alone: this is what allows ending the login's sessions. It writes no row
/// that the login itself could hold locked.
pub(crate) fn grant_to_admin(role: &RoleName, admin: &RoleName) -> Ddl {
    Ddl(format!("GRANT {} TO {}", id(role), id(admin)))
}

/// Takes the membership back.
pub(crate) fn revoke_from_admin(role: &RoleName, admin: &RoleName) -> Ddl {
    Ddl(format!("REVOKE {} FROM {}", id(role), id(admin)))
}

/// Refuses new sessions of a login. A tenant can hold its own row of `pg_authid` locked; then this fails with 55P03 soon,
/// and the caller ends the session that holds it.
pub(crate) fn forbid_login(login: &RoleName) -> Ddl {
    Ddl::block([String::from(SHORT_LOCK_TIMEOUT), format!("ALTER ROLE {} NOLOGIN", id(login))])
}

/// For statements that wait for a lock which a tenant's session may hold on purpose.
const SHORT_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// Takes the rights of its group roles, CONNECT among them, from a login whose own row is locked. The rows of memberships
/// cannot be locked by a tenant.
pub(crate) fn revoke_groups(login: &RoleName, roles: &GroupRoles) -> Ddl {
    let login = id(login);
    let revoke = |group: &RoleName| format!("REVOKE {} FROM {login}", id(group));
    Ddl::block([String::from(SHORT_LOCK_TIMEOUT), revoke(&roles.owner), revoke(&roles.app)])
}

/// Lets a refused login in again, as a member of the role that it acts as.
pub(crate) fn admit_login(login: &RoleName, acts_as: &RoleName, admin: &RoleName) -> Ddl {
    let (login, group, admin) = (id(login), id(acts_as), id(admin));
    Ddl::block([
        format!("GRANT {group} TO {login}"),
        format!("ALTER ROLE {login} LOGIN"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// Opens a closed database, with this connection limit, and lets a refused login in again, in one.
pub(crate) fn restore(
    database: &DatabaseName, limit: i32, login: &RoleName, acts_as: &RoleName, admin: &RoleName,
) -> Ddl {
    let (database, login, group, admin) = (id(database), id(login), id(acts_as), id(admin));
    Ddl::block([
        format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true CONNECTION LIMIT {limit}"),
        format!("GRANT {group} TO {login}"),
        format!("ALTER ROLE {login} LOGIN"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// c3 and d4, alone: a failure (2BP01) must not abort anything else.
pub(crate) fn drop_role(role: &RoleName) -> Ddl {
    Ddl(format!("DROP ROLE {}", id(role)))
}

/// c4, in the tenant's database, after 2BP01: what the login made by accident goes to the role that it acts as. It runs
/// no code of the tenant.
pub(crate) fn adopt(login: &RoleName, new_owner: &RoleName) -> Ddl {
    let (login, new_owner) = (id(login), id(new_owner));
    Ddl::block([format!("REASSIGN OWNED BY {login} TO {new_owner}"), format!("DROP OWNED BY {login}")])
}

// Block (d): drop a tenant.

/// Closes a database: no role enters it, superusers included. With a short lock timeout: a tenant's session can hold the
/// database's row locked.
pub(crate) fn close_database(database: &DatabaseName) -> Ddl {
    Ddl::block([String::from(SHORT_LOCK_TIMEOUT), format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", id(database))])
}

/// The connection limit of a database that is open for a clean-up alone: a number that no person chooses, so that recovery
/// knows which databases to close again.
pub(crate) const CLEAN_UP_LIMIT: i32 = 1_618_033_988;

/// Opens a closed database, whose logins are all refused, for a session of the provisioner.
pub(crate) fn open_for_clean_up(database: &str) -> Ddl {
    Ddl(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true CONNECTION LIMIT {CLEAN_UP_LIMIT}", id(&database)))
}

/// Closes what [`open_for_clean_up`] has opened, with the connection limit that it had before.
pub(crate) fn close_after_clean_up(database: &str, limit: i32) -> Ddl {
    Ddl(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}", id(&database)))
}

/// d3, alone, and without FORCE: that refuses with 42501 while an autovacuum worker is in the database, whereas the
/// plain statement ends autovacuum by itself.
pub(crate) fn drop_database(database: &DatabaseName) -> Ddl {
    Ddl(format!("DROP DATABASE {}", id(database)))
}

/// For this session, until [`restore_lock_timeout`]: a statement that cannot stand in a transaction soon says 55P03 when
/// another session holds what it needs.
pub(crate) fn shorten_lock_timeout() -> Ddl {
    Ddl(String::from("SET lock_timeout = '1s'"))
}

/// Back to what the session began with.
pub(crate) fn restore_lock_timeout() -> Ddl {
    Ddl(String::from("RESET lock_timeout"))
}

/// In the database where the dependencies are: removes what a role owns there and what was granted to it there, as a member
/// of the grantor if one is named. Only for a role that is dropped next: it takes rights on shared objects too. The
/// memberships exist within this transaction alone, so no crash leaves them.
pub(crate) fn drop_owned(role: &RoleName, grantor: Option<&RoleName>, admin: &RoleName) -> Ddl {
    let mut block = owned_dropped(role, grantor, admin);
    block.push(format!("REVOKE {} FROM {}", id(role), id(admin)));
    Ddl::block(block)
}

/// The same, and the role itself. In a transaction, although DROP ROLE may fail: nothing else of worth is in it.
pub(crate) fn drop_owned_and_role(role: &RoleName, grantor: Option<&RoleName>, admin: &RoleName) -> Ddl {
    let mut block = owned_dropped(role, grantor, admin);
    block.push(format!("DROP ROLE {}", id(role)));
    Ddl::block(block)
}

fn owned_dropped(role: &RoleName, grantor: Option<&RoleName>, admin: &RoleName) -> Vec<String> {
    let (role, admin) = (id(role), id(admin));
    let mut block = vec![String::from("SET LOCAL lock_timeout = '2s'"), format!("GRANT {role} TO {admin}")];
    block.extend(grantor.map(|grantor| format!("GRANT {} TO {admin}", id(grantor))));
    block.push(format!("DROP OWNED BY {role}"));
    block.extend(grantor.map(|grantor| format!("REVOKE {} FROM {admin}", id(grantor))));
    block
}

/// Ends a session of a login of which the admin role is no member, as a member within this transaction alone.
pub(crate) fn terminate_as_member(pid: i32, login: &RoleName, admin: &RoleName) -> Ddl {
    let (login, admin) = (id(login), id(admin));
    Ddl::block([
        format!("GRANT {login} TO {admin}"),
        format!("SELECT pg_catalog.pg_terminate_backend({pid})"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// Writes the comment of a role again.
pub(crate) fn restore_comment(role: &RoleName, marker: &str) -> Ddl {
    Ddl(comment_role(role, marker))
}

/// A prepared transaction can be rolled back by the role that prepared it alone.
pub(crate) fn roll_back_prepared(gid: &str, owner: &str) -> [Ddl; 2] {
    [Ddl(format!("SET ROLE {}", id(&owner))), Ddl(format!("ROLLBACK PREPARED {}", literal(gid)))]
}

// Block (a): set up a server.

/// The admin role and its marker.
pub(crate) fn create_admin(admin: &RoleName, marker: &str) -> Ddl {
    Ddl::block([format!("CREATE ROLE {} NOLOGIN CREATEDB CREATEROLE", id(admin)), comment_role(admin, marker)])
}

/// One of the provisioner's two logins: it gets both attributes of the admin role by acting as it.
pub(crate) fn create_provisioner(login: &RoleName, admin: &RoleName, verifier: &Verifier, marker: &str) -> Ddl {
    let (name, admin) = (id(login), id(admin));
    Ddl::block([
        format!("CREATE ROLE {name} LOGIN PASSWORD {}", literal(verifier.as_str())),
        comment_role(login, marker),
        format!("GRANT {admin} TO {name}"),
        format!("ALTER ROLE {name} SET role = {admin}"),
    ])
}

/// The same for one that is there.
pub(crate) fn renew_provisioner(login: &RoleName, admin: &RoleName, verifier: &Verifier) -> Ddl {
    let (name, admin) = (id(login), id(admin));
    Ddl::block([
        format!("ALTER ROLE {name} LOGIN PASSWORD {}", literal(verifier.as_str())),
        format!("GRANT {admin} TO {name}"),
        format!("ALTER ROLE {name} SET role = {admin}"),
    ])
}

/// e1: a login may change its own password, and nobody else may: as the admin role it is 42501 from 16 on.
pub(crate) fn own_password(verifier: &Verifier) -> Ddl {
    let password = literal(verifier.as_str());
    Ddl::block([String::from("SET ROLE NONE"), format!("ALTER ROLE CURRENT_USER PASSWORD {password}")])
}

/// Before and after the maintenance database is made: its owner must be a role of the one who makes it.
pub(crate) fn lend_admin(admin: &RoleName, lend: bool) -> Ddl {
    let admin = id(admin);
    Ddl(if lend { format!("GRANT {admin} TO CURRENT_USER") } else { format!("REVOKE {admin} FROM CURRENT_USER") })
}

/// The database of all cluster statements and all advisory locks.
pub(crate) fn create_maintenance(database: &DatabaseName, admin: &RoleName) -> Ddl {
    Ddl(format!("CREATE DATABASE {} OWNER {} TEMPLATE template0", id(database), id(admin)))
}

/// a_maintenance, as a provisioner, in it: a tenant that could enter it could take our locks.
pub(crate) fn close_maintenance(database: &DatabaseName) -> Ddl {
    Ddl::block([
        format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", id(database)),
        String::from("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
    ])
}

/// In the maintenance database: which server of which installation this cluster is.
pub(crate) fn mark_server(installation: uuid::Uuid, server: &ServerName) -> Ddl {
    let (installation, server) = (literal(&installation.to_string()), literal(server.as_str()));
    Ddl::block([
        String::from(
            "CREATE TABLE IF NOT EXISTS public.tenantry_mark (installation uuid NOT NULL, server text NOT NULL)",
        ),
        String::from("DELETE FROM public.tenantry_mark"),
        format!("INSERT INTO public.tenantry_mark VALUES ({installation}, {server})"),
    ])
}

/// Those who live on PUBLIC's right get one of their own, in the transaction that takes PUBLIC's away.
pub(crate) fn close_to_public(database: &str, keep: &[String]) -> Ddl {
    let database = id(&database);
    let grant = |role: &String| format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {}", id(role));
    let mut block: Vec<String> = keep.iter().map(grant).collect();
    block.push(format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"));
    Ddl::block(block)
}

/// a_optional, each alone: a managed service may refuse it.
pub(crate) fn grant_predefined(group: &'static str, admin: &RoleName) -> Ddl {
    Ddl(format!("GRANT {} TO {}", id(&group), id(admin)))
}

/// The same GRANT as a row of text, for a role that not every version has: no row without it.
pub(crate) fn grant_if_present(group: &'static str, admin: &RoleName) -> Ddl {
    let (group, admin) = (literal(group), literal(admin.as_str()));
    Ddl(format!(
        "SELECT pg_catalog.format('GRANT %I TO %I', rolname, {admin}) FROM pg_catalog.pg_roles WHERE rolname = {group}"
    ))
}

// Questions of the set-up's script, each with the answer in the column `yes`.

/// Whether nobody has this role's name.
pub(crate) fn is_role_missing(role: &RoleName) -> Ddl {
    Ddl(format!(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {}) AS yes",
        literal(role.as_str())
    ))
}

/// Whether nobody has this database's name.
pub(crate) fn is_database_missing(database: &DatabaseName) -> Ddl {
    let name = literal(database.as_str());
    Ddl(format!("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {name}) AS yes"))
}

/// Whether `question`, a static SELECT, has this answer.
pub(crate) fn is_answered(question: &'static str, answer: &str) -> Ddl {
    Ddl(format!("SELECT ({question}) = {} AS yes", literal(answer)))
}

/// The GRANTs, as rows of text, for those who have a session in a database by PUBLIC's right; none of `mark` is one.
pub(crate) fn grants_for_sessions(database: &str, mark: &'static str) -> Ddl {
    let (database, mark) = (literal(database), literal(mark));
    Ddl(format!(
        "SELECT DISTINCT pg_catalog.format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', datname, usename) \
         FROM pg_catalog.pg_stat_activity WHERE datname = {database} AND usename IS NOT NULL AND NOT \
         pg_catalog.starts_with(coalesce(pg_catalog.shobj_description(usesysid, 'pg_authid'), ''), {mark})"
    ))
}

/// Whom the application's login acts as.
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
    fn names_are_quoted_and_literals_too() {
        let role: RoleName = "a\"; DROP ROLE x; --".parse().unwrap();
        assert_eq!(drop_role(&role).text(), "DROP ROLE \"a\"\"; DROP ROLE x; --\"");
        let [_, roll] = roll_back_prepared("it's", role.as_str());
        assert_eq!(roll.text(), "ROLLBACK PREPARED 'it''s'");
    }

    #[test]
    fn a_database_is_dropped_without_force() {
        assert_eq!(drop_database(&"t".parse().unwrap()).text(), "DROP DATABASE \"t\"");
    }
}
