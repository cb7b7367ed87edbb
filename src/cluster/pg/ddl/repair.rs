//! Builds the DDL with which the doctor restores rights, settings and memberships of a tenant's roles.
//!
//! Callers use these functions as part of [`ddl`](super). Each block restores the state that a provisioning makes, so it
//! may be repeated. None of them names SUPERUSER, REPLICATION or BYPASSRLS: the admin role may not, so PostgreSQL 15
//! would refuse the whole block.
use crate::names::{DatabaseName, GroupRoles, RoleName, TenantNames};
use crate::sql::{Ddl, quote_identifier, quote_literal};

/// Lock timeout of a repair. A tenant can keep the row of its own login locked.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";

/// A login whose rights and settings are restored.
pub(crate) struct RestoredLogin<'a> {
    pub(crate) name: &'a RoleName,
    /// Group role as which its sessions run.
    pub(crate) acts_as: &'a RoleName,
    /// Database of the tenant.
    pub(crate) database: &'a DatabaseName,
    /// Whether its other settings are reset, in all databases and in this one.
    pub(crate) resets_settings: bool,
}

/// Gives a login LOGIN, no expiry, its group role and its role setting. Its password and its connection limit stay. The
/// membership is revoked and granted again: a GRANT alone keeps the options of an existing membership, which may be
/// INHERIT FALSE or SET FALSE.
pub(crate) fn restore_login(login: &RestoredLogin<'_>, admin: &RoleName) -> Ddl {
    let (name, group) = (quote_identifier(login.name), quote_identifier(login.acts_as));
    let reset = if login.resets_settings { "ALL" } else { "role" };
    Ddl::block([
        String::from(LOCK_TIMEOUT),
        format!("ALTER ROLE {name} LOGIN INHERIT NOCREATEDB NOCREATEROLE VALID UNTIL 'infinity'"),
        format!("ALTER ROLE {name} RESET {reset}"),
        format!("ALTER ROLE {name} IN DATABASE {} RESET {reset}", quote_identifier(login.database)),
        format!("REVOKE {group} FROM {name}"),
        format!("GRANT {group} TO {name}"),
        format!("ALTER ROLE {name} SET role = {group}"),
        format!("REVOKE {name} FROM {}", quote_identifier(admin)),
    ])
}

/// Rights on a tenant's database that [`restore_access`] restores.
pub(crate) struct RestoredAccess<'a> {
    pub(crate) names: &'a TenantNames,
    /// Whether the app role gets the right to create temporary tables. It keeps the right if it has it.
    pub(crate) temp_tables: bool,
    /// CONNECTION LIMIT of the database.
    pub(crate) limit: i32,
    pub(crate) marker: &'a str,
}

/// Revokes the rights of PUBLIC on a tenant's database and CREATE of its app role, grants its group roles what a
/// provisioning grants, and lets the database accept connections.
pub(crate) fn restore_access(access: &RestoredAccess<'_>) -> Ddl {
    let RestoredAccess { names, temp_tables, limit, marker } = access;
    let db = quote_identifier(&names.database);
    let (owner, app) = (quote_identifier(&names.roles.owner), quote_identifier(&names.roles.app));
    let mut block = vec![
        String::from(LOCK_TIMEOUT),
        format!("COMMENT ON DATABASE {db} IS {}", quote_literal(marker)),
        format!("REVOKE ALL ON DATABASE {db} FROM PUBLIC"),
        format!("GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {db} TO {owner}"),
        format!("REVOKE CREATE ON DATABASE {db} FROM {app}"),
        format!("GRANT CONNECT ON DATABASE {db} TO {app}"),
    ];
    if *temp_tables {
        block.push(format!("GRANT TEMPORARY ON DATABASE {db} TO {app}"));
    }
    block.push(format!("ALTER DATABASE {db} ALLOW_CONNECTIONS true CONNECTION LIMIT {limit}"));
    Ddl::block(block)
}

/// Revokes a membership. From PostgreSQL 16 on it revokes only the one that the admin role has granted.
pub(crate) fn revoke_membership(member: &RoleName, group: &RoleName) -> Ddl {
    Ddl::block([
        String::from(LOCK_TIMEOUT),
        format!("REVOKE {} FROM {}", quote_identifier(group), quote_identifier(member)),
    ])
}

