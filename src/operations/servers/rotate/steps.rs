//! The steps of a rotation of the provisioner's passwords, in the order in which they run.
use super::context::RotateServerContext;
use crate::cluster::pg::scram;
use crate::error::StepError;
use crate::saga::{Execution, SagaStep};
use async_trait::async_trait;
use serde_json::Value;

/// A step of the rotation.
#[derive(Clone, Copy)]
pub(super) enum RotateServerStep {
    /// Stores the new passwords of both logins, before a role has them.
    Seal,
    /// The idle login changes its own password.
    Idle,
    /// Changes the server's row to the idle login and the new version, so that all nodes switch to it. This is the
    /// pivot step.
    Flip,
    /// The other login changes its own password.
    Other,
    /// Deletes the old passwords, which no login has any more.
    Forget,
}

#[async_trait]
impl SagaStep<RotateServerContext> for RotateServerStep {
    fn name(&self) -> &'static str {
        match self {
            Self::Seal => "secrets.seal",
            Self::Idle => "idle.password",
            Self::Flip => "server.flip",
            Self::Other => "other.password",
            Self::Forget => "secrets.forget",
        }
    }
    /// Each change of a password has an intent of its own: the password must be durable in the vault before a login has
    /// it.
    fn shares_intent_with_previous(&self) -> bool {
        matches!(self, Self::Forget)
    }
    async fn run(&self, run: &Execution, context: &mut RotateServerContext) -> Result<Value, StepError> {
        let request = context.request.clone();
        match self {
            Self::Seal => {
                for role in [&request.idle, &request.other] {
                    let id = request.secret(role, request.to());
                    context.stores.vault.put(&id, &scram::generate_password(), run.fencing_token()).await?;
                }
            }
            Self::Idle => context.change_password(run, &request.idle, request.from, request.to()).await?,
            Self::Flip => context.flip(run).await?,
            Self::Other => context.change_password(run, &request.other, request.from, request.to()).await?,
            Self::Forget => context.forget(run, request.from).await?,
        }
        Ok(Value::Null)
    }
    async fn undo(&self, run: &Execution, context: &mut RotateServerContext) -> Result<(), StepError> {
        let request = context.request.clone();
        match self {
            Self::Seal => context.forget(run, request.to()).await,
            Self::Idle => context.change_password(run, &request.idle, request.to(), request.from).await,
            _ => Ok(()),
        }
    }
}
