//! `migrate status`.
use crate::cli::arguments::TenantName;
use crate::cli::exit::Exit;
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, Table};
use crate::cli::session::Session;
use crate::error::{ChangeError, StoreError, chain};
use crate::operations::migrate::{MigrationState, MigrationStatus};
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantStatus};
use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::json;

#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    /// Slugs, ids or domains. Default: all active tenants
    tenants: Vec<TenantName>,
}

/// Databases whose status is read at once.
const READS: usize = 4;

impl StatusArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let (tenants, unreadable) = self.tenants(session).await?;
        let statuses = stream::iter(tenants).map(|tenant| async move {
            let status = session.tenantry.migration_status(&tenant).await;
            (tenant, status)
        });
        let mut statuses: Vec<_> = statuses.buffer_unordered(READS).collect().await;
        statuses.sort_by(|(one, _), (other, _)| one.slug().as_str().cmp(other.slug().as_str()));
        let rows =
            statuses.iter().map(|(tenant, status)| [tenant.slug().to_string(), version(status), describe(status)]);
        let table = Table::new(["TENANT", "VERSION", "STATE"]).rows(rows).or_empty("No active tenants.");
        let json = statuses.iter().map(|(tenant, status)| match status {
            Ok(status) => json!({ "tenant": tenant.slug(), "status": status }),
            Err(error) => json!({ "tenant": tenant.slug(), "error": chain(error) }),
        });
        let output = Output::new().table(table).field("tenants", json.collect::<Vec<_>>());
        let output = output.field("unreadable", &unreadable).notes(unreadable.iter().cloned());
        let is_at_head = |status: &Result<MigrationStatus, _>| {
            status.as_ref().is_ok_and(|status| status.state == MigrationState::AtHead)
        };
        match statuses.iter().all(|(_, status)| is_at_head(status)) && unreadable.is_empty() {
            true => Ok(output),
            false => Ok(advise(output, &statuses).exit(Exit::Findings)),
        }
    }

    async fn tenants(&self, session: &Session) -> Result<(Vec<Tenant>, Vec<String>), CommandError> {
        let (mut tenants, mut unreadable) = (vec![], vec![]);
        for name in &self.tenants {
            tenants.push(name.find(session).await?);
        }
        if self.tenants.is_empty() {
            let registry = session.tenantry.registry();
            let mut all = registry.all();
            while let Some(tenant) = all.next().await {
                match tenant {
                    Ok(tenant) if tenant.status() == TenantStatus::Active => tenants.push(tenant),
                    Ok(_) => {}
                    Err(error @ StoreError::Corrupt(_)) => unreadable.push(chain(&error)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok((tenants, unreadable))
    }
}

/// A migration helps only a tenant that is behind.
fn advise(output: Output, statuses: &[(Tenant, Result<MigrationStatus, ChangeError>)]) -> Output {
    let is_behind = |status: &Result<MigrationStatus, _>| {
        status.as_ref().is_ok_and(|status| matches!(status.state, MigrationState::Behind { .. }))
    };
    match statuses.iter().any(|(_, status)| is_behind(status)) {
        true => output.next("migrate run --all"),
        false => output.next("doctor"),
    }
}

fn version(status: &Result<MigrationStatus, ChangeError>) -> String {
    let applied = status.as_ref().ok().and_then(|status| status.applied);
    applied.map_or_else(|| "-".into(), |version| version.to_string())
}

fn describe(status: &Result<MigrationStatus, ChangeError>) -> String {
    match status {
        Ok(status) => status.state.to_string(),
        Err(error) => format!("cannot be seen: {}", chain(error)),
    }
}
