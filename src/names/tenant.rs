//! The names of a tenant's database and roles on its server.
//!
//! Provisioning and all later operations derive them from the name of the database.
//!
//! Invariant: all role names are a function of the database's name and, for a login, of its generation. A database name
//! is unique on its server, so two tenants never share a role.
use super::{DatabaseName, InvalidName, RoleName};
use crate::directory::Generation;
use serde::{Deserialize, Serialize};

/// The two NOLOGIN roles of a tenant database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRoles {
    /// The role that owns the schema and the objects in it.
    pub owner: RoleName,
    /// The role that may read and write rows. By default the application's login acts as it
    /// ([`AppAccess::App`](crate::directory::AppAccess::App)).
    pub app: RoleName,
}
/// The names of a tenant's database and roles. All are derived from the name of the database. The tenant's
/// [`Placement`](crate::store::registry::Placement) ensures that this name is unique on its server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct TenantNames {
    /// The tenant's database.
    pub(crate) database: DatabaseName,
    /// The two NOLOGIN roles.
    pub(crate) roles: GroupRoles,
    /// The login that runs migrations. It exists only during one operation.
    pub(crate) migrator: RoleName,
}
impl TenantNames {
    /// Maximum length of a tenant's database name in bytes. With the longest suffix, a role name then has at most 63
    /// bytes.
    pub(crate) const MAX_DATABASE: usize = 50;

    /// Derives the names `<database>_owner`, `<database>_app` and `<database>_mig`. Fails if the database's name is
    /// longer than [`MAX_DATABASE`](Self::MAX_DATABASE) or a derived name is not a valid role name.
    pub(crate) fn of(database: &DatabaseName) -> Result<Self, InvalidName> {
        let length = database.as_str().len();
        if length > Self::MAX_DATABASE {
            return Err(InvalidName::Length { length, min: 1, max: Self::MAX_DATABASE });
        }
        Ok(Self {
            roles: GroupRoles { owner: format!("{database}_owner").parse()?, app: format!("{database}_app").parse()? },
            migrator: format!("{database}_mig").parse()?,
            database: database.clone(),
        })
    }
    /// The name of the tenant's login of this generation: `<database>_v<generation>`.
    pub(crate) fn login(&self, generation: Generation) -> Result<RoleName, InvalidName> {
        format!("{}_v{generation}", self.database).parse()
    }
}
