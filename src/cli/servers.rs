//! `servers`: the PostgreSQL servers on which the tenants' databases are.
use super::admin::AdminArgs;
use super::arguments::{one_of, parse_address, parse_json};
use super::confirm::confirm;
use super::failure::CommandError;
use super::output::{Output, Table};
use super::session::Session;
use crate::operations::servers::{Server, ServerSetup};
use crate::server::TlsMode;
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// The values of [`TlsMode`].
const TLS_MODES: [&str; 5] = ["disable", "prefer", "require", "verify_ca", "verify_full"];

/// The servers on which the tenants' databases are
#[derive(Subcommand, Debug)]
pub(super) enum ServersCommand {
    /// Creates tenantry's roles and database on a server, so that it can hold tenants. May be repeated
    SetUp(SetUpArgs),
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
    Relocate(RelocateArgs),
    /// Removes a server that has no tenants. What the set-up created on it stays there
    Remove {
        /// Name of the server
        name: String,
    },
}

#[derive(Args, Debug)]
pub(super) struct SetUpArgs {
    /// A name for the server, for example main
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
    /// HOST:PORT for the application. Default: that of the admin's URL
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<(String, u16)>,
    /// Prefix of the roles and the database. A second installation on the same server needs its own. Default: tenantry
    #[arg(long)]
    prefix: Option<String>,
    /// Encryption. Default: verify_full, or prefer on this machine
    #[arg(long, value_name = "MODE", value_parser = one_of::<TlsMode>(&TLS_MODES))]
    tls: Option<TlsMode>,
    /// File with the certificates of the authorities to trust, in PEM format
    #[arg(long, value_name = "FILE")]
    root_certificate: Option<PathBuf>,
    /// Maximum number of tenants. Default: 1000
    #[arg(long, value_name = "TENANTS")]
    capacity: Option<u32>,
    /// Relative share of new tenants. Default: 1
    #[arg(long)]
    weight: Option<u32>,
    /// Maximum connections of tenants, over all nodes. Default: 90
    #[arg(long, value_name = "CONNECTIONS")]
    max_connections: Option<u32>,
    /// Labels as JSON, for the application's placement function
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    labels: Option<serde_json::Value>,
    /// Also keeps PUBLIC out of the databases postgres and template1
    #[arg(long)]
    close_shared: bool,
    /// Prints SQL for a DBA instead of connecting. Run the command with --confirm afterwards
    #[arg(long, requires = "address", conflicts_with = "confirm")]
    script: bool,
    /// Completes a set-up whose script a DBA has run
    #[arg(long, requires = "address")]
    confirm: bool,
}

#[derive(Args, Debug)]
pub(super) struct RelocateArgs {
    /// Name of the server
    name: String,
    /// New address of the server
    #[arg(value_name = "HOST:PORT", value_parser = parse_address)]
    address: (String, u16),
    /// No client can reach the old server any more, so it need not be checked
    #[arg(long)]
    old_is_fenced: bool,
    /// The cluster was upgraded by pg_upgrade or restored from a dump
    #[arg(long)]
    replaced: bool,
    /// Encryption at the new address. Default: as before
    #[arg(long, value_name = "MODE", value_parser = one_of::<TlsMode>(&TLS_MODES))]
    tls: Option<TlsMode>,
    /// File with the certificates of the authorities to trust, in PEM format
    #[arg(long, value_name = "FILE")]
    root_certificate: Option<PathBuf>,
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
            Self::Show { name } => Ok(show(&find(session, name).await?)),
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

impl SetUpArgs {
    async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let name = &self.name;
        // A script and its confirmation connect with the provisioner's logins only, and take the address from --address.
        let admin = match self.script || self.confirm {
            true => (*session.landlord.connect_options()).clone(),
            false => self.admin.require(session)?,
        };
        session.catch_interrupts();
        let set_up = self.configure(session.tenantry.servers().set_up(name, admin))?;
        if self.script {
            let script = set_up.script().await?;
            let output = Output::new().raw(&*script).field("script", &script);
            let (host, port) = self.address.clone().unwrap_or_default();
            return Ok(output.next(format!("servers set-up {name} --address {host}:{port} --confirm")));
        }
        session.progress.show(&format!("setting up the server {name}"));
        let report = if self.confirm { set_up.confirm().await? } else { set_up.await? };
        let output = Output::new().line(format!("The server {name} is set up.")).notes(report.left_open.clone());
        Ok(output.field("server", &report.server).field("left_open", &report.left_open).next("tenants create acme"))
    }

