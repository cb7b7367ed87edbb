//! The steps of a provisioning that write to the landlord: the tenant's row, its placement, its secrets, its entry.
//!
//! The saga runs the first three before anything is created on a server, and [`Publish`] as the pivot step. Each write
//! carries the worker's fencing token, so a worker that was replaced cannot write any more.
use crate::cluster::TenantLocation;
use crate::cluster::pg::scram;
use crate::directory::{DatabaseUser, Generation};
use crate::error::{NameConflict, ProvisionError, StepError, StoreError};
use crate::names::{DatabaseName, ServerName, TenantNames, check_visible};
use crate::operations::provision::context::ProvisionContext;
use crate::placement::{Candidate, PlacementRequest};
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::server::ServerStatus;
use crate::store::registry::{Placement, ServerLoad, TenantRegistry};
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;

/// Creates the tenant's row, which reserves its slug and its domains.
pub(in crate::operations::provision) struct CreateTenant;
#[async_trait]
impl SagaStep<ProvisionContext> for CreateTenant {
    fn name(&self) -> &'static str {
        "tenant.create"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let tenant = context.request.tenant(context.tenant);
        context.stores.registry.create(&tenant, &context.request.domains, run.fencing_token()).await?;
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(context.stores.registry.discard(context.tenant, run.fencing_token()).await?)
    }
}

/// Chooses a server and stores the tenant's placement. It also stores the name of the tenant's database, before
/// anything of that name is created.
pub(in crate::operations::provision) struct PlaceTenant;
#[async_trait]
impl SagaStep<ProvisionContext> for PlaceTenant {
    fn name(&self) -> &'static str {
        "server.place"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        if run.is_first() || context.stores.servers.placement(context.tenant).await?.is_none() {
            let location = reserve_placement(run, context).await?;
            context.sessions.set_location(location);
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(context.stores.servers.release(context.tenant, run.fencing_token()).await?)
    }
}

/// Reserves a placement on the server that the placement function chooses. If that server was filled since its load was
/// read, the function chooses again among the others, until none is left.
async fn reserve_placement(run: &Execution, context: &ProvisionContext) -> Result<TenantLocation, StepError> {
    let request = PlacementRequest::new(context.request.slug.clone(), context.request.metadata.clone());
    let database = choose_database_name(context, &request)?;
    let servers = context.stores.servers.servers().await?;
    let mut candidates = list_candidates(context, &servers)?;
    while !candidates.is_empty() {
        let chosen = (context.config.place)(&request, &candidates);
        let Some(server) = chosen.clone().filter(|server| candidates.iter().any(|c| c.server == *server)) else {
            return Err(StepError::fail(ProvisionError::PlacementRefused { candidates: candidates.len(), chosen }));
        };
        let placement = Placement::new(context.tenant, server.clone(), database.clone());
        match context.stores.servers.reserve(&placement, run.fencing_token()).await {
            Err(StoreError::Taken(NameConflict::ServerFull(_))) => {
                candidates.retain(|c| c.server != server);
                continue;
            }
            reserved => reserved?,
        }
        // Read the server's row again. A relocation raises the epochs only of workers whose tenant has a placement, so
        // one that ended before the reservation did not stop this worker, which may have read the old address.
        let missing = || StepError::retry("the placement of the tenant was reserved but is no longer stored");
        return context.stores.find_location(context.tenant).await?.ok_or_else(missing);
    }
    Err(StepError::fail(no_room_error(context.request.server.as_ref(), &servers)))
}

/// The name of the tenant's database. It fails if the application's function returns one that is not usable.
fn choose_database_name(context: &ProvisionContext, request: &PlacementRequest) -> Result<DatabaseName, StepError> {
    let value = (context.config.database_name)(request, context.tenant);
    let parsed = check_visible(&value).and_then(|()| value.parse::<DatabaseName>());
    let parsed = parsed.and_then(|n| TenantNames::of(&n).map(|_| n));
    parsed.map_err(|source| StepError::fail(ProvisionError::Invalid { field: "database name", value, source }))
}

/// The servers that may take the tenant. If the request names a server, at most that one.
fn list_candidates(context: &ProvisionContext, servers: &[ServerLoad]) -> Result<Vec<Candidate>, StepError> {
    let required = context.request.server.as_ref();
    if let Some(server) = required
        && !servers.iter().any(|s| s.server.name == *server)
    {
        return Err(StepError::fail(ProvisionError::UnknownServer { server: server.clone() }));
    }
    let fits =
        |s: &&ServerLoad| required.is_none_or(|a| s.server.name == *a) && is_open(s) && s.tenants < s.server.capacity;
    let candidate = |s: &ServerLoad| {
        let labels = s.server.labels.clone();
        Candidate::new(s.server.name.clone(), s.tenants, s.server.capacity, s.server.weight, labels)
    };
    Ok(servers.iter().filter(fits).map(candidate).collect())
}

/// Whether the server takes new tenants, its capacity aside.
fn is_open(load: &ServerLoad) -> bool {
    load.server.status == ServerStatus::Ready && !load.server.draining
}

/// The error that says how many servers there are, and why none of them takes the tenant. If the request names a
/// server, it counts only that one.
fn no_room_error(required: Option<&ServerName>, servers: &[ServerLoad]) -> ProvisionError {
    let servers: Vec<_> = servers.iter().filter(|s| required.is_none_or(|name| s.server.name == *name)).collect();
    let draining = servers.iter().filter(|s| !is_open(s)).count();
    ProvisionError::NoRoom { servers: servers.len(), full: servers.len() - draining, draining }
}

/// Generates and stores every secret that the operation will need, before its first use. A worker that takes over
/// therefore continues with the same password and the same setup link.
pub(in crate::operations::provision) struct SealSecrets;
#[async_trait]
impl SagaStep<ProvisionContext> for SealSecrets {
    fn name(&self) -> &'static str {
        "secrets.seal"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let (location, credential) = (context.sessions.location().await?.clone(), context.credential().await?);
        let CredentialId { role, version, .. } = &credential;
        let login = role.parse().map_err(StepError::fail)?;
        let (server, database) = (location.server.name.clone(), location.names.database.clone());
        let user = DatabaseUser::pending(context.tenant, server, database, login, Generation(*version));
        context.stores.registry.put_user(None, &user, run.fencing_token()).await?;
        context.stores.vault.put(&credential, &scram::generate_password(), run.fencing_token()).await?;
        if context.request.admin.is_some() {
            super::link::seal(&context.stores, run, context.tenant).await?;
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        context.stores.vault.forget_tenant(context.tenant, run.fencing_token()).await?;
        Ok(())
    }
}

/// Stores the directory entry and the status `active` in one statement. This is the pivot step: once its intent is
/// committed its outcome may be unknown, and a tenant that is in use must not be removed.
pub(in crate::operations::provision) struct Publish;
#[async_trait]
impl SagaStep<ProvisionContext> for Publish {
    fn name(&self) -> &'static str {
        "tenant.publish"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    fn landlord_only(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let mut entry = context.entry().await?;
        if !run.is_first() {
            // Host and port are part of the entry's key. If the server was relocated since an earlier worker published
            // the entry, use the address of that entry, so that the statement finds it.
            let published = context.stores.registry.primary(context.tenant).await?.filter(|p| p.server == entry.server);
            (entry.host, entry.port) = published.map_or((entry.host, entry.port), |p| (p.host, p.port));
        }
        context.stores.registry.publish(TenantStatus::Provisioning, &entry, run.fencing_token()).await?;
        Ok(Value::Null)
    }
}
