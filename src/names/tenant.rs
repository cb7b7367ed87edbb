//! The names of everything that a tenant has on its server.
use super::{DatabaseName, InvalidName, RoleName};
use crate::directory::Generation;
use serde::{Deserialize, Serialize};

/// The two NOLOGIN roles of a tenant database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRoles {
    /// Owns schema and objects.
    pub owner: RoleName,
    /// Holds the application's grants.
    pub app: RoleName,
}
/// The names of everything that a tenant has on a server. All follow from the database's name, which is unique on its
/// server by the tenant's [place](crate::store::registry::Placement); so whoever has the one name has them all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantNames {
    /// The database.
    pub database: DatabaseName,
    /// The two NOLOGIN roles.
    pub roles: GroupRoles,
    /// The login that runs migrations, for one operation.
    pub migrator: RoleName,
}
impl TenantNames {
    /// Longest database name in bytes, so that every role's name fits into 63.
    pub const MAX_DATABASE: usize = 50;

    /// `<database>_owner`, `<database>_app`, `<database>_mig`.
    pub fn of(database: &DatabaseName) -> Result<Self, InvalidName> {
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
    /// `<database>_v<generation>`.
    pub fn login(&self, generation: Generation) -> Result<RoleName, InvalidName> {
        format!("{}_v{generation}", self.database).parse()
    }
}
