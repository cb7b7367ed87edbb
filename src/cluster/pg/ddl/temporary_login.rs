//! Statements for the temporary login of a person.
use super::{Login, LoginDdl, comment_role};
use crate::names::RoleName;
use crate::sql::{quote_identifier, quote_literal};

/// A temporary login to create.
pub(crate) struct TemporaryLogin<'a> {
    pub(crate) login: Login<'a>,
    /// Time from which on PostgreSQL refuses the password, by the server's clock.
    pub(crate) valid_until: &'a str,
    /// Whether its transactions are read-only unless the session changes that.
    pub(crate) read_only: bool,
}

/// CREATE ROLE … LOGIN with an expiry. The role does not exist, or the statement fails with 42710.
pub(crate) fn create_temporary_login(temporary: &TemporaryLogin<'_>, marker: &str) -> LoginDdl {
    let Login { name, acts_as, limit, verifier } = temporary.login;
    let (role, group) = (quote_identifier(name), quote_identifier(acts_as));
    let until = quote_literal(temporary.valid_until);
    let mut first = vec![
        format!("CREATE ROLE {role} NOLOGIN CONNECTION LIMIT {limit} VALID UNTIL {until}"),
        comment_role(name, marker),
        format!("GRANT {group} TO {role}"),
        format!("ALTER ROLE {role} SET role = {group}"),
    ];
    first.extend(temporary.read_only.then(|| read_only(name)));
    LoginDdl::new(first, name, verifier)
}

fn read_only(login: &RoleName) -> String {
    format!("ALTER ROLE {} SET default_transaction_read_only = on", quote_identifier(login))
}
