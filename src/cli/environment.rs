//! Variables of the process, and of a file in the style of `.env`. Secrets come from here or from files, never from
//! arguments, which other users of the machine can read.
use super::failure::CommandError;
use secrecy::{ExposeSecret, SecretString};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The variables that configure the program.
pub(super) struct Environment {
    file: HashMap<String, SecretString>,
}

impl Environment {
    /// The variables of the process alone.
    pub(super) fn of_process() -> Self {
        Self { file: HashMap::new() }
    }
    /// The variables of the process, and those that only the file has.
    pub(super) fn with_file(path: &Path) -> Result<Self, CommandError> {
        let refused = |what: &str| CommandError::usage(format!("the file {} {what}", path.display()));
        let lines = dotenvy::from_path_iter(path).map_err(|error| refused(&format!("cannot be read: {error}")))?;
        // The error of a line contains the line, which may be a secret.
        let malformed = |_| {
            refused("has a line that is not of the form NAME=value; put a value with spaces or $ into single quotes")
        };
        let file = lines.map(|line| line.map(|(name, value)| (name, value.into())).map_err(malformed));
        Ok(Self { file: file.collect::<Result<_, _>>()? })
    }
    /// The value of a variable. An empty one counts as absent.
    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        let own = std::env::var(name).ok().map(SecretString::from);
        let found = own.or_else(|| self.file.get(name).cloned());
        found.filter(|value| !value.expose_secret().trim().is_empty())
    }
    /// The value of a variable that is no secret.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.secret(name).map(|value| value.expose_secret().to_owned())
    }
    /// The path in a variable.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }
}

/// Reads a secret from a file, without the line feed at its end.
pub(super) fn read_secret_file(path: &Path) -> Result<SecretString, CommandError> {
    let text = std::fs::read_to_string(path);
    let text =
        text.map_err(|error| CommandError::usage(format!("the file {} cannot be read: {error}", path.display())))?;
    Ok(text.trim().to_owned().into())
}
