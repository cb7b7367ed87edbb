//! The data types of operations: id, fencing token, status, lane, subject, public state and history event.
//!
//! The journal stores them, the saga engine changes them, and the facade shows them to the application.
//!
//! Invariant: the texts of the enums and of [`Subject`] are stored and must never change.
use crate::error::{NameConflict, UnknownValue};
use crate::names::ServerName;
use crate::tenant::TenantId;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use time::OffsetDateTime;
use uuid::Uuid;

/// Id of an operation, that is, of one execution of a saga. A UUID of version 7. Every error and log line of the
/// operation contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(Uuid);
impl OperationId {
    /// Creates a new id from the current time and random bits.
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
    /// Wraps the UUID of an existing operation, for example from a stored row.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
    /// The id of this operation's follow-up work. It is a function of this id, so a step that begins the follow-up work
    /// twice begins one operation. The time in it is the same, so a list by id shows both next to each other.
    pub(crate) fn follow_up(self) -> Self {
        // The low 62 bits of a UUID of version 7 are random.
        Self(Uuid::from_u128(self.0.as_u128() ^ 0x0f0f_0f0f_0f0f_0f0f))
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

/// Identifies the worker that writes for an operation. A store rejects a write if a worker with a higher epoch has
/// taken over the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencingToken {
    /// Id of the operation.
    pub operation: OperationId,
    /// The epoch of the worker. It starts at 1, and each claim of the operation raises it.
    pub epoch: i64,
}

macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)* }
        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// The text that the stores use for this value. It must never change.
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
    /// The status of an operation.
    OperationStatus, "operation status" {
        /// A worker runs its steps, or it waits until a worker claims it.
        Running = "running",
        /// A worker undoes its steps, or it waits until a worker claims it for that.
        Undoing = "undoing",
        /// No worker may claim it until a preempting operation or an administrator continues or ends it.
        Parked = "parked",
        /// It has ended successfully.
        Done = "done",
        /// It has ended without success, and all its steps are undone.
        Undone = "undone",
        /// An administrator, or a purge, has ended it without undoing its steps. Parts of what it has made may remain.
        /// The landlord stores it as `undone` with a mark, because earlier versions fail on a status that they do not
        /// know.
        Abandoned = "abandoned",
    }
}
impl OperationStatus {
    /// Whether the operation has ended, so that its status never changes again.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Undone | Self::Abandoned)
    }
}

stored_enum! {
    /// The lane of an operation. A subject has at most one open operation in each of the lanes `Change` and `Preempt`.
    Lane, "lane" {
        /// The lane of operations such as provision, rotate and migrate.
        Change = "change",
        /// The lane of suspend, activate, archive, restore and purge of a tenant, and of relocate of a server. An
        /// operation in this lane does not wait for the subject's open operation in the lane `Change`. Suspend,
        /// archive, purge and relocate park that operation; activate, restore and relocate resume it; purge ends it.
        Preempt = "fence",
        /// The lane of work that follows a completed operation, such as the delivery of a setup link. It has room for
        /// any number of operations. They block no other operation, and none blocks them. The landlord stores it as
        /// `change` with a mark, because earlier versions fail on a lane that they do not know.
        FollowUp = "follow_up",
    }
}

/// The object that an operation changes. The lanes of different subjects are independent of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A tenant.
    Tenant(TenantId),
    /// A PostgreSQL server.
    Server(ServerName),
    /// The vault with all its secrets.
    Vault,
    /// A setup link that a user has opened. It is a subject separate from the tenant, so that a user's action and a
    /// change of the tenant do not block each other.
    Link(Uuid),
    /// The landlord database itself, for example a session in it that blocks others.
    Landlord,
}
impl Subject {
    /// The tenant's id; `None` if the subject is not a tenant.
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
            Self::Landlord => f.write_str("landlord"),
        }
    }
}
impl FromStr for Subject {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        let unknown = || UnknownValue::new("subject", text);
        match text.split_once(':') {
            Some(("tenant", id)) => id.parse().map(Self::Tenant).map_err(|_| unknown()),
            Some(("server", name)) => name.parse().map(Self::Server).map_err(|_| unknown()),
            Some(("link", id)) => id.parse().map(Self::Link).map_err(|_| unknown()),
            None if text == "vault" => Ok(Self::Vault),
            None if text == "landlord" => Ok(Self::Landlord),
            _ => Err(unknown()),
        }
    }
}

