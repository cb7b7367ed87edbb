//! An undo that cannot succeed yet: it names what stands in its way, comes back, and ends once that is gone.
use super::chain::{Chain, Effects, Fails};
use super::{engine, intent, settings};
use crate::landlord;
use sqlx::Executor;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{FailureState, StepError};
use tenantry::journal::{Begun, Journal, PgJournal, Record};
use tenantry::operation::OperationStatus;
use tenantry::saga::{Observer, Outcome, Recoverer, Settings};
use tenantry::sqlx;
use time::OffsetDateTime;

struct Bench {
    journal: Arc<dyn Journal>,
    effects: Arc<Effects>,
    saga: Arc<Chain>,
    patience: Settings,
}

impl Bench {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        let journal: Arc<dyn Journal> = Arc::new(PgJournal::new(landlord.clone()));
        let effects = Arc::new(Effects::default());
        let full = Mutex::new(disk_full(&landlord, 20).await);
        let saga = Arc::new(Chain::new(effects.clone(), journal.clone()));
        let sold_out = Box::new(|| StepError::fail("sold out"));
        let full = Box::new(move || StepError::from(full.lock().unwrap().pop().expect("another one")));
        let login = Fails { step: "login", undo: false, error: sold_out };
        *effects.fails.lock().unwrap() = vec![login, Fails { step: "roles", undo: true, error: full }];
        let mut patience = settings();
        (patience.attempts, patience.backoff) = (2, Duration::from_millis(40));
        patience.backoff_limit = Duration::from_secs(60);
        Self { journal, effects, saga, patience }
    }

    /// Runs until `login` fails for good; the undo then meets a server without room.
    async fn fails(&self) -> Outcome {
        let begun = self.journal.begin(&intent(&self.saga, self.patience.lease)).await.unwrap();
        let Begun::New(held) = begun else { panic!("{begun:?}") };
        let engine = engine(self.journal.clone(), self.patience);
        engine.drive(&*self.saga, *held, true, &Observer::none()).await.unwrap()
    }

    /// One look of a recovering node.
    async fn recover(&self, record: &Record) -> Option<Outcome> {
        let recoverer = Recoverer::new(engine(self.journal.clone(), self.patience), vec![self.saga.clone()]);
        recoverer.resume(record.id).await.unwrap()
    }

    /// The same, again and again until it is due.
    async fn recover_when_due(&self, record: &Record) -> Outcome {
        for _ in 0..2000 {
            if let Some(outcome) = self.recover(record).await {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is never due: {:?}", self.read(record).await)
    }

    async fn read(&self, record: &Record) -> Record {
        self.journal.read(record.id).await.unwrap().unwrap()
    }

    /// When it failed last, and until when that makes it wait, by the landlord's clock.
    async fn wait(&self, record: &Record) -> (OffsetDateTime, OffsetDateTime) {
        let last = self.journal.events(record.id, 0, 1000).await.unwrap().pop().unwrap();
        assert!(last.error.is_some_and(|e| e.contains("53100")), "the history says why");
        (last.at, self.read(record).await.retry_at.expect("it waits"))
    }
}

/// What a server says whose disk is full, in its own language.
async fn disk_full(landlord: &sqlx::PgPool, times: usize) -> Vec<sqlx::Error> {
    const SAY: &str = "DO $$ BEGIN RAISE 'kein Platz' USING ERRCODE = '53100'; END $$";
    let mut errors = vec![];
    for _ in 0..times {
        errors.push(landlord.execute(SAY).await.unwrap_err());
    }
    errors
}

fn whole(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", whole(cause)),
        None => error.to_string(),
    }
}

#[tokio::test]
async fn an_undo_without_room_on_the_disk_says_so_and_ends_once_there_is_room() {
    let bench = Bench::new().await;
    let outcome = bench.fails().await;
    let (record, failure) = (outcome.record, outcome.failure.expect("a failure"));
    assert_eq!((failure.step.as_str(), failure.state), ("login", FailureState::Undoing));
    assert!(failure.retry_after.is_some());
    let text = whole(&failure);
    for word in ["sold out", "roles", "kein Platz", "53100"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let seen = bench.read(&record).await.state();
    assert_eq!((seen.status, seen.step.as_str()), (OperationStatus::Undoing, "roles"));
    assert!(seen.error.as_ref().is_some_and(|e| e.contains("kein Platz") && e.contains("53100")), "{seen:?}");
    assert_eq!(bench.effects.there(), ["place", "roles"], "what it could remove is gone");

    let mut waits = vec![bench.wait(&record).await];
    for _ in 0..3 {
        let failure = bench.recover_when_due(&record).await.failure.expect("still no room");
        assert_eq!((failure.step.as_str(), failure.state), ("roles", FailureState::Undoing));
        waits.push(bench.wait(&record).await);
    }
    assert!(waits.is_sorted_by(|one, next| one.1 <= next.0), "it is left alone until its time: {waits:?}");
    let waits: Vec<_> = waits.iter().map(|(failed, until)| *until - *failed).collect();
    assert!(waits.is_sorted_by(|one, next| one < next), "each wait is longer: {waits:?}");

    bench.effects.fails.lock().unwrap().clear();
    let ended = bench.recover_when_due(&record).await;
    assert_eq!(ended.record.status, OperationStatus::Undone);
    assert_eq!(bench.effects.there(), Vec::<&str>::new());
    assert!(bench.journal.open().await.unwrap().is_empty());
}
