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
