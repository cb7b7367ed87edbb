//! `tenants domains`: the custom domains of a tenant.
use crate::cli::arguments::TenantName;
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, Table};
use crate::cli::session::Session;
use crate::error::{NameConflict, StoreError};
use crate::names::Domain;

use crate::tenant::Tenant;
use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(in crate::cli) enum DomainsCommand {
    /// Lists the domains of a tenant
    List {
        /// Slug, id or domain
        tenant: TenantName,
    },
    /// Adds a domain
    Add {
        /// Slug, id or domain
        tenant: TenantName,
        /// The new domain
        domain: Domain,
    },
    /// Removes a domain
    Remove {
        /// Slug, id or domain
        tenant: TenantName,
        /// The domain
        domain: Domain,
    },
}

impl DomainsCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let registry = session.tenantry.registry_writer();
        match self {
            Self::List { tenant } => show(session, &tenant.find(session).await?).await,
            Self::Add { tenant, domain } => {
                let tenant = tenant.find(session).await?;
                registry.add_domain(tenant.id(), domain, None).await.map_err(explain)?;
                show(session, &tenant).await
            }
            Self::Remove { tenant, domain } => {
                let tenant = tenant.find(session).await?;
                let had = registry.domains(tenant.id()).await?.contains(domain);
                registry.remove_domain(tenant.id(), domain, None).await?;
                let output = show(session, &tenant).await?;
                Ok(if had {
                    output
                } else {
                    output.note(format!("{} did not have the domain {domain}", tenant.slug()))
                })
            }
        }
    }
}

async fn show(session: &Session, tenant: &Tenant) -> Result<Output, CommandError> {
    let domains = session.tenantry.registry_writer().domains(tenant.id()).await?;
    let rows = domains.iter().map(|domain| [domain.to_string()]);
    let table = Table::new(["DOMAIN"]).rows(rows).or_empty(format!("{} has no domains.", tenant.slug()));
    let output = Output::new().table(table).field("tenant", tenant.slug()).field("domains", &domains);
    Ok(if domains.is_empty() { output.next(format!("tenants domains add {} DOMAIN", tenant.slug())) } else { output })
}

fn explain(error: StoreError) -> CommandError {
    match error {
        StoreError::Taken(NameConflict::Domain(domain)) => {
            CommandError::failed(format!("another tenant has the domain {domain}"))
                .next(format!("tenants show {domain}"))
        }
        other => other.into(),
    }
}
