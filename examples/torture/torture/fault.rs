//! What is done at a point.
use serde::Serialize;
use std::fmt;
use tenantry::testing::proxy::Stage;

/// One statement of one step: the n-th of its kind of session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct Place {
    pub(crate) step: String,
    pub(crate) kind: &'static str,
    pub(crate) n: u32,
}
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{}", self.step, self.kind, self.n)
    }
}

/// What is done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// -9, and the statement is never sent.
    KillBefore,
    /// -9, when the server has done it.
    KillAfter,
    /// -9, when the child has its answer.
    KillAnswered,
    /// The connection is cut when the server has done it.
    CutAfter,
    /// The connection is cut, and the statement is never sent.
    CutBefore,
    /// An error in place of the statement.
    Refuse(&'static str),
    /// An error in place of the answer.
    Deny(&'static str),
    /// The server crashes and recovers.
    Crash,
    /// The child is stopped past its lease, another worker takes over, then it wakes.
    Stop,
}

impl Fault {
    /// Done at every point, first.
    pub(crate) const FIRST: [Self; 3] = [Self::KillBefore, Self::KillAfter, Self::CutAfter];
    /// Done in seeded order.
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
    /// Whether it can happen where a session begins (`true`), or within one.
    pub(crate) fn fits(self, connecting: bool) -> bool {
        match self {
            Self::Refuse("53300") => connecting,
            Self::KillBefore | Self::CutBefore | Self::Crash | Self::Stop | Self::Refuse("57P01") => true,
            _ => !connecting,
        }
    }
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
