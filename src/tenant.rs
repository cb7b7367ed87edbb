//! The data types of a tenant: its identity, its status and the ways to refer to it.
//!
//! The registry stores tenants, the operations change their status, and every lookup accepts a [`TenantRef`].
//!
//! Invariant: a status changes only as [`TenantStatus::can_become`] allows.
use crate::names::{Domain, Slug};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};
use time::OffsetDateTime;
use uuid::Uuid;

/// The permanent id of a tenant: a UUID of version 7 (RFC 9562), so that ids sort by their time of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl TenantId {
    /// Creates a new id from the current time and random bits.
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
    /// Wraps an existing UUID of any version, for example from the application's tenant table.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}
impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl FromStr for TenantId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// The status of a tenant. Its text is stored and must never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TenantStatus {
    /// The tenant is being created. It has no directory entry yet.
    Provisioning,
    /// The tenant can be used.
    Active,
    /// The server refuses the tenant's logins until it is activated again. All data is retained.
    Suspended,
    /// The server refuses the tenant's logins. The data is retained, until a deadline if one was set.
    Archived,
    /// The tenant's data is being destroyed. This cannot be undone.
    Purging,
    /// The tenant's data is destroyed. Only its row in the registry remains.
    Deleted,
}

impl TenantStatus {
    /// All statuses, in the order of a tenant's life cycle.
    pub const ALL: [Self; 6] =
        [Self::Provisioning, Self::Active, Self::Suspended, Self::Archived, Self::Purging, Self::Deleted];

    /// Whether a tenant in this status may change to `next`.
    pub fn can_become(self, next: Self) -> bool {
        use TenantStatus::*;
        matches!(
            (self, next),
            (Provisioning, Active | Purging)
                | (Active, Suspended | Archived | Purging)
                | (Suspended, Active | Archived | Purging)
                | (Archived, Active | Suspended | Purging)
                | (Purging, Deleted)
        )
    }
    /// The text that the registry stores for this status. It must never change.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Archived => "archived",
            Self::Purging => "purging",
            Self::Deleted => "deleted",
        }
    }
}
impl fmt::Display for TenantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for TenantStatus {
    type Err = crate::error::UnknownValue;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| crate::error::UnknownValue::new("tenant status", text))
    }
}

/// A tenant as the registry stores it. A clone shares the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Record", into = "Record")]
pub struct Tenant(Arc<Record>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    id: TenantId,
    slug: Slug,
    name: String,
    status: TenantStatus,
    #[serde(default)]
    metadata: serde_json::Value,
    #[serde(default, with = "time::serde::rfc3339::option")]
    kept_until: Option<OffsetDateTime>,
}
impl From<Record> for Tenant {
    fn from(record: Record) -> Self {
        Self(Arc::new(record))
    }
}
impl From<Tenant> for Record {
    fn from(tenant: Tenant) -> Self {
        Arc::unwrap_or_clone(tenant.0)
    }
}

impl Tenant {
    /// A tenant without metadata and without a retention deadline. Its display name is its slug.
    pub fn new(id: TenantId, slug: Slug, status: TenantStatus) -> Self {
        let name = slug.as_str().into();
        Record { id, name, slug, status, metadata: serde_json::Value::Null, kept_until: None }.into()
    }
    /// Replaces the display name.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Record { name: name.into(), ..self.into() }.into()
    }
    /// Replaces the metadata. It must not contain a secret.
    pub fn with_metadata(self, metadata: serde_json::Value) -> Self {
        Record { metadata, ..self.into() }.into()
    }
    /// Replaces the status.
    pub fn with_status(self, status: TenantStatus) -> Self {
        Record { status, ..self.into() }.into()
    }
    /// Replaces the retention deadline. PostgreSQL stores microseconds, so a more precise time would differ after a
    /// read.
    pub fn with_kept_until(self, kept_until: Option<OffsetDateTime>) -> Self {
        Record { kept_until, ..self.into() }.into()
    }
    /// Replaces the slug.
    pub fn with_slug(self, slug: Slug) -> Self {
        Record { slug, ..self.into() }.into()
    }
    /// The permanent id.
    pub fn id(&self) -> TenantId {
        self.0.id
    }
    /// The short name, which also serves as a subdomain.
    pub fn slug(&self) -> &Slug {
        &self.0.slug
    }
    /// The display name.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// The status at the time when the registry was read.
    pub fn status(&self) -> TenantStatus {
        self.0.status
    }
    /// The retention deadline of an archived tenant, by the landlord's clock. `None` if it has none.
    pub fn kept_until(&self) -> Option<OffsetDateTime> {
        self.0.kept_until
    }
    /// Free-form JSON of the application. It contains no secret.
    pub fn metadata(&self) -> &serde_json::Value {
        &self.0.metadata
    }
}

/// A reference to a tenant, by id, slug or domain. It borrows its text, so that resolving a cached tenant neither
/// allocates nor parses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TenantRef<'a> {
    /// The tenant with this id.
    Id(TenantId),
    /// The tenant with this slug. The text is not parsed yet and may be invalid.
    Slug(Cow<'a, str>),
    /// The tenant with this custom domain. The text is not parsed yet and may be invalid.
    Domain(Cow<'a, str>),
}
impl TenantRef<'_> {
    /// Copies a borrowed text, so that the reference has no lifetime.
    pub fn into_owned(self) -> TenantRef<'static> {
        match self {
            Self::Id(id) => TenantRef::Id(id),
            Self::Slug(text) => TenantRef::Slug(text.into_owned().into()),
            Self::Domain(text) => TenantRef::Domain(text.into_owned().into()),
        }
    }
}
impl fmt::Display for TenantRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Slug(text) | Self::Domain(text) => fmt::Debug::fmt(text, f),
        }
    }
}
impl From<TenantId> for TenantRef<'_> {
    fn from(id: TenantId) -> Self {
        Self::Id(id)
    }
}
impl From<&Tenant> for TenantRef<'_> {
    fn from(tenant: &Tenant) -> Self {
        Self::Id(tenant.id())
    }
}
impl<'a> From<&'a str> for TenantRef<'a> {
    fn from(slug: &'a str) -> Self {
        Self::Slug(slug.into())
    }
}
impl<'a> From<&'a String> for TenantRef<'a> {
    fn from(slug: &'a String) -> Self {
        Self::Slug(slug.into())
    }
}
impl From<String> for TenantRef<'_> {
    fn from(slug: String) -> Self {
        Self::Slug(slug.into())
    }
}
impl<'a> From<&'a Slug> for TenantRef<'a> {
    fn from(slug: &'a Slug) -> Self {
        Self::Slug(slug.as_str().into())
    }
}
impl<'a> From<&'a Domain> for TenantRef<'a> {
    fn from(domain: &'a Domain) -> Self {
        Self::Domain(domain.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_serde_use_the_same_text_for_every_status() {
        for status in TenantStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn purging_becomes_only_deleted_and_deleted_is_final() {
        for next in TenantStatus::ALL {
            assert!(!TenantStatus::Deleted.can_become(next));
            assert_eq!(TenantStatus::Purging.can_become(next), next == TenantStatus::Deleted);
        }
    }
}
