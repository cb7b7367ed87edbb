//! The ids under which the vault stores secrets. This module contains no secret itself.
//!
//! Operations create a [`CredentialId`] for each password or link. The vault includes it in the authenticated data of
//! the encryption.
//!
//! Invariant: the texts of [`SecretOwner`] and [`Purpose`] are stored and must never change, because stored secrets
//! could then no longer be decrypted.
use crate::error::UnknownValue;
use crate::names::{DatabaseName, RoleName, ServerName};
use crate::operation::OperationId;
use crate::tenant::TenantId;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The owner of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretOwner {
    /// A tenant. Its secrets are the passwords of its logins and its setup links.
    Tenant(TenantId),
    /// A server. Its secrets are the passwords of the provisioner's logins.
    Server(ServerName),
    /// The landlord. Its secrets are the check records of the keys.
    Landlord,
}

impl SecretOwner {
    /// The tenant's id; `None` if the owner is not a tenant.
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
        let unknown = || UnknownValue::new("owner of a secret", text);
        match text.split_once(':') {
            Some(("tenant", id)) => id.parse().map(Self::Tenant).map_err(|_| unknown()),
            Some(("server", name)) => name.parse().map(Self::Server).map_err(|_| unknown()),
            None if text == "landlord" => Ok(Self::Landlord),
            _ => Err(unknown()),
        }
    }
}

/// The purpose of a secret. Its text is stored and is part of the authenticated data, so it must never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Purpose {
    /// Password of the application's login to a tenant database.
    Login,
    /// Password of one of the provisioner's two logins to a server.
    Provisioner,
    /// A setup link whose delivery is not confirmed yet.
    SetupLink,
    /// Check record of a key: a known value that proves that the provider has the right key.
    KeyCheck,
    /// A password that a user has chosen through a setup link and that the operation has not set yet.
    NewPassword,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Login, Self::Provisioner, Self::SetupLink, Self::KeyCheck, Self::NewPassword];
    /// The text that the vault stores for this purpose. It must never change.
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

/// The id of one version of a secret. All fields are part of the authenticated data of the encryption, so a stored
/// record cannot be decrypted under any other id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CredentialId {
    /// Owner of the secret.
    pub owner: SecretOwner,
    /// Database for which the secret is a password; empty if it is not for a database.
    pub database: String,
    /// Role whose password it is. For a link the id of its operation, for a key check the id of the key.
    pub role: String,
    /// Purpose of the secret.
    pub purpose: Purpose,
    /// Version of the secret. It starts at 1 and rises with each replacement.
    pub version: i64,
}

impl CredentialId {
    /// The password of the application's login to a tenant database.
    pub fn login(tenant: TenantId, database: &DatabaseName, role: &RoleName, version: i64) -> Self {
        Self {
            owner: SecretOwner::Tenant(tenant),
            database: database.as_str().into(),
            role: role.as_str().into(),
            purpose: Purpose::Login,
            version,
        }
    }
    /// The password of one of the provisioner's logins to a server.
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
    /// The password that a user has chosen through a setup link. The vault keeps it until the operation has set it.
    pub fn new_password(tenant: TenantId, operation: OperationId) -> Self {
        Self { purpose: Purpose::NewPassword, ..Self::setup_link(tenant, operation) }
    }
    /// The key that authenticates the addresses of servers. Copy 1 is the key, and copy 2, of the same key, is stored
    /// when every server's row has a code. The purpose is one that versions without codes can parse, since they read all
    /// records in a rekey.
    pub(crate) fn address_key(copy: i64) -> Self {
        Self {
            owner: SecretOwner::Landlord,
            database: String::new(),
            role: String::from("server addresses"),
            purpose: Purpose::Provisioner,
            version: copy,
        }
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

/// The name of a wrapping key. The vault stores it with every data key that it wrapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);
impl KeyId {
    /// Creates an id from any text. It is not checked here; the key provider may restrict it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }
    /// The id as text.
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
    fn parse_reads_back_the_text_of_every_purpose_and_owner() {
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
