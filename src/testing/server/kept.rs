//! The directory in which a server's data is kept for the next start.
//!
//! It contains the superuser's password, a lock file, and either `cluster` (a local cluster) or `container` (the name of
//! the Docker volume that has the data).
//!
//! Invariants: one process at a time has the lock, also after `kill -9`. `container` is written after the volume's server
//! has answered once, and `cluster/complete` after initdb; without them an earlier start was interrupted, and the data is
//! created again.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::error::{LocalError, NoServer};
use super::session::{Deadline, random_password, random_suffix};

/// An open data directory. The lock is held until it is dropped.
pub(super) struct KeptData {
    directory: PathBuf,
    pub(super) password: String,
    lock: File,
}

/// What runs the server of which a directory keeps the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptBackend {
    Container,
    Local,
}

impl KeptData {
    /// Creates the directory if it does not exist, and takes its lock.
    pub(super) fn open(directory: &Path) -> Result<Self, NoServer> {
        let error = |reason: String| NoServer::KeptData { directory: directory.to_owned(), reason };
        let io_error = |source: io::Error| error(source.to_string());
        // Other accounts may pass: as root the server runs under an account that has to reach `cluster`.
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory).map_err(io_error)?;
        let directory = std::fs::canonicalize(directory).map_err(io_error)?;
        let lock = private_file(&directory.join("lock"), OpenOptions::new().create(true).truncate(false));
        let lock = lock.map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(error("another process uses it".into())),
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        let password = read_or_create(&directory.join("password"), random_password).map_err(io_error)?;
        Ok(Self { directory, password, lock })
    }

    /// The backend of the data that is there. `None` if there is none yet.
    pub(super) fn backend(&self) -> Option<KeptBackend> {
        match self.directory.join("container").exists() {
            true => Some(KeptBackend::Container),
            false => self.cluster().join("complete").exists().then_some(KeptBackend::Local),
        }
    }

    /// The directory of a local cluster.
    pub(super) fn cluster(&self) -> PathBuf {
        self.directory.join("cluster")
    }

    /// Creates the directory of the cluster for this user and group, and waits at most 60 s until the script that ran
    /// the cluster before has ended.
    pub(super) async fn prepare_cluster(&self, owner: Option<(u32, u32)>) -> Result<PathBuf, LocalError> {
        let cluster = self.cluster();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&cluster).map_err(LocalError::Watcher)?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(&cluster, Some(user), Some(group)).map_err(LocalError::Watcher)?;
        }
        let deadline = Deadline::new(Duration::from_secs(60));
        while std::fs::read_to_string(cluster.join("script")).is_ok_and(|id| is_running(id.trim())) {
            if !deadline.sleep().await {
                return Err(LocalError::StillRunning { directory: cluster });
            }
        }
        // A machine that lost its power leaves these files.
        for name in ["ending", "exited", "password", "pid", "restart", "script"] {
            let _ = std::fs::remove_file(cluster.join(name));
        }
        Ok(cluster)
    }

    /// Name of the Docker volume: the recorded one, or a new one.
    pub(super) fn volume(&self) -> io::Result<String> {
        read_or_create(&self.directory.join("volume"), || format!("tenantry-kept-{}", random_suffix()))
    }

    /// Records that the volume's server has answered, so its data is complete.
    pub(super) fn record_container(&self) -> io::Result<()> {
        read_or_create(&self.directory.join("container"), || String::from("complete")).map(drop)
    }

    /// Removes the directory and everything in it.
    pub(super) fn remove(self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.directory)?;
        drop(self.lock);
        Ok(())
    }
}

/// Reads a file that only this user can read. If it does not exist, it is created with this content, in one step: a
/// process that is killed leaves a whole file or none.
fn read_or_create(path: &Path, content: impl FnOnce() -> String) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        text => return text.map(|text| text.trim().to_owned()),
    }
    let (content, unfinished) = (content(), path.with_extension("new"));
    let mut file = private_file(&unfinished, OpenOptions::new().create(true).truncate(true))?;
    file.write_all(content.as_bytes())?;
    std::fs::rename(unfinished, path)?;
    Ok(content)
}

fn private_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.read(true).write(true).mode(0o600).open(path)
}

fn is_running(process: &str) -> bool {
    let signal = Command::new("/bin/sh").args(["-c", "kill -0 \"$1\" 2>/dev/null", "sh", process]).status();
    signal.is_ok_and(|status| status.success())
}
