//! A small saga for tests of the engine. It tracks which effects of its steps exist. Each step asserts that the journal
//! contains what must be recorded before the step runs or is undone.
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tenantry::error::StepError;
use tenantry::journal::Journal;
use tenantry::operation::{Lane, OperationStatus};
use tenantry::saga::{Execution, Saga, SagaStep};

/// The steps: name, and whether the step shares the intent of the previous step.
pub(super) const STEPS: [(&str, bool); 5] =
    [("place", false), ("roles", true), ("database", false), ("login", true), ("publish", false)];
/// Position of the pivot step. Once its intent is recorded, the saga can no longer be undone.
const PIVOT: usize = 4;

/// Effects of the steps, and the failures that a test injects.
#[derive(Default)]
pub(super) struct Effects {
    /// Names of the steps whose effects exist.
    pub(super) present: Mutex<BTreeSet<&'static str>>,
    /// Failures of steps, or of their undos.
    pub(super) failures: Mutex<Vec<InjectedFailure>>,
}
/// A step that fails, in its undo or when it runs, with this error.
pub(super) struct InjectedFailure {
    pub(super) step: &'static str,
    pub(super) undo: bool,
    pub(super) error: Box<dyn Fn() -> StepError + Send>,
}
impl Effects {
    pub(super) fn present(&self) -> Vec<&'static str> {
        self.present.lock().unwrap().iter().copied().collect()
    }
    /// Returns the injected failure of this step, if there is one.
    fn check_failure(&self, step: &str, undo: bool) -> Result<(), StepError> {
        let failures = self.failures.lock().unwrap();
        failures.iter().find(|f| f.step == step && f.undo == undo).map_or(Ok(()), |f| Err((f.error)()))
    }
}

/// The saga: five steps without a context, each of which records its effect in `effects`. The last one is the pivot
/// step. The steps read `journal` to check what is recorded. It must be the journal itself, not one that loses calls.
pub(super) fn chain(effects: &Arc<Effects>, journal: &Arc<dyn Journal>) -> Arc<Saga<()>> {
    let mut saga = Saga::new("chain", Lane::Change, |_| Ok(())).with_repeatable_end();
    for (at, (name, shares_intent)) in STEPS.into_iter().enumerate() {
        let (effects, journal) = (effects.clone(), journal.clone());
        let step = ChainStep { at: at as u32, name, shares_intent, effects, journal };
        saga = if at == PIVOT { saga.pivot(step) } else { saga.step(step) };
    }
    Arc::new(saga)
}

struct ChainStep {
    at: u32,
    name: &'static str,
    shares_intent: bool,
    effects: Arc<Effects>,
    journal: Arc<dyn Journal>,
}
#[async_trait]
impl SagaStep<()> for ChainStep {
    fn name(&self) -> &'static str {
        self.name
    }
    fn shares_intent_with_previous(&self) -> bool {
        self.shares_intent
    }
    fn landlord_only(&self) -> bool {
        self.name == "publish"
    }
    async fn run(&self, run: &Execution, (): &mut ()) -> Result<Value, StepError> {
        let record = self.journal.read(run.operation()).await.unwrap().unwrap();
        assert_eq!(record.status, OperationStatus::Running, "{} ran although the operation is not running", self.name);
        assert!(record.intended > self.at, "{} ran without an intent", self.name);
        assert!(record.done <= self.at, "{} ran again after it was recorded as done", self.name);
        for (at, (name, _)) in STEPS.iter().enumerate().take(self.at as usize) {
            assert_eq!(
                run.output::<usize>(name).unwrap(),
                Some(at),
                "{} must be able to read the output of {name}",
                self.name
            );
        }
        self.effects.check_failure(self.name, false)?;
        self.effects.present.lock().unwrap().insert(self.name);
        Ok(json!(self.at))
    }
    async fn undo(&self, run: &Execution, (): &mut ()) -> Result<(), StepError> {
        let record = self.journal.read(run.operation()).await.unwrap().unwrap();
        assert_eq!(
            record.status,
            OperationStatus::Undoing,
            "{} was undone although the operation is not being undone",
            self.name
        );
        assert!(record.intended > self.at, "{} was undone again after its undo was recorded", self.name);
        assert!(
            record.intended as usize <= PIVOT,
            "{} was undone after the intent of the pivot step was recorded",
            self.name
        );
        let later =
            self.effects.present().into_iter().filter(|n| STEPS[self.at as usize + 1..].iter().any(|s| s.0 == *n));
        assert_eq!(
            later.collect::<Vec<_>>(),
            Vec::<&str>::new(),
            "effects of later steps existed while {} was undone",
            self.name
        );
        self.effects.check_failure(self.name, true)?;
        self.effects.present.lock().unwrap().remove(self.name);
        Ok(())
    }
}
