//! What a torture has met, and what it has found.
use super::director::Target;
use super::fault::{Fault, Place};
use super::plan::name;
use super::run::{Order, Ran};
use super::saga::Saga;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// One saga.
#[derive(Default)]
pub(crate) struct Row {
    points: BTreeSet<Place>,
    pairs: usize,
    hit: BTreeSet<(Place, Fault)>,
    runs: usize,
    missed: usize,
    twice: usize,
    violations: usize,
}

impl Row {
    pub(crate) fn new(seen: &[(Place, bool)]) -> Self {
        let faults = || Fault::FIRST.into_iter().chain(Fault::REST);
        let pairs = seen.iter().map(|(_, connecting)| faults().filter(|f| f.fits(*connecting)).count()).sum();
        Self { points: seen.iter().map(|(place, _)| place.clone()).collect(), pairs, ..Self::default() }
    }
    pub(crate) fn steps(seen: &[(Place, bool)]) -> usize {
        seen.iter().map(|(place, _)| place.step.as_str()).collect::<BTreeSet<_>>().len()
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
    pub(crate) fn violation(&mut self, order: &Order, finding: &str) {
        self.violations.push(format!("seed {}: {}: {finding}", self.seed, name(order)));
    }
    pub(crate) fn add(&mut self, order: &Order, ran: &Ran) {
        for finding in &ran.findings {
            self.violation(order, finding);
        }
        let row = self.rows.entry(order.saga).or_default();
        row.runs += 1;
        row.violations += ran.findings.len();
        row.twice += usize::from(ran.second_hit);
        match &order.target {
            Some(Target::At(place, fault)) if ran.hit => drop(row.hit.insert((place.clone(), *fault))),
            _ => row.missed += 1,
        }
    }
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
    pub(crate) fn violations(&self) -> impl Iterator<Item = &String> {
        self.violations.iter()
    }
    /// Points hit by any fault, pairs of point and fault, runs that hit twice or not at all.
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
            let points: BTreeSet<&Place> = row.hit.iter().map(|(place, _)| place).collect();
            let numbers = [
                row.runs,
                points.len(),
                row.points.len(),
                row.hit.len(),
                row.pairs,
                row.twice,
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
