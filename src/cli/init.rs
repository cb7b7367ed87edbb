//! `init`: installs the landlord's schema and sets up the first server. It may be repeated.
use super::admin::AdminArgs;
use super::failure::CommandError;
use super::output::Output;
use super::session::Session;
use clap::Args;

/// Installs the landlord's schema, and sets up the first server for tenants
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Name for the first server
    #[arg(long, default_value = "main")]
    server: String,
    /// Prefix of the roles and the database on that server. A second installation on it needs its own. Default: tenantry
    #[arg(long)]
    prefix: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

impl InitArgs {
    /// The schema was installed before, because the facade cannot be built without it.
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let installed = Output::new().line(format!("The landlord {} is ready.", session.target));
        let installed = installed.field("landlord", &session.target);
        let servers = session.tenantry.servers().list().await?;
        if let Some(server) = servers.first() {
            let name = &server.name;
            let output = installed.line(format!("The server {name} is registered already.")).field("server", server);
            return Ok(output.next("tenants create acme").next("status"));
        }
        let Some(admin) = self.admin.find(session)? else {
            let output = installed.line("No server is set up for tenants yet.").field("server", None::<()>);
            return Ok(output
                .hint("export TENANTRY_ADMIN_URL='postgres://postgres:secret@localhost:5432/postgres'")
                .next(format!("servers set-up {}", self.server)));
        };
        session.catch_interrupts();
        session.progress.show(&format!("setting up the server {}", self.server));
        let set_up = session.tenantry.servers().set_up(&*self.server, admin);
        let report = match &self.prefix {
            Some(prefix) => set_up.prefix(prefix).await?,
            None => set_up.await?,
        };
        let server = &report.server;
        Ok(installed
            .line(format!("The server {} at {}:{} is set up.", server.name, server.host, server.port))
            .notes(report.left_open.clone())
            .field("server", server)
            .field("left_open", &report.left_open)
            .next("tenants create acme"))
    }
}
