//! Finds PostgreSQL's server binaries, and a way to run them under an account other than root.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LocalError;

/// Finds the directory that contains `initdb` and `postgres`. If one is named, only that one is tried. Otherwise the
/// directories of `PATH` are tried first, then Debian's directories, newest version first.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, LocalError> {
    let looked = named.map_or_else(default_directories, |directory| vec![directory.to_owned()]);
    let is_complete = |directory: &&PathBuf| ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file());
    match looked.iter().find(is_complete) {
        Some(directory) => Ok(directory.clone()),
        None => Err(LocalError::NoBinaries { looked }),
    }
}

fn default_directories() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let debian = versions.iter().map(|version| Path::new(DEBIAN).join(version.to_string()).join("bin"));
    search_path().into_iter().chain(debian).collect()
}

/// The words to put before a command so that it does not run as root, which PostgreSQL refuses. Empty if this process
/// does not run as root.
pub(super) fn unprivileged_prefix() -> Result<Vec<OsString>, LocalError> {
    if read_id(&["-u"]).as_deref() != Some("0") {
        return Ok(Vec::new());
    }
    ["postgres", "nobody"].iter().find_map(|account| prefix_for_account(account)).ok_or(LocalError::NoAccount)
}

/// The prefix that runs a command under this account, with `setpriv` or else `runuser`.
fn prefix_for_account(account: &str) -> Option<Vec<OsString>> {
    let (user, group) = (read_id(&["-u", account])?, read_id(&["-g", account])?);
    let setpriv = || {
        let ids = [format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()];
        Some([find_program("setpriv")?.into()].into_iter().chain(ids.map(OsString::from)).collect())
    };
    let runuser = || {
        let rest = ["-u", account, "--"].map(OsString::from);
        Some([find_program("runuser")?.into()].into_iter().chain(rest).collect())
    };
    setpriv().or_else(runuser)
}

/// Runs `id` with these arguments. `None` if the account does not exist.
fn read_id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn find_program(name: &str) -> Option<PathBuf> {
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    search_path().into_iter().chain(sbin).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The directories of `PATH`.
fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

const DEBIAN: &str = "/usr/lib/postgresql";
