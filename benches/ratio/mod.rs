//! Comparisons of the library with a reference, for all benchmarks.
//!
//! A benchmark measures both sides alternately in one run, so that a slow phase of the machine affects both. The result
//! is the median of the pairs' ratios. [`report`] and [`report_rows`] print a table and write
//! `target/ratios/<bench>.json`.
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// The measured times of one comparison.
pub(crate) struct Ratio {
    pub(crate) name: String,
    /// Times of the library, one for each pair.
    pub(crate) ours: Vec<Duration>,
    /// Times of the reference, one for each pair.
    pub(crate) reference: Vec<Duration>,
    /// Upper limit of the ratio.
    pub(crate) goal: f64,
}

#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
impl Ratio {
    pub(crate) fn new(name: impl Into<String>, goal: f64) -> Self {
        Self { name: name.into(), ours: vec![], reference: vec![], goal }
    }
    /// Compares one time with a limit.
    pub(crate) fn against(name: impl Into<String>, ours: Duration, bound: Duration, goal: f64) -> Self {
        Self { name: name.into(), ours: vec![ours], reference: vec![bound], goal }
    }
    /// Adds a pair of times.
    pub(crate) fn add_pair(&mut self, ours: Duration, reference: Duration) {
        self.ours.push(ours);
        self.reference.push(reference);
    }
    /// The median of the pairs' ratios.
    fn ratio(&self) -> f64 {
        let pairs = self.ours.iter().zip(&self.reference);
        median(pairs.map(|(o, r)| o.as_secs_f64() / r.as_secs_f64()).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// One line of the table. `ours` and `reference` are medians in `unit`.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) reference: f64,
    pub(crate) unit: &'static str,
    pub(crate) ratio: f64,
    pub(crate) goal: Goal,
    pub(crate) pairs: usize,
}

/// The limit that a ratio should keep. A missed goal is printed; it does not fail the benchmark.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
impl Row {
    /// A row of the medians of (ours, reference) pairs, and of the median of their ratios.
    pub(crate) fn of(name: impl Into<String>, unit: &'static str, goal: Goal, pairs: &[(f64, f64)]) -> Self {
        let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
        let (ours, reference, ratio) = (of(|p| p.0), of(|p| p.1), of(|p| p.0 / p.1));
        Self { name: name.into(), ours, reference, unit, ratio, goal, pairs: pairs.len() }
    }
}

impl From<&Ratio> for Row {
    fn from(r: &Ratio) -> Self {
        let (ours, reference) = (median_seconds(&r.ours), median_seconds(&r.reference));
        let (unit, scale) = if ours > 1e-3 { ("ms", 1e3) } else { ("us", 1e6) };
        let (ours, reference, goal) = (ours * scale, reference * scale, Goal::AtMost(r.goal));
        Self { name: r.name.clone(), ours, reference, unit, ratio: r.ratio(), goal, pairs: r.ours.len() }
    }
}

/// As [`report_rows`], for times.
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
pub(crate) fn report(bench: &str, ratios: &[Ratio]) -> std::io::Result<()> {
    report_rows(bench, &ratios.iter().map(Row::from).collect::<Vec<_>>())
}

/// Prints the table and writes `target/ratios/<bench>.json`.
pub(crate) fn report_rows(bench: &str, table: &[Row]) -> std::io::Result<()> {
    println!("{:44} {:>12} {:>12} {:>9} {:>8}", "", "ours", "reference", "ratio", "goal");
    let mut rows = vec![];
    for Row { name, ours, reference, unit, ratio, goal, pairs } in table {
        let (sign, goal, met) = match *goal {
            Goal::AtMost(goal) => ("<=", goal, *ratio <= goal),
            Goal::AtLeast(goal) => (">=", goal, *ratio >= goal),
        };
        let met = if met { "met" } else { "NOT MET" };
        println!(
            "{name:44} {ours:>9.3} {unit} {reference:>9.3} {unit} {ratio:>9.2} {sign}{goal:>6} {met} ({pairs} pairs)"
        );
        rows.push(json!({
            "name": name, "ours": ours, "reference": reference, "unit": unit, "ratio": ratio, "goal": goal
        }));
    }
    let directory = target_directory().join("ratios");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{bench}.json")), serde_json::to_string_pretty(&rows)?)
}

fn median_seconds(times: &[Duration]) -> f64 {
    median(times.iter().map(Duration::as_secs_f64).collect())
}

/// Cargo's target directory.
fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
}
