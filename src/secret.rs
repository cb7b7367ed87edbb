//! Under which id a secret is kept. No secret stands in this module.
use crate::error::UnknownValue;
use crate::names::{DatabaseName, RoleName, ServerName};
use crate::operation::OperationId;
use crate::tenant::TenantId;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Whose secret it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretOwner {
    /// A tenant's.
    Tenant(TenantId),
    /// A server's own: the provisioner's logins.
    Server(ServerName),
    /// The landlord's: the check record of a key.
    Landlord,
}

impl SecretOwner {
    /// The tenant, if it is one's.
    pub fn tenant(&self) -> Option<TenantId> {
        match self {
            Self::Tenant(id) => Some(*id),
            _ => None,
        }
    }
}
impl fmt::Display for SecretOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(id) => write!(f, "tenant:{id}"),
            Self::Server(name) => write!(f, "server:{name}"),
            Self::Landlord => f.write_str("landlord"),
        }
    }
}
impl FromStr for SecretOwner {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        let wrong = || UnknownValue::new("secret's owner", text);
        match text.split_once(':') {
            Some(("tenant", id)) => id.parse().map(Self::Tenant).map_err(|_| wrong()),
            Some(("server", name)) => name.parse().map(Self::Server).map_err(|_| wrong()),
            None if text == "landlord" => Ok(Self::Landlord),
            _ => Err(wrong()),
        }
    }
}

/// What a secret is for. The names are stored and bound into the seal: a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Purpose {
    /// The application's login to a tenant database.
    Login,
    /// One of the provisioner's two logins to a server.
    Provisioner,
    /// A setup link that nobody has confirmed yet.
    SetupLink,
    /// The check record of a key.
    KeyCheck,
    /// What a user has chosen by a setup link, until it is set.
    NewPassword,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Login, Self::Provisioner, Self::SetupLink, Self::KeyCheck, Self::NewPassword];
    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Provisioner => "provisioner",
            Self::SetupLink => "setup_link",
            Self::KeyCheck => "key_check",
            Self::NewPassword => "new_password",
        }
    }
}
impl FromStr for Purpose {
    type Err = UnknownValue;
    fn from_str(text: &str) -> Result<Self, UnknownValue> {
        Self::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| UnknownValue::new("purpose", text))
    }
}

/// The id of one version of one secret. All of it is associated data of the seal: a record that is moved to another
/// owner, database, role, purpose or version does not open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CredentialId {
    /// Whose.
    pub owner: SecretOwner,
    /// Which database it opens; empty if none.
    pub database: String,
    /// Which role it belongs to; for links and keys a name of their own.
    pub role: String,
    /// What for.
    pub purpose: Purpose,
    /// Counts up with each new secret of the same kind; starts at 1.
    pub version: i64,
}

impl CredentialId {
    /// The application's login of a tenant database.
    pub fn login(tenant: TenantId, database: &DatabaseName, role: &RoleName, version: i64) -> Self {
        Self {
            owner: SecretOwner::Tenant(tenant),
            database: database.as_str().into(),
            role: role.as_str().into(),
            purpose: Purpose::Login,
            version,
        }
    }
    /// A provisioner's login of a server.
    pub fn provisioner(server: &ServerName, role: &RoleName, version: i64) -> Self {
        Self {
            owner: SecretOwner::Server(server.clone()),
            database: String::new(),
            role: role.as_str().into(),
            purpose: Purpose::Provisioner,
            version,
        }
    }
    /// The setup link that an operation issues.
    pub fn setup_link(tenant: TenantId, operation: OperationId) -> Self {
        Self {
            owner: SecretOwner::Tenant(tenant),
            database: String::new(),
            role: operation.to_string(),
            purpose: Purpose::SetupLink,
            version: 1,
        }
    }
    /// What a user has chosen by a setup link; kept until the operation has set it.
    pub fn new_password(tenant: TenantId, operation: OperationId) -> Self {
        Self { purpose: Purpose::NewPassword, ..Self::setup_link(tenant, operation) }
    }
    /// The check record of a key.
    pub fn key_check(key: &KeyId) -> Self {
        Self {
            owner: SecretOwner::Landlord,
            database: String::new(),
            role: key.as_str().into(),
            purpose: Purpose::KeyCheck,
            version: 1,
        }
    }
}
impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:?}, version {})", self.purpose.as_str(), self.owner, self.role, self.version)
    }
}

/// The name of a wrapping key. Stored beside what it wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);
impl KeyId {
    /// Any text; a provider's own rules apply.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_words_read_back_as_themselves() {
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse(), Ok(purpose));
        }
        for owner in
            [SecretOwner::Tenant(TenantId::new()), SecretOwner::Server("main".parse().unwrap()), SecretOwner::Landlord]
        {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
    }
}
