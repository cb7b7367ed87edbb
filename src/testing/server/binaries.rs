use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LocalError;

/// The directory of `initdb` and `postgres`: the one that is named, and no other; else the first of `PATH`
/// and of Debian's directories, newest version first.
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, LocalError> {
    let looked = named.map_or_else(usual_directories, |directory| vec![directory.to_owned()]);
    let complete = |directory: &&PathBuf| ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file());
    match looked.iter().find(complete) {
        Some(directory) => Ok(directory.clone()),
        None => Err(LocalError::NoBinaries { looked }),
    }
}

fn usual_directories() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let debian = versions.iter().map(|version| Path::new(DEBIAN).join(version.to_string()).join("bin"));
    path().into_iter().chain(debian).collect()
}

/// What goes before a command so that it does not run as root: nothing for anybody else.
pub(super) fn unprivileged() -> Result<Vec<OsString>, LocalError> {
    if id(&["-u"]).as_deref() != Some("0") {
        return Ok(Vec::new());
    }
    ["postgres", "nobody"].iter().find_map(|account| become_account(account)).ok_or(LocalError::NoAccount)
}

fn become_account(account: &str) -> Option<Vec<OsString>> {
    let (user, group) = (id(&["-u", account])?, id(&["-g", account])?);
    let setpriv = || {
        let ids = [format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()];
        Some([program("setpriv")?.into()].into_iter().chain(ids.map(OsString::from)).collect())
    };
    let runuser = || {
        let rest = ["-u", account, "--"].map(OsString::from);
        Some([program("runuser")?.into()].into_iter().chain(rest).collect())
    };
    setpriv().or_else(runuser)
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn program(name: &str) -> Option<PathBuf> {
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    path().into_iter().chain(sbin).map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

const DEBIAN: &str = "/usr/lib/postgresql";
