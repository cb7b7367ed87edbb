//! What several tenants' results have in common: the list of those that failed, and the exit code.
use super::arguments::count;
use super::exit::Exit;
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::{Output, Table};
use super::session::Session;
use crate::error::{ChangeError, chain};
use crate::facade::BatchReport;
use crate::tenant::Tenant;
use serde_json::{Value, json};

/// The results of one command on several tenants.
pub(super) struct Results {
    /// Name and result of each tenant that succeeded.
    pub(super) done: Vec<(String, Value)>,
    /// Name and error of each tenant that failed.
    pub(super) failed: Vec<(String, CommandError)>,
    /// Rows of the registry that cannot be read.
    pub(super) unreadable: Vec<String>,
}

impl Results {
    pub(super) fn new() -> Self {
        Self { done: vec![], failed: vec![], unreadable: vec![] }
    }
    /// The results of a batch of the facade.
    pub(super) fn of<A>(report: BatchReport<A>, to_json: impl Fn(&A) -> Value) -> Self {
        let explain =
            |(tenant, error): (Tenant, ChangeError)| (tenant.slug().to_string(), explain_change(error, tenant.slug()));
        Self {
            done: report.done.iter().map(|(tenant, answer)| (tenant.slug().to_string(), to_json(answer))).collect(),
            failed: report.failed.into_iter().map(explain).collect(),
            unreadable: report.unreadable.iter().map(|error| chain(error)).collect(),
        }
    }
    /// Adds the results to the output: what failed as a table, and the exit code 4 if some have failed and others not.
    pub(super) fn add_to(self, output: Output, session: &Session, is_anything_done: bool) -> Output {
        let rows = self.failed.iter().map(|(tenant, error)| [tenant.clone(), error.message().to_owned()]);
        let failures = Table::new(["FAILED", "ERROR"]).rows(rows);
        let failed = self
            .failed
            .iter()
            .map(|(tenant, error)| json!({ "tenant": tenant, "error": error.to_json(&session.program) }));
        let done = self.done.iter().map(|(tenant, result)| json!({ "tenant": tenant, "result": result }));
        let output = output.field("done", done.collect::<Vec<_>>()).field("failed", failed.collect::<Vec<_>>());
        let output = output.field("unreadable", &self.unreadable).table(failures).notes(self.unreadable.clone());
        let failures = self.failed.len() + self.unreadable.len();
        match (failures, is_anything_done) {
            (0, _) => output,
            (n, _) => {
                let exit = if is_anything_done { Exit::Partial } else { Exit::Failed };
                output
                    .hint(format!("Correct the cause of {} and repeat the command.", count(n, "failure", "failures")))
                    .exit(exit)
            }
        }
    }
}
