//! A tenant: who it is and in which state.
use crate::names::{Domain, Slug};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};
use time::OffsetDateTime;
use uuid::Uuid;

/// A tenant's identity for ever: a UUID of version 7 (RFC 9562), so that ids sort by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl TenantId {
    /// A new id.
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
    /// For adapters over a host's own tables; any version is taken.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
    /// The UUID.
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

/// Where a tenant stands. The names are stored: a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TenantStatus {
    /// Being set up; it has no directory entry yet.
    Provisioning,
    /// In use.
    Active,
    /// Refused on the server until it is activated again; all data is kept.
    Suspended,
    /// Refused on the server, kept until a deadline.
    Archived,
    /// Being destroyed; there is no way back.
    Purging,
    /// Gone; the row is history.
    Deleted,
}

impl TenantStatus {
    /// Every status, in the order of a life.
    pub const ALL: [Self; 6] =
        [Self::Provisioning, Self::Active, Self::Suspended, Self::Archived, Self::Purging, Self::Deleted];

    /// The one transition table.
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
    /// The stored name.
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

/// A tenant as the registry knows it. A handle: cloning it is one `Arc`.
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
    /// A tenant named after its slug, without metadata.
    pub fn new(id: TenantId, slug: Slug, status: TenantStatus) -> Self {
        let name = slug.as_str().into();
        Record { id, name, slug, status, metadata: serde_json::Value::Null, kept_until: None }.into()
    }
    /// The same with another display name.
    pub fn with_name(self, name: impl Into<String>) -> Self {
        Record { name: name.into(), ..self.into() }.into()
    }
    /// The same with other metadata.
    pub fn with_metadata(self, metadata: serde_json::Value) -> Self {
        Record { metadata, ..self.into() }.into()
    }
    /// The same in another status.
    pub fn with_status(self, status: TenantStatus) -> Self {
        Record { status, ..self.into() }.into()
    }
    /// The same, kept until another time. Stores keep microseconds: give no more than that.
    pub fn with_kept_until(self, kept_until: Option<OffsetDateTime>) -> Self {
        Record { kept_until, ..self.into() }.into()
    }
    /// The same under another slug.
    pub fn with_slug(self, slug: Slug) -> Self {
        Record { slug, ..self.into() }.into()
    }
    /// Its identity.
    pub fn id(&self) -> TenantId {
        self.0.id
    }
    /// Its short name.
    pub fn slug(&self) -> &Slug {
        &self.0.slug
    }
    /// Its display name.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// Its state.
    pub fn status(&self) -> TenantStatus {
        self.0.status
    }
    /// Until when the data of an archived tenant is kept, by the landlord's clock.
    pub fn kept_until(&self) -> Option<OffsetDateTime> {
        self.0.kept_until
    }
    /// What the host keeps with it; no secret.
    pub fn metadata(&self) -> &serde_json::Value {
        &self.0.metadata
    }
}

/// How a caller names a tenant. Borrowed where it can be: a hot resolve allocates nothing and parses nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TenantRef<'a> {
    /// By identity.
    Id(TenantId),
    /// By slug, not parsed yet.
    Slug(Cow<'a, str>),
    /// By custom domain, not parsed yet.
    Domain(Cow<'a, str>),
}
impl TenantRef<'_> {
    /// The same, owning its text.
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
    fn a_stored_status_reads_back_as_itself() {
        for status in TenantStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn nothing_leads_back_from_destruction() {
        for next in TenantStatus::ALL {
            assert!(!TenantStatus::Deleted.can_become(next));
            assert_eq!(TenantStatus::Purging.can_become(next), next == TenantStatus::Deleted);
        }
    }
}
