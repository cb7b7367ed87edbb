//! Operations in words: one run of a saga, who writes for it, what it says.
use crate::error::{NameConflict, UnknownValue};
use crate::names::ServerName;
use crate::tenant::TenantId;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use time::OffsetDateTime;
use uuid::Uuid;

/// One run of a saga. A UUID of version 7; it stands in every error and log line of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(Uuid);
impl OperationId {
    /// A new id.
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
    /// From a stored row.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}
impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for OperationId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// Who writes: a store refuses a write whose epoch is below the highest that its `fence` has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencingToken {
    /// The operation.
    pub operation: OperationId,
    /// Counts its workers: each takeover raises it. Starts at 1.
    pub epoch: i64,
}

macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// The stored name: a contract.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = UnknownValue;
            fn from_str(text: &str) -> Result<Self, UnknownValue> {
                match text { $($text => Ok(Self::$variant),)* other => Err(UnknownValue::new($what, other)) }
            }
        }
    };
}
pub(crate) use stored_enum;

stored_enum! {
    /// Where an operation stands.
    OperationStatus, "operation status" {
        /// Going forward, or waiting to be picked up.
        Running = "running",
        /// Going backward: what it made is being removed.
        Undoing = "undoing",
        /// Waits for a fence to be lifted, or for a person.
        Parked = "parked",
        /// Ended as intended.
        Done = "done",
        /// Ended with nothing left behind.
        Undone = "undone",
    }
}
impl OperationStatus {
    /// Whether nothing will happen any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Undone)
    }
}

stored_enum! {
    /// A subject has at most one open operation in each lane.
    Lane, "lane" {
        /// Provision, rotate, migrate, adopt, move.
        Change = "change",
        /// Suspend, activate, archive, restore, purge: waits for nothing and stops what the other lane is doing.
        #[serde(rename = "fence")]
        Preempt = "fence",
    }
}

/// What an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A tenant.
    Tenant(TenantId),
    /// A PostgreSQL server.
    Server(ServerName),
    /// The vault as a whole.
    Vault,
    /// What a user does with a setup link: it waits for no change of the tenant, and none waits for it.
    Link(Uuid),
}
impl Subject {
    /// The tenant, if it is one.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Tenant(id) => Some(*id),
            _ => None,
        }
    }
}
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(id) => write!(f, "tenant:{id}"),
            Self::Server(name) => write!(f, "server:{name}"),
            Self::Vault => f.write_str("vault"),
            Self::Link(id) => write!(f, "link:{id}"),
        }
    }
}
impl FromStr for Subject {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        let wrong = || UnknownValue::new("subject", text);
        match text.split_once(':') {
            Some(("tenant", id)) => id.parse().map(Self::Tenant).map_err(|_| wrong()),
            Some(("server", name)) => name.parse().map(Self::Server).map_err(|_| wrong()),
            Some(("link", id)) => id.parse().map(Self::Link).map_err(|_| wrong()),
            None if text == "vault" => Ok(Self::Vault),
            _ => Err(wrong()),
        }
    }
}

/// An operation as anybody may see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationState {
    /// Which.
    pub id: OperationId,
    /// `provision`, `suspend`, …: the saga's stored name.
    pub kind: String,
    /// About what.
    pub subject: Subject,
    /// Where it stands.
    pub status: OperationStatus,
    /// The step that ran last.
    pub step: String,
    /// Steps behind it and steps in all.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
    /// Why it failed, waits or was undone; no secret.
    pub error: Option<String>,
    /// When it is tried again, if it waits.
    #[serde(with = "time::serde::rfc3339::option")]
    pub retry_at: Option<OffsetDateTime>,
    /// Who asked for it and why, if somebody said so.
    pub reason: Option<String>,
    /// The name that belongs to somebody else, if that is why it failed.
    #[serde(default)]
    pub taken: Option<NameConflict>,
}
impl OperationState {
    #[expect(clippy::too_many_arguments, reason = "one row, one call")]
    pub(crate) fn new(
        id: OperationId, kind: String, subject: Subject, status: OperationStatus, step: String, done: u32, total: u32,
        error: Option<String>, retry_at: Option<OffsetDateTime>, reason: Option<String>,
    ) -> Self {
        Self { id, kind, subject, status, step, done, total, error, retry_at, reason, taken: None }
    }
}

/// One row of an operation's history. No secret and no token stands in one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationEvent {
    /// Counts from 1 within the operation: where a stream resumes.
    pub seq: i64,
    /// Which operation.
    pub operation: OperationId,
    /// When, by the landlord's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The step.
    pub step: String,
    /// Where the operation stood after it.
    pub status: OperationStatus,
    /// Steps behind it.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
    /// What went wrong, if something did.
    pub error: Option<String>,
}
impl OperationEvent {
    #[expect(clippy::too_many_arguments, reason = "one row, one call")]
    pub(crate) fn new(
        seq: i64, operation: OperationId, at: OffsetDateTime, step: String, status: OperationStatus, done: u32,
        total: u32, error: Option<String>,
    ) -> Self {
        Self { seq, operation, at, step, status, done, total, error }
    }
}
impl fmt::Display for OperationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{}] {}", self.done, self.total, self.step)?;
        if self.status != OperationStatus::Running {
            write!(f, " ({})", self.status)?;
        }
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_words_read_back_as_themselves() {
        for status in OperationStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        for subject in [
            Subject::Tenant(TenantId::new()),
            Subject::Server("main".parse().unwrap()),
            Subject::Vault,
            Subject::Link(Uuid::now_v7()),
        ] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
    }
}
