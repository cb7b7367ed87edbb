//! Finds all points, makes the list of runs, and distributes the runs over lanes.
//!
//! First every saga runs once without a fault, to record the statements that it sends. Each pair of a recorded point
//! and a fault that fits it can become a run. The seed decides the order, so the same seed gives the same runs.
use super::AnyError;
use super::director::Target;
use super::fault::{Fault, StatementPoint};
use super::lane::Lane;
use super::report::{Report, Row};
use super::run::{RunResult, RunSpec, Spawn, run};
use super::saga::Saga;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::process::Command;

pub(crate) const USAGE: &str =
    "usage: torture [--runs N] [--seed S] [--saga NAME] [--lanes N] [--at POINT] [--once] [--json]
  --runs N     number of runs (1000)
  --seed S     order of the runs (random); the same seed gives the same runs
  --saga NAME  run only this saga: provision, provision-undo, suspend, purge, …; may be repeated
  --lanes N    number of runs at a time, each on servers of its own (4)
  --at POINT   one run at a point, as a violation prints it: 'saga|step|kind|n|fault'
  --once       no faults; 64 clients claim 10,000 tokens and follow 100 setup links
  --json       print a summary as JSON in the last line";

/// The command line.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) runs: usize,
    pub(crate) seed: u64,
    /// Sagas to run. Empty means all.
    pub(crate) sagas: Vec<Saga>,
    pub(crate) lanes: usize,
    /// A single point to run, in the form that [`describe`] prints.
    pub(crate) at: Option<String>,
    /// Whether to check tokens and links with many clients instead of injecting faults.
    pub(crate) once: bool,
    pub(crate) json: bool,
}

impl Options {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, AnyError> {
        let (seed, sagas) = (rand::random::<u32>().into(), vec![]);
        let mut options = Self { runs: 1000, seed, sagas, lanes: 4, at: None, once: false, json: false };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--runs" => options.runs = value()?.parse()?,
                "--seed" => options.seed = value()?.parse()?,
                "--saga" => options.sagas.push(serde_json::from_value(value()?.into())?),
                "--lanes" => options.lanes = value()?.parse::<usize>()?.max(1),
                "--at" => options.at = Some(value()?),
                "--once" => options.once = true,
                "--json" => options.json = true,
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        Ok(options)
    }
}

/// The statements of each saga in order, and whether each was the opening of a session.
type Points = BTreeMap<Saga, Vec<(StatementPoint, bool)>>;

/// Performs the runs and returns the report. `spawn` makes the command for a child, and `report_line` receives progress
/// and violations while the runs are performed.
pub(crate) async fn torture(
    options: &Options, spawn: impl Fn() -> Result<Command, AnyError> + Sync, report_line: impl Fn(String) + Sync,
) -> Result<Report, AnyError> {
    let sagas: Vec<Saga> =
        Saga::ALL.into_iter().filter(|s| options.sagas.is_empty() || options.sagas.contains(s)).collect();
    let mut report = Report::new(options.seed);
    let started = std::time::Instant::now();
    let recording = sagas
        .iter()
        .map(|saga| RunSpec { saga: *saga, far: false, hostile: false, target: None, second_target: None })
        .collect();
    let mut points = Points::new();
    for (spec, result) in run_all(options.lanes, recording, "record", &spawn, &|_, _| {}).await? {
        for finding in &result.findings {
            report.add_violation(&spec, finding);
        }
        points.insert(spec.saga, result.seen);
    }
    for (saga, seen) in &points {
        report.rows.insert(*saga, Row::new(seen));
        report_line(format!("{:18} {} points in {} steps", saga.name(), seen.len(), Row::steps(seen)));
    }
    let specs = match &options.at {
        Some(at) => vec![parse_point(at)?],
        None => make_specs(&points, options),
    };
    let (all, done) = (specs.len(), Mutex::new((0, 0)));
    let progress = |spec: &RunSpec, result: &RunResult| {
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = (done.0 + 1, done.1 + result.findings.len());
        if !result.findings.is_empty() {
            report_line(format!("VIOLATION {}: {}", describe(spec), result.findings.join("; ")));
        }
        if done.0 % 25 == 0 || done.0 == all {
            report_line(format!("{}/{all} runs, {} violations, {:.0?}", done.0, done.1, started.elapsed()));
        }
    };
    for (spec, result) in run_all(options.lanes, specs.into(), "run", &spawn, &progress).await? {
        report.add(&spec, &result);
    }
    Ok(report)
}

/// The name of a run in reports. `--at` accepts it, except for a second fault.
pub(crate) fn describe(spec: &RunSpec) -> String {
    let target = match &spec.target {
        Some(Target::At(StatementPoint { step, kind, n }, fault)) => format!("{step}|{kind}|{n}|{fault}"),
        other => format!("{other:?}"),
    };
    let second = spec.second_target.as_ref().map(|t| format!(" then {t:?}")).unwrap_or_default();
    let (far, hostile) = (if spec.far { " far" } else { "" }, if spec.hostile { " hostile" } else { "" });
    format!("{}|{target}{second}{far}{hostile}", spec.saga.name())
}

