//! `migrate`: compares the tenants' databases with the migrations of this program, and runs what is missing.
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use crate::error::ChangeError;
use clap::Subcommand;

mod run;
mod status;

/// Migrations of the tenants' databases
#[derive(Subcommand, Debug)]
pub(super) enum MigrateCommand {
    /// Compares the databases with the migrations. Exit code 3 if one is not at head
    Status(status::StatusArgs),
    /// Runs the migrations that have not run yet
    Run(run::RunArgs),
}

impl MigrateCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        if !session.has_migrations {
            return Err(explain_change(ChangeError::NoMigrations, &""));
        }
        match self {
            Self::Status(arguments) => arguments.run(session).await,
            Self::Run(arguments) if arguments.all => arguments.run_all(session).await,
            Self::Run(arguments) => arguments.run_named(session).await,
        }
    }
}
