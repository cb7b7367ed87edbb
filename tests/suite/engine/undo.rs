//! An undo that cannot succeed yet. The operation reports the obstacle, waits longer after each attempt, and ends once
//! the obstacle is gone.
use super::chain::{Effects, InjectedFailure, chain};
use super::{engine, intent, settings};
use crate::landlord;
use sqlx::Executor;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenantry::error::{FailureState, StepError};
use tenantry::journal::{Begun, Journal, PgJournal, Record};
use tenantry::operation::OperationStatus;
use tenantry::saga::{NewOperation, Observer, Outcome, Recoverer, Saga, Settings};
use tenantry::sqlx;
use time::OffsetDateTime;

/// A saga whose step `login` fails permanently, and whose undo of `roles` fails while the disk is full.
struct Fixture {
    journal: Arc<dyn Journal>,
    effects: Arc<Effects>,
    saga: Arc<Saga<()>>,
    settings: Settings,
}

impl Fixture {
    async fn new() -> Self {
        let landlord = landlord::installed().await;
        let journal: Arc<dyn Journal> = Arc::new(PgJournal::new(landlord.clone()));
        let effects = Arc::new(Effects::default());
        let errors = Mutex::new(disk_full_errors(&landlord, 20).await);
        let saga = chain(&effects, &journal);
        let sold_out = Box::new(|| StepError::fail("sold out"));
        let disk_full = Box::new(move || StepError::from(errors.lock().unwrap().pop().expect("an error is left")));
        let run = InjectedFailure { step: "login", undo: false, error: sold_out };
        let undo = InjectedFailure { step: "roles", undo: true, error: disk_full };
        *effects.failures.lock().unwrap() = vec![run, undo];
        let mut settings = settings();
        (settings.attempts, settings.backoff) = (2, Duration::from_millis(40));
        settings.backoff_limit = Duration::from_secs(60);
        Self { journal, effects, saga, settings }
    }

    /// Runs the operation until `login` fails permanently. The undo of `roles` then fails because the disk is full.
    async fn run_into_failing_undo(&self) -> Outcome {
        let begun = self.journal.begin(&intent(&self.saga, self.settings)).await.unwrap();
        let Begun::New(record) = begun else { panic!("{begun:?}") };
        let engine = engine(self.journal.clone(), self.settings);
        NewOperation::new(self.saga.clone(), record, None).drive(&engine, &Observer::none()).await.unwrap()
    }

    /// One attempt of a recovering node. `None` if the operation is not due yet.
    async fn recover(&self, record: &Record) -> Option<Outcome> {
        let recoverer = Recoverer::new(engine(self.journal.clone(), self.settings), vec![self.saga.clone()]);
        recoverer.resume(record.id).await.unwrap()
    }

    /// Repeats `recover` until the operation is due.
    async fn recover_when_due(&self, record: &Record) -> Outcome {
        for _ in 0..2000 {
            if let Some(outcome) = self.recover(record).await {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the operation did not become due: {:?}", self.read(record).await)
    }

    async fn read(&self, record: &Record) -> Record {
        self.journal.read(record.id).await.unwrap().unwrap()
    }

    /// Times of the last failure and of the next attempt, by the landlord's clock. Panics unless the last event names
    /// the SQLSTATE of a full disk.
    async fn last_failure_and_next_attempt(&self, record: &Record) -> (OffsetDateTime, OffsetDateTime) {
        let last = self.journal.events(record.id, 0, 1000).await.unwrap().readable.pop().unwrap();
        assert!(last.error.is_some_and(|e| e.contains("53100")), "the last event does not name SQLSTATE 53100");
        (last.at, self.read(record).await.retry_at.expect("the next attempt has a time"))
    }
}

/// Errors with the SQLSTATE that PostgreSQL reports for a full disk. Their text is not English.
async fn disk_full_errors(landlord: &sqlx::PgPool, times: usize) -> Vec<sqlx::Error> {
    const RAISE: &str = "DO $$ BEGIN RAISE 'kein Platz' USING ERRCODE = '53100'; END $$";
    let mut errors = vec![];
    for _ in 0..times {
        errors.push(landlord.execute(RAISE).await.unwrap_err());
    }
    errors
}

/// The message of an error, followed by those of its sources.
fn error_chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", error_chain(cause)),
        None => error.to_string(),
    }
}

#[tokio::test]
async fn undo_on_a_full_disk_reports_it_and_ends_once_there_is_space() {
    let fixture = Fixture::new().await;
    let outcome = fixture.run_into_failing_undo().await;
    let (record, failure) = (outcome.record, outcome.failure.expect("the operation has failed"));
    assert_eq!((failure.step.as_str(), failure.state), ("login", FailureState::Undoing));
    assert!(failure.retry_after.is_some());
    let text = error_chain(&failure);
    for word in ["sold out", "roles", "kein Platz", "53100"] {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
    let seen = fixture.read(&record).await.state();
    assert_eq!((seen.status, seen.step.as_str()), (OperationStatus::Undoing, "roles"));
    assert!(seen.error.as_ref().is_some_and(|e| e.contains("kein Platz") && e.contains("53100")), "{seen:?}");
    assert_eq!(
        fixture.effects.present(),
        ["place", "roles"],
        "the undo must have removed the effects of the other steps"
    );

    let mut waits = vec![fixture.last_failure_and_next_attempt(&record).await];
    for _ in 0..3 {
        let failure = fixture.recover_when_due(&record).await.failure.expect("the disk is still full");
        assert_eq!((failure.step.as_str(), failure.state), ("login", FailureState::Undoing));
        waits.push(fixture.last_failure_and_next_attempt(&record).await);
    }
    assert!(waits.is_sorted_by(|one, next| one.1 <= next.0), "an attempt was made before it was due: {waits:?}");
    let waits: Vec<_> = waits.iter().map(|(failed, until)| *until - *failed).collect();
    assert!(waits.is_sorted_by(|one, next| one < next), "each wait must be longer than the one before: {waits:?}");

    fixture.effects.failures.lock().unwrap().clear();
    let ended = fixture.recover_when_due(&record).await;
    assert_eq!(ended.record.status, OperationStatus::Undone);
    assert_eq!(fixture.effects.present(), Vec::<&str>::new());
    assert!(fixture.journal.open().await.unwrap().is_empty());
}
