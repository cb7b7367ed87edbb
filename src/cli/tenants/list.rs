//! `tenants list`.
use crate::cli::arguments::{count, one_of};
use crate::cli::exit::Exit;
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, Table, show_time};
use crate::cli::session::Session;
use crate::error::{StoreError, chain};
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantStatus};
use clap::Args;
use futures_util::StreamExt;

#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    /// Only tenants with this status
    #[arg(long, value_parser = one_of::<TenantStatus>(&["provisioning", "active", "suspended", "archived", "purging"]))]
    status: Option<TenantStatus>,
}

impl ListArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let (mut tenants, unreadable) = read(session, self.status).await?;
        tenants.sort_by(|one, other| one.slug().as_str().cmp(other.slug().as_str()));
        let rows = tenants.iter().map(|tenant| {
            let until = tenant.kept_until().map(show_time).unwrap_or_default();
            [tenant.slug().to_string(), tenant.status().to_string(), tenant.name().to_owned(), until]
        });
        let table = match tenants.iter().any(|tenant| tenant.kept_until().is_some()) {
            true => Table::new(["TENANT", "STATUS", "NAME", "KEPT UNTIL"]).rows(rows),
            false => {
                Table::new(["TENANT", "STATUS", "NAME"]).rows(rows.map(|[slug, status, name, _]| [slug, status, name]))
            }
        };
        let output = Output::new().table(table.or_empty("No tenants.")).field("tenants", &tenants);
        let output = output.field("unreadable", &unreadable).notes(unreadable.iter().cloned());
        Ok(match (unreadable.len(), tenants.is_empty()) {
            (0, true) => output.next("tenants create acme"),
            (0, false) => output,
            (n, _) => {
                output.hint(count(n, "row is", "rows are") + " missing in the list.").next("doctor").exit(Exit::Partial)
            }
        })
    }
}

/// The tenants with this status, and the errors of rows that cannot be read.
async fn read(session: &Session, status: Option<TenantStatus>) -> Result<(Vec<Tenant>, Vec<String>), CommandError> {
    let registry = session.tenantry.registry();
    let (mut tenants, mut unreadable, mut all) = (vec![], vec![], registry.all());
    while let Some(tenant) = all.next().await {
        match tenant {
            Ok(tenant) if status.is_none_or(|status| status == tenant.status()) => tenants.push(tenant),
            Ok(_) => {}
            Err(error @ StoreError::Corrupt(_)) => unreadable.push(chain(&error)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((tenants, unreadable))
}
