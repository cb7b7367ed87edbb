//! The saga engine over a journal that loses calls or answers. Every operation ends exactly once: its steps are then
//! either all done or all undone, and its lane is free.
mod chain;
pub(crate) mod failing;
mod undo;

use crate::landlord;
use async_trait::async_trait;
use chain::{Effects, InjectedFailure, STEPS, chain};
use failing::{Failing, Lost, Outage};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tenantry::TenantId;
use tenantry::error::{StepError, StoreError};
use tenantry::journal::{Begun, Intent, Journal, MemoryJournal, PgJournal, Record};
use tenantry::operation::{OperationId, OperationStatus, Subject};
use tenantry::saga::{CallOptions, Engine, EpochFence, NewOperation, Observer, Recoverer, Saga, Settings};
use tokio_util::sync::CancellationToken;

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.lease = Duration::from_millis(300);
    (settings.backoff, settings.backoff_limit) = (Duration::from_millis(1), Duration::from_millis(4));
    settings
}

fn engine(journal: Arc<dyn Journal>, settings: Settings) -> Engine {
    Engine::new(journal, vec![], settings, CancellationToken::new())
}

/// The intent of a new operation, with a key.
fn intent(saga: &Saga<()>, settings: Settings) -> Intent {
    let engine = engine(Arc::new(MemoryJournal::default()), settings);
    let (subject, options) = (Subject::Tenant(TenantId::new()), CallOptions::new().key(OperationId::new()));
    engine.intent(saga, subject, &serde_json::Value::Null, &options).unwrap()
}

