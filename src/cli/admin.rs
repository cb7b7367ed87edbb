//! The connection of a server's admin: from a file, a variable, or asked on the terminal. It is not stored.
use super::config::secret_of;
use super::failure::CommandError;
use super::output::print_status;
use super::session::Session;
use super::url;
use clap::Args;
use sqlx::postgres::PgConnectOptions;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// The variable with the URL.
const VARIABLE: &str = "TENANTRY_ADMIN_URL";

/// Where the URL of the server's admin is.
#[derive(Args, Debug)]
pub(super) struct AdminArgs {
    /// File with the URL of the server's admin: a superuser, or a role with CREATEDB and CREATEROLE. Else it is read from
    /// TENANTRY_ADMIN_URL, or asked on the terminal
    #[arg(long, value_name = "FILE")]
    admin_url_file: Option<PathBuf>,
}

impl AdminArgs {
    /// The options of the admin's connection, `None` if there is neither a file nor a variable nor a terminal.
    pub(super) fn find(&self, session: &Session) -> Result<Option<PgConnectOptions>, CommandError> {
        if let Some((url, source)) = secret_of(self.admin_url_file.as_deref(), &session.environment, VARIABLE)? {
            return url::parse(&url, &source).map(Some);
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        session.progress.clear();
        print_status("URL of the server's admin: postgres://USER:PASSWORD@HOST:PORT/postgres");
        let typed = rpassword::prompt_password("It is not shown, and not stored. Empty for none: ");
        let typed = typed.map_err(|error| CommandError::failed(format!("the terminal cannot be read: {error}")))?;
        match typed.trim().is_empty() {
            true => Ok(None),
            false => url::parse(&typed.into(), "the URL").map(Some),
        }
    }
    /// As [`find`](Self::find), for a command that cannot work without it.
    pub(super) fn require(&self, session: &Session) -> Result<PgConnectOptions, CommandError> {
        self.find(session)?.ok_or_else(|| {
            CommandError::usage("the server's admin is not configured: TENANTRY_ADMIN_URL is not set")
                .hint("export TENANTRY_ADMIN_URL='postgres://postgres:secret@localhost:5432/postgres'")
                .hint("Or --admin-url-file FILE, or type it when this command runs in a terminal.")
        })
    }
}
