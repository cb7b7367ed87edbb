//! The steps of the lifecycle operations that act on the tenant's PostgreSQL server and its standbys.
//!
//! The sagas in `saga.rs` list them. Each step reads the tenant's logins again and repeats all its statements, so that
//! a retry or a new worker also covers what has changed since. A tenant without a placement has nothing on a server, so
//! the steps do nothing.
use crate::error::StepError;
use crate::operations::lifecycle::answers::{CLOSE, END_SESSIONS, REFUSE, SessionsLeft, VERIFY_EMPTY};
use crate::operations::lifecycle::context::LifecycleContext;
use crate::saga::{Execution, SagaStep};
use crate::tenant::TenantStatus;
use async_trait::async_trait;
use serde_json::Value;
use std::time::Duration;

/// How long [`EndSessions`] waits for sessions to end. The documented limit for the whole call is one second.
const END_LIMIT: Duration = Duration::from_millis(900);
/// How long one try of [`VerifyEmpty`] waits for sessions to end. It is short, so that a tenant whose sessions do not
/// end does not keep a worker busy.
const VERIFY_LIMIT: Duration = Duration::from_secs(2);

/// Closes the tenant: sets NOLOGIN on every login that it has or may have, signals each of its sessions to terminate,
/// and reads back that no role can enter its database.
pub(in crate::operations::lifecycle) struct RefuseLogins;
#[async_trait]
impl SagaStep<LifecycleContext> for RefuseLogins {
    fn name(&self) -> &'static str {
        REFUSE
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let (logins, exempt) = (context.logins().await?, context.exempt_logins(run).await?);
        let closed = context.locked_session(run).await?.close_logins(&names, &logins, &exempt).await?;
        serde_json::to_value(closed).map_err(StepError::fail)
    }
    /// Runs only for a purge that has not begun to destroy. It admits the login of a tenant that was active. It also
    /// admits the logins of a tenant that was being provisioned, because the resumed provisioning does not create its
    /// login again.
    async fn undo(&self, run: &Execution, context: &mut LifecycleContext) -> Result<(), StepError> {
        match context.tenant().await?.status() {
            TenantStatus::Active => AdmitLogin.run(run, context).await.map(drop),
            TenantStatus::Provisioning => match context.names().await? {
                Some(names) => {
                    let (logins, acts_as) = (context.logins().await?, context.acts_as(&names));
                    context.locked_session(run).await?.admit_existing(&logins, &acts_as).await
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Ends the tenant's sessions on its standbys. NOLOGIN arrives there by replication. The step comes after the pivot
/// step and after the change of status, so that a standby that does not answer neither delays nor undoes the operation.
/// The error names that standby, and the step is retried until the standby answers or its directory entry is removed.
pub(in crate::operations::lifecycle) struct RefuseOnStandbys;
#[async_trait]
impl SagaStep<LifecycleContext> for RefuseOnStandbys {
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

/// Ends the tenant's sessions for at most [`END_LIMIT`] and stores how many are left, so that the call can return. The
/// remaining ones are left to [`VerifyEmpty`].
pub(in crate::operations::lifecycle) struct EndSessions;
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
        let (logins, exempt) = (context.logins().await?, context.exempt_logins(run).await?);
        let left = context.locked_session(run).await?.end_sessions(&names, &logins, &exempt, END_LIMIT).await?;
        serde_json::to_value(SessionsLeft { left }).map_err(StepError::fail)
    }
}

/// Reads back that no session of the tenant is left, that every login is refused, and that no role can enter.
pub(in crate::operations::lifecycle) struct VerifyEmpty;
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
        let (logins, exempt) = (context.logins().await?, context.exempt_logins(run).await?);
        let closed = context.locked_session(run).await?.verify_empty(&names, &logins, &exempt, VERIFY_LIMIT).await?;
        serde_json::to_value(closed).map_err(StepError::fail)
    }
}

/// Sets LOGIN on the login of the current generation, and on no other.
pub(in crate::operations::lifecycle) struct AdmitLogin;
#[async_trait]
impl SagaStep<LifecycleContext> for AdmitLogin {
    fn name(&self) -> &'static str {
        "server.admit"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        if let (Some(names), Some(login)) = (context.names().await?, context.current_login().await?) {
            let acts_as = context.acts_as(&names);
            context.locked_session(run).await?.admit(&login, &acts_as).await?;
        }
        Ok(Value::Null)
    }
}

/// Does what [`RefuseLogins`] does, and closes the database to every role.
pub(in crate::operations::lifecycle) struct CloseDatabase;
#[async_trait]
impl SagaStep<LifecycleContext> for CloseDatabase {
    fn name(&self) -> &'static str {
        CLOSE
    }
    fn shares_intent_with_previous(&self) -> bool {
        true
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let (logins, exempt) = (context.logins().await?, context.exempt_logins(run).await?);
        let closed = context.locked_session(run).await?.close_database(&names, &logins, &exempt).await?;
        serde_json::to_value(closed).map_err(StepError::fail)
    }
}

/// Does what [`RefuseLogins`] does. If a role can still enter after that, revokes the rights of PUBLIC on the tenant's
/// database and does it once more: the logins come first, because a session of the tenant can keep the database's row
/// locked. For an archived tenant it does what [`CloseDatabase`] does.
pub(in crate::operations::lifecycle) struct CloseAgain;
#[async_trait]
impl SagaStep<LifecycleContext> for CloseAgain {
    fn name(&self) -> &'static str {
        "server.close_again"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        let Some(names) = context.names().await? else { return Ok(Value::Null) };
        let status = context.tenant().await?.status();
        if status == TenantStatus::Archived {
            return CloseDatabase.run(run, context).await;
        }
        match RefuseLogins.run(run, context).await {
            Err(error) if error.is_fenced() || error.is_lost_writes() => Err(error),
            Err(_) => {
                context.locked_session(run).await?.close_to_public(&names).await?;
                RefuseLogins.run(run, context).await
            }
            closed => closed,
        }
    }
    /// Never reopens the tenant.
    async fn undo(&self, _: &Execution, _: &mut LifecycleContext) -> Result<(), StepError> {
        Ok(())
    }
}

/// Reverses [`CloseDatabase`]: opens the database and admits the login of the current generation.
pub(in crate::operations::lifecycle) struct OpenDatabase;
#[async_trait]
impl SagaStep<LifecycleContext> for OpenDatabase {
    fn name(&self) -> &'static str {
        "server.open"
    }
    fn shares_intent_with_previous(&self) -> bool {
        false
    }
    async fn run(&self, run: &Execution, context: &mut LifecycleContext) -> Result<Value, StepError> {
        if let (Some(names), Some(login)) = (context.names().await?, context.current_login().await?) {
            let acts_as = context.acts_as(&names);
            context.locked_session(run).await?.reopen(&names, &login, &acts_as).await?;
        }
        Ok(Value::Null)
    }
}

/// Makes sure that the tenant's database, logins and roles do not exist.
pub(in crate::operations::lifecycle) struct RemoveFromServer;
#[async_trait]
impl SagaStep<LifecycleContext> for RemoveFromServer {
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
