//! Texts and JSON of the application: what is accepted comes back as it was, and what is not is refused with the field
//! and the rule before anything is written.
use crate::provision::migrated;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tenantry::error::{BeginError, FailureState, ProvisionError, StepError, chain};
use tenantry::journal::{Begun, Intent, Journal, PgJournal};
use tenantry::operation::{Lane, OperationId, Subject};
use tenantry::registry::TenantRegistry;
use tenantry::sqlx;
use tenantry::step::{Compensate, Step, StepContext};
use tenantry::testing::Harness;
use tenantry::{TenantId, Tenantry};

/// Values that `jsonb` or a reader of JSON may change.
fn nasty_values() -> Vec<Value> {
    let floats =
        [0.0, -0.0, 1.0, 100.0, 0.1 + 0.2, 1e15, 1e16, -1e16, 1e17, 9.007199254740993e15, 1.844674407370955e19];
    let more = [1e20, 1e22, 1e300, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 1e-7, 123456789.12345678];
    let mut values: Vec<Value> = floats.iter().chain(&more).map(|float| json!(float)).collect();
    values.extend([json!(u64::MAX), json!(i64::MIN), json!(1), json!(null), json!(""), json!([]), json!({})]);
    values.extend([json!("\u{1}\u{7f}\u{fffd}\u{10ffff}\\u0000 \"'"), json!({ "b": 1, "a": { "": [1.0, 1, 1e2] } })]);
    values.push((0..90).fold(json!(1.5), |inner, _| json!([inner])));
    let mut random = StdRng::seed_from_u64(20261130);
    for _ in 0..300 {
        let float = f64::from_bits(random.random());
        values.push(if float.is_finite() { json!({ "f": float }) } else { json!(random.random::<i64>()) });
    }
    values
}

#[tokio::test]
async fn metadata_is_read_back_equal() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let made = tenantry.provision("acme").metadata(json!(nasty_values())).key("form-1").await.unwrap();
    let stored = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    for (stored, given) in stored.metadata().as_array().unwrap().iter().zip(nasty_values()) {
        assert_eq!(*stored, given);
        assert_eq!(stored.is_f64(), given.is_f64(), "{given} is no longer the same kind of number");
    }
    let joined = tenantry.provision("acme").metadata(json!(nasty_values())).key("form-1").await.unwrap();
    assert_eq!(joined.operation, made.operation, "the same call began a second operation");
}

#[tokio::test]
async fn key_joins_for_the_same_json_and_is_reused_for_another() {
    let journal = PgJournal::new(crate::landlord::installed().await);
    let intent = |key: usize, request: Value| {
        let subject = Subject::Tenant(TenantId::new());
        let mut intent = Intent::new(OperationId::new(), "test", Lane::Change, subject);
        (intent.key, intent.request) = (Some(format!("key {key}")), request);
        intent
    };
    for (key, value) in nasty_values().into_iter().enumerate() {
        let first = intent(key, value.clone());
        assert!(matches!(journal.begin(&first).await.unwrap(), Begun::New(_)));
        let again = journal.begin(&intent(key, value.clone())).await;
        assert!(matches!(&again, Ok(Begun::Joined(record)) if record.id == first.id), "{value}: {again:?}");
        let other = journal.begin(&intent(key, json!([value, "other"]))).await;
        assert!(matches!(other, Err(BeginError::KeyReused { operation }) if operation == first.id), "{other:?}");
    }
    let notations =
        [(json!({"a": 1, "b": 2.0}), json!({"b": 2, "a": 1.0})), (json!(1e16), json!(10_000_000_000_000_000u64))];
    for (key, (one, same)) in notations.into_iter().enumerate() {
        journal.begin(&intent(1000 + key, one)).await.unwrap();
        assert!(matches!(journal.begin(&intent(1000 + key, same)).await, Ok(Begun::Joined(_))));
    }
    for (key, (one, other)) in [(json!(1), json!("1")), (json!([]), json!({})), (json!(0.1), json!(0.1 + f64::EPSILON))]
        .into_iter()
        .enumerate()
    {
        journal.begin(&intent(2000 + key, one)).await.unwrap();
        assert!(matches!(journal.begin(&intent(2000 + key, other)).await, Err(BeginError::KeyReused { .. })));
    }
}