    fn configure(&self, set_up: ServerSetup) -> Result<ServerSetup, CommandError> {
        let set_up = set_up.close_shared(self.close_shared);
        let set_up = apply(set_up, self.address.clone(), |set_up, (host, port)| set_up.address(host, port));
        let set_up = apply(set_up, self.prefix.clone(), ServerSetup::prefix);
        let set_up = apply(set_up, self.tls, ServerSetup::tls);
        let certificate = self.root_certificate.as_deref().map(read_certificate).transpose()?;
        let set_up = apply(set_up, certificate, ServerSetup::root_certificate);
        let set_up = apply(set_up, self.capacity, ServerSetup::capacity);
        let set_up = apply(set_up, self.weight, ServerSetup::weight);
        let set_up = apply(set_up, self.max_connections, ServerSetup::max_connections);
        Ok(apply(set_up, self.labels.clone(), ServerSetup::labels))
    }
}

/// Sets one setting, if the argument was given.
fn apply<B, T>(builder: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

fn read_certificate(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path)
        .map_err(|error| CommandError::usage(format!("the file {} cannot be read: {error}", path.display())))
}

impl RelocateArgs {
    async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let (name, (host, port)) = (&self.name, &self.address);
        session.catch_interrupts();
        session.progress.show(&format!("checking {host}:{port}"));
        let relocate = session.tenantry.servers().relocate(name, host, *port);
        let relocate = apply(relocate, self.tls, |relocate, tls| relocate.tls(tls));
        let certificate = self.root_certificate.as_deref().map(read_certificate).transpose()?;
        let relocate = apply(relocate, certificate, |relocate, pem| relocate.root_certificate(pem));
        let relocate = if self.old_is_fenced { relocate.old_is_fenced() } else { relocate };
        let relocate = if self.replaced { relocate.replaced() } else { relocate };
        let relocated = relocate.await?;
        let output = Output::new().line(format!("The server {name} is at {host}:{port} now, for all its tenants."));
        let output = match relocated.is_same_cluster_seen {
            true => output,
            false => output.note("Whether it is the same cluster could not be seen."),
        };
        Ok(output.field("relocated", &relocated).next(format!("doctor --server {name}")))
    }
}

async fn rotate(session: &Session, name: &str) -> Result<Output, CommandError> {
    session.catch_interrupts();
    let call = session.tenantry.rotate_server(name).on_event(session.progress.observer(name));
    let server = call.await.map_err(|error| super::explain::explain_change(error, &name))?;
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

fn show(server: &Server) -> Output {
    let facts = Table::facts()
        .fact("Server", server.name.to_string())
        .fact("Address", format!("{}:{}", server.host, server.port))
        .fact("Encryption", server.tls.to_string())
        .fact("State", describe_state(server))
        .fact("Tenants", format!("{} of {}", server.tenants, server.capacity))
        .fact("Connections", format!("at most {}, over all nodes", server.max_connections))
        .fact("Weight", server.weight.to_string());
    let output = Output::new().table(facts).field("server", server);
    output.next(format!("doctor --server {}", server.name))
}

fn describe_state(server: &Server) -> &'static str {
    match (server.ready, server.draining) {
        (false, _) => "setting up",
        (true, true) => "draining",
        (true, false) => "ready",
    }
}

/// The servers, also for `status`.
pub(super) fn table_of_servers(servers: &[Server]) -> Table {
    let rows = servers.iter().map(|server| {
        let address = format!("{}:{}", server.host, server.port);
        let tenants = format!("{}/{}", server.tenants, server.capacity);
        [server.name.to_string(), address, describe_state(server).into(), tenants, server.max_connections.to_string()]
    });
    Table::new(["SERVER", "ADDRESS", "STATE", "TENANTS", "CONNECTIONS"]).rows(rows).or_empty("No server is set up.")
}
