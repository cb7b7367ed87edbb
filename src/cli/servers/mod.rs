//! `servers`: the PostgreSQL servers on which the tenants' databases are.
use super::confirm::confirm;
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use crate::operations::servers::Server;
use clap::Subcommand;
use std::path::Path;

mod relocate;
mod set_up;
mod show;
pub(super) use show::table_of_servers;

/// The values of [`TlsMode`].
const TLS_MODES: [&str; 5] = ["disable", "prefer", "require", "verify_ca", "verify_full"];

/// The servers on which the tenants' databases are
#[derive(Subcommand, Debug)]
pub(super) enum ServersCommand {
    /// Creates tenantry's roles and database on a server, so that it can hold tenants. May be repeated
    SetUp(set_up::SetUpArgs),
    /// Lists the servers
    List,
    /// Shows one server
    Show {
        /// Name of the server
        name: String,
    },
    /// Places no new tenants on the server. Its tenants stay
    Drain {
        /// Name of the server
        name: String,
    },
    /// Places new tenants on the server again
    Undrain {
        /// Name of the server
        name: String,
    },
    /// Gives the provisioner's two logins new passwords
    Rotate {
        /// Name of the server
        name: String,
    },
    /// Changes the address of a server for all its tenants, after a failover or a move
    Relocate(relocate::RelocateArgs),
    /// Removes a server that has no tenants. What the set-up created on it stays there
    Remove {
        /// Name of the server
        name: String,
    },
}

impl ServersCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let servers = session.tenantry.servers();
        match self {
            Self::SetUp(arguments) => arguments.run(session).await,
            Self::List => {
                let list = servers.list().await?;
                let output = Output::new().table(table_of_servers(&list)).field("servers", &*list);
                let output = output.field("unreadable", &list.unreadable);
                let output = output.notes(list.unreadable.iter().map(ToString::to_string));
                Ok(if list.is_empty() { output.next("servers set-up main") } else { output })
            }
            Self::Show { name } => Ok(show::show(&find(session, name).await?)),
            Self::Drain { name } => {
                servers.drain(name).await?;
                let output = Output::new().line(format!("{name} gets no new tenants. Its tenants stay."));
                Ok(output.field("server", find(session, name).await?).next(format!("servers undrain {name}")))
            }
            Self::Undrain { name } => {
                servers.undrain(name).await?;
                let output = Output::new().line(format!("{name} gets new tenants again."));
                Ok(output.field("server", find(session, name).await?))
            }
            Self::Rotate { name } => rotate(session, name).await,
            Self::Relocate(arguments) => arguments.run(session).await,
            Self::Remove { name } => remove(session, name).await,
        }
    }
}

async fn rotate(session: &Session, name: &str) -> Result<Output, CommandError> {
    session.catch_interrupts();
    let call = session.tenantry.rotate_server(name).on_event(session.progress.observer(name));
    let server = call.await.map_err(|error| explain_change(error, &name))?;
    let output = Output::new().line(format!("The provisioner's logins on {name} have new passwords."));
    Ok(output.field("server", &server))
}

async fn remove(session: &Session, name: &str) -> Result<Output, CommandError> {
    let server = find(session, name).await?;
    let lost = [
        format!("the row of the server {} at {}:{}", server.name, server.host, server.port),
        "the stored passwords of the provisioner's logins".into(),
        "Roles and the maintenance database on the server stay; its admin may drop them.".into(),
    ];
    confirm(session, &format!("This removes the server {name} from the landlord:"), &lost, name)?;
    session.tenantry.servers().remove(name).await?;
    Ok(Output::new().line(format!("The server {name} is removed.")).field("removed", name))
}

async fn find(session: &Session, name: &str) -> Result<Server, CommandError> {
    let list = session.tenantry.servers().list().await?;
    if let Some(row) = list.unreadable.iter().find(|row| row.id() == name) {
        return Err(CommandError::failed(row.to_string()).next("doctor"));
    }
    let found = list.into_iter().find(|server| server.name.as_str() == name);
    found.ok_or_else(|| CommandError::failed(format!("no server {name} is registered")).next("servers list"))
}

/// The text of a file with certificates.
fn read_certificate(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("the file {} cannot be read: {error}", path.display())))
}
