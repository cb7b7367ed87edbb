//! The engine over a journal that loses calls and answers: every operation ends, once, and leaves nothing half.
mod chain;
pub(crate) mod failing;
mod undo;

use crate::landlord;
use async_trait::async_trait;
use chain::{Chain, Effects, Fails, STEPS};
use failing::{Failing, Lost, Outage};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tenantry::TenantId;
use tenantry::error::{StepError, StoreError};
use tenantry::journal::{Begun, Intent, Journal, MemoryJournal, PgJournal, Record};
use tenantry::operation::{Lane, OperationId, OperationStatus, Subject};
use tenantry::saga::{Engine, EpochFence, Observer, Recoverer, Saga, Settings};
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

fn intent(saga: &Chain, lease: Duration) -> Intent {
    let id = OperationId::new();
    let mut intent = Intent::new(id, saga.kind(), Lane::Change, Subject::Tenant(TenantId::new()));
    (intent.intended, intent.total) = (Engine::first_intent(saga), STEPS.len() as u32);
    (intent.key, intent.worker, intent.lease) = (Some(id.to_string()), id.to_string(), lease);
    intent
}

/// A host's own store, which a crash of the landlord does not touch.
struct Elsewhere;
#[async_trait]
impl EpochFence for Elsewhere {
    async fn fence(&self, _: OperationId, _: i64) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What was written elsewhere must not outlive its intent, which a landlord that crashes may forget.
#[tokio::test]
async fn where_a_host_has_a_store_of_its_own_each_intent_is_on_the_disk_before_its_step() {
    for stores in [vec![], vec![Arc::new(Elsewhere) as Arc<dyn EpochFence>]] {
        let elsewhere = !stores.is_empty();
        let case = Case::new(Arc::new(MemoryJournal::default()), None);
        let journal = Failing::new(case.journal.clone(), Outage::none());
        let Ok(Begun::New(held)) = journal.begin(&case.intent).await else { panic!("it has no rival") };
        let engine = Engine::new(journal.clone(), stores, settings(), CancellationToken::new());
        let outcome = engine.drive(&case.saga(), *held, true, &Observer::none()).await.unwrap();
        assert_eq!(outcome.record.status, OperationStatus::Done);
        // The second and the fourth carry the intent of the next step; that of the fifth is in the landlord's tables.
        let waited = [false, true, false, elsewhere, elsewhere];
        let expected: Vec<_> = STEPS.iter().zip(waited).map(|((name, _), waited)| (name.to_string(), waited)).collect();
        assert_eq!(journal.recorded(), expected, "stores elsewhere: {elsewhere}");
    }
}

/// One operation, its world, and what its worker and its recovery meet.
struct Case {
    journal: Arc<dyn Journal>,
    effects: Arc<Effects>,
    intent: Intent,
}

impl Case {
    /// `fails`: the step that can never succeed, if there is one.
    fn new(journal: Arc<dyn Journal>, fails: Option<&'static str>) -> Self {
        let effects = Arc::new(Effects::default());
        let error = Box::new(|| StepError::fail("sold out"));
        *effects.fails.lock().unwrap() = fails.map(|step| Fails { step, undo: false, error }).into_iter().collect();
        let intent = intent(&Chain::new(effects.clone(), journal.clone()), settings().lease);
        Self { journal, effects, intent }
    }
    fn saga(&self) -> Chain {
        Chain::new(self.effects.clone(), self.journal.clone())
    }
    /// A caller that asks again under its key until it is answered, and a worker that goes on as long as it can.
    async fn work(&self, outage: Outage) -> Arc<Failing> {
        let failing = Failing::new(self.journal.clone(), outage);
        let begun = loop {
            if let Ok(begun) = failing.begin(&self.intent).await {
                break begun;
            }
        };
        match begun {
            // A worker that cannot reach its journal gives up; what it leaves is for recovery.
            Begun::New(held) => {
                let engine = engine(failing.clone(), settings());
                let _ = engine.drive(&self.saga(), *held, true, &Observer::none()).await;
            }
            Begun::Joined(record) => assert_eq!(record.id, self.intent.id),
            other => panic!("{other:?}"),
        }
        failing
    }
    /// Passes until it has ended. The first `outage` is this node's own.
    async fn recover(&self, outage: Outage) -> Arc<Failing> {
        let failing = Failing::new(self.journal.clone(), outage);
        let recoverer = Recoverer::new(engine(failing.clone(), settings()), vec![Arc::new(self.saga())]);
        for _ in 0..2000 {
            if self.record().await.status.is_over() {
                return failing;
            }
            let _ = recoverer.resume(self.intent.id).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never ended: {:?}", self.record().await);
    }
    async fn record(&self) -> Record {
        self.journal.read(self.intent.id).await.unwrap().unwrap()
    }
    /// It ended, once, and what is there is what the end says.
    async fn assert_ended(&self, end: OperationStatus, why: &str) {
        let record = self.record().await;
        assert_eq!(record.status, end, "{why}: {:?}", record.error);
        let mut there = self.effects.there();
        let mut whole: Vec<_> = STEPS.iter().map(|s| s.0).collect();
        whole.sort_unstable();
        there.sort_unstable();
        assert_eq!(there, if end == OperationStatus::Done { whole } else { vec![] }, "{why}");
        let events = self.journal.events(self.intent.id, 0, 1000).await.unwrap();
        let ends: Vec<_> = events.iter().filter(|e| e.status.is_over()).map(|e| e.seq).collect();
        assert_eq!(ends, [events.len() as i64], "{why}: one end, and nothing after it");
        let mut next = self.intent.clone();
        (next.id, next.key) = (OperationId::new(), None);
        let next = self.journal.begin(&next).await.unwrap();
        assert!(matches!(next, Begun::New(_)), "{why}: its lane is free: {next:?}");
    }
}

/// The step that fails, and where the operation must end.
const WAYS: [(Option<&str>, OperationStatus); 3] =
    [(None, OperationStatus::Done), (Some("login"), OperationStatus::Undone), (Some("place"), OperationStatus::Undone)];
const LOSSES: [Lost; 2] = [Lost::Call, Lost::Answer];

/// Every n-th call of each way, for outages of these lengths.
async fn sweep(journal: impl Fn() -> Arc<dyn Journal>, lengths: &[u32]) {
    for (fails, end) in WAYS {
        let whole = Case::new(journal(), fails);
        let calls = whole.work(Outage::none()).await.calls();
        assert!(calls >= 4, "{calls}");
        whole.assert_ended(end, "without a fault").await;
        let points = (1..=calls).flat_map(|n| LOSSES.into_iter().map(move |lost| (n, lost)));
        join_all(points.flat_map(|(n, lost)| lengths.iter().map(move |l| (n, *l, lost))).map(
            async |(n, length, lost)| {
                let case = Case::new(journal(), fails);
                let failing = case.work(Outage::of(n..n + length, lost)).await;
                assert!(!failing.hit().is_empty(), "{fails:?}: call {n} never came");
                case.recover(Outage::none()).await;
                // A landlord that is away for longer than a worker's patience may turn an operation around.
                let turned = length >= settings().attempts && case.record().await.status == OperationStatus::Undone;
                let end = if turned { OperationStatus::Undone } else { end };
                case.assert_ended(
                    end,
                    &format!("{fails:?}, calls {n} to {} ({lost:?}) {:?}", n + length - 1, failing.hit()),
                )
                .await;
            },
        ))
        .await;
    }
}

#[tokio::test]
async fn an_operation_ends_once_whatever_call_its_worker_loses() {
    sweep(|| Arc::new(MemoryJournal::default()), &[1, 2, 6]).await;
}

#[tokio::test]
async fn and_so_it_does_in_the_landlord() {
    let journal = Arc::new(PgJournal::new(landlord::installed().await));
    sweep(|| journal.clone(), &[1, 6]).await;
}

/// A worker that never answers again after its n-th call, and a recovery that loses its m-th.
#[tokio::test]
async fn recovery_may_lose_calls_too() {
    for (fails, end) in WAYS {
        let whole = Case::new(Arc::new(MemoryJournal::default()), fails);
        let calls = whole.work(Outage::none()).await.calls();
        // The first call is the intent's: without it there is nothing to recover.
        let points = (2..=calls).flat_map(|n| LOSSES.into_iter().map(move |lost| (n, lost)));
        join_all(points.map(async |(n, lost)| {
            let left = async || {
                let case = Case::new(Arc::new(MemoryJournal::default()), fails);
                case.work(Outage::of(n..u32::MAX, lost)).await;
                case
            };
            let recoveries = left().await.recover(Outage::none()).await.calls();
            join_all((1..=recoveries).flat_map(|m| LOSSES.map(|l| (m, l))).map(async |(m, l)| {
                let case = left().await;
                case.recover(Outage::of(m..m + 1, l)).await;
                case.assert_ended(end, &format!("{fails:?}, dead at {n} ({lost:?}), recovery lost {m} ({l:?})")).await;
            }))
            .await;
        }))
        .await;
    }
}

#[tokio::test]
async fn a_step_that_the_first_intent_does_not_cover_is_intended_before_it_runs() {
    let mut case = Case::new(Arc::new(MemoryJournal::default()), None);
    case.intent.intended = 0;
    case.work(Outage::none()).await;
    case.assert_ended(OperationStatus::Done, "begun with an empty intent").await;
}

/// A newer version of the program began it: this one does not know how it goes on.
#[tokio::test]
async fn an_operation_of_an_unknown_kind_is_left_alone() {
    let case = Case::new(Arc::new(MemoryJournal::default()), None);
    let mut newer = case.intent.clone();
    (newer.kind, newer.lease) = ("newer".into(), Duration::ZERO);
    let Begun::New(begun) = case.journal.begin(&newer).await.unwrap() else { panic!("its lane is free") };
    let recoverer = Recoverer::new(engine(case.journal.clone(), settings()), vec![Arc::new(case.saga())]);
    assert_eq!(recoverer.pass().await.unwrap().left, 1);
    let record = case.record().await;
    assert_eq!((record.epoch, record.worker, record.status), (1, begun.worker, OperationStatus::Running));
    assert_eq!(case.effects.there(), Vec::<&str>::new());
}
