//! The repairs that the doctor offers. A plan file and the journal store them, so their JSON never changes.
//!
//! A repair that an operation of its own can do begins that operation ([`Repair::is_delegated`]). All others are one
//! operation of the kind `repair`.
use crate::directory::{AppAccess, UserStatus};
use crate::names::RoleName;
use crate::operation::OperationId;
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;

/// What a repair does to the subject of its finding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Repair {
    /// Give the tenant a new login ([`Tenantry::rotate`](crate::Tenantry::rotate), without a grace period if the old one
    /// does not exist).
    Rotate,
    /// Run the pending migrations ([`Tenantry::migrate`](crate::Tenantry::migrate)).
    Migrate,
    /// Refuse the logins of a suspended or archived tenant again, and end their sessions.
    CloseAgain,
    /// Create a login in the tenant's database, probe it, and write the directory entry.
    RestoreEntry,
    /// Seal all secrets with the primary key ([`Tenantry::rekey`](crate::Tenantry::rekey)).
    Rekey,
    /// Set the server up again with the admin connection of this call.
    SetUpServer,
    /// Let a parked operation continue.
    ResumeOperation {
        /// The operation.
        operation: OperationId,
    },
    /// Let this process take over an operation whose worker has died.
    RecoverOperation {
        /// The operation.
        operation: OperationId,
    },
    /// Store the placement that the directory entry names.
    RestorePlacement,
    /// Grant and revoke the rights on the tenant's database as a provisioning does, and let it accept connections.
    RestoreAccess,
    /// Give the schema `public` to the tenant's owner role, and revoke the rights of PUBLIC and CREATE of the app role.
    RestoreSchema,
    /// Give a login LOGIN, no expiry, its group role and its role setting. Its password stays. Its other settings are
    /// reset only if the finding is about them.
    RestoreLogin {
        /// The login.
        login: RoleName,
        /// The group role as which it acts.
        acts_as: AppAccess,
    },
    /// Set the connection limit of a login.
    LimitLogin {
        /// The login.
        login: RoleName,
        /// The limit.
        limit: i32,
    },
    /// Revoke a membership.
    RevokeMembership {
        /// The member.
        member: String,
        /// The group.
        group: String,
    },
    /// Revoke what was granted to a login itself on the tenant's database, and on schemas, tables, sequences and functions
    /// in it that belong to the tenant's group roles.
    RevokeRights {
        /// The login.
        login: RoleName,
    },
    /// Take SUPERUSER-like attributes that the admin role may take: CREATEROLE and CREATEDB.
    RemovePrivileges {
        /// The role.
        role: RoleName,
    },
    /// Set the comment on a role to the installation's marker.
    RestoreComment {
        /// The role.
        role: RoleName,
    },
    /// Drop the migrator's login.
    DropMigrator,
    /// Record a login as retiring, refuse it and drop it. Sessions that it has may continue for 30 seconds and are then
    /// ended; those of a suspended or archived tenant are ended at once.
    RetireLogin {
        /// The login.
        login: RoleName,
        /// Its recorded status; `None` if it is not recorded.
        before: Option<UserStatus>,
    },
    /// Record a login as dropped, because it does not exist.
    ForgetLogin {
        /// The login.
        login: RoleName,
        /// Its recorded status.
        before: UserStatus,
    },
    /// Record the entry's login as the active one.
    SyncLogins,
    /// Give objects that a login of the tenant owns to its group role.
    ReassignObjects {
        /// The login.
        login: RoleName,
    },
    /// Close a database that a dead worker has left open.
    CloseLeftOpen,
    /// Revoke the rights of PUBLIC on the maintenance database.
    CloseMaintenance,
    /// Terminate one session, if it is still the same one and in the same transaction.
    EndSession {
        /// Its process id.
        pid: i32,
        /// Its begin, because process ids are used again.
        #[serde(with = "time::serde::rfc3339")]
        started_at: OffsetDateTime,
        /// Begin of the transaction that blocks others. A later transaction of the same session is not ended.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
        transaction_at: Option<OffsetDateTime>,
    },
}

impl Repair {
    /// Whether it changes rows of the landlord only, so that it needs no session on the tenant's server.
    pub(crate) fn is_landlord_only(&self) -> bool {
        matches!(self, Self::RestorePlacement | Self::SyncLogins)
    }
    /// Rank of the repair among those of one subject. An open operation keeps all others from beginning. Closing a
    /// tenant again cannot end while a role of it has more rights than it may have, or a further login exists. A rotation
    /// drops the old login, which fails while that login has more rights than it may have, and it makes a new generation, after
    /// which the other findings of the plan count as changed.
    pub(crate) fn order(&self) -> u8 {
        match self {
            Self::ResumeOperation { .. } | Self::RecoverOperation { .. } => 0,
            Self::CloseAgain => 2,
            Self::Rotate | Self::RestoreEntry | Self::Migrate | Self::Rekey | Self::SetUpServer => 3,
            _ => 1,
        }
    }
    /// Whether another operation than `repair` does it.
    pub(crate) fn is_delegated(&self) -> bool {
        matches!(
            self,
            Self::Rotate
                | Self::Migrate
                | Self::CloseAgain
                | Self::RestoreEntry
                | Self::Rekey
                | Self::SetUpServer
                | Self::ResumeOperation { .. }
                | Self::RecoverOperation { .. }
        )
    }
}

