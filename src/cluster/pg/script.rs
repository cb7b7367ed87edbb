//! Block (a) as a script for psql, which a DBA runs in place of the set-up. It may be repeated.
use super::bootstrap::CLUSTER;
use super::ddl::{self, Ddl};
use super::ownership::MARK;
use super::scram::Verifier;
use crate::names::RoleName;
use crate::server::ServerNames;

/// The host's own database, which may be on the same cluster.
pub(crate) struct Landlord {
    pub(crate) database: String,
    /// The login of the host's pool.
    pub(crate) role: String,
    /// What [`cluster_of`](super::bootstrap::cluster_of) says there.
    pub(crate) cluster: String,
}

const HEAD: &str = "\
-- Run with psql by a superuser, or by an admin with CREATEDB and CREATEROLE. It may be repeated.
-- The long literals are SCRAM verifiers, no passwords.
\\set ON_ERROR_STOP on
";
const OPTIONAL: &str = "\
-- A managed service may refuse these, and 15 does not have the last one: without them some sessions cannot be seen or
-- ended, and the provisioner cannot connect to a full server.
\\set ON_ERROR_STOP off
";
const ELSEWHERE: &str = "\\else\n\\echo The landlord is not on this server: nothing to close.\n";

/// The script. The rest, in the maintenance database, is done by the provisioner afterwards.
pub(crate) fn script(
    names: &ServerNames, verifiers: [&Verifier; 2], marker: &str, landlord: Option<&Landlord>, close_shared: bool,
) -> String {
    let mut script = Script(String::from(HEAD));
    script.role(&names.admin, &ddl::create_admin(&names.admin, marker));
    for (login, verifier) in [&names.blue, &names.green].into_iter().zip(verifiers) {
        script.role(login, &ddl::create_provisioner(login, &names.admin, verifier, marker));
    }
    script.maintenance(names);
    if let Some(landlord) = landlord {
        script.when(&ddl::is_answered(CLUSTER, &landlord.cluster));
        script.close(&landlord.database, std::slice::from_ref(&landlord.role));
        script.0.push_str(ELSEWHERE);
        script.end();
    }
    if close_shared {
        ["postgres", "template1"].into_iter().for_each(|database| script.close(database, &[]));
    }
    script.0.push_str(OPTIONAL);
    for group in super::bootstrap::OPTIONAL {
        if group.0 == super::bootstrap::RESERVED {
            script.0.push_str(ddl::grant_if_present(group.0, &names.admin).text());
            script.0.push_str("\n\\gexec\n");
        } else {
            script.run(&ddl::grant_predefined(group.0, &names.admin));
        }
    }
    script.0
}

struct Script(String);

impl Script {
    fn run(&mut self, statement: &Ddl) {
        self.0.push_str(statement.text());
        self.0.push_str(";\n");
    }
    /// psql's own commands stand on lines of their own.
    fn when(&mut self, question: &Ddl) {
        self.0.push_str(question.text());
        self.0.push_str("\n\\gset\n\\if :yes\n");
    }
    fn end(&mut self) {
        self.0.push_str("\\endif\n");
    }
    fn role(&mut self, role: &RoleName, create: &Ddl) {
        self.when(&ddl::is_role_missing(role));
        self.run(create);
        self.end();
    }
    /// Closed before the admin role is given back: an admin that is no superuser could not close it later.
    fn maintenance(&mut self, names: &ServerNames) {
        self.when(&ddl::is_database_missing(&names.maintenance));
        self.run(&ddl::lend_admin(&names.admin, true));
        self.run(&ddl::create_maintenance(&names.maintenance, &names.admin));
        self.run(&ddl::close_to_public(names.maintenance.as_str(), &[]));
        self.run(&ddl::lend_admin(&names.admin, false));
        self.end();
    }
    fn close(&mut self, database: &str, keep: &[String]) {
        self.0.push_str(ddl::grants_for_sessions(database, MARK).text());
        self.0.push_str("\n\\gexec\n");
        self.run(&ddl::close_to_public(database, keep));
    }
}
