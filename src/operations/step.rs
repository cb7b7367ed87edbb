//! A host's own steps of a provisioning.
pub use crate::error::StepError;
use crate::operation::OperationId;
use crate::tenant::Tenant;
use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use std::{fmt, sync::Arc};

/// Runs at least once, forward. After activation it is retried until it succeeds.
///
/// ```
/// use async_trait::async_trait;
/// use tenantry::step::{Compensate, Step, StepContext, StepError};
///
/// /// Three notes to start with. The database goes with the tenant, so there is nothing to undo.
/// struct Welcome;
/// #[async_trait]
/// impl Step for Welcome {
///     const NAME: &'static str = "seed.welcome";
///     type Output = ();
///     async fn run(&self, cx: &StepContext) -> Result<(), StepError> {
///         let mut db = cx.connect_as_migrator().await?;
///         sqlx::query("INSERT INTO notes (text) SELECT 'welcome' WHERE NOT EXISTS (SELECT FROM notes)")
///             .execute(&mut db)
///             .await?;
///         Ok(())
///     }
/// }
/// #[async_trait]
/// impl Compensate for Welcome {
///     async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// Stored: a contract. Lower case, dots. Two steps of one name are refused by `build()`.
    const NAME: &'static str;
    /// Stored as JSON; holds no secret. `()` if there is nothing to say.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// Idempotent under [`StepContext::idempotency_key`]. May be dropped at any await and run again, here or on another
    /// node.
    async fn run(&self, cx: &StepContext) -> Result<Self::Output, StepError>;
}

/// A step that can be undone, and so may stand before the point of no return.
#[async_trait]
pub trait Compensate: Step {
    /// "Ensure absent". `None`: what `run` did is unknown; look under [`StepContext::idempotency_key`].
    async fn compensate(&self, cx: &StepContext, output: Option<Self::Output>) -> Result<(), StepError>;
}

/// What a step may know. There is no secret in it: the setup link goes to
/// [`LinkDelivery`](crate::store::tokens::LinkDelivery) alone.
pub struct StepContext {
    tenant: Tenant,
    operation: OperationId,
    step: &'static str,
    input: Value,
    outputs: Map<String, Value>,
    connect: Option<Arc<dyn Connect>>,
}

/// How a context reaches the tenant's database.
#[async_trait]
pub(crate) trait Connect: Send + Sync {
    async fn as_migrator(&self) -> Result<PgConnection, StepError>;
    async fn as_app(&self) -> Result<PgConnection, StepError>;
}

impl StepContext {
    pub(crate) fn new(
        tenant: Tenant, operation: OperationId, step: &'static str, input: Value, outputs: Map<String, Value>,
        connect: Option<Arc<dyn Connect>>,
    ) -> Self {
        Self { tenant, operation, step, input, outputs, connect }
    }
    /// The tenant as it stands.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
    /// The operation this is a step of.
    pub fn operation(&self) -> OperationId {
        self.operation
    }
    /// The same for every attempt of this step of this operation: hand it to the outside world.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.operation, self.step)
    }
    /// What the caller of `provision` gave with `.input(..)`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_value(self.input.clone()).map_err(StepError::fail)
    }
    /// What an earlier step answered. An absent or unreadable one fails this step with both names.
    pub fn output<S: Step>(&self) -> Result<S::Output, StepError> {
        let missing = || StepError::fail(format!("{} needs {}, which did not run before it", self.step, S::NAME));
        let value = self.outputs.get(S::NAME).ok_or_else(missing)?;
        serde_json::from_value(value.clone())
            .map_err(|e| StepError::fail(format!("{} cannot read what {} answered: {e}", self.step, S::NAME)))
    }
    /// A connection to the tenant's database as its owner. Before activation only: the login lives no longer.
    pub async fn connect_as_migrator(&self) -> Result<PgConnection, StepError> {
        match &self.connect {
            Some(connect) => connect.as_migrator().await,
            None => Err(StepError::fail("this context has no database")),
        }
    }
    /// A connection to the tenant's database as the application's login.
    pub async fn connect(&self) -> Result<PgConnection, StepError> {
        match &self.connect {
            Some(connect) => connect.as_app().await,
            None => Err(StepError::fail("this context has no database")),
        }
    }
}

impl fmt::Debug for StepContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("tenant", &self.tenant.id())
            .field("operation", &self.operation)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "testing")]
impl StepContext {
    /// For a host's unit test of one step: no operation, no database.
    ///
    /// # Errors
    /// When `input` is no JSON.
    pub fn for_test(tenant: Tenant, input: impl Serialize) -> Result<Self, serde_json::Error> {
        let input = serde_json::to_value(input)?;
        Ok(Self::new(tenant, OperationId::from_uuid(uuid::Uuid::nil()), "test", input, Map::new(), None))
    }
    /// The same, after `S` has answered `output`.
    ///
    /// # Errors
    /// When `output` is no JSON.
    pub fn with_output<S: Step>(mut self, output: S::Output) -> Result<Self, serde_json::Error> {
        self.outputs.insert(S::NAME.into(), serde_json::to_value(output)?);
        Ok(self)
    }
}

/// A step whose types nobody needs to name, so that a builder keeps a plain list.
#[async_trait]
pub(crate) trait AnyStep: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    async fn run(&self, cx: &StepContext) -> Result<Value, StepError>;
    async fn compensate(&self, cx: &StepContext, output: Option<Value>) -> Result<(), StepError>;
}
pub(crate) struct Undoable<S>(pub(crate) S);
pub(crate) struct Forward<S>(pub(crate) S);

#[async_trait]
impl<S: Compensate> AnyStep for Undoable<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }
    async fn run(&self, cx: &StepContext) -> Result<Value, StepError> {
        serde_json::to_value(self.0.run(cx).await?).map_err(StepError::fail)
    }
    async fn compensate(&self, cx: &StepContext, output: Option<Value>) -> Result<(), StepError> {
        let output = output.map(serde_json::from_value).transpose().map_err(StepError::fail)?;
        self.0.compensate(cx, output).await
    }
}
#[async_trait]
impl<S: Step> AnyStep for Forward<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }
    async fn run(&self, cx: &StepContext) -> Result<Value, StepError> {
        serde_json::to_value(self.0.run(cx).await?).map_err(StepError::fail)
    }
    async fn compensate(&self, _: &StepContext, _: Option<Value>) -> Result<(), StepError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::{TenantId, TenantStatus};

    struct Open;
    struct Count;
    #[async_trait]
    impl Step for Open {
        const NAME: &'static str = "billing.open";
        type Output = String;
        async fn run(&self, cx: &StepContext) -> Result<String, StepError> {
            Ok(format!("{}-{}", cx.tenant().slug(), cx.input::<u32>()?))
        }
    }
    #[async_trait]
    impl Step for Count {
        const NAME: &'static str = "count";
        type Output = usize;
        async fn run(&self, cx: &StepContext) -> Result<usize, StepError> {
            Ok(cx.output::<Open>()?.len())
        }
    }

    #[tokio::test]
    async fn a_step_reads_an_earlier_answer_by_its_type() {
        let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Provisioning);
        let cx = StepContext::for_test(tenant, 7u32).unwrap();
        assert_eq!(Open.run(&cx).await.unwrap(), "acme-7");
        let missing = Count.run(&cx).await.unwrap_err();
        assert!(std::error::Error::source(&missing).unwrap().to_string().contains("billing.open"));
        let cx = cx.with_output::<Open>("acme-7".into()).unwrap();
        assert_eq!(Count.run(&cx).await.unwrap(), 6);
    }
}
