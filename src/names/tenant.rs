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
    /// Name of the temporary login of a person with this generation: never the name of an application's login.
    pub(crate) fn temporary_login(&self, generation: Generation) -> Result<RoleName, InvalidName> {
        format!("{}_t{generation}", self.database).parse()
    }
    /// The generation in a role's name, if [`login`](Self::login) or [`temporary_login`](Self::temporary_login) makes
    /// this name for it.
    pub(crate) fn generation_of(&self, role: &str) -> Option<Generation> {
        let end = role.strip_prefix(self.database.as_str())?;
        let digits = end.strip_prefix("_v").or_else(|| end.strip_prefix("_t"))?;
        let is_canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_canonical).map(Generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_is_read_only_from_a_name_that_login_makes() {
        let names = TenantNames::of(&"t_1".parse().unwrap()).unwrap();
        assert_eq!(names.generation_of(names.login(Generation(12)).unwrap().as_str()), Some(Generation(12)));
        assert_eq!(names.generation_of(names.temporary_login(Generation(12)).unwrap().as_str()), Some(Generation(12)));
        for other in ["t_1_v", "t_1_v01", "t_1_v-1", "t_1_v1x", "t_1_x_v1", "t_11_v1", "t_1_mig"] {
            assert_eq!(names.generation_of(other), None, "{other}");
        }
    }
}
