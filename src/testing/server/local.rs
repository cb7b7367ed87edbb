//! Throwaway PostgreSQL clusters with the machine's own binaries: on loopback, with a random password.
//!
//! The script `local.sh` is the parent of the server. It creates the cluster, restarts the server after [`crash`], and
//! removes everything when its standard input ends. This module starts the script and waits until the server answers.
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use super::binaries::Account;
use super::error::LocalError;
use super::kept::KeptData;
use super::running::Running;
use super::session::{Deadline, Session, random_password, random_suffix};
use super::watcher::Watcher;
use super::{ServerKind, binaries};
use crate::testing::connect_options;

/// Creates and starts a cluster with this default encoding, or starts the one that `kept` has. `pg_bin` is the directory of the binaries; without it
/// they are searched.
pub(super) async fn start(
    pg_bin: Option<&Path>, encoding: &'static str, kept: Option<&KeptData>, arguments: &[String],
) -> Result<Running, LocalError> {
    let origin = kept.map_or(Origin::New, Origin::Kept);
    start_with_retry(binaries::find(pg_bin)?, encoding, origin, arguments).await
}

/// The cluster that a standby replicates. The standby gets its superuser's password with the data.
pub(super) struct Primary {
    pub(super) port: u16,
    pub(super) password: String,
}

/// Starts a physical standby of another local cluster. `binaries` must be those of the primary.
pub(super) async fn start_standby(
    binaries: &Path, primary: Primary, arguments: &[String],
) -> Result<Running, LocalError> {
    start_with_retry(binaries.to_owned(), "", Origin::Primary(primary), arguments).await
}

/// Where the data of a cluster comes from.
enum Origin<'a> {
    New,
    Kept(&'a KeptData),
    Primary(Primary),
}

async fn start_with_retry(
    binaries: PathBuf, encoding: &str, origin: Origin<'_>, arguments: &[String],
) -> Result<Running, LocalError> {
    let account = binaries::account()?;
    let mut attempts = 3;
    loop {
        attempts -= 1;
        let directory = match &origin {
            Origin::Kept(kept) => kept.prepare_cluster(account.owner).await?,
            _ => std::env::temp_dir().join(format!("tenantry-pg-{}", random_suffix())),
        };
        let cluster = Cluster::launch(&binaries, directory, &account, encoding, &origin, arguments)?;
        let port = cluster.port;
        match cluster.wait_until_ready(&account).await {
            // Another process can take the port after `free_port` has found it and before the server binds it.
            Err(LocalError::Exited { .. }) if attempts > 0 && !is_free(port) => {}
            other => return other,
        }
    }
}

/// A cluster whose script is running. It may not answer yet.
struct Cluster {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    admin: PgConnectOptions,
    watcher: Watcher,
}

impl Cluster {
    fn launch(
        binaries: &Path, directory: PathBuf, account: &Account, encoding: &str, origin: &Origin<'_>,
        arguments: &[String],
    ) -> Result<Self, LocalError> {
        let port = free_port().map_err(LocalError::Watcher)?;
        let (primary_port, keep, password) = match origin {
            Origin::New => (String::new(), "", random_password()),
            Origin::Kept(kept) => (String::new(), "keep", kept.password.clone()),
            Origin::Primary(primary) => (primary.port.to_string(), "", primary.password.clone()),
        };
        let shell = account.prefix.iter().cloned().chain(["/bin/sh", "-c", SCRIPT, "tenantry-pg"].map(OsString::from));
        let words =
            shell.chain([binaries.into(), directory.clone().into(), primary_port.into(), encoding.into(), keep.into()]);
        let words: Vec<OsString> = words.collect();
        let [program, rest @ ..] = words.as_slice() else { return Err(LocalError::NoAccount) };
        let mut command = Command::new(program);
        command.args(rest).args(address_arguments(port)).args(arguments);

        let mut watcher = Watcher::spawn(command).map_err(LocalError::Watcher)?;
        // The script may have ended already. `wait_until_ready` reports that with its reason.
        let _ = watcher.send_line(&password);
        let admin = connect_options("127.0.0.1", port, "postgres", &password, "postgres");
        Ok(Self { binaries: binaries.to_owned(), directory, port, admin, watcher })
    }

    async fn wait_until_ready(mut self, account: &Account) -> Result<Running, LocalError> {
        let deadline = Deadline::new(START_TIMEOUT);
        // Another server on this port would refuse the random password, so a connection proves that this one answers.
        while Session::open(&self.admin).await.is_err() {
            if self.watcher.exit_code() == Some(NO_DIRECTORY) {
                let directory = self.directory.parent().unwrap_or(&self.directory).to_owned();
                return Err(LocalError::Directory { account: account.name.clone(), directory });
            }
            if self.watcher.has_ended() || self.directory.join("exited").exists() {
                return Err(LocalError::Exited { log: log_end(&self.directory) });
            }
            if !deadline.sleep().await {
                let (seconds, log) = (START_TIMEOUT.as_secs(), log_end(&self.directory));
                return Err(LocalError::NotReady { seconds, log });
            }
        }
        let kind = ServerKind::Local { binaries: self.binaries, directory: self.directory };
        Ok(Running { kind, admin: self.admin, watcher: Some(self.watcher), kept: None })
    }
}

/// Sends SIGQUIT to the postmaster, which then terminates its own processes, and waits until the script has restarted
/// the server. The file `restart` tells the script that the end was intended.
pub(super) async fn crash(directory: &Path, admin: &PgConnectOptions) -> std::io::Result<()> {
    let postmaster = std::fs::read_to_string(directory.join("pid"))?;
    std::fs::write(directory.join("restart"), "")?;
    let status = Command::new("kill").arg("-QUIT").arg(postmaster.trim()).status()?;
    if !status.success() {
        return Err(std::io::Error::other("the server was not running"));
    }
    let deadline = Deadline::new(START_TIMEOUT);
    while directory.join("restart").exists() || Session::open(admin).await.is_err() {
        if !deadline.sleep().await {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Reads the server's log so far.
pub(super) fn read_log(directory: &Path) -> std::io::Result<String> {
    std::fs::read(directory.join("server.log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The last ten lines of the log, for an error message.
fn log_end(directory: &Path) -> String {
    let log = read_log(directory)
        .unwrap_or_else(|error| format!("the log in {} cannot be read: {error}", directory.display()));
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(10)).copied().collect::<Vec<_>>().join("\n")
}

/// Arguments that bind the server to one port of 127.0.0.1, without a Unix socket.
fn address_arguments(port: u16) -> Vec<String> {
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
/// Exit status of the script if its account cannot use the directory.
const NO_DIRECTORY: i32 = 73;
/// Maximum time until a started server answers. It usually takes about a second, mostly for initdb. The limit allows
/// for a machine that compiles at the same time.
const START_TIMEOUT: Duration = Duration::from_secs(120);