/// The text of a call's error with its causes; `None` if the call succeeded.
fn refusal<T, E: std::error::Error + 'static>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| chain(&error))
}

/// Every public call that takes text or JSON, with this text, and the field that its error must name.
async fn calls(harness: &Harness, tenantry: &Tenantry, text: &str) -> Vec<(&'static str, Option<String>)> {
    let admin = || harness.server().admin_options();
    let acme = tenantry.registry().find("acme".into()).await.unwrap().unwrap();
    let entry = tenantry.registry().primary(acme.id()).await.unwrap().unwrap();
    let writer = tenantry.registry_writer();
    let mut moved = entry.clone();
    moved.host = text.into();
    let mut renamed_session = entry.clone();
    renamed_session.settings.application_name = Some(text.into());
    vec![
        ("slug", refusal(tenantry.provision(text).await)),
        ("name", refusal(tenantry.provision("globex").name(text).await)),
        ("admin", refusal(tenantry.provision("globex").admin(text).await)),
        ("domain", refusal(tenantry.provision("globex").domain(text).await)),
        ("server", refusal(tenantry.provision("globex").server(text).await)),
        ("metadata", refusal(tenantry.provision("globex").metadata(json!({ "a": [text] })).await)),
        ("metadata", refusal(tenantry.provision("globex").metadata(json!({ text: 1 })).await)),
        ("input", refusal(tenantry.provision("globex").input(&[text]).await)),
        ("idempotency key", refusal(tenantry.provision("globex").key(text).await)),
        ("reason", refusal(tenantry.provision("globex").reason(text).await)),
        ("idempotency key", refusal(tenantry.suspend("acme").key(text).await)),
        ("reason", refusal(tenantry.suspend("acme").reason(text).await)),
        ("reason", refusal(tenantry.activate("acme").reason(text).await)),
        ("idempotency key", refusal(tenantry.archive("acme").key(text).await)),
        ("idempotency key", refusal(tenantry.purge("acme").force().key(text).await)),
        ("idempotency key", refusal(tenantry.migrate("acme").key(text).await)),
        ("reason", refusal(tenantry.rotate("acme").reason(text).await)),
        ("reason", refusal(tenantry.rekey().reason(text).await)),
        ("reason", refusal(tenantry.operations().abandon(OperationId::new(), text).await)),
        ("reason", refusal(tenantry.operations().skip_step(OperationId::new(), "notify", text).await)),
        ("server", refusal(tenantry.rotate_server(text).await)),
        ("idempotency key", refusal(tenantry.rotate_server("main").key(text).await)),
        ("email", refusal(tenantry.tokens().issue("acme", text).await)),
        ("server", refusal(tenantry.servers().set_up(text, admin()).await)),
        ("prefix", refusal(tenantry.servers().set_up("second", admin()).prefix(text).await)),
        ("host", refusal(tenantry.servers().set_up("second", admin()).prefix("p2").address(text, 5432).await)),
        ("labels", refusal(tenantry.servers().set_up("second", admin()).prefix("p2").labels(json!([text])).await)),
        ("root certificate", refusal(tenantry.servers().set_up("second", admin()).root_certificate(text).await)),
        ("server", refusal(tenantry.servers().drain(text).await)),
        ("role", refusal(tenantry.servers().allow_role("main", text).await)),
        ("server", refusal(tenantry.servers().relocate(text, "db2", 5432).await)),
        ("host", refusal(tenantry.servers().relocate("main", text, 5432).await)),
        ("name", refusal(writer.update(&acme, &acme.clone().with_name(text), None).await)),
        ("metadata", refusal(writer.update(&acme, &acme.clone().with_metadata(json!(text)), None).await)),
        ("host", refusal(writer.put_database(None, &moved, None).await)),
        ("settings", refusal(writer.put_database(Some(entry.generation), &renamed_session, None).await)),
    ]
}