/// The state of an operation, as an application may show it to its users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationState {
    /// Id of the operation.
    pub id: OperationId,
    /// Kind of the operation, for example `provision` or `suspend`.
    pub kind: String,
    /// The tenant, server or other object that the operation changes.
    pub subject: Subject,
    /// Current status.
    pub status: OperationStatus,
    /// Name of the step that ran last; empty before the first one.
    pub step: String,
    /// Number of completed steps.
    pub done: u32,
    /// Number of steps of the operation.
    pub total: u32,
    /// Text of the error because of which it failed, waits or was undone. It contains no secret.
    pub error: Option<String>,
    /// When recovery may continue it, by the landlord's clock; `None` if it does not wait for a retry.
    #[serde(with = "time::serde::rfc3339::option")]
    pub retry_at: Option<OffsetDateTime>,
    /// The reason that the caller gave, for example the requesting user and the cause.
    pub reason: Option<String>,
    /// The name or server that was not available, if the operation failed because of that.
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

/// One event in the history of an operation. It contains no secret and no setup link token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationEvent {
    /// Number of the event within the operation, starting at 1. A stream of events can resume after it.
    pub seq: i64,
    /// Id of the operation.
    pub operation: OperationId,
    /// Time of the event, by the landlord's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Name of the step that the event is about.
    pub step: String,
    /// Status of the operation after the event.
    pub status: OperationStatus,
    /// Number of completed steps after the event.
    pub done: u32,
    /// Number of steps of the operation.
    pub total: u32,
    /// Text of the error, if the step failed.
    pub error: Option<String>,
    /// Set in an event that only tells a caller why it waits: another worker has the operation. The journal does not
    /// store such an event. Its `seq` is that of the last stored event that the caller has received, and its `step` is
    /// [`WAITING`](Self::WAITING).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<LeaseHolder>,
    /// The reason that a caller gave for [`skip_step`](crate::calls::Operations::skip_step) or
    /// [`abandon`](crate::calls::Operations::abandon); `None` for an event of a worker.
    #[serde(default)]
    pub reason: Option<String>,
}
impl OperationEvent {
    /// The `step` of an event that has `waits_for`. No step of an operation has this name.
    pub const WAITING: &str = "wait";

    #[expect(clippy::too_many_arguments, reason = "one row, one call")]
    pub(crate) fn new(
        seq: i64, operation: OperationId, at: OffsetDateTime, step: String, status: OperationStatus, done: u32,
        total: u32, error: Option<String>,
    ) -> Self {
        Self { seq, operation, at, step, status, done, total, error, waits_for: None, reason: None }
    }
}
impl fmt::Display for OperationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{}] {}", self.done, self.total, self.step)?;
        if self.status != OperationStatus::Running {
            write!(f, " ({})", self.status)?;
        }
        match (&self.reason, &self.error, &self.waits_for) {
            (Some(reason), ..) => write!(f, ": {reason}"),
            (None, Some(error), _) => write!(f, ": {error}"),
            (None, None, Some(holder)) => write!(f, ": waiting for {holder}"),
            (None, None, None) => Ok(()),
        }
    }
}

/// The worker that has an operation: its node and its lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeaseHolder {
    /// Name of the worker's node: host name and process id.
    pub node: String,
    /// When the lease expires unless the worker renews it, by the landlord's clock. Another worker may take the
    /// operation over earlier if the process of this one dies.
    #[serde(with = "time::serde::rfc3339")]
    pub leased_until: OffsetDateTime,
}
impl LeaseHolder {
    /// The holder with this worker id. The id is the node's name, a slash and the worker's own part; an id without a
    /// slash is from an earlier version of this crate.
    pub fn new(worker: &str, leased_until: OffsetDateTime) -> Self {
        let node = worker.rsplit_once('/').map_or(worker, |(node, _)| node);
        Self { node: node.to_owned(), leased_until }
    }
}
impl fmt::Display for LeaseHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lease of node {} until {}", self.node, self.leased_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follow_up_id_is_fixed_valid_and_sorts_next_to_its_operation() {
        let (first, second) = (OperationId::new(), OperationId::new());
        assert_eq!(first.follow_up(), first.follow_up());
        assert_ne!(first.follow_up(), first);
        assert_ne!(first.follow_up(), second.follow_up());
        assert_eq!(first.follow_up().as_uuid().get_version_num(), 7);
        assert_eq!(first.follow_up().as_uuid().get_timestamp(), first.as_uuid().get_timestamp());
    }

    #[test]
    fn parse_reads_back_the_text_of_every_status_and_subject() {
        for status in OperationStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(*status));
        }
        for subject in [
            Subject::Tenant(TenantId::new()),
            Subject::Server("main".parse().unwrap()),
            Subject::Vault,
            Subject::Link(Uuid::now_v7()),
            Subject::Landlord,
        ] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
    }
}
