//! An application's own steps in a provisioning, and its delivery of setup links: order, typed outputs, retries,
//! compensation, and what a failure reports.
use crate::auditor::{self, assert_nothing};
use crate::provision::migrated;
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{BuildError, FailureState, ProvisionError, StepError};
use tenantry::operation::OperationStatus;
use tenantry::step::{Compensate, Step, StepContext};
use tenantry::testing::Harness;
use tenantry::tokens::{LinkDelivery, PgTokenStore, SetupLink, TokenStore};
use tenantry::{Builder, Tenant, sqlx};

/// An external billing system: the accounts that are open.
#[derive(Clone, Default)]
struct Billing(Arc<Mutex<Vec<String>>>);

struct OpenAccount(Billing);
#[async_trait]
impl Step for OpenAccount {
    const NAME: &'static str = "billing.open";
    type Output = String;
    async fn run(&self, cx: &StepContext) -> Result<String, StepError> {
        let plan: String = cx.input()?;
        let account = format!("{plan}/{}", cx.idempotency_key());
        self.0.0.lock().unwrap().push(account.clone());
        Ok(account)
    }
}
#[async_trait]
impl Compensate for OpenAccount {
    async fn compensate(&self, cx: &StepContext, output: Option<String>) -> Result<(), StepError> {
        let account = output.ok_or_else(|| StepError::fail("the output of the completed step is missing"))?;
        assert!(account.ends_with(&cx.idempotency_key()), "{account}");
        self.0.0.lock().unwrap().retain(|a| *a != account);
        Ok(())
    }
}

/// Writes to the database as the migrator. Reads the output of an earlier step by the step's type.
struct Seed {
    fail: bool,
}
#[async_trait]
impl Step for Seed {
    const NAME: &'static str = "seed.plan";
    type Output = ();
    async fn run(&self, cx: &StepContext) -> Result<(), StepError> {
        let account = cx.output::<OpenAccount>()?;
        let mut db = cx.connect_as_migrator().await?;
        sqlx::query("INSERT INTO notes (text) VALUES ($1)").bind(account).execute(&mut db).await?;
        if self.fail { Err(StepError::fail("the plan is sold out")) } else { Ok(()) }
    }
}
#[async_trait]
impl Compensate for Seed {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        Ok(())
    }
}

/// Fails twice, then succeeds.
struct NotifySales(Arc<AtomicU32>);
#[async_trait]
impl Step for NotifySales {
    const NAME: &'static str = "sales.tell";
    type Output = u32;
    async fn run(&self, cx: &StepContext) -> Result<u32, StepError> {
        assert_eq!(cx.tenant().status(), tenantry::tenant::TenantStatus::Active);
        cx.connect().await?;
        assert!(cx.connect_as_migrator().await.is_err(), "the migrator must not exist after the activation");
        match self.0.fetch_add(1, SeqCst) {
            n @ 0..2 => Err(StepError::retry(format!("sales does not answer ({n})"))),
            n => Ok(n),
        }
    }
}

/// Collects the links that it is asked to deliver.
struct Mail(Arc<Mutex<Vec<String>>>);
#[async_trait]
impl LinkDelivery for Mail {
    async fn deliver(&self, tenant: &Tenant, link: &SetupLink) -> Result<(), StepError> {
        self.0.lock().unwrap().push(format!("{} {} {}", tenant.slug(), link.email, link.expose_path()));
        Ok(())
    }
}

#[tokio::test]
async fn host_steps_run_in_order_with_typed_outputs_and_the_link_is_delivered() {
    let harness = Harness::start().await.unwrap();
    let (billing, attempts, mails) = (Billing::default(), Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(vec![])));
    let tenantry = harness
        .tenantry(|b| {
            migrated(b)
                .before_activation(OpenAccount(billing.clone()))
                .before_activation(Seed { fail: false })
                .after_activation(NotifySales(attempts.clone()))
                .link_delivery(Mail(mails.clone()))
                .backoff(Duration::from_millis(1), Duration::from_millis(5))
        })
        .await
        .unwrap();
    let made = tenantry.provision("acme").admin("ada@acme.example").input(&"gold").await.unwrap();
    assert_eq!(attempts.load(SeqCst), 3, "the step must be retried until it succeeds");
    assert!(made.link.is_none(), "the link must go to the delivery only, not to the caller");
    let mails = mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].starts_with("acme ada@acme.example /setup/credentials/tny_"), "{mails:?}");
    let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM tenantry.credentials WHERE purpose = 'setup_link'")
        .fetch_one(harness.landlord())
        .await
        .unwrap();
    let issued = PgTokenStore::new(harness.landlord().clone()).of_tenant(made.tenant.id()).await.unwrap();
    assert_eq!(issued.iter().map(|t| t.delivered).collect::<Vec<_>>(), [true]);
    assert_eq!(secrets, 0, "the secret of a delivered link must be removed from the vault");
    let note: String =
        sqlx::query_scalar("SELECT text FROM notes").fetch_one(&tenantry.resolve("acme").await.unwrap()).await.unwrap();
    assert_eq!(vec![note], *billing.0.lock().unwrap());
}

