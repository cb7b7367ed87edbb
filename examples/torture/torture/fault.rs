//! The faults, and the points at which they can be injected.
use serde::Serialize;
use std::fmt;
use tenantry::testing::proxy::Stage;

/// A point: the n-th statement that a step sends in one kind of session. The count begins at 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct StatementPoint {
    pub(crate) step: String,
    pub(crate) kind: &'static str,
    pub(crate) n: u32,
}
impl fmt::Display for StatementPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{}", self.step, self.kind, self.n)
    }
}

/// A fault that the driver injects at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL to the child; the statement is never sent.
    KillBefore,
    /// SIGKILL to the child after the server has executed the statement, before the answer arrives.
    KillAfter,
    /// SIGKILL to the child after it has received the answer.
    KillAnswered,
    /// The connection is cut after the server has executed the statement.
    CutAfter,
    /// The connection is cut; the statement is never sent.
    CutBefore,
    /// The proxy answers with this SQLSTATE and does not send the statement.
    Refuse(&'static str),
    /// The server executes the statement, but the proxy answers with this SQLSTATE.
    Deny(&'static str),
    /// The server crashes and restarts.
    Crash,
    /// SIGSTOP for longer than the lease. Another worker takes over, then the child continues.
    Stop,
}

impl Fault {
    /// Faults that are injected at every point and make up two thirds of the runs.
    pub(crate) const FIRST: [Self; 3] = [Self::KillBefore, Self::KillAfter, Self::CutAfter];
    /// All other faults.
    pub(crate) const REST: [Self; 18] = [
        Self::KillAnswered,
        Self::CutBefore,
        Self::Crash,
        Self::Stop,
        Self::Refuse("2BP01"),
        Self::Refuse("25P02"),
        Self::Refuse("42501"),
        Self::Refuse("40P01"),
        Self::Refuse("55006"),
        Self::Refuse("55P03"),
        Self::Refuse("57014"),
        Self::Refuse("25006"),
        Self::Refuse("53100"),
        Self::Refuse("53300"),
        Self::Refuse("XX000"),
        Self::Refuse("57P01"),
        Self::Deny("57014"),
        Self::Deny("57P01"),
    ];
    /// Whether the fault is possible while a session is opened (`connecting`), or at a statement within a session.
    pub(crate) fn fits(self, connecting: bool) -> bool {
        match self {
            Self::Refuse("53300") => connecting,
            Self::KillBefore | Self::CutBefore | Self::Crash | Self::Stop | Self::Refuse("57P01") => true,
            _ => !connecting,
        }
    }
    /// The moment at which the proxy must report the statement for this fault.
    pub(crate) fn stage(self, connecting: bool) -> Stage {
        match self {
            Self::KillAfter | Self::CutAfter | Self::Deny(_) => Stage::Sent,
            Self::KillAnswered => Stage::Answered,
            _ if connecting => Stage::Connect,
            _ => Stage::Before,
        }
    }
}
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore => f.write_str("-9 before"),
            Self::KillAfter => f.write_str("-9 after"),
            Self::KillAnswered => f.write_str("-9 answered"),
            Self::CutAfter => f.write_str("cut after"),
            Self::CutBefore => f.write_str("cut before"),
            Self::Refuse(code) => write!(f, "{code} before"),
            Self::Deny(code) => write!(f, "{code} after"),
            Self::Crash => f.write_str("crash"),
            Self::Stop => f.write_str("stop"),
        }
    }
}
