//! `tenants show`.
use crate::cli::arguments::TenantName;
use crate::cli::failure::CommandError;
use crate::cli::operations::table_of_operations;
use crate::cli::output::{Output, Table, show_time};
use crate::cli::session::Session;
use crate::directory::TenantDatabase;
use crate::operation::Subject;
use crate::store::registry::TenantRegistry;
use crate::tenant::Tenant;

pub(super) async fn run(session: &Session, name: &TenantName) -> Result<Output, CommandError> {
    let tenant = name.find(session).await?;
    let registry = session.tenantry.registry_writer();
    let domains = registry.domains(tenant.id()).await?;
    let databases = registry.databases(tenant.id()).await?;
    let history = session.tenantry.operations().history(&Subject::Tenant(tenant.id())).await?;
    let open: Vec<_> = history.iter().filter(|operation| !operation.status.is_over()).cloned().collect();
    let names: Vec<_> = domains.iter().map(ToString::to_string).collect();
    let output = Output::new()
        .table(facts(&tenant, &names, &databases))
        .heading("Open operations")
        .table(table_of_operations(session, &open).await?)
        .notes(history.unreadable.iter().map(ToString::to_string))
        .field("tenant", &tenant)
        .field("domains", &domains)
        .field("databases", &databases)
        .field("operations", &open);
    let slug = tenant.slug();
    Ok(output.next(format!("operations list --tenant {slug} --all")).next(format!("doctor --tenant {slug}")))
}

fn facts(tenant: &Tenant, domains: &[String], databases: &[TenantDatabase]) -> Table {
    let facts = Table::facts()
        .fact("Tenant", tenant.slug().to_string())
        .fact("Id", tenant.id().to_string())
        .fact("Name", tenant.name())
        .fact("Status", tenant.status().to_string())
        .fact_if("Kept until", tenant.kept_until().map(show_time))
        .fact_if("Domains", (!domains.is_empty()).then(|| domains.join(", ")))
        .fact_if("Metadata", (!tenant.metadata().is_null()).then(|| tenant.metadata().to_string()));
    databases.iter().fold(facts, |facts, entry| {
        let place = match &entry.server {
            Some(server) => format!("server {server}"),
            None => format!("{}:{}", entry.host, entry.port),
        };
        let kind = entry.kind.to_string();
        let login = format!("{}, generation {}", entry.login, entry.generation);
        facts.fact(&format!("Database ({kind})"), format!("{} on {place}", entry.database)).fact("Login", login)
    })
}
