//! The list of commands, and how the arguments are read.
use super::exit::EXIT_CODES;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use super::{credentials, doctor, init, links, migrate, operations, pages, servers, sql, status, tenants};
use clap::{Parser, Subcommand};

/// Operates an installation of tenantry: one PostgreSQL database for each tenant
#[derive(Parser, Debug)]
#[command(name = "tenantry", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub(super) struct Cli {
    /// Prints the result as one JSON object, with next_steps
    #[arg(long, global = true, help_heading = "Global options")]
    pub(super) json: bool,
    /// Confirms without being asked
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(super) yes: bool,
    #[command(subcommand)]
    pub(super) command: CliCommand,
}

#[derive(Subcommand, Debug)]
pub(super) enum CliCommand {
    /// Installs the landlord's schema, and sets up the first server for tenants
    Init(init::InitArgs),
    /// Shows the installation on one screen, read from the landlord
    Status,
    /// The servers on which the tenants' databases are
    #[command(subcommand, arg_required_else_help = true)]
    Servers(servers::ServersCommand),
    /// The tenants: create, show, suspend, archive, purge
    #[command(subcommand, arg_required_else_help = true)]
    Tenants(tenants::TenantsCommand),
    /// Opens psql in a tenant's database, with a login of its own that ends by itself
    Sql(sql::SqlArgs),
    /// The migrations of the tenants' databases
    #[command(subcommand, arg_required_else_help = true)]
    Migrate(migrate::MigrateCommand),
    /// Logins and keys: rotate, rekey, and what waits to be dropped
    #[command(subcommand, arg_required_else_help = true)]
    Credentials(credentials::CredentialsCommand),
    /// The journal: list, show, watch, continue and end operations
    #[command(subcommand, arg_required_else_help = true)]
    Operations(operations::OperationsCommand),
    /// One-time links, by which a tenant's admin sets a password
    #[command(subcommand, arg_required_else_help = true)]
    Links(links::LinksCommand),
    /// Examines the landlord, the servers and the tenants, and repairs what you choose
    Doctor(doctor::DoctorArgs),
    /// Prints the completions for a shell
    Completions(pages::CompletionsArgs),
    /// Prints the manual page, or writes a page for each command
    Man(pages::ManArgs),
}

impl CliCommand {
    /// Runs a command that needs the installation.
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        match self {
            Self::Init(arguments) => arguments.run(session).await,
            Self::Status => status::run(session).await,
            Self::Servers(command) => command.run(session).await,
            Self::Tenants(command) => command.run(session).await,
            Self::Sql(arguments) => arguments.run(session).await,
            Self::Migrate(command) => command.run(session).await,
            Self::Credentials(command) => command.run(session).await,
            Self::Operations(command) => command.run(session).await,
            Self::Links(command) => command.run(session).await,
            Self::Doctor(arguments) => arguments.run(session).await,
            Self::Completions(_) | Self::Man(_) => Ok(Output::new()),
        }
    }

    /// The words that can follow the name of the program, to find where the program's own words end.
    pub(super) fn is_first_word(word: &str) -> bool {
        let words = <Cli as clap::CommandFactory>::command();
        words.get_subcommands().any(|command| command.get_name() == word)
    }
}
