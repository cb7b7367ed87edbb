//! The steps on the server.
use super::world::World;
use crate::error::StepError;
use crate::saga::{Action, Run};
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;

/// NOLOGIN for every login that the tenant has or may have, and the end of their sessions.
pub(super) struct Refuse;
#[async_trait]
impl Action<World> for Refuse {
    fn name(&self) -> &'static str {
        "server.refuse"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if let Some(names) = world.names().await? {
            let logins = world.logins().await?;
            world.hold(run).await?.refuse(&names, &logins).await?;
        }
        Ok(Value::Null)
    }
    /// Only a purge that did not begin to destroy comes here: what was active is let in again, and so is what was
    /// being made, because a provisioning that goes on does not make its login twice.
    async fn undo(&self, run: &Run, world: &mut World) -> Result<(), StepError> {
        match world.tenant().await?.status() {
            TenantStatus::Active => Admit.run(run, world).await.map(drop),
            TenantStatus::Provisioning if world.names().await?.is_some() => {
                let logins = world.logins().await?;
                world.hold(run).await?.admit_made(&logins).await
            }
            _ => Ok(()),
        }
    }
}

/// The same on the tenant's standbys, where only sessions have to be ended. Behind the point of no return, and after the
/// status: a standby that does not answer delays no fence and takes none back. It is named, and tried until it answers or
/// its entry is gone.
pub(super) struct Standbys;
#[async_trait]
impl Action<World> for Standbys {
    fn name(&self) -> &'static str {
        "standbys.refuse"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if let Some(names) = world.names().await? {
            let standbys = world.shop.standbys(world.tenant, &names.database).await?;
            if !standbys.is_empty() {
                let logins = world.logins().await?;
                world.hold(run).await?.refuse_on_standbys(&standbys, &names, &logins).await?;
            }
        }
        Ok(Value::Null)
    }
}

/// LOGIN for the login of the current generation, and for no other.
pub(super) struct Admit;
#[async_trait]
impl Action<World> for Admit {
    fn name(&self) -> &'static str {
        "server.admit"
    }
    fn joins_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if let (Some(_), Some(login)) = (world.names().await?, world.current().await?) {
            world.hold(run).await?.admit(&login).await?;
        }
        Ok(Value::Null)
    }
}

/// As [`Refuse`], and the database is closed: not even its owner's other logins come in.
pub(super) struct Close;
#[async_trait]
impl Action<World> for Close {
    fn name(&self) -> &'static str {
        "server.close"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if let Some(names) = world.names().await? {
            let logins = world.logins().await?;
            world.hold(run).await?.shut(&names, &logins).await?;
        }
        Ok(Value::Null)
    }
}

/// The way back: the database opens, and the login of the current generation comes in.
pub(super) struct Open;
#[async_trait]
impl Action<World> for Open {
    fn name(&self) -> &'static str {
        "server.open"
    }
    fn joins_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if let (Some(names), Some(login)) = (world.names().await?, world.current().await?) {
            world.hold(run).await?.reopen(&names, &login).await?;
        }
        Ok(Value::Null)
    }
}

/// Database, logins and roles: ensured absent.
pub(super) struct Remove;
#[async_trait]
impl Action<World> for Remove {
    fn name(&self) -> &'static str {
        "cluster.remove"
    }
    fn joins_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Run, world: &mut World) -> Result<Value, StepError> {
        if let Some(names) = world.names().await? {
            let logins = world.logins().await?;
            world.hold(run).await?.remove(&names, &logins).await?;
        }
        Ok(Value::Null)
    }
}
