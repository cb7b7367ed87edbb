//! Which points there are, in which order they are met, and by how many lanes.
use super::Anything;
use super::director::Target;
use super::fault::{Fault, Place};
use super::lane::Lane;
use super::report::{Report, Row};
use super::run::{Order, Ran, Spawn, run};
use super::saga::Saga;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::process::Command;

pub(crate) const USAGE: &str =
    "usage: torture [--runs N] [--seed S] [--saga NAME] [--lanes N] [--at POINT] [--once] [--json]
  --runs N     how many runs (1000)
  --seed S     the order of the runs; the same seed meets the same points
  --saga NAME  this saga alone, or these: provision, provision-undo, suspend, purge, …
  --lanes N    runs side by side, each on servers of its own (4)
  --at POINT   one run at a point, as a violation names it: 'saga|step|kind|n|fault'
  --once       64 clients at each of 10,000 tokens and of 100 setup links, and nothing else
  --json       a last line for programs";

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) runs: usize,
    pub(crate) seed: u64,
    /// Empty: all.
    pub(crate) sagas: Vec<Saga>,
    pub(crate) lanes: usize,
    pub(crate) at: Option<String>,
    /// Clients at tokens and links, in place of faults.
    pub(crate) once: bool,
    pub(crate) json: bool,
}

impl Options {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Anything> {
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
                other => return Err(format!("{other} is not known").into()),
            }
        }
        Ok(options)
    }
}

/// What each saga sends, in order; `true`: it was connecting.
type Points = BTreeMap<Saga, Vec<(Place, bool)>>;

/// Tortures, and says how far it is.
pub(crate) async fn torture(
    options: &Options, spawn: impl Fn() -> Result<Command, Anything> + Sync, say: impl Fn(String) + Sync,
) -> Result<Report, Anything> {
    let sagas: Vec<Saga> =
        Saga::ALL.into_iter().filter(|s| options.sagas.is_empty() || options.sagas.contains(s)).collect();
    let mut report = Report::new(options.seed);
    let begun = std::time::Instant::now();
    let recording =
        sagas.iter().map(|saga| Order { saga: *saga, far: false, hostile: false, target: None, then: None }).collect();
    let mut points = Points::new();
    for (order, ran) in work(options.lanes, recording, "record", &spawn, &|_, _| {}).await? {
        for finding in &ran.findings {
            report.violation(&order, finding);
        }
        points.insert(order.saga, ran.seen);
    }
    for (saga, seen) in &points {
        report.rows.insert(*saga, Row::new(seen));
        say(format!("{:18} {} points in {} steps", saga.name(), seen.len(), Row::steps(seen)));
    }
    let orders = match &options.at {
        Some(at) => vec![parse(at)?],
        None => orders(&points, options),
    };
    let (all, done) = (orders.len(), Mutex::new((0, 0)));
    let progress = |order: &Order, ran: &Ran| {
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done = (done.0 + 1, done.1 + ran.findings.len());
        if !ran.findings.is_empty() {
            say(format!("VIOLATION {}: {}", name(order), ran.findings.join("; ")));
        }
        if done.0 % 25 == 0 || done.0 == all {
            say(format!("{}/{all} runs, {} violations, {:.0?}", done.0, done.1, begun.elapsed()));
        }
    };
    for (order, ran) in work(options.lanes, orders.into(), "run", &spawn, &progress).await? {
        report.add(&order, &ran);
    }
    Ok(report)
}

/// How a person names an order.
pub(crate) fn name(order: &Order) -> String {
    let target = match &order.target {
        Some(Target::At(Place { step, kind, n }, fault)) => format!("{step}|{kind}|{n}|{fault}"),
        other => format!("{other:?}"),
    };
    let then = order.then.as_ref().map(|t| format!(" then {t:?}")).unwrap_or_default();
    let (far, hostile) = (if order.far { " far" } else { "" }, if order.hostile { " hostile" } else { "" });
    format!("{}|{target}{then}{far}{hostile}", order.saga.name())
}

