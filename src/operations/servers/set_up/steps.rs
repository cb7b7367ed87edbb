//! The steps of a server's set-up.
//!
//! The saga runs one of three lists: the whole set-up, or the parts before and after a script that a DBA runs. Each
//! step looks for what exists and creates what is missing, so it can be repeated. Undo acts on the landlord only.
use super::context::{ServerSetupContext, marker};
use crate::cluster::pg::blockers::AdminTask;
use crate::cluster::pg::{bootstrap, catalog, mark, scram};
use crate::error::{ClusterError, ServerSetupError, StepError, StoreError};
use crate::names::RoleName;
use crate::operations::servers::address::check_address;
use crate::saga::{Execution, SagaStep};
use crate::server::{DatabaseServer, ServerStatus};
use async_trait::async_trait;
use serde_json::Value;
use sqlx::PgConnection;

/// The stored name of the step whose output is the system identifier.
const PROBE: &str = "logins.probe";
/// The stored names of the steps whose output goes into the report.
pub(super) const REPORTED: [&str; 2] = ["rights.grant", "public.close"];

/// The steps of a set-up, in the order in which they run.
#[derive(Clone, Copy)]
pub(super) enum ServerSetupStep {
    /// Stores the server's row, to which its secrets belong. The server gets tenants only when it is ready.
    Register,
    /// Stores the passwords of both logins, before a role has them. A repetition keeps the stored ones.
    Seal,
    /// Creates the admin role and the provisioner's two logins.
    Roles,
    /// Creates the maintenance database, in which the provisioner runs its cluster statements and takes its locks.
    Maintenance,
    /// Grants predefined roles that let the provisioner see and do more. A managed service may refuse them.
    Rights,
    /// Closes the maintenance database to every role except the provisioner's, and marks it with the installation's id.
    CloseMaintenance,
    /// Checks that both logins can connect and act as the admin role.
    Probe,
    /// Revokes CONNECT from PUBLIC: on the landlord's database if it is on this server, and on the shared databases if
    /// the caller asked for it.
    Close,
    /// Marks the server as ready, so that it gets tenants.
    Ready,
}

impl ServerSetupStep {
    /// The whole set-up, with the server admin's session.
    pub(super) const WHOLE: &[Self] = &[
        Self::Register,
        Self::Seal,
        Self::Roles,
        Self::Maintenance,
        Self::Rights,
        Self::CloseMaintenance,
        Self::Probe,
        Self::Close,
        Self::Ready,
    ];
    /// The steps before a DBA runs the script.
    pub(super) const BEFORE_SCRIPT: &[Self] = &[Self::Register, Self::Seal];
    /// The steps after a DBA has run the script.
    pub(super) const AFTER_SCRIPT: &[Self] = &[Self::CloseMaintenance, Self::Probe, Self::Ready];
}

