//! Calls for an operator's program, which does not run the background work of a node.
use crate::provision::migrated;
use async_trait::async_trait;
use futures_util::FutureExt;
use std::sync::Arc;
use tenantry::error::{OperationError, StepError};
use tenantry::operation::{OperationStatus, Subject};
use tenantry::step::{Compensate, Step, StepContext};
use tenantry::testing::Harness;
use tenantry::{OperationId, Tenant};
use tokio::sync::Semaphore;

/// A step that waits until the test lets it go on.
#[derive(Clone)]
struct Gate {
    entered: Arc<Semaphore>,
    opened: Arc<Semaphore>,
}
impl Gate {
    fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), opened: Arc::new(Semaphore::new(0)) }
    }
}
#[async_trait]
impl Step for Gate {
    const NAME: &'static str = "gate";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        self.entered.add_permits(1);
        let _ = self.opened.acquire().await;
        Ok(())
    }
}
#[async_trait]
impl Compensate for Gate {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test]
async fn take_over_continues_an_operation_only_after_its_worker_has_left_it() {
    let (harness, gate) = (Harness::start().await.unwrap(), Gate::new());
    let node = async || harness.tenantry(|b| migrated(b).before_activation(gate.clone())).await.unwrap();
    let (first, second) = (node().await, node().await);
    let id = first.provision("acme").start().await.unwrap();
    let _ = gate.entered.acquire().await;
    let refused = second.operations().take_over(id).await.unwrap();
    assert!(refused.is_none(), "an operation with a living worker was taken over: {refused:?}");

    // The first poll tells the worker to stop at the end of its step.
    let mut closing = std::pin::pin!(first.close());
    assert!(closing.as_mut().now_or_never().is_none(), "close() did not wait for the step");
    gate.opened.add_permits(10);
    closing.await;
    let open = second.operations().get(id).await.unwrap().unwrap();
    assert_eq!(open.status, OperationStatus::Running, "the operation ended before anything took it over");
    let state = second.operations().take_over(id).await.unwrap().expect("a released operation was not taken over");
    assert_eq!(state.status, OperationStatus::Done);
    assert_eq!(second.resolve("acme").await.unwrap().tenant().slug().as_str(), "acme");
    assert!(matches!(second.operations().take_over(id).await, Err(OperationError::Over { .. })));
    let unknown = second.operations().take_over(OperationId::new()).await;
    assert!(matches!(unknown, Err(OperationError::Unknown { .. })), "{unknown:?}");
    second.close().await;
}

#[tokio::test]
async fn history_lists_the_operations_of_one_subject_with_those_that_have_ended() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme = tenantry.provision("acme").await.unwrap().tenant;
    tenantry.provision("zeta").await.unwrap();
    tenantry.suspend("acme").await.unwrap();
    let kinds = async |subject: &Subject| {
        let rows = tenantry.operations().history(subject).await.unwrap();
        rows.iter().map(|operation| operation.kind.clone()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&Subject::Tenant(acme.id())).await, ["provision", "suspend"]);
    assert_eq!(kinds(&Subject::Server("main".parse().unwrap())).await, ["set_up_server"]);
    assert!(kinds(&Subject::Vault).await.is_empty());
    tenantry.close().await;
}

#[tokio::test]
async fn links_of_a_tenant_are_listed_until_they_are_revoked() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let acme: Tenant = tenantry.provision("acme").await.unwrap().tenant;
    let link = tenantry.tokens().issue("acme", "ada@acme.example").await.unwrap();
    let listed = tenantry.tokens().list(acme.id()).await.unwrap();
    assert_eq!(listed.iter().map(|issued| issued.id).collect::<Vec<_>>(), [link.id]);
    tenantry.tokens().revoke(link.id).await.unwrap();
    assert!(tenantry.tokens().list(acme.id()).await.unwrap().is_empty(), "a revoked link is listed as valid");
    tenantry.close().await;
}

/// The tenants' databases are not connected to, so the examination finds nothing there.
#[tokio::test]
async fn doctor_of_the_landlord_alone_connects_to_no_server() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let plan = tenantry.doctor().landlord_only().examine().await.unwrap();
    assert_eq!((plan.servers, plan.tenants), (0, 0));
    assert!(plan.findings.is_empty(), "{:?}", plan.findings);
    tenantry.close().await;
}
