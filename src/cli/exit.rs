//! The exit codes. Scripts rely on them, so they never change.
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything was done.
    Done = 0,
    /// The command failed.
    Failed = 1,
    /// The arguments or the configuration are wrong. Nothing was begun.
    Usage = 2,
    /// An examination has found something.
    Findings = 3,
    /// Some of several parts failed. The output lists them.
    Partial = 4,
    /// A signal ended the command.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// For `--help`.
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong arguments or configuration; nothing was begun
  3    something was found (doctor, status, migrate status)
  4    partly done; the output lists what failed
  130  interrupted; a begun operation stays in the journal";