#[async_trait]
impl SagaStep<ServerSetupContext> for ServerSetupStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Register => "server.register",
            Self::Seal => "secrets.seal",
            Self::Roles => "roles.create",
            Self::Maintenance => "maintenance.create",
            Self::Rights => REPORTED[0],
            Self::CloseMaintenance => "maintenance.close",
            Self::Probe => PROBE,
            Self::Close => REPORTED[1],
            Self::Ready => "server.ready",
        }
    }

    fn shares_intent_with_previous(&self) -> bool {
        true
    }

    async fn run(&self, run: &Execution, context: &mut ServerSetupContext) -> Result<Value, StepError> {
        match self {
            Self::Register => store_server(run, context, None).await?,
            Self::Seal => seal_passwords(run, context).await?,
            Self::Roles => create_roles(run, context).await?,
            Self::Maintenance => {
                let names = context.work.server.names.clone();
                context.run_as_admin(run, AdminTask::Maintenance(&names)).await?;
            }
            Self::Rights => {
                let admin = context.work.server.names.admin.clone();
                let mut refused = context.run_as_admin(run, AdminTask::Rights(&admin)).await?;
                refused.extend(bootstrap::describe_unfit_locale(context.admin_session(run).await?).await?);
                return serde_json::to_value(refused).map_err(StepError::fail);
            }
            Self::CloseMaintenance => {
                let server = &context.work.server;
                let mut session = context.work.open_provisioner(run, &server.names.blue).await?;
                bootstrap::close_maintenance(&mut session, &server.names.maintenance).await?;
                let installation = context.work.stores.servers.installation().await?;
                mark::ensure_marked(&mut session, installation, &server.name).await?;
            }
            Self::Probe => return Ok(probe_logins(run, context).await?.into()),
            Self::Close => return serde_json::to_value(close_databases(run, context).await?).map_err(StepError::fail),
            Self::Ready => store_server(run, context, Some(ServerStatus::Ready)).await?,
        }
        Ok(Value::Null)
    }

    /// Removes the row and the secrets of a server that was never ready, since no tenant can be on it. What was created
    /// on the server stays for the next set-up.
    async fn undo(&self, run: &Execution, context: &mut ServerSetupContext) -> Result<(), StepError> {
        let work = &context.work;
        let stored = work.stores.verified.read_unchecked(&work.server.name).await?;
        if stored.is_some_and(|(server, _)| server.status == ServerStatus::Ready) {
            return Ok(());
        }
        match self {
            Self::Register => work.stores.servers.remove_server(&work.server.name, Some(run.fencing_token())).await?,
            Self::Seal => {
                for role in logins(context) {
                    work.stores.vault.forget(&work.credential(role), run.fencing_token()).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The provisioner's two logins.
fn logins(context: &ServerSetupContext) -> [&RoleName; 2] {
    [&context.work.server.names.blue, &context.work.server.names.green]
}

/// Stores the row as this call describes the server. `drain` and `allow_role` need no lane, so what they have stored in
/// the meantime is kept. After a conflict it reads the row again; it fails after five conflicts.
async fn store_server(
    run: &Execution, context: &ServerSetupContext, status: Option<ServerStatus>,
) -> Result<(), StepError> {
    let (stores, mut server) = (&context.work.stores, context.work.server.clone());
    server.status = status.unwrap_or(server.status);
    server.system_identifier = run.output::<Option<i64>>(PROBE)?.flatten().or(server.system_identifier);
    for _ in 0..5 {
        let (stored, is_trusted) = stores.verified.read_unchecked(&server.name).await?.unzip();
        if let (Some(stored), Some(true)) = (stored.as_ref(), is_trusted) {
            // The call checked the address before the operation had its lane. A relocation may have changed it since.
            check_address(stored, &server.host, server.port).map_err(StepError::fail)?;
        }
        if let Some(stored) = &stored {
            check_secrets(stored, &server)?;
            server.draining = stored.draining;
            server.allowed_roles = stored.allowed_roles.clone();
        }
        match stores.servers.put_server(stored.as_ref(), &server, Some(run.fencing_token())).await {
            Err(StoreError::Conflict(_)) => {}
            stored => return Ok(stored?),
        }
    }
    Err(StoreError::contended("the server's row was changed concurrently five times").into())
}

/// Fails if a rotation of the provisioner's passwords has ended after this call read the row. The vault does not have
/// the passwords of the earlier version any more.
fn check_secrets(stored: &DatabaseServer, server: &DatabaseServer) -> Result<(), StepError> {
    let is_same = (&stored.login, stored.secret_version) == (&server.login, server.secret_version);
    if is_same || stored.names != server.names {
        return Ok(());
    }
    let changed = "the passwords of the server's logins were rotated while the set-up began";
    Err(StepError::fail(ServerSetupError::Landlord(StoreError::contended(changed))))
}

async fn seal_passwords(run: &Execution, context: &ServerSetupContext) -> Result<(), StepError> {
    for role in logins(context) {
        context
            .work
            .stores
            .vault
            .put(&context.work.credential(role), &scram::generate_password(), run.fencing_token())
            .await?;
    }
    Ok(())
}

async fn create_roles(run: &Execution, context: &mut ServerSetupContext) -> Result<(), StepError> {
    let work = context.work.clone();
    let names = &work.server.names;
    let (blue, green) = (work.password(&names.blue).await?, work.password(&names.green).await?);
    let verifiers = (scram::derive_verifier(&blue).await, scram::derive_verifier(&green).await);
    let marker = marker(work.stores.servers.installation().await?);
    let verifiers = [&verifiers.0, &verifiers.1];
    let task = AdminTask::Roles { names, verifiers, marker: &marker };
    context.run_as_admin(run, task).await.map(drop)
}

/// Checks both logins. Returns the system identifier, or `None` if the provisioner may not read it.
async fn probe_logins(run: &Execution, context: &ServerSetupContext) -> Result<Option<i64>, StepError> {
    let mut identifier = None;
    for login in logins(context) {
        let mut session = context.work.open_provisioner(run, login).await?;
        let (_, found, database) = catalog::read_identity(&mut session).await?;
        let expected = context.work.server.names.admin.to_string();
        if found != expected {
            return Err(ClusterError::Identity { login: login.to_string(), found, expected, database }.into());
        }
        identifier = mark::system_identifier(&mut session).await?;
    }
    Ok(identifier)
}

/// Closes databases to PUBLIC; `bootstrap::close_to_public` keeps access for the roles that need it. Returns what stays
/// open, and why.
async fn close_databases(run: &Execution, context: &mut ServerSetupContext) -> Result<Vec<String>, StepError> {
    let landlord = find_landlord_on_server(run, context).await?;
    let close_shared = context.work.close_shared;
    let mut left = vec![];
    if let Some((database, role)) = landlord {
        left.extend(context.run_as_admin(run, AdminTask::Close { database: &database, keep: &[role] }).await?);
    }
    for database in ["postgres", "template1"] {
        if close_shared {
            left.extend(context.run_as_admin(run, AdminTask::Close { database, keep: &[] }).await?);
        } else if !bootstrap::is_closed(context.admin_session(run).await?, database).await? {
            let open =
                "is open to PUBLIC, so every tenant's login can enter it; close_shared (--close-shared) closes it";
            left.push(format!("{database} {open}"));
        }
    }
    Ok(left)
}

/// The landlord's database and the role of its pool, if that database is on the server that is set up.
async fn find_landlord_on_server(
    run: &Execution, context: &mut ServerSetupContext,
) -> Result<Option<(String, String)>, StepError> {
    let read = async |session: &mut PgConnection| {
        let cluster = bootstrap::read_cluster_id(session).await?;
        let (role, _, database) = catalog::read_identity(session).await.map_err(StoreError::unavailable)?;
        Ok::<_, StoreError>((cluster, role, database))
    };
    let (landlord_cluster, role, database) = context.work.landlord.transaction("BEGIN READ ONLY", read).await?;
    let this_cluster = bootstrap::read_cluster_id(context.admin_session(run).await?).await?;
    Ok((landlord_cluster == this_cluster).then_some((database, role)))
}
