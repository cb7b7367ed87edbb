//! Steps that the application adds to a provisioning.
//!
//! The application implements [`Step`], and [`Compensate`] if the step can be undone, and gives it to the builder
//! (`before_activation`, `after_activation`). The engine records each step's output, so a later step can read it. A
//! step may run more than once, on any node, and must therefore be idempotent.
pub use crate::error::StepError;
use crate::json;
use crate::operation::OperationId;
use crate::tenant::Tenant;
use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sqlx::PgConnection;
use std::{fmt, sync::Arc};

/// A step of the application's own. It runs at least once. A step after activation is retried until it succeeds; a step
/// before activation also implements [`Compensate`].
///
/// ```
/// use async_trait::async_trait;
/// use tenantry::step::{Compensate, Step, StepContext, StepError};
///
/// /// Adds a first note. An undo drops the whole database, so there is nothing to compensate.
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
    /// Name under which the journal stores the step. Do not change it once it is in use. Lower case with dots by
    /// convention. `build()` fails if two steps share a name.
    const NAME: &'static str;
    /// What the step returns. The journal stores it as JSON, so it must not hold a secret. `()` for a step without a
    /// result.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// Does the work. It must be idempotent under [`StepContext::idempotency_key`]: the future may be dropped at any
    /// await, and the step runs again on this node or another one.
    async fn run(&self, cx: &StepContext) -> Result<Self::Output, StepError>;
}

/// A step that can be undone, and that may therefore run before activation, the pivot step of a provisioning.
#[async_trait]
pub trait Compensate: Step {
    /// Makes sure that nothing of the step is left. `output` is `None` if `run` did not finish: its effect is unknown,
    /// so look it up by [`StepContext::idempotency_key`]. It must be idempotent too.
    async fn compensate(&self, cx: &StepContext, output: Option<Self::Output>) -> Result<(), StepError>;
}

/// What the engine gives to a step of the application: the tenant, the input, earlier outputs and connections. It holds
/// no secret that a step can read. Only [`LinkDelivery`](crate::store::tokens::LinkDelivery) receives the setup link.
pub struct StepContext {
    tenant: Tenant,
    operation: OperationId,
    step: &'static str,
    input: Value,
    outputs: Map<String, Value>,
    connect: Option<Arc<dyn Connect>>,
}

/// Opens connections to the tenant's database for a [`StepContext`].
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
    /// The tenant, as the registry had it when the step began.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
    /// Id of the operation that the step belongs to.
    pub fn operation(&self) -> OperationId {
        self.operation
    }
    /// A key that is the same for every attempt of this step in this operation. Pass it to external services.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.operation, self.step)
    }
    /// The value that the caller of `provision` passed to `.input(..)`. It fails the step if the value does not
    /// deserialize as `T`; without a call of `.input(..)` the value is JSON `null`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_value(self.input.clone()).map_err(StepError::fail)
    }
    /// The output of an earlier step. It fails this step, with both names in the error, if `S` has not run or its
    /// output does not deserialize.
    pub fn output<S: Step>(&self) -> Result<S::Output, StepError> {
        let missing = || {
            StepError::fail(format!("step {} needs the output of {}, which has not run before it", self.step, S::NAME))
        };
        let value = self.outputs.get(S::NAME).ok_or_else(missing)?;
        serde_json::from_value(value.clone())
            .map_err(|e| StepError::fail(format!("step {} cannot read the output of {}: {e}", self.step, S::NAME)))
    }
    /// Opens a connection to the tenant's database with the rights of its owner. It fails in a step after activation,
    /// because the migrator's login is dropped before activation.
    pub async fn connect_as_migrator(&self) -> Result<PgConnection, StepError> {
        match &self.connect {
            Some(connect) => connect.as_migrator().await,
            None => Err(StepError::fail("a StepContext made by for_test() has no database")),
        }
    }
    /// Opens a connection to the tenant's database as the application's login.
    pub async fn connect(&self) -> Result<PgConnection, StepError> {
        match &self.connect {
            Some(connect) => connect.as_app().await,
            None => Err(StepError::fail("a StepContext made by for_test() has no database")),
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
    /// Makes a context for a unit test of one step. It belongs to no operation and has no database.
    ///
    /// # Errors
    /// If `input` cannot be serialized as JSON.
    pub fn for_test(tenant: Tenant, input: impl Serialize) -> Result<Self, serde_json::Error> {
        let input = serde_json::to_value(input)?;
        Ok(Self::new(tenant, OperationId::from_uuid(uuid::Uuid::nil()), "test", input, Map::new(), None))
    }
    /// Adds the output of step `S`, as if it had run before.
    ///
    /// # Errors
    /// If `output` cannot be serialized as JSON.
    pub fn with_output<S: Step>(mut self, output: S::Output) -> Result<Self, serde_json::Error> {
        self.outputs.insert(S::NAME.into(), serde_json::to_value(output)?);
        Ok(self)
    }
}

/// Object-safe form of a [`Step`], with outputs as JSON, so that the builder can keep steps of all types in one list.
#[async_trait]
pub(crate) trait AnyStep: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    async fn run(&self, cx: &StepContext) -> Result<Value, StepError>;
    async fn compensate(&self, cx: &StepContext, output: Option<Value>) -> Result<(), StepError>;
}
/// A step with compensation, as an [`AnyStep`].
pub(crate) struct Undoable<S>(pub(crate) S);
/// A step without compensation, as an [`AnyStep`]. It runs after activation, where nothing is undone.
pub(crate) struct Forward<S>(pub(crate) S);

/// The JSON of a step's output, if the journal can store it.
fn to_output(step: &'static str, output: impl Serialize) -> Result<Value, StepError> {
    let output = serde_json::to_value(output).map_err(StepError::fail)?;
    match json::check(&output, json::MAX_INPUT) {
        Ok(()) => Ok(output),
        Err(rule) => Err(StepError::fail(format!("the output of the step {step} cannot be stored: {rule}"))),
    }
}

#[async_trait]
impl<S: Compensate> AnyStep for Undoable<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }
    async fn run(&self, cx: &StepContext) -> Result<Value, StepError> {
        to_output(S::NAME, self.0.run(cx).await?)
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
        to_output(S::NAME, self.0.run(cx).await?)
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
    async fn output_returns_the_value_of_an_earlier_step_or_names_the_missing_one() {
        let tenant = Tenant::new(TenantId::new(), "acme".parse().unwrap(), TenantStatus::Provisioning);
        let cx = StepContext::for_test(tenant, 7u32).unwrap();
        assert_eq!(Open.run(&cx).await.unwrap(), "acme-7");
        let missing = Count.run(&cx).await.unwrap_err();
        assert!(std::error::Error::source(&missing).unwrap().to_string().contains("billing.open"));
        let cx = cx.with_output::<Open>("acme-7".into()).unwrap();
        assert_eq!(Count.run(&cx).await.unwrap(), 6);
    }
}
