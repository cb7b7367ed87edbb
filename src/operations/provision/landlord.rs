//! The steps that write to the landlord.
use super::world::World;
use crate::cluster;
use crate::directory::{DatabaseUser, Generation};
use crate::error::{ProvisionError, StepError, StoreError, Taken};
use crate::names::DatabaseName;
use crate::names::TenantNames;
use crate::placement::{Candidate, Newcomer};
use crate::saga::{Action, Run};
use crate::secret::CredentialId;
use crate::server::ServerStatus;
use crate::store::registry::{Placement, ServerLoad, TenantRegistryExt};
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;

/// The tenant's row, which takes its slug and its domains.
pub(super) struct Create;
#[async_trait]
impl Action<World> for Create {
    fn name(&self) -> &'static str {
        "tenant.create"
    }
    fn joins_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let tenant = world.request.tenant(world.tenant);
        world.shop.registry.create(&tenant, &world.request.domains, run.writer()).await?;
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        Ok(world.shop.registry.discard(world.tenant, run.writer()).await?)
    }
}

/// The tenant's place: from here on its names are a committed intent.
pub(super) struct Place;
#[async_trait]
impl Action<World> for Place {
    fn name(&self) -> &'static str {
        "server.place"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if run.is_first() || world.shop.servers.placement(world.tenant).await?.is_none() {
            let place = place(run, world).await?;
            world.site.is_at(place);
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        Ok(world.shop.servers.release(world.tenant, run.writer()).await?)
    }
}

/// A server may fill up between the look and the reservation: then the next best one is asked, until none is left.
async fn place(run: &Run, world: &World) -> Result<cluster::Place, StepError> {
    let newcomer = Newcomer::new(world.request.slug.clone(), world.request.metadata.clone());
    let database = name(world, &newcomer)?;
    let servers = world.shop.servers.servers().await?;
    let mut candidates = candidates(world, &servers)?;
    while let Some(server) = (world.recipe.place)(&newcomer, &candidates) {
        let placement = Placement::new(world.tenant, server.clone(), database.clone());
        match world.shop.servers.reserve(&placement, run.writer()).await {
            Err(StoreError::Taken(Taken::Room(_))) if candidates.iter().any(|c| c.server == server) => {
                candidates.retain(|c| c.server != server);
                continue;
            }
            reserved => reserved?,
        }
        // The row is read again: before the place was reserved, a relocation of the server stopped no worker of it.
        let gone = || StepError::retry("the place that was reserved is gone");
        return world.shop.place(world.tenant).await?.ok_or_else(gone);
    }
    Err(StepError::fail(no_room(&servers)))
}

fn name(world: &World, newcomer: &Newcomer) -> Result<DatabaseName, StepError> {
    let value = (world.recipe.database_name)(newcomer, world.tenant);
    let parsed = value.parse::<DatabaseName>().and_then(|n| TenantNames::of(&n).map(|_| n));
    parsed.map_err(|source| StepError::fail(ProvisionError::Invalid { field: "database name", value, source }))
}

fn candidates(world: &World, servers: &[ServerLoad]) -> Result<Vec<Candidate>, StepError> {
    let asked = world.request.server.as_ref();
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
impl Action<World> for Seal {
    fn name(&self) -> &'static str {
        "secrets.seal"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let (place, credential) = (world.site.place().await?.clone(), world.credential().await?);
        let CredentialId { role, version, .. } = &credential;
        let login = role.parse().map_err(StepError::fail)?;
        let (server, database) = (place.server.name.clone(), place.names.database.clone());
        let user = DatabaseUser::pending(world.tenant, server, database, login, Generation(*version));
        let (shop, linked) = (world.shop.clone(), world.request.admin.is_some());
        let keep = async {
            shop.registry.put_user(None, &user, run.writer()).await?;
            shop.vault.put(&credential, &crate::cluster::pg::scram::password(), run.writer()).await?;
            if linked { super::link::seal(&shop, run, world.tenant).await } else { Ok(()) }
        };
        // The session of the next step is opened meanwhile: it does nothing yet.
        let hold = cluster::ahead(world.site.hold(run));
        futures_util::future::try_join(keep, hold).await.map(|_| Value::Null)
    }
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        world.shop.vault.forget_tenant(world.tenant, run.writer()).await?;
        Ok(())
    }
}

/// Directory entry and status in one statement. From the intent of this step on nothing is undone: its outcome may be
/// unknown, and a tenant that works must not be taken away.
pub(super) struct Publish;
#[async_trait]
impl Action<World> for Publish {
    fn name(&self) -> &'static str {
        "tenant.publish"
    }
    fn joins_previous(&self) -> bool {
        false
    }
    fn in_landlord(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        let mut entry = world.entry().await?;
        if !run.is_first() {
            // Host and port are part of the entry's key: what an earlier worker published must be found after a relocation.
            let published = world.shop.registry.primary(world.tenant).await?.filter(|p| p.server == entry.server);
            (entry.host, entry.port) = published.map_or((entry.host, entry.port), |p| (p.host, p.port));
        }
        world.shop.registry.publish(TenantStatus::Provisioning, &entry, run.writer()).await?;
        Ok(Value::Null)
    }
}
