//! Counts the child's statements, and calls the driver when the one it waits for comes by.
use super::child::CHILD;
use super::fault::{Fault, Place};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tenantry::testing::proxy::{Director, Point, Stage, Verdict};
use tokio::sync::{mpsc, oneshot};

/// Which proxy a point is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Via {
    Landlord,
    Near,
    Far,
}

/// The statement is held until an answer comes.
pub(crate) struct Hit {
    pub(crate) via: Via,
    pub(crate) sql: String,
    pub(crate) then: oneshot::Sender<Verdict>,
}

/// Shared by the proxies of a lane.
#[derive(Clone, Default)]
pub(crate) struct Stand(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    step: String,
    counts: HashMap<(String, &'static str), u32>,
    /// The statement that each connection is at.
    at: HashMap<(Via, u64), Place>,
    seen: Vec<(Place, bool)>,
    steps: Vec<String>,
    target: Option<(Target, mpsc::Sender<Hit>)>,
}

/// What the driver waits for.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// This statement.
    At(Place, Fault),
    /// The first statement of this step that the fault fits.
    In(&'static str, Fault),
    /// The n-th statement of all, whichever it is.
    Nth(u32, Fault),
}

impl Stand {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A new child: counting begins anew.
    pub(crate) fn begin(&self, target: Option<Target>) -> mpsc::Receiver<Hit> {
        let (tell, told) = mpsc::channel(1);
        *self.state() = State { step: "begin".into(), target: target.map(|t| (t, tell)), ..State::default() };
        told
    }
    pub(crate) fn step(&self, step: &str) {
        let mut state = self.state();
        state.step = step.into();
        state.steps.push(step.into());
    }
    /// Steps that the child has said to begin, and that sent nothing.
    pub(crate) fn without_point(&self) -> Vec<String> {
        let state = self.state();
        let silent = |step: &&String| !state.seen.iter().any(|(place, _)| place.step == **step);
        state.steps.iter().filter(silent).cloned().collect()
    }
    /// What the child has sent since it began; `true`: it was connecting.
    pub(crate) fn seen(&self) -> Vec<(Place, bool)> {
        self.state().seen.clone()
    }
    pub(crate) fn director(&self, via: Via) -> impl Director {
        Ear { via, stand: self.clone() }
    }

    fn hear(&self, via: Via, point: &Point) -> Option<mpsc::Sender<Hit>> {
        let kind = kind(via, point)?;
        let mut state = self.state();
        let connecting = point.stage == Stage::Connect;
        if matches!(point.stage, Stage::Connect | Stage::Before) {
            let step = state.step.clone();
            let n = state.counts.entry((step.clone(), kind)).or_default();
            *n += 1;
            let place = Place { step, kind, n: *n };
            state.seen.push((place.clone(), connecting));
            state.at.insert((via, point.connection), place);
        }
        let here = state.at.get(&(via, point.connection))?.clone();
        let nth = state.seen.len() as u32;
        let hit = match &state.target.as_ref()?.0 {
            Target::At(place, fault) => *place == here && fault.stage(connecting) == point.stage,
            Target::In(step, fault) => {
                here.step == *step && fault.fits(connecting) && fault.stage(connecting) == point.stage
            }
            Target::Nth(n, fault) => *n <= nth && fault.fits(connecting) && fault.stage(connecting) == point.stage,
        };
        if hit { state.target.take().map(|(_, tell)| tell) } else { None }
    }
}

/// What kind of session it is; `None`: not the child's, or one that beats in the background and is counted apart.
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

struct Ear {
    via: Via,
    stand: Stand,
}
#[async_trait]
impl Director for Ear {
    async fn at(&self, point: Point) -> Verdict {
        let Some(driver) = self.stand.hear(self.via, &point) else { return Verdict::Forward };
        let (then, answer) = oneshot::channel();
        let hit = Hit { via: self.via, sql: point.sql, then };
        match driver.send(hit).await {
            Ok(()) => answer.await.unwrap_or(Verdict::Cut),
            Err(_) => Verdict::Forward,
        }
    }
}
