//! [`Tenantry::problems`], for a readiness probe.
use super::Tenantry;
use crate::error::{StoreError, chain};
use crate::store::schema;
use serde::Serialize;

/// One reason why this node is not ready to serve: see [`Tenantry::problems`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthIssue {
    /// Stable code for programs: `closed`, `schema`, `keys`, `no_server`, `unreadable_row` or `landlord`.
    pub code: &'static str,
    /// Description for people. It may change between versions.
    pub text: String,
}
impl HealthIssue {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl Tenantry {
    /// Reasons why this node is not ready to serve, for a readiness probe. Empty if there are none. Each of its
    /// statements on the landlord has a deadline, but the key provider may have none, so call it with a timeout.
    pub async fn problems(&self) -> Vec<HealthIssue> {
        let mut problems = vec![];
        if self.is_closed() {
            problems.push(HealthIssue::new("closed", "tenantry is closed: close() was called"));
        }
        if let Err(error) = schema::check_on(&self.inner.landlord).await {
            problems.push(HealthIssue::new("schema", chain(&error)));
            return problems;
        }
        if let Err(error) = self.inner.vault.check_keys().await {
            problems.push(HealthIssue::new("keys", chain(&error)));
        }
        match self.inner.stores.servers.servers().await {
            Ok(servers) if servers.is_empty() && servers.unreadable.is_empty() => {
                problems.push(HealthIssue::new("no_server", "no PostgreSQL server is set up; call servers().set_up()"));
            }
            Ok(servers) => {
                problems.extend(servers.unreadable.iter().map(|row| HealthIssue::new("unreadable_row", chain(row))));
            }
            // Wrong keys are reported above.
            Err(StoreError::Untrusted(_)) if problems.iter().any(|problem| problem.code == "keys") => {}
            Err(error) => problems.push(HealthIssue::new("landlord", chain(&error))),
        }
        problems
    }
}