/// A store of the application outside the landlord. A crash of the landlord does not affect it.
struct ExternalStore;
#[async_trait]
impl EpochFence for ExternalStore {
    async fn fence(&self, _: OperationId, _: i64) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A landlord that crashes may lose an intent that was committed asynchronously. A write to an external store would
/// survive its intent then, so where the application has such a store every intent must be durable before its step.
#[tokio::test]
async fn intent_is_durable_before_each_step_if_the_host_has_an_external_store() {
    for stores in [vec![], vec![Arc::new(ExternalStore) as Arc<dyn EpochFence>]] {
        let is_external = !stores.is_empty();
        let case = Case::new(Arc::new(MemoryJournal::default()), None);
        let journal = Failing::new(case.journal.clone(), Outage::none());
        let Ok(Begun::New(record)) = journal.begin(&case.intent).await else {
            panic!("begin created no operation although its lane is free")
        };
        let engine = Engine::new(journal.clone(), stores, settings(), CancellationToken::new());
        let operation = NewOperation::new(case.saga(), record, None);
        let outcome = operation.drive(&engine, &Observer::none()).await.unwrap();
        assert_eq!(outcome.record.status, OperationStatus::Done);
        // The records of the second and fourth step carry the intent of the next step. The fifth step writes only to
        // the landlord, so its intent needs no wait unless there is an external store.
        let is_durable = [false, true, false, is_external, is_external];
        let expected: Vec<_> =
            STEPS.iter().zip(is_durable).map(|((name, _), durable)| (name.to_string(), durable)).collect();
        assert_eq!(journal.recorded(), expected, "whether each record was durable; external store: {is_external}");
    }
}

/// One operation: its journal, the effects of its steps, and its intent.
struct Case {
    journal: Arc<dyn Journal>,
    effects: Arc<Effects>,
    intent: Intent,
}

impl Case {
    /// `failing_step`: the step that always fails, if there is one.
    fn new(journal: Arc<dyn Journal>, failing_step: Option<&'static str>) -> Self {
        let effects = Arc::new(Effects::default());
        let error = Box::new(|| StepError::fail("sold out"));
        let failure = failing_step.map(|step| InjectedFailure { step, undo: false, error });
        effects.failures.lock().unwrap().extend(failure);
        let intent = intent(&chain(&effects, &journal), settings());
        Self { journal, effects, intent }
    }
    fn saga(&self) -> Arc<Saga<()>> {
        chain(&self.effects, &self.journal)
    }
    /// Begins the operation, with the same key until an answer arrives. Then drives it until it ends or the worker
    /// gives up.
    async fn work(&self, outage: Outage) -> Arc<Failing> {
        let failing = Failing::new(self.journal.clone(), outage);
        let begun = loop {
            if let Ok(begun) = failing.begin(&self.intent).await {
                break begun;
            }
        };
        match begun {
            // A worker that cannot reach its journal gives up. Recovery then completes the operation.
            Begun::New(record) => {
                let engine = engine(failing.clone(), settings());
                let _ = NewOperation::new(self.saga(), record, None).drive(&engine, &Observer::none()).await;
            }
            Begun::Joined(record) => assert_eq!(record.id, self.intent.id),
        }
        failing
    }
    /// Runs recovery until the operation has ended. `outage` affects the journal calls of the recovering node.
    async fn recover(&self, outage: Outage) -> Arc<Failing> {
        let failing = Failing::new(self.journal.clone(), outage);
        let recoverer = Recoverer::new(engine(failing.clone(), settings()), vec![self.saga()]);
        for _ in 0..2000 {
            if self.record().await.status.is_over() {
                return failing;
            }
            let _ = recoverer.resume(self.intent.id).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("recovery did not end the operation: {:?}", self.record().await);
    }
    async fn record(&self) -> Record {
        self.journal.read(self.intent.id).await.unwrap().unwrap()
    }
    /// Asserts that the operation ended once with this status, that the effects match it, and that the lane is free.
    async fn assert_ended(&self, end: OperationStatus, why: &str) {
        let record = self.record().await;
        assert_eq!(record.status, end, "{why}: {:?}", record.error);
        let mut present = self.effects.present();
        let mut complete: Vec<_> = STEPS.iter().map(|s| s.0).collect();
        complete.sort_unstable();
        present.sort_unstable();
        let expected = if end == OperationStatus::Done { complete } else { vec![] };
        assert_eq!(present, expected, "{why}: effects that exist");
        let events = self.journal.events(self.intent.id, 0, 1000).await.unwrap();
        let ends: Vec<_> = events.iter().filter(|e| e.status.is_over()).map(|e| e.seq).collect();
        assert_eq!(ends, [events.len() as i64], "{why}: the last event must be the only one with a final status");
        let mut next = self.intent.clone();
        (next.id, next.key) = (OperationId::new(), None);
        let next = self.journal.begin(&next).await;
        assert!(matches!(next, Ok(Begun::New(_))), "{why}: the lane is not free: {next:?}");
    }
}

/// The step that fails, and the status with which the operation must end.
const SCENARIOS: [(Option<&str>, OperationStatus); 3] =
    [(None, OperationStatus::Done), (Some("login"), OperationStatus::Undone), (Some("place"), OperationStatus::Undone)];
const LOSSES: [Lost; 2] = [Lost::Call, Lost::Answer];

/// Runs each scenario once for each journal call of its worker, with outages of these lengths that begin at that call.
async fn lose_each_call(journal: impl Fn() -> Arc<dyn Journal>, lengths: &[u32]) {
    for (failing_step, end) in SCENARIOS {
        let undisturbed = Case::new(journal(), failing_step);
        let calls = undisturbed.work(Outage::none()).await.calls();
        assert!(calls >= 4, "a worker makes only {calls} journal calls");
        undisturbed.assert_ended(end, "without a fault").await;
        let points = (1..=calls).flat_map(|n| LOSSES.into_iter().map(move |lost| (n, lost)));
        join_all(points.flat_map(|(n, lost)| lengths.iter().map(move |l| (n, *l, lost))).map(
            async |(n, length, lost)| {
                let case = Case::new(journal(), failing_step);
                let failing = case.work(Outage::of(n..n + length, lost)).await;
                assert!(!failing.hit().is_empty(), "{failing_step:?}: the worker made no call {n}");
                case.recover(Outage::none()).await;
                // If the landlord is unreachable for all attempts of a step, the worker may start undoing the
                // operation.
                let was_undone = length >= settings().attempts && case.record().await.status == OperationStatus::Undone;
                let end = if was_undone { OperationStatus::Undone } else { end };
                case.assert_ended(
                    end,
                    &format!("{failing_step:?}, calls {n} to {} ({lost:?}) {:?}", n + length - 1, failing.hit()),
                )
                .await;
            },
        ))
        .await;
    }
}

#[tokio::test]
async fn memory_journal_ends_operation_once_when_any_call_fails() {
    lose_each_call(|| Arc::new(MemoryJournal::default()), &[1, 2, 6]).await;
}

#[tokio::test]
async fn pg_journal_ends_operation_once_when_any_call_fails() {
    let journal = Arc::new(PgJournal::new(landlord::installed().await));
    lose_each_call(|| journal.clone(), &[1, 6]).await;
}

/// The worker loses all journal calls from its n-th on. Recovery loses its m-th.
#[tokio::test]
async fn recovery_ends_operation_once_when_any_of_its_calls_fails() {
    for (failing_step, end) in SCENARIOS {
        let undisturbed = Case::new(Arc::new(MemoryJournal::default()), failing_step);
        let calls = undisturbed.work(Outage::none()).await.calls();
        // The first call begins the operation. Without it there is nothing to recover.
        let points = (2..=calls).flat_map(|n| LOSSES.into_iter().map(move |lost| (n, lost)));
        join_all(points.map(async |(n, lost)| {
            let abandoned_case = async || {
                let case = Case::new(Arc::new(MemoryJournal::default()), failing_step);
                case.work(Outage::of(n..u32::MAX, lost)).await;
                case
            };
            let recoveries = abandoned_case().await.recover(Outage::none()).await.calls();
            join_all((1..=recoveries).flat_map(|m| LOSSES.map(|l| (m, l))).map(async |(m, l)| {
                let case = abandoned_case().await;
                case.recover(Outage::of(m..m + 1, l)).await;
                case.assert_ended(
                    end,
                    &format!("{failing_step:?}, worker died at {n} ({lost:?}), recovery lost {m} ({l:?})"),
                )
                .await;
            }))
            .await;
        }))
        .await;
    }
}

#[tokio::test]
async fn step_outside_the_first_intent_is_intended_before_it_runs() {
    let mut case = Case::new(Arc::new(MemoryJournal::default()), None);
    case.intent.intended = 0;
    case.work(Outage::none()).await;
    case.assert_ended(OperationStatus::Done, "begun with an empty intent").await;
}

/// A newer version of the program began the operation. This version has no saga of that kind.
#[tokio::test]
async fn recovery_leaves_an_operation_of_an_unknown_kind_unchanged() {
    let case = Case::new(Arc::new(MemoryJournal::default()), None);
    let mut newer = case.intent.clone();
    (newer.kind, newer.lease) = ("newer".into(), Duration::ZERO);
    let Begun::New(begun) = case.journal.begin(&newer).await.unwrap() else {
        panic!("begin created no operation although its lane is free")
    };
    let recoverer = Recoverer::new(engine(case.journal.clone(), settings()), vec![case.saga()]);
    assert_eq!(recoverer.recover_due().await.unwrap().left, 1);
    let record = case.record().await;
    assert_eq!((record.epoch, record.worker, record.status), (1, begun.worker, OperationStatus::Running));
    assert_eq!(case.effects.present(), Vec::<&str>::new());
}
