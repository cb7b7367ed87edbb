//! The directory that an example keeps over restarts: the sealing key, the landlord's name and password, the operator's
//! password, and the data of a server that the example has started.
use super::AnyError;
use super::example_server::Landlord;
use super::session::random;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tenantry::vault::LocalKeyring;

pub(super) struct Data {
    directory: PathBuf,
}

impl Data {
    /// The directory of this user for temporary files.
    pub(super) fn default_directory() -> PathBuf {
        std::env::temp_dir().join(format!("tenantry-saas-{}", rustix::process::getuid().as_raw()))
    }

    /// Creates the directory unless it exists. Refuses the directory of another user, who could read the key.
    pub(super) fn open(directory: PathBuf) -> Result<Self, AnyError> {
        let error = |reason: &dyn std::fmt::Display| {
            format!("the directory {} cannot be used: {reason}; name another one with --data", directory.display())
        };
        // Other accounts may pass: as root the server runs under an account that has to reach its data.
        DirBuilder::new().recursive(true).mode(0o711).create(&directory).map_err(|e| error(&e))?;
        let owner = std::fs::metadata(&directory).map_err(|e| error(&e))?.uid();
        if owner != rustix::process::getuid().as_raw() {
            return Err(error(&"it belongs to another user").into());
        }
        Ok(Self { directory })
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory
    }

    /// Directory of the data of a server that the example starts.
    pub(super) fn server(&self) -> PathBuf {
        self.directory.join("server")
    }

    /// The key ring. A real application has its key in a secret store, apart from the landlord.
    pub(super) fn keys(&self) -> Result<LocalKeyring, AnyError> {
        let key = || format!("k1:{}", data_encoding::BASE64.encode(&rand::random::<[u8; 32]>()));
        self.read_or_create("keys", key)?;
        Ok(LocalKeyring::from_file(self.directory.join("keys"))?)
    }

    pub(super) fn landlord(&self) -> Result<Landlord, AnyError> {
        let new = Landlord::random("tenantry_saas");
        let text = self.read_or_create("landlord", || format!("{} {}", new.name, new.password))?;
        let (name, password) =
            text.split_once(' ').ok_or("the file landlord has no password; use --data with a new directory")?;
        Ok(Landlord { name: name.into(), password: password.into() })
    }

    pub(super) fn admin_password(&self) -> Result<String, AnyError> {
        self.read_or_create("admin-password", random)
    }

    /// Reads a file that only this user can read. If it does not exist, it is created in one step: a process that is
    /// killed leaves a whole file or none.
    fn read_or_create(&self, name: &str, content: impl FnOnce() -> String) -> Result<String, AnyError> {
        let (path, unfinished) = (self.directory.join(name), self.directory.join(format!("{name}.new")));
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            text => return Ok(text?.trim().to_owned()),
        }
        let content = content();
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        std::fs::rename(unfinished, path)?;
        Ok(content)
    }

    pub(super) fn remove(self) -> std::io::Result<()> {
        std::fs::remove_dir_all(self.directory)
    }
}
