//! `credentials`: new logins for tenants, another sealing key, and the logins that wait to be dropped.
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use clap::Subcommand;

mod retiring;
mod rotate;

/// Logins and keys: rotate, rekey, list what waits to be dropped
#[derive(Subcommand, Debug)]
pub(super) enum CredentialsCommand {
    /// Gives tenants a new login and drops the old one. No query fails
    Rotate(rotate::RotateArgs),
    /// Seals every stored secret with the first key of the key ring
    Rekey,
    /// Lists replaced logins that could not be dropped yet
    Retiring(retiring::RetiringArgs),
}

impl CredentialsCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        match self {
            Self::Rotate(arguments) if arguments.all => arguments.run_all(session).await,
            Self::Rotate(arguments) => arguments.run_named(session).await,
            Self::Rekey => rekey(session).await,
            Self::Retiring(arguments) => arguments.run(session).await,
        }
    }
}

async fn rekey(session: &Session) -> Result<Output, CommandError> {
    session.catch_interrupts();
    let rekeyed = session.tenantry.rekey().on_event(session.progress.observer("vault")).await;
    let rekeyed = rekeyed.map_err(|error| explain_change(error, &"vault"))?;
    let keys: Vec<_> = rekeyed.keys.iter().map(ToString::to_string).collect();
    let output = Output::new().line(format!("Keys in use: {}.", keys.join(", "))).field("keys", &keys);
    Ok(match keys.len() {
        0 | 1 => output.hint("Backups of the landlord that are older than this still need the old key."),
        _ => output.note(
            "a node with another first key has stored a secret meanwhile; give all nodes the same keys, then repeat",
        ),
    })
}
