//! `tenants`: creates, shows, closes and removes tenants.
use super::arguments::TenantName;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use clap::Subcommand;

mod create;
mod domains;
mod lifecycle;
mod list;
mod purge;
mod rename;
mod show;
pub(super) use create::describe_link;

/// The tenants: create, show, suspend, archive, purge
#[derive(Subcommand, Debug)]
pub(super) enum TenantsCommand {
    /// Creates a tenant with its database, its roles and its login
    Create(create::CreateArgs),
    /// Lists the tenants
    List(list::ListArgs),
    /// Shows a tenant, its database and its open operations
    Show {
        /// Slug, id or domain
        tenant: TenantName,
    },
    /// Refuses the tenant's logins and ends its sessions. All data stays
    Suspend(lifecycle::ReasonArgs),
    /// Admits a suspended tenant again
    Activate(lifecycle::ReasonArgs),
    /// Closes the tenant's database to every role, and keeps the data until a deadline
    Archive(lifecycle::ArchiveArgs),
    /// Makes an archived tenant active again
    Restore(lifecycle::ReasonArgs),
    /// Destroys the tenant's database, roles and secrets. Asks for the slug
    Purge(purge::PurgeArgs),
    /// Changes the tenant's slug or display name
    Rename(rename::RenameArgs),
    /// The domains that identify a tenant
    #[command(subcommand, arg_required_else_help = true)]
    Domains(domains::DomainsCommand),
}

impl TenantsCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        match self {
            Self::Create(arguments) => arguments.run(session).await,
            Self::List(arguments) => arguments.run(session).await,
            Self::Show { tenant } => show::run(session, tenant).await,
            Self::Suspend(arguments) => lifecycle::suspend(session, arguments).await,
            Self::Activate(arguments) => lifecycle::activate(session, arguments).await,
            Self::Archive(arguments) => lifecycle::archive(session, arguments).await,
            Self::Restore(arguments) => lifecycle::restore(session, arguments).await,
            Self::Purge(arguments) => arguments.run(session).await,
            Self::Rename(arguments) => arguments.run(session).await,
            Self::Domains(command) => command.run(session).await,
        }
    }
}