/// Revokes what the owner of a tenant's database has granted on it to a login itself.
pub(crate) fn revoke_database_rights(database: &DatabaseName, login: &RoleName) -> Ddl {
    Ddl::block([
        String::from(LOCK_TIMEOUT),
        format!("REVOKE ALL ON DATABASE {} FROM {}", quote_identifier(database), quote_identifier(login)),
    ])
}

/// Revokes what the tenant's group roles have granted in these schemas to a login itself. Run it in the tenant's database.
/// The admin role is a member of the group roles during this block only.
pub(crate) fn revoke_rights_in(schemas: &[String], login: &RoleName, roles: &GroupRoles, admin: &RoleName) -> Ddl {
    let (owner, app, admin) = (quote_identifier(&roles.owner), quote_identifier(&roles.app), quote_identifier(admin));
    let login = quote_identifier(login);
    let mut block = vec![String::from(LOCK_TIMEOUT), format!("GRANT {owner}, {app} TO {admin}")];
    for schema in schemas {
        let schema = quote_identifier(schema);
        block.push(format!("REVOKE ALL ON SCHEMA {schema} FROM {login}"));
        for objects in ["TABLES", "SEQUENCES", "ROUTINES"] {
            block.push(format!("REVOKE ALL ON ALL {objects} IN SCHEMA {schema} FROM {login}"));
        }
    }
    block.push(format!("REVOKE {owner}, {app} FROM {admin}"));
    Ddl::block(block)
}

/// Takes CREATEDB and CREATEROLE from a role.
pub(crate) fn remove_privileges(role: &RoleName) -> Ddl {
    Ddl::block([String::from(LOCK_TIMEOUT), format!("ALTER ROLE {} NOCREATEDB NOCREATEROLE", quote_identifier(role))])
}

/// Makes the tenant's owner role the owner of schema `public`, revokes the rights of PUBLIC on it, and gives the app
/// role USAGE without CREATE. Run it in the tenant's database. The admin role is a member of the owner during this block
/// only.
pub(crate) fn restore_schema(roles: &GroupRoles, admin: &RoleName) -> Ddl {
    let (owner, app, admin) = (quote_identifier(&roles.owner), quote_identifier(&roles.app), quote_identifier(admin));
    Ddl::block([
        String::from(LOCK_TIMEOUT),
        format!("GRANT {owner} TO {admin}"),
        format!("ALTER SCHEMA public OWNER TO {owner}"),
        String::from("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
        format!("REVOKE CREATE ON SCHEMA public FROM {app}"),
        format!("GRANT USAGE ON SCHEMA public TO {app}"),
        format!("REVOKE {owner} FROM {admin}"),
    ])
}

/// REASSIGN OWNED: what a login owns in the current database goes to the group role as which it acts. Unlike
/// [`reassign_owned`](super::reassign_owned) it keeps what was granted to the login, which stays in use. The admin role
/// is a member of the login during this block only.
pub(crate) fn reassign_to_group(login: &RoleName, group: &RoleName, admin: &RoleName) -> Ddl {
    let (login, group, admin) = (quote_identifier(login), quote_identifier(group), quote_identifier(admin));
    Ddl::block([
        String::from(LOCK_TIMEOUT),
        format!("GRANT {login} TO {admin}"),
        format!("REASSIGN OWNED BY {login} TO {group}"),
        format!("REVOKE {login} FROM {admin}"),
    ])
}

/// Revokes the rights of PUBLIC on a tenant's database.
pub(crate) fn close_tenant_to_public(database: &DatabaseName) -> Ddl {
    Ddl::block([
        String::from(LOCK_TIMEOUT),
        format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quote_identifier(database)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_login_names_no_attribute_that_only_a_superuser_may_change() {
        let (name, group): (RoleName, RoleName) = ("t_v1".parse().unwrap(), "t_app".parse().unwrap());
        let database = "t".parse().unwrap();
        let login = RestoredLogin { name: &name, acts_as: &group, database: &database, resets_settings: true };
        let text = restore_login(&login, &"tenantry_admin".parse().unwrap()).text().to_owned();
        for word in ["SUPERUSER", "REPLICATION", "BYPASSRLS", "CONNECTION LIMIT", "PASSWORD"] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}
