//! The summary of all runs: which points and faults were hit, and which violations were found.
use super::director::Target;
use super::fault::{Fault, StatementPoint};
use super::plan::describe;
use super::run::{RunResult, RunSpec};
use super::saga::Saga;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The counts of one saga.
#[derive(Default)]
pub(crate) struct Row {
    /// Points that the recording run has found.
    points: BTreeSet<StatementPoint>,
    /// Number of pairs of a point and a fault that fits it.
    pairs: usize,
    /// Pairs that were injected.
    hit: BTreeSet<(StatementPoint, Fault)>,
    runs: usize,
    /// Runs whose child did not reach its target.
    missed: usize,
    /// Runs in which recovery was hit by a second fault.
    hit_twice: usize,
    violations: usize,
}

impl Row {
    pub(crate) fn new(seen: &[(StatementPoint, bool)]) -> Self {
        let faults = || Fault::FIRST.into_iter().chain(Fault::REST);
        let pairs = seen.iter().map(|(_, connecting)| faults().filter(|f| f.fits(*connecting)).count()).sum();
        Self { points: seen.iter().map(|(point, _)| point.clone()).collect(), pairs, ..Self::default() }
    }
    pub(crate) fn steps(seen: &[(StatementPoint, bool)]) -> usize {
        seen.iter().map(|(point, _)| point.step.as_str()).collect::<BTreeSet<_>>().len()
    }
}

pub(crate) struct Report {
    seed: u64,
    pub(crate) rows: BTreeMap<Saga, Row>,
    violations: Vec<String>,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rows: BTreeMap::new(), violations: vec![] }
    }
    pub(crate) fn add_violation(&mut self, spec: &RunSpec, finding: &str) {
        self.violations.push(format!("seed {}: {}: {finding}", self.seed, describe(spec)));
    }
    pub(crate) fn add(&mut self, spec: &RunSpec, result: &RunResult) {
        for finding in &result.findings {
            self.add_violation(spec, finding);
        }
        let row = self.rows.entry(spec.saga).or_default();
        row.runs += 1;
        row.violations += result.findings.len();
        row.hit_twice += usize::from(result.second_hit);
        match &spec.target {
            Some(Target::At(point, fault)) if result.hit => drop(row.hit.insert((point.clone(), *fault))),
            _ => row.missed += 1,
        }
    }
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
    pub(crate) fn violations(&self) -> impl Iterator<Item = &String> {
        self.violations.iter()
    }
    /// A table with one row per saga: points and pairs that were hit, runs that were hit twice, and runs that missed.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        let head = ["saga", "runs", "points hit", "of", "pairs hit", "of", "twice", "missed", "violations"];
        let line = |c: [String; 9]| {
            let [saga, runs, points, of, pairs, all, twice, missed, wrong] = c;
            format!(
                "{saga:20} {runs:>6} {points:>11} {of:>5} {pairs:>10} {all:>6} {twice:>6} {missed:>7} {wrong:>11}\n"
            )
        };
        text += &line(head.map(String::from));
        let mut sums = [0; 8];
        for (saga, row) in &self.rows {
            let points: BTreeSet<&StatementPoint> = row.hit.iter().map(|(point, _)| point).collect();
            let numbers = [
                row.runs,
                points.len(),
                row.points.len(),
                row.hit.len(),
                row.pairs,
                row.hit_twice,
                row.missed,
                row.violations,
            ];
            sums.iter_mut().zip(numbers).for_each(|(sum, n)| *sum += n);
            text += &line(columns(saga.name(), numbers));
        }
        text += &line(columns("all".into(), sums));
        let _ = write!(text, "faults: {}", faults(&self.rows));
        text
    }
    pub(crate) fn json(&self) -> String {
        let runs: usize = self.rows.values().map(|r| r.runs).sum();
        let points: usize = self.rows.values().map(|r| r.points.len()).sum();
        json!({ "runs": runs, "points": points, "violations": self.violations.len(), "seed": self.seed }).to_string()
    }
    pub(crate) fn runs(&self) -> usize {
        self.rows.values().map(|r| r.runs).sum()
    }
    pub(crate) fn missed(&self) -> usize {
        self.rows.values().map(|r| r.missed).sum()
    }
}

fn columns(name: String, numbers: [usize; 8]) -> [String; 9] {
    let [a, b, c, d, e, f, g, h] = numbers.map(|n| n.to_string());
    [name, a, b, c, d, e, f, g, h]
}

fn faults(rows: &BTreeMap<Saga, Row>) -> String {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for (_, fault) in rows.values().flat_map(|r| &r.hit) {
        *count.entry(fault.to_string()).or_default() += 1;
    }
    count.iter().map(|(fault, n)| format!("{fault}: {n}")).collect::<Vec<_>>().join(", ")
}
