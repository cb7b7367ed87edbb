//! Counts the child's statements in the proxies, and reports the one that is the target of the run to the driver.
//!
//! [`StatementTracker`] is shared by the three proxies of a lane. The driver calls [`StatementTracker::begin`] for each
//! child and receives at most one [`Hit`]. Until the driver answers the hit, the proxy holds the statement back.
use super::child::CHILD;
use super::fault::{Fault, StatementPoint};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tenantry::testing::proxy::{Director, Point, Stage, Verdict};
use tokio::sync::{mpsc, oneshot};

/// The proxy that a statement goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    Landlord,
    Near,
    Far,
}

/// The child has reached the target. The proxy holds the statement back until it receives the verdict.
pub(crate) struct Hit {
    pub(crate) via: Via,
    pub(crate) sql: String,
    pub(crate) verdict: oneshot::Sender<Verdict>,
}

/// The statements of the current child, and the target of its run. Clones share the state.
#[derive(Clone, Default)]
pub(crate) struct StatementTracker(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    step: String,
    counts: HashMap<(String, &'static str), u32>,
    /// The last statement of each connection.
    at: HashMap<(Via, u64), StatementPoint>,
    /// All statements in order, and whether each was the opening of a session.
    seen: Vec<(StatementPoint, bool)>,
    steps: Vec<String>,
    target: Option<(Target, mpsc::Sender<Hit>)>,
}

/// The statement at which a run injects its fault.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// This statement.
    At(StatementPoint, Fault),
    /// The first statement of this step that the fault fits.
    In(&'static str, Fault),
    /// The n-th statement of the child, or the first one after it that the fault fits.
    Nth(u32, Fault),
}

impl StatementTracker {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Resets all counters for a new child, and sets its target.
    pub(crate) fn begin(&self, target: Option<Target>) -> mpsc::Receiver<Hit> {
        let (sender, receiver) = mpsc::channel(1);
        *self.state() =
            State { step: "begin".into(), target: target.map(|target| (target, sender)), ..State::default() };
        receiver
    }
    /// The child has reported that this step begins.
    pub(crate) fn begin_step(&self, step: &str) {
        let mut state = self.state();
        state.step = step.into();
        state.steps.push(step.into());
    }
    /// Steps that the child has reported but for which it sent no statement.
    pub(crate) fn steps_without_statement(&self) -> Vec<String> {
        let state = self.state();
        let is_empty = |step: &&String| !state.seen.iter().any(|(point, _)| point.step == **step);
        state.steps.iter().filter(is_empty).cloned().collect()
    }
    /// The child's statements in order, and whether each was the opening of a session.
    pub(crate) fn seen(&self) -> Vec<(StatementPoint, bool)> {
        self.state().seen.clone()
    }
    pub(crate) fn director(&self, via: Via) -> impl Director {
        LaneDirector { via, tracker: self.clone() }
    }

    /// Counts the statement. If it is the target, removes the target and returns the channel to the driver.
    fn take_hit(&self, via: Via, point: &Point) -> Option<mpsc::Sender<Hit>> {
        let kind = kind(via, point)?;
        let mut state = self.state();
        let connecting = point.stage == Stage::Connect;
        if matches!(point.stage, Stage::Connect | Stage::Before) {
            let step = state.step.clone();
            let n = state.counts.entry((step.clone(), kind)).or_default();
            *n += 1;
            let statement = StatementPoint { step, kind, n: *n };
            state.seen.push((statement.clone(), connecting));
            state.at.insert((via, point.connection), statement);
        }
        let here = state.at.get(&(via, point.connection))?.clone();
        let nth = state.seen.len() as u32;
        let hit = match &state.target.as_ref()?.0 {
            Target::At(target, fault) => *target == here && fault.stage(connecting) == point.stage,
            Target::In(step, fault) => {
                here.step == *step && fault.fits(connecting) && fault.stage(connecting) == point.stage
            }
            Target::Nth(n, fault) => *n <= nth && fault.fits(connecting) && fault.stage(connecting) == point.stage,
        };
        if hit { state.target.take().map(|(_, sender)| sender) } else { None }
    }
}

/// The kind of session. `None` if the session is not the child's, or if it renews leases in the background: these
/// statements have no fixed order.
fn kind(via: Via, point: &Point) -> Option<&'static str> {
    match via {
        Via::Landlord if point.application == CHILD => Some("landlord"),
        Via::Landlord => None,
        _ if !point.application.starts_with("tenantry") => None,
        _ if point.user == "torture_dba" => Some("admin"),
        _ if point.database.ends_with("_maintenance") => Some("cluster"),
        _ if point.user.ends_with("_blue") || point.user.ends_with("_green") => Some("inside"),
        _ if point.user.ends_with("_mig") => Some("migrator"),
        _ => Some("application"),
    }
}

struct LaneDirector {
    via: Via,
    tracker: StatementTracker,
}
#[async_trait]
impl Director for LaneDirector {
    async fn at(&self, point: Point) -> Verdict {
        let Some(driver) = self.tracker.take_hit(self.via, &point) else { return Verdict::Forward };
        let (verdict, answer) = oneshot::channel();
        let hit = Hit { via: self.via, sql: point.sql, verdict };
        match driver.send(hit).await {
            Ok(()) => answer.await.unwrap_or(Verdict::Cut),
            Err(_) => Verdict::Forward,
        }
    }
}
