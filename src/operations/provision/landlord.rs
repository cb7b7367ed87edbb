//! The steps that write to the landlord.
use super::context::ProvisionContext;
use crate::cluster;
use crate::directory::{DatabaseUser, Generation};
use crate::error::{NameConflict, ProvisionError, StepError, StoreError};
use crate::names::DatabaseName;
use crate::names::TenantNames;
use crate::placement::{Candidate, PlacementRequest};
use crate::saga::{Execution, SagaStep};
use crate::secret::CredentialId;
use crate::server::ServerStatus;
use crate::store::registry::{Placement, ServerLoad, TenantRegistryExt};
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;

/// The tenant's row, which takes its slug and its domains.
pub(super) struct Create;
#[async_trait]
impl SagaStep<ProvisionContext> for Create {
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

/// The tenant's place: from here on its names are a committed intent.
pub(super) struct PlaceTenant;
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
            let place = place(run, context).await?;
            context.sessions.is_at(place);
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        Ok(context.stores.servers.release(context.tenant, run.fencing_token()).await?)
    }
}

/// A server may fill up between the look and the reservation: then the next best one is asked, until none is left.
async fn place(run: &Execution, context: &ProvisionContext) -> Result<cluster::TenantLocation, StepError> {
    let newcomer = PlacementRequest::new(context.request.slug.clone(), context.request.metadata.clone());
    let database = name(context, &newcomer)?;
    let servers = context.stores.servers.servers().await?;
    let mut candidates = candidates(context, &servers)?;
    while let Some(server) = (context.config.place)(&newcomer, &candidates) {
        let placement = Placement::new(context.tenant, server.clone(), database.clone());
        match context.stores.servers.reserve(&placement, run.fencing_token()).await {
            Err(StoreError::Taken(NameConflict::ServerFull(_))) if candidates.iter().any(|c| c.server == server) => {
                candidates.retain(|c| c.server != server);
                continue;
            }
            reserved => reserved?,
        }
        // The row is read again: before the place was reserved, a relocation of the server stopped no worker of it.
        let gone = || StepError::retry("the place that was reserved is gone");
        return context.stores.place(context.tenant).await?.ok_or_else(gone);
    }
    Err(StepError::fail(no_room(&servers)))
}

fn name(context: &ProvisionContext, newcomer: &PlacementRequest) -> Result<DatabaseName, StepError> {
    let value = (context.config.database_name)(newcomer, context.tenant);
    let parsed = value.parse::<DatabaseName>().and_then(|n| TenantNames::of(&n).map(|_| n));
    parsed.map_err(|source| StepError::fail(ProvisionError::Invalid { field: "database name", value, source }))
}

fn candidates(context: &ProvisionContext, servers: &[ServerLoad]) -> Result<Vec<Candidate>, StepError> {
    let asked = context.request.server.as_ref();
    if let Some(server) = asked
        && !servers.iter().any(|s| s.server.name == *server)
    {
        return Err(StepError::fail(ProvisionError::UnknownServer { server: server.clone() }));
    }
    let fits =
        |s: &&ServerLoad| asked.is_none_or(|a| s.server.name == *a) && is_open(s) && s.tenants < s.server.capacity;
    let candidate = |s: &ServerLoad| {
        let labels = s.server.labels.clone();
        Candidate::new(s.server.name.clone(), s.tenants, s.server.capacity, s.server.weight, labels)
    };
    Ok(servers.iter().filter(fits).map(candidate).collect())
}

fn is_open(load: &ServerLoad) -> bool {
    load.server.status == ServerStatus::Ready && !load.server.draining
}

fn no_room(servers: &[ServerLoad]) -> ProvisionError {
    let draining = servers.iter().filter(|s| !is_open(s)).count();
    let full = servers.iter().filter(|s| is_open(s) && s.tenants >= s.server.capacity).count();
    ProvisionError::NoRoom { servers: servers.len(), full, draining }
}

/// Everything secret that this operation will need, sealed before anything uses it: whoever takes over goes on with the
/// same password and the same link.
pub(super) struct Seal;
#[async_trait]
impl SagaStep<ProvisionContext> for Seal {
    fn name(&self) -> &'static str {
        "secrets.seal"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut ProvisionContext) -> Result<Value, StepError> {
        let (place, credential) = (context.sessions.location().await?.clone(), context.credential().await?);
        let CredentialId { role, version, .. } = &credential;
        let login = role.parse().map_err(StepError::fail)?;
        let (server, database) = (place.server.name.clone(), place.names.database.clone());
        let user = DatabaseUser::pending(context.tenant, server, database, login, Generation(*version));
        let (stores, linked) = (context.stores.clone(), context.request.admin.is_some());
        let keep = async {
            stores.registry.put_user(None, &user, run.fencing_token()).await?;
            stores.vault.put(&credential, &crate::cluster::pg::scram::password(), run.fencing_token()).await?;
            if linked { super::link::seal(&stores, run, context.tenant).await } else { Ok(()) }
        };
        // The session of the next step is opened meanwhile: it does nothing yet.
        let locked = cluster::prefetch(context.sessions.locked_session(run));
        futures_util::future::try_join(keep, locked).await.map(|_| Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut ProvisionContext) -> Result<(), StepError> {
        context.stores.vault.forget_tenant(context.tenant, run.fencing_token()).await?;
        Ok(())
    }
}

/// Directory entry and status in one statement. From the intent of this step on nothing is undone: its outcome may be
/// unknown, and a tenant that works must not be taken away.
pub(super) struct Publish;
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
            // Host and port are part of the entry's key: what an earlier worker published must be found after a relocation.
            let published = context.stores.registry.primary(context.tenant).await?.filter(|p| p.server == entry.server);
            (entry.host, entry.port) = published.map_or((entry.host, entry.port), |p| (p.host, p.port));
        }
        context.stores.registry.publish(TenantStatus::Provisioning, &entry, run.fencing_token()).await?;
        Ok(Value::Null)
    }
}
