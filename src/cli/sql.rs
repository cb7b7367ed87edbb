//! `sql`: opens psql in a tenant's database, with a login of its own.
//!
//! Invariants: the password is in the environment of psql only. psql uses Ctrl-C itself, so this process ignores it while
//! psql runs. The login is dropped when psql has ended; if this process is killed, any node drops it at its expiry.
use super::arguments::{TenantName, apply, parse_duration};
use super::exit::Exit;
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::{Output, print_status, show_time};
use super::session::Session;
use crate::facade::Call;
use crate::operations::temporary_login::{IssueLogin, TemporaryLogin};
use crate::server::TlsMode;
use clap::Args;
use secrecy::ExposeSecret;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, Command};

#[derive(Args, Debug)]
pub(super) struct SqlArgs {
    /// Slug, id or domain
    tenant: TenantName,
    /// Lets the login write. Without it, its transactions are read-only unless you turn that off in psql
    #[arg(long)]
    write: bool,
    /// How long the login lives, up to 24h. Default: 15m
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    lifetime: Option<Duration>,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: Option<String>,
    /// Arguments of psql
    #[arg(last = true, value_name = "PSQL ARGS")]
    psql: Vec<OsString>,
}

impl SqlArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        if session.as_json {
            return Err(CommandError::usage("sql shows what psql prints, so it has no --json; use psql's own options"));
        }
        // Before the login exists: a missing psql must not cost one.
        Command::new(PSQL).arg("--version").output().await.map_err(explain_psql)?;
        let login = self.issue(session).await?;
        let access = if login.read_only { "read-only" } else { "writable" };
        print_status(&format!("The login {} is {access} and ends at {}.", login.login, show_time(login.expires_at)));
        let ended = run_psql(&login, &self.psql).await;
        let dropped = session.tenantry.end_temporary_login(login.operation).await;
        let output = Output::new().exit(to_exit(ended.map_err(explain_psql)?));
        Ok(match dropped {
            Ok(()) => {
                print_status("The login is dropped.");
                output
            }
            Err(error) => {
                let error = explain_change(error, &self.tenant);
                output.note(format!("{}; any node of the application drops it", error.message()))
            }
        })
    }

    async fn issue(&self, session: &Session) -> Result<TemporaryLogin, CommandError> {
        let call = session.tenantry.temporary_login(self.tenant.reference());
        let call = apply(call, self.lifetime, Call::<IssueLogin>::lifetime);
        let call = apply(call, self.reason.as_ref(), Call::reason);
        let call = if self.write { call.writable() } else { call };
        call.await.map_err(|error| explain_change(error, &self.tenant))
    }
}

const PSQL: &str = "psql";

fn explain_psql(error: io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::NotFound => CommandError::usage("psql is not installed, or not in PATH").hint(
            "Install it: `apt install postgresql-client` (Debian, Ubuntu), `dnf install postgresql` (Fedora), `brew install libpq` (macOS).",
        ),
        _ => CommandError::failed(format!("psql cannot be run: {error}")),
    }
}

/// Runs psql with the terminal of this process until it ends.
async fn run_psql(login: &TemporaryLogin, arguments: &[OsString]) -> io::Result<ExitStatus> {
    let certificate = login.root_certificate.as_deref().map(CertificateFile::write).transpose()?;
    let mut command = Command::new(PSQL);
    command.args(arguments).kill_on_drop(true);
    // They would take precedence over the address, or refuse a read-only session.
    for variable in
        ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS", "PGREQUIREAUTH", "PGSSLROOTCERT"]
    {
        command.env_remove(variable);
    }
    command
        .env("PGHOST", &login.host)
        .env("PGPORT", login.port.to_string())
        .env("PGDATABASE", login.database.as_str())
        .env("PGUSER", login.login.as_str())
        .env("PGPASSWORD", login.password.expose_secret())
        .env("PGSSLMODE", ssl_mode(login.tls))
        .env("PGAPPNAME", "tenantry sql");
    match &certificate {
        Some(file) => drop(command.env("PGSSLROOTCERT", &file.0)),
        // The authorities of the system, as the application's own connections use them.
        None if login.tls == TlsMode::VerifyFull => drop(command.env("PGSSLROOTCERT", "system")),
        None => {}
    }
    wait(command.spawn()?).await
}

/// The mode as libpq calls it.
fn ssl_mode(tls: TlsMode) -> &'static str {
    match tls {
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
        other => other.as_str(),
    }
}

/// Waits for psql. The terminal sends Ctrl-C to psql too, which cancels its statement. A request to end this process ends
/// psql first, so that the login is dropped.
async fn wait(mut psql: Child) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            ended = psql.wait() => return ended,
            interrupted = tokio::signal::ctrl_c() => interrupted?,
            requested = termination() => {
                requested?;
                psql.start_kill()?;
                return psql.wait().await;
            }
        }
    }
}

/// Resolves when the system asks this process to end, or the terminal is closed.
async fn termination() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        Ok(())
    }
    #[cfg(not(unix))]
    std::future::pending().await
}

/// The exit code of psql; 130 if a signal has ended it.
fn to_exit(status: ExitStatus) -> Exit {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(Exit::Interrupted, Exit::Psql)
}

/// A file with certificates, which are no secret, because libpq reads them from a file only. It is removed at the end.
struct CertificateFile(PathBuf);

impl CertificateFile {
    fn write(pem: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("tenantry-{}.pem", uuid::Uuid::now_v7()));
        let mut file = std::fs::File::create_new(&path)?;
        let written = Self(path);
        io::Write::write_all(&mut file, pem.as_bytes())?;
        Ok(written)
    }
}
impl Drop for CertificateFile {
    fn drop(&mut self) {
        // A file that is left contains only public certificates.
        let _ = std::fs::remove_file(&self.0);
    }
}