/// The number of rows that a call could have written.
async fn rows(harness: &Harness) -> Vec<i64> {
    const COUNT: &str =
        "SELECT ARRAY[(SELECT count(*) FROM tenantry.tenants), (SELECT count(*) FROM tenantry.operations),
        (SELECT count(*) FROM tenantry.setup_tokens), (SELECT count(*) FROM tenantry.database_servers),
        (SELECT count(*) FROM tenantry.tenant_databases), (SELECT count(*) FROM tenantry.credentials)]";
    sqlx::query_scalar(COUNT).fetch_one(harness.landlord()).await.unwrap()
}

#[tokio::test]
async fn unusable_text_is_refused_by_every_call_with_field_and_rule() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    tenantry.provision("acme").await.unwrap();
    let before = rows(&harness).await;
    let long = "x".repeat(2_000_000);
    for text in ["ac\0me", &long] {
        for (field, refusal) in calls(&harness, &tenantry, text).await {
            let error = refusal.unwrap_or_else(|| panic!("{field} was accepted with {} bytes", text.len()));
            assert!(error.contains(&format!("the {field} ")), "{field}: {error}");
            assert!(error.contains("allowed") || error.contains("forbidden") || error.contains("must be"), "{error}");
            assert!(!error.contains("try again") && error.len() < 500, "{field}: {error}");
        }
        assert_eq!(rows(&harness).await, before, "a refused call wrote something");
    }
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let error = tenantry.provision("globex").metadata(deep).await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "metadata", .. }), "{error:?}");
    let error = tenantry.provision("globex").key("").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Invalid { field: "idempotency key", .. }), "{error:?}");
    assert_eq!(rows(&harness).await, before);
}

#[tokio::test]
async fn longest_allowed_texts_are_stored() {
    let harness = Harness::start().await.unwrap();
    let tenantry = harness.tenantry(migrated).await.unwrap();
    let metadata = json!("m".repeat(64 * 1024 - 2));
    let call = tenantry.provision("acme").key("k".repeat(200)).reason("r".repeat(4096)).name("n".repeat(200));
    let made = call.metadata(metadata.clone()).input(&"i".repeat(1024 * 1024 - 2)).await.unwrap();
    assert_eq!(*made.tenant.metadata(), metadata);
    let state = tenantry.operations().get(made.operation).await.unwrap().unwrap();
    assert_eq!(state.reason.map(|reason| reason.len()), Some(4096));
}

/// A step of the application whose error and output the journal could not store as they are.
struct Odd {
    fails: bool,
}
#[async_trait]
impl Step for Odd {
    const NAME: &'static str = "odd";
    type Output = String;
    async fn run(&self, _: &StepContext) -> Result<String, StepError> {
        if self.fails { Err(StepError::fail(format!("bo\0m {}", "x".repeat(100_000)))) } else { Ok("a\0b".into()) }
    }
}
#[async_trait]
impl Compensate for Odd {
    async fn compensate(&self, _: &StepContext, _: Option<String>) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test]
async fn step_whose_error_or_output_has_a_nul_fails_and_is_undone() {
    for fails in [true, false] {
        let harness = Harness::start().await.unwrap();
        let tenantry = harness.tenantry(|b| migrated(b).before_activation(Odd { fails })).await.unwrap();
        let error = tenantry.provision("acme").await.unwrap_err();
        let ProvisionError::Failed(failure) = &error else { panic!("{error:?}") };
        assert_eq!((failure.state, failure.step.as_str()), (FailureState::Undone, "odd"));
        let state = tenantry.operations().get(failure.operation).await.unwrap().unwrap();
        let recorded = state.error.unwrap();
        assert!(recorded.contains(if fails { "bo\u{fffd}m" } else { "output of the step odd" }), "{recorded:.200}");
        assert!(recorded.len() < 10_000, "{}", recorded.len());
    }
}
