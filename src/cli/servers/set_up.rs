//! `servers set-up`.
use super::{TLS_MODES, read_certificate};
use crate::cli::admin::AdminArgs;
use crate::cli::arguments::{apply, one_of, parse_address, parse_json};
use crate::cli::failure::CommandError;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::operations::servers::ServerSetup;
use crate::server::TlsMode;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(in crate::cli) struct SetUpArgs {
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

impl SetUpArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
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
