//! The steps on the server.
use super::answers::{CLOSE, END_SESSIONS, REFUSE, SessionsLeft, VERIFY_EMPTY};
use super::context::LifecycleContext;
use crate::error::StepError;
use crate::saga::{Execution, SagaStep};
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;
use std::time::Duration;

/// How long a call waits for sessions before it answers that they are still ending. README promises a second in all.
const SECOND: Duration = Duration::from_millis(900);
/// How long one try of the last step waits for them. Short, so that a tenant which draws this out keeps no worker busy.
const TRY: Duration = Duration::from_secs(2);

/// Closes the tenant: NOLOGIN for every login that it has or may have, and the signal to each of its sessions; then reads
/// back that no role can enter its database.
pub(super) struct Refuse;
#[async_trait]
impl SagaStep<LifecycleContext> for Refuse {
    fn name(&self) -> &'static str {
        REFUSE
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let (logins, exempt) = (context.logins().await?, context.exempt(run).await?);
        let shut = context.locked_session(run).await?.close_logins(&names, &logins, &exempt).await?;
        serde_json::to_value(shut).map_err(StepError::fail)
    }
    /// Only a purge that did not begin to destroy comes here: what was active is let in again, and so is what was
    /// being made, because a provisioning that goes on does not make its login twice.
    async fn undo(&self, run: &Execution, context: &mut LifecycleContext) -> Result<(), StepError> {
        match context.tenant().await?.status() {
            TenantStatus::Active => Admit.run(run, context).await.map(drop),
            TenantStatus::Provisioning => match context.names().await? {
                Some(names) => {
                    let (logins, acts_as) = (context.logins().await?, context.acts_as(&names));
                    context.locked_session(run).await?.admit_made(&logins, &acts_as).await
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// The same on the tenant's standbys, where only sessions have to be ended. Behind the point of no return, and after the
/// status: a standby that does not answer delays no fence and takes none back. It is named, and tried until it answers or
/// its entry is gone.
pub(super) struct Standbys;
#[async_trait]
impl SagaStep<LifecycleContext> for Standbys {
    fn name(&self) -> &'static str {
        "standbys.refuse"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        if let Some(names) = context.names().await? {
            let standbys = context.stores.standbys(context.tenant, &names.database).await?;
            if !standbys.is_empty() {
                let logins = context.logins().await?;
                context.locked_session(run).await?.refuse_on_standbys(&standbys, &names, &logins).await?;
            }
        }
        Ok(Value::Null)
    }
}

/// Ends the tenant's sessions for at most a second. What is left then is the business of [`VerifyEmpty`]: a caller learns
/// of it at once.
pub(super) struct EndSessions;
#[async_trait]
impl SagaStep<LifecycleContext> for EndSessions {
    fn name(&self) -> &'static str {
        END_SESSIONS
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let (logins, exempt) = (context.logins().await?, context.exempt(run).await?);
        let left = context.locked_session(run).await?.end_sessions(&names, &logins, &exempt, SECOND).await?;
        serde_json::to_value(SessionsLeft { left }).map_err(StepError::fail)
    }
}

/// Reads back that no session of the tenant is left, that every login is refused, and that no role can enter.
pub(super) struct VerifyEmpty;
#[async_trait]
impl SagaStep<LifecycleContext> for VerifyEmpty {
    fn name(&self) -> &'static str {
        VERIFY_EMPTY
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let (logins, exempt) = (context.logins().await?, context.exempt(run).await?);
        let shut = context.locked_session(run).await?.verify_empty(&names, &logins, &exempt, TRY).await?;
        serde_json::to_value(shut).map_err(StepError::fail)
    }
}

/// LOGIN for the login of the current generation, and for no other.
pub(super) struct Admit;
#[async_trait]
impl SagaStep<LifecycleContext> for Admit {
    fn name(&self) -> &'static str {
        "server.admit"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        if let (Some(names), Some(login)) = (context.names().await?, context.current().await?) {
            let acts_as = context.acts_as(&names);
            context.locked_session(run).await?.admit(&login, &acts_as).await?;
        }
        Ok(Value::Null)
    }
}

/// As [`Refuse`], and closes the database to every role.
pub(super) struct Close;
#[async_trait]
impl SagaStep<LifecycleContext> for Close {
    fn name(&self) -> &'static str {
        CLOSE
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let (logins, exempt) = (context.logins().await?, context.exempt(run).await?);
        let shut = context.locked_session(run).await?.close_database(&names, &logins, &exempt).await?;
        serde_json::to_value(shut).map_err(StepError::fail)
    }
}

/// The way back: the database opens, and the login of the current generation comes in.
pub(super) struct Open;
#[async_trait]
impl SagaStep<LifecycleContext> for Open {
    fn name(&self) -> &'static str {
        "server.open"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        if let (Some(names), Some(login)) = (context.names().await?, context.current().await?) {
            let acts_as = context.acts_as(&names);
            context.locked_session(run).await?.reopen(&names, &login, &acts_as).await?;
        }
        Ok(Value::Null)
    }
}

/// Database, logins and roles: ensured absent.
pub(super) struct Remove;
#[async_trait]
impl SagaStep<LifecycleContext> for Remove {
    fn name(&self) -> &'static str {
        "cluster.remove"
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        if let Some(names) = context.names().await? {
            let logins = context.logins().await?;
            context.locked_session(run).await?.remove(&names, &logins).await?;
        }
        Ok(Value::Null)
    }
}