fn parse_point(at: &str) -> Result<RunSpec, AnyError> {
    let parts: Vec<&str> = at.split('|').collect();
    let [saga, step, kind, n, fault] = parts.as_slice() else {
        return Err("a point has the form saga|step|kind|n|fault".into());
    };
    let kinds = ["landlord", "cluster", "inside", "migrator", "application", "admin"];
    let kind = kinds.into_iter().find(|k| k == kind).ok_or("the point has an unknown kind of session")?;
    let all = Fault::FIRST.into_iter().chain(Fault::REST);
    let (hostile, fault) = (fault.ends_with(" hostile"), fault.trim_end_matches(" hostile"));
    let (far, fault) = (fault.ends_with(" far"), fault.trim_end_matches(" far"));
    let fault = all.into_iter().find(|f| f.to_string() == fault).ok_or("the point has an unknown fault")?;
    let point = StatementPoint { step: (*step).into(), kind, n: n.parse()? };
    let saga = serde_json::from_value((*saga).into())?;
    Ok(RunSpec { saga, far, hostile, target: Some(Target::At(point, fault)), second_target: None })
}

/// The list of runs. Pairs with the first faults and pairs with all other faults are shuffled separately. Two of three
/// runs take a pair with a first fault, as long as there are any, so that a short list has every kind of fault too.
fn make_specs(points: &Points, options: &Options) -> Vec<RunSpec> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let pairs = |faults: &[Fault]| {
        let mut specs = vec![];
        for (saga, seen) in points {
            for (point, connecting) in seen {
                for fault in faults.iter().filter(|f| f.fits(*connecting)) {
                    let target = Some(Target::At(point.clone(), *fault));
                    specs.push(RunSpec { saga: *saga, far: false, hostile: false, target, second_target: None });
                }
            }
        }
        specs
    };
    let (mut first, mut rest) = (pairs(&Fault::FIRST), pairs(&Fault::REST));
    first.shuffle(&mut rng);
    rest.shuffle(&mut rng);
    let (mut first, mut rest) = (first.into_iter(), rest.into_iter());
    let mixed = (0..).map_while(|n| match n % 3 {
        2 => rest.next().or_else(|| first.next()),
        _ => first.next().or_else(|| rest.next()),
    });
    let mut specs: Vec<RunSpec> = mixed.take(options.runs).collect();
    let second = [Fault::KillBefore, Fault::KillAfter, Fault::CutAfter, Fault::CutBefore, Fault::Stop];
    for (n, spec) in specs.iter_mut().enumerate() {
        spec.far = n % 2 == 1;
        // A set-up creates another installation on the same cluster. It may not remove what the hostile neighbour, a
        // tenant of the first installation, leaves in its database.
        spec.hostile = n % 5 < 2 && spec.saga != Saga::ServerSetup;
        let kills = matches!(spec.target, Some(Target::At(_, Fault::KillBefore | Fault::KillAfter)));
        if kills && spec.saga.prelude().is_none() && spec.saga != Saga::ServerSetup && rng.random_bool(0.25) {
            let fault = second.choose(&mut rng).copied().unwrap_or(Fault::KillAfter);
            spec.second_target = Some(Target::Nth(rng.random_range(1..80), fault));
        }
    }
    specs
}

/// Performs the runs on `lanes` lanes at a time. After a run with findings its lane is closed and a new one opened, so
/// that leftovers do not cause findings in later runs.
async fn run_all(
    lanes: usize, specs: VecDeque<RunSpec>, what: &str, spawn: Spawn<'_>,
    progress: &(dyn Fn(&RunSpec, &RunResult) + Sync),
) -> Result<Vec<(RunSpec, RunResult)>, AnyError> {
    let count = specs.len();
    let queue = Mutex::new(specs.into_iter().enumerate().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let results = Mutex::new(vec![]);
    let lane = async || -> Result<(), AnyError> {
        let mut lane: Option<Lane> = None;
        while let Some((number, spec)) = next() {
            let open = match lane.take() {
                Some(open) => open,
                None => Lane::open().await?,
            };
            let result =
                run(&open, spawn, &spec, &format!("{what}-{number}")).await.unwrap_or_else(|error| RunResult {
                    seen: vec![],
                    hit: false,
                    second_hit: false,
                    findings: vec![format!("the driver failed: {error}")],
                });
            progress(&spec, &result);
            if result.findings.is_empty() {
                lane = Some(open);
            } else {
                open.close().await?;
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((spec, result));
        }
        match lane {
            Some(open) => open.close().await,
            None => Ok(()),
        }
    };
    futures_util::future::try_join_all((0..lanes.min(count)).map(|_| lane())).await?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}