#[tokio::test]
async fn failing_host_step_is_compensated_with_all_steps_before_it() {
    let harness = Harness::start().await.unwrap();
    let billing = Billing::default();
    let configure =
        |b| migrated(b).before_activation(OpenAccount(billing.clone())).before_activation(Seed { fail: true });
    let tenantry = harness.tenantry(configure).await.unwrap();
    let error = tenantry.provision("acme").admin("ada@acme.example").input(&"gold").await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("seed.plan", FailureState::Undone));
    assert_eq!(failure.cause.to_string(), "the plan is sold out");
    assert_eq!(*billing.0.lock().unwrap(), Vec::<String>::new(), "the account must be closed by the compensation");
    assert_nothing(&harness, "after a failed step of the application").await;
    assert_eq!(auditor::operations(harness.landlord(), "provision", "undone").await, 1);
}

#[tokio::test]
async fn build_refuses_two_steps_with_one_name() {
    let harness = Harness::start().await.unwrap();
    let twice = |b: tenantry::Builder| b.before_activation(Seed { fail: false }).before_activation(Seed { fail: true });
    let error = harness.tenantry(twice).await.unwrap_err();
    assert!(matches!(error, tenantry::testing::HarnessError::Build(BuildError::DuplicateStep("seed.plan"))));
}

/// Names that the journal cannot store, or that are names of its own entries.
const BAD_NAMES: [&str; 4] = ["", "$failure", "a\0b", TOO_LONG];
const TOO_LONG: &str = match std::str::from_utf8(&[b'x'; 101]) {
    Ok(name) => name,
    Err(_) => "",
};

struct BadlyNamed<const N: usize>;
#[async_trait]
impl<const N: usize> Step for BadlyNamed<N> {
    const NAME: &'static str = BAD_NAMES[N];
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test]
async fn build_refuses_a_step_whose_name_cannot_be_stored() {
    let harness = Harness::start().await.unwrap();
    let errors = [
        harness.tenantry(|b| b.after_activation(BadlyNamed::<0>)).await.unwrap_err(),
        harness.tenantry(|b| b.after_activation(BadlyNamed::<1>)).await.unwrap_err(),
        harness.tenantry(|b| b.after_activation(BadlyNamed::<2>)).await.unwrap_err(),
        harness.tenantry(|b| b.after_activation(BadlyNamed::<3>)).await.unwrap_err(),
    ];
    for (error, name) in errors.iter().zip(BAD_NAMES) {
        let is_named = matches!(error, tenantry::testing::HarnessError::Build(BuildError::Setting("Step::NAME", _)));
        assert!(is_named, "{name:?}: {error:?}");
    }
}

/// Fails, and cannot be compensated while the bank is closed (the flag is set).
struct Pay(Arc<AtomicBool>);
#[async_trait]
impl Step for Pay {
    const NAME: &'static str = "bank.pay";
    type Output = ();
    async fn run(&self, _: &StepContext) -> Result<(), StepError> {
        Err(StepError::fail("the account is overdrawn"))
    }
}
#[async_trait]
impl Compensate for Pay {
    async fn compensate(&self, _: &StepContext, _: Option<()>) -> Result<(), StepError> {
        if self.0.load(SeqCst) { Err(StepError::retry("the bank is closed")) } else { Ok(()) }
    }
}

/// Every node reports the failed step's cause and the cause that delays the undo.
#[tokio::test]
async fn waiting_undo_reports_both_causes_on_every_node() {
    let harness = Harness::start().await.unwrap();
    let closed = Arc::new(AtomicBool::new(true));
    let configure = |b: Builder| {
        migrated(b).before_activation(Pay(closed.clone())).backoff(Duration::from_millis(1), Duration::from_millis(5))
    };
    let (one, two) = (harness.tenantry(configure).await.unwrap(), harness.tenantry(configure).await.unwrap());
    let first = one.provision("acme").key("k").await.unwrap_err();
    let operation = first.operation_id().unwrap();
    let mut errors = vec![first];
    // Some of these calls only read the record. Others come after the wait and repeat the undo themselves.
    for _ in 0..10 {
        errors.push(two.provision("acme").key("k").await.unwrap_err());
    }
    for error in &errors {
        let ProvisionError::Failed(failure) = error else { panic!("{error:?}") };
        let reported = (failure.operation, failure.step.as_str(), failure.state);
        assert_eq!(reported, (operation, "bank.pay", FailureState::Undoing));
        let causes = (failure.cause.to_string(), failure.cause.source().map(|c| c.to_string()));
        let undo_waits = "undo waits to retry step bank.pay (the bank is closed)".into();
        assert_eq!(causes, (undo_waits, Some("the account is overdrawn".into())));
    }

    closed.store(false, SeqCst);
    while two.operations().get(operation).await.unwrap().unwrap().status != OperationStatus::Undone {
        two.operations().recover().await.unwrap();
    }
    let error = crate::crash::provisioner(&harness, two.operation_context()).watch(operation).await.unwrap_err();
    let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.step.as_str(), failure.state), ("bank.pay", FailureState::Undone));
    assert_eq!(
        failure.cause.to_string(),
        "the account is overdrawn",
        "a completed undo must report only the cause of the failed step"
    );
    assert_nothing(&harness, "after the undo succeeded").await;
}
