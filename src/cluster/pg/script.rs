//! The set-up of a server as a script for psql.
//!
//! A DBA runs it if the application may not have the password of a server admin. It contains the same statements as
//! `bootstrap`, and verifiers in place of passwords. It may be repeated.
use super::bootstrap::CLUSTER;
use super::ddl::{self, Ddl};
use super::ownership::MARK;
use super::scram::Verifier;
use crate::names::RoleName;
use crate::server::ServerNames;

/// The landlord database, which may be on the same cluster. The script then closes it to PUBLIC.
pub(crate) struct Landlord {
    pub(crate) database: String,
    /// The login of the application's pool, which keeps its right to connect.
    pub(crate) role: String,
    /// The result of [`cluster_of`](super::bootstrap::cluster_of) on the landlord.
    pub(crate) cluster: String,
}

const HEAD: &str = "\
-- Run with psql by a superuser, or by an admin with CREATEDB and CREATEROLE. It may be repeated.
-- The long literals are SCRAM verifiers, no passwords.
\\set ON_ERROR_STOP on
SET lock_timeout = '10s';
SET statement_timeout = '5min';
";
const OPTIONAL: &str = "\
-- A managed service may refuse these, and 15 does not have the last one: without them some sessions cannot be seen or
-- ended, and the provisioner cannot connect to a full server.
\\set ON_ERROR_STOP off
";
const ELSEWHERE: &str = "\\else\n\\echo The landlord is not on this server: nothing to close.\n";

/// Builds the script. `set_up` does the rest afterwards, as the provisioner, in the maintenance database.
pub(crate) fn build_script(
    names: &ServerNames, verifiers: [&Verifier; 2], marker: &str, landlord: Option<&Landlord>, close_shared: bool,
) -> String {
    let mut script = Script(String::from(HEAD));
    script.push_role(&names.admin, &ddl::create_admin(&names.admin, marker));
    for (login, verifier) in [&names.blue, &names.green].into_iter().zip(verifiers) {
        let create = ddl::create_provisioner(login, &names.admin, verifier, marker);
        script.begin_if(&ddl::is_role_missing(login));
        script.push_statement(&create.first);
        script.push_statement(&create.password);
        script.end_if();
    }
    script.push_maintenance(names);
    if let Some(landlord) = landlord {
        script.begin_if(&ddl::is_answered(CLUSTER, &landlord.cluster));
        script.push_close_to_public(&landlord.database, std::slice::from_ref(&landlord.role));
        script.0.push_str(ELSEWHERE);
        script.end_if();
    }
    if close_shared {
        ["postgres", "template1"].into_iter().for_each(|database| script.push_close_to_public(database, &[]));
    }
    script.0.push_str(OPTIONAL);
    for group in super::bootstrap::OPTIONAL {
        if group.0 == super::bootstrap::RESERVED {
            script.0.push_str(ddl::grant_if_present(group.0, &names.admin).text());
            script.0.push_str("\n\\gexec\n");
        } else {
            script.push_statement(&ddl::grant_predefined(group.0, &names.admin));
        }
    }
    script.0
}

struct Script(String);

impl Script {
    fn push_statement(&mut self, statement: &Ddl) {
        self.0.push_str(statement.text());
        self.0.push_str(";\n");
    }
    /// Begins a block that psql runs if the query answers true. psql's meta-commands need lines of their own.
    fn begin_if(&mut self, question: &Ddl) {
        self.0.push_str(question.text());
        self.0.push_str("\n\\gset\n\\if :yes\n");
    }
    fn end_if(&mut self) {
        self.0.push_str("\\endif\n");
    }
    fn push_role(&mut self, role: &RoleName, create: &Ddl) {
        self.begin_if(&ddl::is_role_missing(role));
        self.push_statement(create);
        self.end_if();
    }
    /// Creates the maintenance database and closes it to PUBLIC before the admin role is revoked from the current user.
    /// Later a server admin that is not a superuser could not close it.
    fn push_maintenance(&mut self, names: &ServerNames) {
        self.begin_if(&ddl::is_database_missing(&names.maintenance));
        self.push_statement(&ddl::lend_admin(&names.admin));
        self.push_statement(&ddl::create_maintenance(&names.maintenance, &names.admin));
        self.push_statement(&ddl::close_to_public(names.maintenance.as_str(), &[]));
        self.push_statement(&ddl::take_admin_back(&names.admin));
        self.end_if();
    }
    fn push_close_to_public(&mut self, database: &str, keep: &[String]) {
        self.0.push_str(ddl::grants_for_sessions(database, MARK).text());
        self.0.push_str("\n\\gexec\n");
        self.push_statement(&ddl::close_to_public(database, keep));
    }
}
