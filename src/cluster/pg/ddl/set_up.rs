//! Builds the DDL that sets up a server, and the queries of the set-up script for psql.
//!
//! Callers use these functions as part of [`ddl`](super). Here too every identifier and every literal is quoted.
use super::{Locale, LoginDdl, comment_role};
use crate::cluster::pg::scram::Verifier;
use crate::names::{DatabaseName, RoleName, ServerName};
use crate::sql::{Ddl, quote_identifier, quote_literal};

/// CREATE ROLE for the admin role, with its marker as the comment.
pub(crate) fn create_admin(admin: &RoleName, marker: &str) -> Ddl {
    Ddl::block([
        format!("CREATE ROLE {} NOLOGIN CREATEDB CREATEROLE", quote_identifier(admin)),
        comment_role(admin, marker),
    ])
}

/// CREATE ROLE for one of the provisioner's two logins. Its sessions run as the admin role, whose CREATEDB and
/// CREATEROLE they use.
pub(crate) fn create_provisioner(login: &RoleName, admin: &RoleName, verifier: &Verifier, marker: &str) -> LoginDdl {
    let (name, admin) = (quote_identifier(login), quote_identifier(admin));
    let first = [
        format!("CREATE ROLE {name} NOLOGIN"),
        comment_role(login, marker),
        format!("GRANT {admin} TO {name}"),
        format!("ALTER ROLE {name} SET role = {admin}"),
    ];
    LoginDdl::new(first, login, verifier)
}

/// As [`create_admin`], for a role that exists: gives back the rights that a person may have taken.
pub(crate) fn renew_admin(admin: &RoleName) -> Ddl {
    Ddl(format!("ALTER ROLE {} CREATEDB CREATEROLE", quote_identifier(admin)))
}

/// As [`create_provisioner`], for a login that exists, whatever keeps it from connecting: another password, NOLOGIN, an
/// expired VALID UNTIL, a connection limit.
pub(crate) fn renew_provisioner(login: &RoleName, admin: &RoleName, verifier: &Verifier) -> LoginDdl {
    let (name, admin) = (quote_identifier(login), quote_identifier(admin));
    let first = [
        format!("ALTER ROLE {name} CONNECTION LIMIT -1 VALID UNTIL 'infinity'"),
        format!("GRANT {admin} TO {name}"),
        format!("ALTER ROLE {name} SET role = {admin}"),
    ];
    LoginDdl::new(first, login, verifier)
}

/// Changes the password of the session's own login. SET ROLE NONE first: from PostgreSQL 16 on the admin role may not
/// change it (42501), but a login may change its own password.
pub(crate) fn change_own_password(verifier: &Verifier) -> Ddl {
    let password = quote_literal(verifier.as_str());
    Ddl::block([String::from("SET ROLE NONE"), format!("ALTER ROLE CURRENT_USER PASSWORD {password}")])
}

/// Grants the admin role to the current user. CREATE DATABASE … OWNER requires the membership, so it is granted while
/// the maintenance database is created.
pub(crate) fn lend_admin(admin: &RoleName) -> Ddl {
    Ddl(format!("GRANT {} TO CURRENT_USER", quote_identifier(admin)))
}

/// Reverses [`lend_admin`].
pub(crate) fn take_admin_back(admin: &RoleName) -> Ddl {
    Ddl(format!("REVOKE {} FROM CURRENT_USER", quote_identifier(admin)))
}

/// CREATE DATABASE for the maintenance database, in which all cluster statements run and all advisory locks are taken.
/// Nothing is sorted there, so the locale is the one that fits UTF8 on every cluster.
pub(crate) fn create_maintenance(database: &DatabaseName, admin: &RoleName) -> Ddl {
    let (database, admin) = (quote_identifier(database), quote_identifier(admin));
    Ddl(format!("CREATE DATABASE {database} OWNER {admin} {}", Locale::C.utf8()))
}

/// Revokes the rights of PUBLIC on the maintenance database. Run it there as the provisioner. A tenant that could
/// connect to it could take the advisory locks of this crate.
pub(crate) fn close_maintenance(database: &DatabaseName) -> Ddl {
    Ddl::block([
        format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quote_identifier(database)),
        String::from("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
    ])
}

/// Writes the mark that names the installation and the server. Run it in the maintenance database.
pub(crate) fn mark_server(installation: uuid::Uuid, server: &ServerName) -> Ddl {
    let (installation, server) = (quote_literal(&installation.to_string()), quote_literal(server.as_str()));
    Ddl::block([
        String::from(
            "CREATE TABLE IF NOT EXISTS public.tenantry_mark (installation uuid NOT NULL, server text NOT NULL)",
        ),
        String::from("DELETE FROM public.tenantry_mark"),
        format!("INSERT INTO public.tenantry_mark VALUES ({installation}, {server})"),
    ])
}

/// Revokes CONNECT and TEMPORARY from PUBLIC. Roles in `keep`, which use the right of PUBLIC, get their own grant in
/// the same transaction.
pub(crate) fn close_to_public(database: &str, keep: &[String]) -> Ddl {
    let database = quote_identifier(&database);
    let grant =
        |role: &String| format!("GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {}", quote_identifier(role));
    let mut block: Vec<String> = keep.iter().map(grant).collect();
    block.push(format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"));
    Ddl::block(block)
}

/// Grants a predefined role to the admin role. Sent alone, because a managed service may refuse it.
pub(crate) fn grant_predefined(group: &'static str, admin: &RoleName) -> Ddl {
    Ddl(format!("GRANT {} TO {}", quote_identifier(&group), quote_identifier(admin)))
}

/// A query that returns the text of the GRANT of [`grant_predefined`], for psql's `\gexec`. It returns no row if this
/// PostgreSQL version does not have the role.
pub(crate) fn grant_if_present(group: &'static str, admin: &RoleName) -> Ddl {
    let (group, admin) = (quote_literal(group), quote_literal(admin.as_str()));
    Ddl(format!(
        "SELECT pg_catalog.format('GRANT %I TO %I', rolname, {admin}) FROM pg_catalog.pg_roles WHERE rolname = {group}"
    ))
}

// Queries of the set-up script for psql. Each returns its answer in a column `yes`, for `\gset` and `\if`.

/// Whether no role has this name.
pub(crate) fn is_role_missing(role: &RoleName) -> Ddl {
    Ddl(format!(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {}) AS yes",
        quote_literal(role.as_str())
    ))
}

/// Whether no database has this name.
pub(crate) fn is_database_missing(database: &DatabaseName) -> Ddl {
    let name = quote_literal(database.as_str());
    Ddl(format!("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {name}) AS yes"))
}

/// Whether the static query `question` returns this text.
pub(crate) fn is_answered(question: &'static str, answer: &str) -> Ddl {
    Ddl(format!("SELECT ({question}) = {} AS yes", quote_literal(answer)))
}

/// A query that returns the text of a GRANT for each role that has a session in the database, for psql's `\gexec`.
/// Roles whose comment begins with `mark` belong to tenants and get none.
pub(crate) fn grants_for_sessions(database: &str, mark: &'static str) -> Ddl {
    let (database, mark) = (quote_literal(database), quote_literal(mark));
    Ddl(format!(
        "SELECT DISTINCT pg_catalog.format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', datname, usename) \
         FROM pg_catalog.pg_stat_activity WHERE datname = {database} AND usename IS NOT NULL AND NOT \
         pg_catalog.starts_with(coalesce(pg_catalog.shobj_description(usesysid, 'pg_authid'), ''), {mark})"
    ))
}
