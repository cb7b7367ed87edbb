//! Finds PostgreSQL's server binaries, and an account other than root that can run them.
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::LocalError;

/// Finds the directory that contains `initdb` and `postgres`. If one is named, only that one is tried. Otherwise the
/// directories of `PATH` are tried first, then the directories in which packages install them ([`PACKAGES`]).
pub(super) fn find(named: Option<&Path>) -> Result<PathBuf, LocalError> {
    let looked = named.map_or_else(default_directories, |directory| vec![directory.to_owned()]);
    match looked.iter().find(|directory| is_complete(directory)) {
        Some(directory) => Ok(resolve_links(directory)),
        None => Err(LocalError::NoBinaries { looked }),
    }
}

fn is_complete(directory: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file())
}

/// The directory to which the program `postgres` leads through symbolic links. A directory of links often lacks other
/// programs, such as `pg_basebackup`, and the account that runs the server may have no access to it.
fn resolve_links(directory: &Path) -> PathBuf {
    let program = std::fs::canonicalize(directory.join("postgres"));
    let real = program.ok().and_then(|program| program.parent().map(Path::to_owned));
    real.filter(|real| is_complete(real)).unwrap_or_else(|| directory.to_owned())
}

fn default_directories() -> Vec<PathBuf> {
    let packages = PACKAGES.iter().flat_map(|(parent, prefix, bin)| installed_versions(parent, prefix, bin));
    search_path().into_iter().chain(packages).collect()
}

/// The directories `{parent}/{prefix}{version}/{bin}` that exist, newest version first.
fn installed_versions(parent: &str, prefix: &str, bin: &str) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.iter().map(|version| Path::new(parent).join(format!("{prefix}{version}")).join(bin)).collect()
}

/// The account that runs a server.
pub(super) struct Account {
    /// The words to put before a command so that it runs under this account. Empty: this process's own account.
    pub(super) prefix: Vec<OsString>,
    /// User and group, if it is not this process's own account.
    pub(super) owner: Option<(u32, u32)>,
    /// For error messages.
    pub(super) name: String,
}

/// The account that runs the server: the one of this process. If that is root, it is `postgres` or `nobody`, because
/// PostgreSQL refuses to run as root.
pub(super) fn account() -> Result<Account, LocalError> {
    match read_id(&["-u"]).as_deref() {
        Some("0") => ["postgres", "nobody"].iter().find_map(|name| other_account(name)).ok_or(LocalError::NoAccount),
        user => {
            let name = read_id(&["-un"]).unwrap_or_else(|| user.unwrap_or("this user").to_owned());
            Ok(Account { prefix: Vec::new(), owner: None, name })
        }
    }
}

/// The account of this name, with a prefix that needs `setpriv` or else `runuser`.
fn other_account(name: &str) -> Option<Account> {
    let (user, group) = (read_id(&["-u", name])?, read_id(&["-g", name])?);
    let setpriv = || {
        let ids = [format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()];
        Some([find_program("setpriv")?.into()].into_iter().chain(ids.map(OsString::from)).collect())
    };
    let runuser = || {
        let rest = ["-u", name, "--"].map(OsString::from);
        Some([find_program("runuser")?.into()].into_iter().chain(rest).collect())
    };
    let prefix = setpriv().or_else(runuser)?;
    Some(Account { prefix, owner: Some((user.parse().ok()?, group.parse().ok()?)), name: name.to_owned() })
}

/// Runs `id` with these arguments. `None` if the account does not exist.
fn read_id(arguments: &[&str]) -> Option<String> {
    let output = Command::new(find_program("id")?).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Finds a program in `PATH` or in the system's directories: `PATH` may be empty or may lack the latter.
fn find_program(name: &str) -> Option<PathBuf> {
    let system = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    search_path().into_iter().chain(system).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The directories of `PATH`.
fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|directory| !directory.as_os_str().is_empty()).collect()
}

/// Where packages install the binaries of each version: the parent directory, the prefix of the version's directory, and
/// the directory in that. In this order: Debian and Ubuntu, the PGDG packages of Fedora and RHEL, openSUSE, Alpine,
/// Homebrew on Apple silicon and on Intel, Postgres.app.
const PACKAGES: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];