/// One line for a person who confirms it: what changes.
impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rotate => f.write_str("give the tenant a new login and drop the old one"),
            Self::Migrate => f.write_str("run the pending migrations"),
            Self::CloseAgain => f.write_str("refuse the tenant's logins and end its sessions"),
            Self::RestoreEntry => f.write_str("create a login and write the directory entry"),
            Self::Rekey => f.write_str("seal all secrets with the primary key"),
            Self::SetUpServer => f.write_str("set the server up again with the given admin connection"),
            Self::ResumeOperation { operation } => write!(f, "continue the parked operation {operation}"),
            Self::RecoverOperation { operation } => write!(f, "take over the operation {operation}"),
            Self::RestorePlacement => f.write_str("store the placement that the entry names"),
            Self::RestoreAccess => f.write_str("restore the rights on the database and open it"),
            Self::RestoreSchema => f.write_str("restore owner and rights of the schema public"),
            Self::RestoreLogin { login, .. } => {
                write!(f, "restore the rights of the login {login} and the settings that the finding names")
            }
            Self::LimitLogin { login, limit } => write!(f, "set the connection limit of {login} to {limit}"),
            Self::RevokeMembership { member, group } => write!(f, "revoke {group} from {member}"),
            Self::RevokeRights { login } => write!(f, "revoke what was granted to {login} itself"),
            Self::RemovePrivileges { role } => write!(f, "take CREATEROLE and CREATEDB from {role}"),
            Self::RestoreComment { role } => write!(f, "restore the comment on {role}"),
            Self::DropMigrator => f.write_str("drop the migrator's login"),
            Self::RetireLogin { login, .. } => {
                write!(f, "refuse and drop the login {login}; its sessions are ended if they have not ended after 30 s")
            }
            Self::ForgetLogin { login, .. } => write!(f, "record the login {login} as dropped"),
            Self::SyncLogins => f.write_str("record the entry's login as the active one"),
            Self::ReassignObjects { login } => write!(f, "give the objects of {login} to its group role"),
            Self::CloseLeftOpen => f.write_str("close the database again"),
            Self::CloseMaintenance => f.write_str("revoke the rights of PUBLIC on the maintenance database"),
            Self::EndSession { pid, .. } => write!(f, "terminate the session with process id {pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Plan files and the journal hold this JSON, so it must never change.
    #[test]
    fn json_of_each_repair_is_the_stored_form() {
        let login = || "t_1_v1".parse().unwrap();
        let operation = OperationId::from_uuid(uuid::Uuid::nil());
        let id = "00000000-0000-0000-0000-000000000000";
        let started_at = OffsetDateTime::UNIX_EPOCH;
        for (repair, stored) in [
            (Repair::Rotate, json!({ "action": "rotate" })),
            (Repair::Migrate, json!({ "action": "migrate" })),
            (Repair::CloseAgain, json!({ "action": "close_again" })),
            (Repair::RestoreEntry, json!({ "action": "restore_entry" })),
            (Repair::Rekey, json!({ "action": "rekey" })),
            (Repair::SetUpServer, json!({ "action": "set_up_server" })),
            (Repair::ResumeOperation { operation }, json!({ "action": "resume_operation", "operation": id })),
            (Repair::RecoverOperation { operation }, json!({ "action": "recover_operation", "operation": id })),
            (Repair::RestorePlacement, json!({ "action": "restore_placement" })),
            (Repair::RestoreAccess, json!({ "action": "restore_access" })),
            (Repair::RestoreSchema, json!({ "action": "restore_schema" })),
            (
                Repair::RestoreLogin { login: login(), acts_as: AppAccess::App },
                json!({ "action": "restore_login", "login": "t_1_v1", "acts_as": "app" }),
            ),
            (
                Repair::LimitLogin { login: login(), limit: 43 },
                json!({ "action": "limit_login", "login": "t_1_v1", "limit": 43 }),
            ),
            (
                Repair::RevokeMembership { member: "a".into(), group: "b".into() },
                json!({ "action": "revoke_membership", "member": "a", "group": "b" }),
            ),
            (Repair::RevokeRights { login: login() }, json!({ "action": "revoke_rights", "login": "t_1_v1" })),
            (Repair::RemovePrivileges { role: login() }, json!({ "action": "remove_privileges", "role": "t_1_v1" })),
            (Repair::RestoreComment { role: login() }, json!({ "action": "restore_comment", "role": "t_1_v1" })),
            (Repair::DropMigrator, json!({ "action": "drop_migrator" })),
            (
                Repair::RetireLogin { login: login(), before: Some(UserStatus::Dropped) },
                json!({ "action": "retire_login", "login": "t_1_v1", "before": "dropped" }),
            ),
            (
                Repair::RetireLogin { login: login(), before: None },
                json!({ "action": "retire_login", "login": "t_1_v1", "before": null }),
            ),
            (
                Repair::ForgetLogin { login: login(), before: UserStatus::Retiring },
                json!({ "action": "forget_login", "login": "t_1_v1", "before": "retiring" }),
            ),
            (Repair::SyncLogins, json!({ "action": "sync_logins" })),
            (Repair::ReassignObjects { login: login() }, json!({ "action": "reassign_objects", "login": "t_1_v1" })),
            (Repair::CloseLeftOpen, json!({ "action": "close_left_open" })),
            (Repair::CloseMaintenance, json!({ "action": "close_maintenance" })),
            (
                Repair::EndSession { pid: 17, started_at, transaction_at: None },
                json!({ "action": "end_session", "pid": 17, "started_at": "1970-01-01T00:00:00Z" }),
            ),
            (
                Repair::EndSession { pid: 17, started_at, transaction_at: Some(started_at) },
                json!({
                    "action": "end_session", "pid": 17, "started_at": "1970-01-01T00:00:00Z",
                    "transaction_at": "1970-01-01T00:00:00Z"
                }),
            ),
        ] {
            assert_eq!(serde_json::to_value(&repair).unwrap(), stored);
            assert_eq!(serde_json::from_value::<Repair>(stored).unwrap(), repair);
            assert!(!repair.to_string().is_empty());
        }
    }
}
