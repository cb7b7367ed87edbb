//! A small saga that knows what was done and what is still there, and minds its journal.
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tenantry::error::StepError;
use tenantry::journal::Journal;
use tenantry::operation::OperationStatus;
use tenantry::saga::{Execution, Saga, SagaStep};

/// Name, whether the intent before covers it, and nothing else: the shape of the saga.
pub(super) const STEPS: [(&str, bool); 5] =
    [("place", false), ("roles", true), ("database", false), ("login", true), ("publish", false)];
/// From the intent of the last step on it only goes forward.
const NO_RETURN: usize = 4;

/// What the saga did to the world.
#[derive(Default)]
pub(super) struct Effects {
    /// What is there now.
    pub(super) there: Mutex<BTreeSet<&'static str>>,
    /// What keeps steps from running or from being undone.
    pub(super) fails: Mutex<Vec<Fails>>,
}
/// Which step fails, whether in its undo, and how.
pub(super) struct Fails {
    pub(super) step: &'static str,
    pub(super) undo: bool,
    pub(super) error: Box<dyn Fn() -> StepError + Send>,
}
impl Effects {
    pub(super) fn there(&self) -> Vec<&'static str> {
        self.there.lock().unwrap().iter().copied().collect()
    }
    fn fails(&self, step: &str, undo: bool) -> Result<(), StepError> {
        let fails = self.fails.lock().unwrap();
        fails.iter().find(|f| f.step == step && f.undo == undo).map_or(Ok(()), |f| Err((f.error)()))
    }
}

pub(super) struct Chain {
    steps: Vec<Box<dyn SagaStep<()>>>,
}
impl Chain {
    /// `journal` is read past every fault: what a step may rely on.
    pub(super) fn new(effects: Arc<Effects>, journal: Arc<dyn Journal>) -> Self {
        let steps = (0..).zip(STEPS).map(|(at, (name, joins))| {
            let link = Link { at, name, joins, effects: effects.clone(), journal: journal.clone() };
            Box::new(link) as Box<dyn SagaStep<()>>
        });
        Self { steps: steps.collect() }
    }
}
impl Saga for Chain {
    type Context = ();
    fn kind(&self) -> &'static str {
        "chain"
    }
    fn steps(&self) -> &[Box<dyn SagaStep<()>>] {
        &self.steps
    }
    fn pivot_index(&self) -> usize {
        NO_RETURN
    }
    fn final_record_is_repeatable(&self) -> bool {
        true
    }
    fn context(&self, _: &Execution) -> Result<(), StepError> {
        Ok(())
    }
}

struct Link {
    at: u32,
    name: &'static str,
    joins: bool,
    effects: Arc<Effects>,
    journal: Arc<dyn Journal>,
}
#[async_trait]
impl SagaStep<()> for Link {
    fn name(&self) -> &'static str {
        self.name
    }
    fn shares_intent_with_previous(&self) -> bool {
        self.joins
    }
    fn landlord_only(&self) -> bool {
        self.name == "publish"
    }
    async fn run(&self, run: &Execution, (): &mut ()) -> Result<Value, StepError> {
        let record = self.journal.read(run.operation()).await.unwrap().unwrap();
        assert_eq!(record.status, OperationStatus::Running, "{} ran", self.name);
        assert!(record.intended > self.at, "{} ran without an intent", self.name);
        assert!(record.done <= self.at, "{} ran again after it was recorded as done", self.name);
        for (at, (name, _)) in STEPS.iter().enumerate().take(self.at as usize) {
            assert_eq!(run.output::<usize>(name).unwrap(), Some(at), "{} reads what {name} answered", self.name);
        }
        self.effects.fails(self.name, false)?;
        self.effects.there.lock().unwrap().insert(self.name);
        Ok(json!(self.at))
    }
    async fn undo(&self, run: &Execution, (): &mut ()) -> Result<(), StepError> {
        let record = self.journal.read(run.operation()).await.unwrap().unwrap();
        assert_eq!(record.status, OperationStatus::Undoing, "{} was undone", self.name);
        assert!(record.intended > self.at, "{} was undone again after that was recorded", self.name);
        assert!(record.intended as usize <= NO_RETURN, "{} was undone beyond the point of no return", self.name);
        let later =
            self.effects.there().into_iter().filter(|n| STEPS[self.at as usize + 1..].iter().any(|s| s.0 == *n));
        assert_eq!(later.collect::<Vec<_>>(), Vec::<&str>::new(), "still there while {} was undone", self.name);
        self.effects.fails(self.name, true)?;
        self.effects.there.lock().unwrap().remove(self.name);
        Ok(())
    }
}
