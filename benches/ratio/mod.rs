//! Ours and the reference, interleaved in one run; the median of the pairs' ratios; a table and a file.
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// What one comparison gave.
pub(crate) struct Ratio {
    pub(crate) name: &'static str,
    pub(crate) ours: Vec<Duration>,
    pub(crate) reference: Vec<Duration>,
    pub(crate) goal: f64,
}

#[allow(dead_code, reason = "each benchmark uses its part of this file")]
impl Ratio {
    pub(crate) fn new(name: &'static str, goal: f64) -> Self {
        Self { name, ours: vec![], reference: vec![], goal }
    }
    /// One figure against a bound.
    pub(crate) fn against(name: &'static str, ours: Duration, bound: Duration, goal: f64) -> Self {
        Self { name, ours: vec![ours], reference: vec![bound], goal }
    }
    pub(crate) fn pair(&mut self, ours: Duration, reference: Duration) {
        self.ours.push(ours);
        self.reference.push(reference);
    }
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

/// Prints the table and writes `target/ratios/<bench>.json`.
pub(crate) fn report(bench: &str, ratios: &[Ratio]) -> std::io::Result<()> {
    println!("{:44} {:>12} {:>12} {:>7} {:>6}", "", "ours", "reference", "ratio", "goal");
    let mut rows = vec![];
    for r in ratios {
        let (ours, reference) = (middle(&r.ours), middle(&r.reference));
        let (unit, scale) = if ours > 1e-3 { ("ms", 1e3) } else { ("us", 1e6) };
        let (ours, reference, ratio) = (ours * scale, reference * scale, r.ratio());
        let met = if ratio <= r.goal { "met" } else { "NOT MET" };
        println!(
            "{:44} {ours:>9.3} {unit} {reference:>9.3} {unit} {ratio:>7.2} {:>6} {met} ({} pairs)",
            r.name,
            r.goal,
            r.ours.len()
        );
        let row = json!({ "name": r.name, "ours": ours, "reference": reference, "unit": unit, "ratio": ratio, "goal": r.goal });
        rows.push(row);
    }
    let directory = target().join("ratios");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{bench}.json")), serde_json::to_string_pretty(&rows)?)
}

fn middle(times: &[Duration]) -> f64 {
    median(times.iter().map(Duration::as_secs_f64).collect())
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from)
}
