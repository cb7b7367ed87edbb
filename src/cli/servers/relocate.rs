//! `servers relocate`.
use super::{TLS_MODES, read_certificate};
use crate::cli::arguments::{apply, one_of, parse_address};
use crate::cli::failure::CommandError;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::server::TlsMode;
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(in crate::cli) struct RelocateArgs {
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

impl RelocateArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
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
