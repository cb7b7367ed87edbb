//! The steps of a set-up. All find what is there and make what is missing.
use super::address::check_stored;
use super::context::{ServerSetupContext, marker};
use crate::cluster::pg::{bootstrap, catalog, mark, scram};
use crate::error::{ClusterError, StepError};
use crate::names::RoleName;
use crate::saga::{Execution, SagaStep};
use crate::server::ServerStatus;
use async_trait::async_trait;
use serde_json::Value;

/// The stored name of the step that answers with the system identifier.
const PROBE: &str = "logins.probe";
/// The stored names of the steps whose answer goes into the report.
pub(super) const REPORTED: [&str; 2] = ["rights.grant", "public.close"];

/// In the order of their run.
#[derive(Clone, Copy)]
pub(super) enum ServerSetupStep {
    /// The server's row, so that its secrets have an owner. Tenants go there when it is ready.
    Register,
    /// The secrets of both logins, before a role has them. A repetition finds the ones that are in use.
    Seal,
    /// The admin role and the two logins.
    Roles,
    /// The database of all cluster statements and all locks.
    Maintenance,
    /// Rights that make more things visible; a managed service may refuse them.
    Rights,
    /// Nobody but the provisioner enters the maintenance database.
    CloseMaintenance,
    /// Both logins work, and act as the admin role.
    Probe,
    /// PUBLIC leaves the landlord, if it is on this server, and the shared databases, if the host says so.
    Close,
    /// From now on tenants go there.
    Ready,
}

impl ServerSetupStep {
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
    /// What must be stored before a DBA runs the script.
    pub(super) const BEFORE_SCRIPT: &[Self] = &[Self::Register, Self::Seal];
    /// What is left after that.
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
            Self::Register => store(run, context, None).await?,
            Self::Seal => seal(run, context).await?,
            Self::Roles => roles(run, context).await?,
            Self::Maintenance => {
                let names = context.work.server.names.clone();
                bootstrap::maintenance(context.admin(run).await?, &names).await?;
            }
            Self::Rights => {
                let admin = context.work.server.names.admin.clone();
                let refused = bootstrap::optional(context.admin(run).await?, &admin).await?;
                return serde_json::to_value(refused).map_err(StepError::fail);
            }
            Self::CloseMaintenance => {
                let server = &context.work.server;
                let mut session = context.work.provisioner(run, &server.names.blue).await?;
                bootstrap::close_maintenance(&mut session, &server.names.maintenance).await?;
                let installation = context.work.stores.servers.installation().await?;
                mark::ensure_marked(&mut session, installation, &server.name).await?;
            }
            Self::Probe => return Ok(probe(run, context).await?.into()),
            Self::Close => return serde_json::to_value(close(run, context).await?).map_err(StepError::fail),
            Self::Ready => store(run, context, Some(ServerStatus::Ready)).await?,
        }
        Ok(Value::Null)
    }

    /// Nobody can rely on a server that was never ready: its row and its secrets go. What stands on the server is found
    /// by the next set-up.
    async fn undo(&self, run: &Execution, context: &mut ServerSetupContext) -> Result<(), StepError> {
        let work = &context.work;
        let stored = work.stores.servers.server(&work.server.name).await?;
        if stored.is_some_and(|l| l.server.status == ServerStatus::Ready) {
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

fn logins(context: &ServerSetupContext) -> [&RoleName; 2] {
    [&context.work.server.names.blue, &context.work.server.names.green]
}

/// The row as this call describes it.
async fn store(run: &Execution, context: &ServerSetupContext, status: Option<ServerStatus>) -> Result<(), StepError> {
    let mut server = context.work.server.clone();
    let stored = context.work.stores.servers.server(&server.name).await?.map(|l| l.server);
    if let Some(stored) = stored.as_ref() {
        // A relocation may have ended before this operation began.
        check_stored(stored, &server.host, server.port).map_err(StepError::fail)?;
    }
    server.status = status.unwrap_or(server.status);
    server.system_identifier = run.output::<Option<i64>>(PROBE)?.flatten().or(server.system_identifier);
    Ok(context.work.stores.servers.put_server(stored.as_ref(), &server, Some(run.fencing_token())).await?)
}

async fn seal(run: &Execution, context: &ServerSetupContext) -> Result<(), StepError> {
    for role in logins(context) {
        context.work.stores.vault.put(&context.work.credential(role), &scram::password(), run.fencing_token()).await?;
    }
    Ok(())
}

async fn roles(run: &Execution, context: &mut ServerSetupContext) -> Result<(), StepError> {
    let work = context.work.clone();
    let names = &work.server.names;
    let (blue, green) = (work.password(&names.blue).await?, work.password(&names.green).await?);
    let verifiers = (scram::verifier(&blue).await, scram::verifier(&green).await);
    let marker = marker(work.stores.servers.installation().await?);
    Ok(bootstrap::roles(context.admin(run).await?, names, [&verifiers.0, &verifiers.1], &marker).await?)
}

/// Answers with the system identifier, if it can be read.
async fn probe(run: &Execution, context: &ServerSetupContext) -> Result<Option<i64>, StepError> {
    let mut identifier = None;
    for login in logins(context) {
        let mut session = context.work.provisioner(run, login).await?;
        let (_, found, database) = catalog::identity(&mut session).await?;
        let expected = context.work.server.names.admin.to_string();
        if found != expected {
            return Err(ClusterError::Identity { login: login.to_string(), found, expected, database }.into());
        }
        identifier = mark::system_identifier(&mut session).await?;
    }
    Ok(identifier)
}

/// The host's own roles keep their way in. Answers what stays open, and why.
async fn close(run: &Execution, context: &mut ServerSetupContext) -> Result<Vec<String>, StepError> {
    let landlord = landlord_here(run, context).await?;
    let close_shared = context.work.close_shared;
    let session = context.admin(run).await?;
    let mut left = vec![];
    if let Some((database, role)) = landlord {
        left.extend(bootstrap::close_to_public(session, &database, &[role]).await?);
    }
    for database in ["postgres", "template1"] {
        if close_shared {
            left.extend(bootstrap::close_to_public(session, database, &[]).await?);
        } else if !bootstrap::is_closed(session, database).await? {
            let open = "is open to PUBLIC, so every tenant's login can enter it; close_shared(true) closes it";
            left.push(format!("{database} {open}"));
        }
    }
    Ok(left)
}

/// The landlord's database and the role of its pool, if it lives on this cluster.
async fn landlord_here(
    run: &Execution, context: &mut ServerSetupContext,
) -> Result<Option<(String, String)>, StepError> {
    let mut landlord = context.work.landlord.acquire().await?;
    let theirs = bootstrap::cluster_of(&mut landlord).await?;
    let (role, _, database) = catalog::identity(&mut landlord).await?;
    drop(landlord);
    let ours = bootstrap::cluster_of(context.admin(run).await?).await?;
    Ok((theirs == ours).then_some((database, role)))
}
