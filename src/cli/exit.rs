//! The exit codes. Scripts rely on them, so they never change.
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Everything was done.
    Done,
    /// The command failed.
    Failed,
    /// The arguments or the configuration are wrong. Nothing was begun.
    Usage,
    /// An examination has found something.
    Findings,
    /// Some of several parts failed. The output lists them.
    Partial,
    /// A signal ended the command.
    Interrupted,
    /// psql has ended with this code.
    Psql(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Findings => 3,
            Exit::Partial => 4,
            Exit::Interrupted => 130,
            Exit::Psql(code) => code,
        })
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
  130  interrupted; a begun operation stays in the journal
  sql ends with the code of psql";