fn parse(at: &str) -> Result<Order, Anything> {
    let parts: Vec<&str> = at.split('|').collect();
    let [saga, step, kind, n, fault] = parts.as_slice() else { return Err("saga|step|kind|n|fault".into()) };
    let kinds = ["landlord", "cluster", "inside", "migrator", "application", "admin"];
    let kind = kinds.into_iter().find(|k| k == kind).ok_or("no such kind of session")?;
    let all = Fault::FIRST.into_iter().chain(Fault::REST);
    let (hostile, fault) = (fault.ends_with(" hostile"), fault.trim_end_matches(" hostile"));
    let (far, fault) = (fault.ends_with(" far"), fault.trim_end_matches(" far"));
    let fault = all.into_iter().find(|f| f.to_string() == fault).ok_or("no such fault")?;
    let place = Place { step: (*step).into(), kind, n: n.parse()? };
    let saga = serde_json::from_value((*saga).into())?;
    Ok(Order { saga, far, hostile, target: Some(Target::At(place, fault)), then: None })
}

/// Every point with each of the first faults, and the rest of them, both in seeded order. Two of three runs are of the
/// first, as long as there are some: so a short torture meets every kind of fault too.
fn orders(points: &Points, options: &Options) -> Vec<Order> {
    let mut dice = StdRng::seed_from_u64(options.seed);
    let pairs = |faults: &[Fault]| {
        let mut orders = vec![];
        for (saga, seen) in points {
            for (place, connecting) in seen {
                for fault in faults.iter().filter(|f| f.fits(*connecting)) {
                    let target = Some(Target::At(place.clone(), *fault));
                    orders.push(Order { saga: *saga, far: false, hostile: false, target, then: None });
                }
            }
        }
        orders
    };
    let (mut first, mut rest) = (pairs(&Fault::FIRST), pairs(&Fault::REST));
    first.shuffle(&mut dice);
    rest.shuffle(&mut dice);
    let (mut first, mut rest) = (first.into_iter(), rest.into_iter());
    let mixed = (0..).map_while(|n| match n % 3 {
        2 => rest.next().or_else(|| first.next()),
        _ => first.next().or_else(|| rest.next()),
    });
    let mut orders: Vec<Order> = mixed.take(options.runs).collect();
    let second = [Fault::KillBefore, Fault::KillAfter, Fault::CutAfter, Fault::CutBefore, Fault::Stop];
    for (n, order) in orders.iter_mut().enumerate() {
        order.far = n % 2 == 1;
        // The server that a set-up makes is another installation on the same cluster: what its neighbours' databases hold is
        // not its own to remove.
        order.hostile = n % 5 < 2 && order.saga != Saga::ServerSetup;
        let kills = matches!(order.target, Some(Target::At(_, Fault::KillBefore | Fault::KillAfter)));
        if kills && order.saga.prelude().is_none() && order.saga != Saga::ServerSetup && dice.random_bool(0.25) {
            let fault = second.choose(&mut dice).copied().unwrap_or(Fault::KillAfter);
            order.then = Some(Target::Nth(dice.random_range(1..80), fault));
        }
    }
    orders
}

/// Lanes side by side; each takes the next order. A lane in which something was found is left, and a new one opened.
async fn work(
    lanes: usize, orders: VecDeque<Order>, what: &str, spawn: Spawn<'_>, progress: &(dyn Fn(&Order, &Ran) + Sync),
) -> Result<Vec<(Order, Ran)>, Anything> {
    let count = orders.len();
    let queue = Mutex::new(orders.into_iter().enumerate().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let results = Mutex::new(vec![]);
    let lane = async || -> Result<(), Anything> {
        let mut lane: Option<Lane> = None;
        while let Some((number, order)) = next() {
            let open = match lane.take() {
                Some(open) => open,
                None => Lane::open().await?,
            };
            let ran = run(&open, spawn, &order, &format!("{what}-{number}")).await.unwrap_or_else(|error| Ran {
                seen: vec![],
                hit: false,
                second_hit: false,
                findings: vec![format!("the driver: {error}")],
            });
            progress(&order, &ran);
            if ran.findings.is_empty() {
                lane = Some(open);
            } else {
                open.close().await?;
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push((order, ran));
        }
        match lane {
            Some(open) => open.close().await,
            None => Ok(()),
        }
    };
    futures_util::future::try_join_all((0..lanes.min(count)).map(|_| lane())).await?;
    Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
}
