//! `tenants purge`: names what will be lost, asks for the slug, and destroys it.
use crate::cli::arguments::{TenantName, apply, count};
use crate::cli::confirm::confirm;
use crate::cli::explain::explain_change;
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, show_time};
use crate::cli::session::Session;
use crate::error::ChangeError;
use crate::facade::Call;
use crate::store::registry::TenantRegistry;
use crate::store::vault::KeyDisposal;
use crate::tenant::{Tenant, TenantStatus};
use clap::Args;

#[derive(Args, Debug)]
pub(in crate::cli) struct PurgeArgs {
    /// Slug, id or domain
    tenant: TenantName,
    /// Destroys the data now, although the tenant is not archived or its retention has not ended
    #[arg(long)]
    force: bool,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: Option<String>,
}

impl PurgeArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let tenant = self.tenant.find(session).await?;
        self.check(&tenant)?;
        let slug = tenant.slug().to_string();
        let lost = describe_loss(session, &tenant).await?;
        confirm(session, &format!("This destroys the tenant {slug} ({}) for good:", tenant.status()), &lost, &slug)?;
        let call = session.tenantry.purge(tenant.id()).on_event(session.progress.observer(&*slug));
        let call = if self.force { call.force() } else { call };
        let call = apply(call, self.reason.as_ref(), Call::reason);
        let purged = call.await.map_err(|error| explain_change(error, &self.tenant))?;
        let output = Output::new().line(format!("{slug} is purged. The history of its operations stays."));
        let output = match purged.keys {
            KeyDisposal::Destroyed => output.line("Its key is destroyed: secrets in old backups cannot be opened."),
            KeyDisposal::SharedKey => {
                output.line("It shared its key: secrets in old backups of the landlord can still be opened.")
            }
        };
        Ok(output.field("tenant", &purged.tenant).field("keys", purged.keys))
    }

    /// Refuses before a person is asked to confirm. The call itself checks it again.
    fn check(&self, tenant: &Tenant) -> Result<(), CommandError> {
        match (tenant.status(), self.force) {
            (TenantStatus::Archived | TenantStatus::Purging, _) | (_, true) => Ok(()),
            _ => Err(explain_change(ChangeError::Kept { until: None }, &self.tenant)),
        }
    }
}

async fn describe_loss(session: &Session, tenant: &Tenant) -> Result<Vec<String>, CommandError> {
    let registry = session.tenantry.registry_writer();
    let mut lost = vec![];
    for entry in registry.databases(tenant.id()).await? {
        let place =
            entry.server.map_or_else(|| format!("{}:{}", entry.host, entry.port), |name| format!("server {name}"));
        lost.push(format!("the database {} on {place}, with all its data", entry.database));
    }
    let logins = registry.users(tenant.id()).await?.len();
    lost.push(format!("{} with the roles of the database and all stored passwords", count(logins, "login", "logins")));
    let links = session.tenantry.tokens().list(tenant.id()).await?.len();
    if links > 0 {
        lost.push(count(links, "setup link", "setup links"));
    }
    let domains = registry.domains(tenant.id()).await?;
    lost.extend(domains.iter().map(|domain| format!("the domain {domain}, which another tenant can then have")));
    if let Some(until) = tenant.kept_until() {
        lost.push(format!("(its data was to be kept until {})", show_time(until)));
    }
    Ok(lost)
}
