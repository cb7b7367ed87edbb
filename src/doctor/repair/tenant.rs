//! The repairs of a tenant on its server. Those of its rows in the landlord are in `users`.
use super::answers::Applied;
use super::context::RepairContext;
use super::users;
use crate::directory::AppAccess;
use crate::doctor::action::Repair;
use crate::doctor::code::Code;
use crate::error::StepError;
use crate::names::{RoleName, TenantNames};
use crate::saga::Execution;

/// Acts, and returns what is left.
pub(super) async fn apply(run: &Execution, context: &mut RepairContext) -> Result<Applied, StepError> {
    match context.repair()? {
        Repair::RestorePlacement => users::restore_placement(run, context).await?,
        Repair::SyncLogins => users::sync_logins(run, context).await?,
        Repair::ForgetLogin { login, before } => users::forget_login(run, context, &login, before).await?,
        Repair::RetireLogin { login, before } => return users::retire_login(run, context, &login, before).await,
        Repair::RestoreAccess => restore_access(run, context).await?,
        Repair::RestoreLogin { login, acts_as } => restore_login(run, context, &login, acts_as).await?,
        Repair::LimitLogin { login, limit } => {
            context.locked_session(run).await?.limit_logins(&[login], limit).await?;
        }
        Repair::RevokeMembership { member, group } => revoke_membership(run, context, &member, &group).await?,
        Repair::RevokeRights { login } => {
            let names = context.location().await?.names;
            context.locked_session(run).await?.revoke_rights(&names, &login).await?;
        }
        Repair::RemovePrivileges { role } => context.locked_session(run).await?.remove_privileges(&role).await?,
        Repair::RestoreComment { role } => context.locked_session(run).await?.restore_comment(&role).await?,
        Repair::RestoreSchema => {
            let names = context.location().await?.names;
            context.locked_session(run).await?.restore_schema(&names).await?;
        }
        Repair::ReassignObjects { login } => {
            let names = context.location().await?.names;
            let group = context.group_role(&names);
            context.locked_session(run).await?.reassign_objects(&names, &login, &group).await?;
        }
        Repair::DropMigrator => {
            let names = context.location().await?.names;
            let (migrator, owner) = (&names.migrator, &names.roles.owner);
            context.locked_session(run).await?.remove_login(&names, migrator, owner).await?;
        }
        Repair::CloseLeftOpen => {
            let names = context.location().await?.names;
            context.locked_session(run).await?.close_left_open(&names).await?;
        }
        other => return Err(StepError::fail(format!("a tenant has no such repair: {other}"))),
    }
    Ok(Applied::default())
}

async fn restore_access(run: &Execution, context: &mut RepairContext) -> Result<(), StepError> {
    context.require_active(run).await?;
    let (names, temp_tables) = (context.location().await?.names, context.tools.expected.temp_tables == Some(true));
    context.locked_session(run).await?.restore_access(&names, temp_tables).await
}

async fn restore_login(
    run: &Execution, context: &mut RepairContext, login: &RoleName, acts_as: AppAccess,
) -> Result<(), StepError> {
    context.require_active(run).await?;
    // Only this finding shows the settings, so no other one resets them.
    let resets_settings = context.finding.code == Code::LoginSettings;
    let names = context.location().await?.names;
    context.locked_session(run).await?.restore_login(&names, login, acts_as, resets_settings).await
}

/// Only memberships in the tenant's group roles, and those of the tenant's own logins, are this installation's to revoke.
async fn revoke_membership(
    run: &Execution, context: &mut RepairContext, member: &str, group: &str,
) -> Result<(), StepError> {
    let TenantNames { roles, .. } = context.location().await?.names;
    let users = context.tools.stores.registry.users(context.tenant(run)?).await?;
    let is_own_group = [&roles.owner, &roles.app].iter().any(|role| role.as_str() == group);
    let is_own_login = users.iter().any(|user| user.role.as_str() == member);
    if !is_own_group && !is_own_login {
        return Err(StepError::fail(format!("neither {group} nor {member} is a role of the tenant")));
    }
    let (member, group) = (parse(member)?, parse(group)?);
    context.locked_session(run).await?.revoke_membership(&member, &group).await
}

fn parse(role: &str) -> Result<RoleName, StepError> {
    role.parse().map_err(StepError::fail)
}
