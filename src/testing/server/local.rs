use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::error::LocalError;
use super::running::Running;
use super::session::{Patience, Session, random_password, random_suffix};
use super::watcher::Watcher;
use super::{ServerKind, binaries};

/// Starts a cluster of its own with the machine's binaries.
pub(super) async fn start(pg_bin: Option<&Path>, arguments: &[String]) -> Result<Running, LocalError> {
    launch(binaries::find(pg_bin)?, None, arguments).await
}

/// Where a standby's data comes from, and as whom: the superuser's password is the same there.
pub(super) struct Primary {
    pub(super) port: u16,
    pub(super) password: String,
}

/// Starts a physical standby of another local cluster, with the same binaries.
pub(super) async fn standby(binaries: &Path, of: Primary, arguments: &[String]) -> Result<Running, LocalError> {
    launch(binaries.to_owned(), Some(of), arguments).await
}

async fn launch(binaries: PathBuf, of: Option<Primary>, arguments: &[String]) -> Result<Running, LocalError> {
    let launcher = binaries::unprivileged()?;
    let mut attempts = 3;
    loop {
        attempts -= 1;
        let cluster = Cluster::launch(&binaries, &launcher, of.as_ref(), arguments)?;
        let port = cluster.port;
        match cluster.ready().await {
            // Between our look for a free port and the server's bind anybody may take it.
            Err(LocalError::Exited { .. }) if attempts > 0 && !is_free(port) => {}
            other => return other,
        }
    }
}

struct Cluster {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    admin: PgConnectOptions,
    watcher: Watcher,
}

impl Cluster {
    fn launch(
        binaries: &Path, launcher: &[OsString], of: Option<&Primary>, arguments: &[String],
    ) -> Result<Self, LocalError> {
        let directory = std::env::temp_dir().join(format!("tenantry-pg-{}", random_suffix()));
        let port = free_port().map_err(LocalError::Watcher)?;
        let shell = launcher.iter().cloned().chain(["/bin/sh", "-c", SCRIPT, "tenantry-pg"].map(OsString::from));
        let primary = of.map(|of| of.port.to_string()).unwrap_or_default();
        let words = shell.chain([binaries.into(), directory.clone().into(), primary.into()]);
        let words: Vec<OsString> = words.collect();
        let [program, rest @ ..] = words.as_slice() else { return Err(LocalError::NoAccount) };
        let mut command = Command::new(program);
        command.args(rest).args(own_arguments(port)).args(arguments);

        let password = of.map_or_else(random_password, |of| of.password.clone());
        let mut watcher = Watcher::spawn(command).map_err(LocalError::Watcher)?;
        watcher.tell(&password).map_err(LocalError::Watcher)?;
        let admin = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("postgres")
            .database("postgres")
            .password(&password);
        Ok(Self { binaries: binaries.to_owned(), directory, port, admin, watcher })
    }

    async fn ready(mut self) -> Result<Running, LocalError> {
        let patience = Patience::new(PATIENCE);
        // Nobody else has the password, so a connection means that this cluster answers.
        while Session::open(&self.admin).await.is_err() {
            if self.watcher.has_ended() || self.directory.join("exited").exists() {
                return Err(LocalError::Exited { log: log_end(&self.directory) });
            }
            if !patience.wait().await {
                let (seconds, log) = (PATIENCE.as_secs(), log_end(&self.directory));
                return Err(LocalError::NotReady { seconds, log });
            }
        }
        let kind = ServerKind::Local { binaries: self.binaries, directory: self.directory };
        Ok(Running { kind, admin: self.admin, watcher: Some(self.watcher) })
    }
}

/// The postmaster alone is told: it ends its processes, and the shell starts it again.
pub(super) async fn crash(directory: &Path, admin: &PgConnectOptions) -> std::io::Result<()> {
    let postmaster = std::fs::read_to_string(directory.join("pid"))?;
    std::fs::write(directory.join("restart"), "")?;
    let status = Command::new("kill").arg("-QUIT").arg(postmaster.trim()).status()?;
    if !status.success() {
        return Err(std::io::Error::other("the server has ended before"));
    }
    let patience = Patience::new(PATIENCE);
    while directory.join("restart").exists() || Session::open(admin).await.is_err() {
        if !patience.wait().await {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// The server's log so far.
pub(super) fn log(directory: &Path) -> std::io::Result<String> {
    std::fs::read(directory.join("server.log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn log_end(directory: &Path) -> String {
    let log = log(directory).unwrap_or_else(|error| format!("no log in {}: {error}", directory.display()));
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(10)).copied().collect::<Vec<_>>().join("\n")
}

fn own_arguments(port: u16) -> Vec<String> {
    let port = format!("port={port}");
    let settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", &port];
    settings.iter().flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]).collect()
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

const SCRIPT: &str = include_str!("local.sh");
/// initdb takes about a second; a machine that builds at the same time is much slower.
const PATIENCE: Duration = Duration::from_secs(120);
