//! A process with ten thousand tenants, a thousand of them in use, for several minutes: memory and latency must not
//! grow.
//!
//! `cargo bench --bench soak`. `-- --minutes 10` sets the duration (default: 1); from two minutes on, it also draws the
//! chart `benches/pool/soak.svg`. `-- --databases 100` sets the number of tenants in use (default: 1000).
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use chart::{Axis, Panel, Point, Series};
use pool::hosts::{Hosts, slug};
use pool::load::Zipf;
use pool::peers::{BUDGET, TASKS, query_by_name};
use ratio::{Goal, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::ConnectionResolver;
use tenantry::resolver::PooledResolver;
use tenantry::testing::TestServer;

mod chart;
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
#[path = "pool/parts.rs"]
mod pool;
mod ratio;

/// Number of tenants in the registry.
const REGISTERED: usize = 10_000;
/// Interval between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time in which caches and the allocator grow to their final size. Growth after it counts.
const WARM_UP: Duration = Duration::from_secs(60);

/// The measurements of one interval.
struct Sample {
    /// Time since the start.
    minutes: f64,
    megabytes: f64,
    /// In milliseconds.
    p99: f64,
    /// Queries per second.
    rate: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let minutes = argument("--minutes").unwrap_or(1.0);
    let databases = argument("--databases").unwrap_or(1000.0) as usize;
    let builder = TestServer::builder().setting("max_connections", "100");
    let server: &'static TestServer = Box::leak(Box::new(builder.start().await.unwrap()));
    println!("{}", server.describe());
    let began = Instant::now();
    Hosts::new(server, databases).await;
    println!("created {databases} databases in {:.0} s", began.elapsed().as_secs_f64());
    let hosts = Hosts::named(server, REGISTERED);
    // The default settings of an application: a cached answer is valid for five seconds.
    let resolver = PooledResolver::builder(hosts.clone(), hosts).max_connections(BUDGET).build();
    let (samples, failed) = run_load(&resolver, databases, Duration::from_secs_f64(minutes * 60.0)).await;
    let stats = resolver.stats();
    println!("{:?}, {:?}", resolver, stats[0].1);
    resolver.close().await;
    if minutes >= 2.0 {
        let to = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pool/soak.svg");
        std::fs::write(to, draw(&samples, databases)).unwrap();
        println!("wrote benches/pool/soak.svg");
    }
    ratio::report_rows("soak", &rows(&samples, failed)).unwrap();
}

/// The number after this word of the command line.
fn argument(name: &str) -> Option<f64> {
    std::env::args().skip_while(|a| a != name).nth(1)?.parse().ok()
}

/// Queries the tenants in use by Zipf's law, without a pause, and resolves all other tenants in turn, again and again.
/// Returns a sample for each interval, and the number of failed queries.
async fn run_load(resolver: &PooledResolver, in_use: usize, time: Duration) -> (Vec<Sample>, u64) {
    let (times, over) = (Arc::new(Histogram::new()), Arc::new(AtomicBool::new(false)));
    let zipf = Zipf::new(in_use);
    let mut tasks = vec![];
    for _ in 0..TASKS {
        let (resolver, zipf, times, over) = (resolver.clone(), zipf.clone(), times.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            while !over.load(Relaxed) {
                let clock = Instant::now();
                let answer = query_by_name(&resolver, zipf.pick()).await;
                times.add(clock.elapsed(), answer.is_err());
            }
        }));
    }
    let (others, stop) = (resolver.clone(), over.clone());
    tasks.push(tokio::spawn(async move {
        for n in (in_use..REGISTERED).cycle().take_while(|_| !stop.load(Relaxed)) {
            others.resolve(slug(n).as_str().into()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
    let (began, mut samples) = (Instant::now(), vec![]);
    while began.elapsed() < time {
        tokio::time::sleep(INTERVAL).await;
        let sample = times.take_sample(began.elapsed());
        println!(
            "{:5.2} min {:7.1} MB   p99 {:7.1} ms {:6.0} ops/s {} errors",
            sample.minutes,
            sample.megabytes,
            sample.p99,
            sample.rate,
            times.errors.load(Relaxed)
        );
        samples.push(sample);
    }
    over.store(true, Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let failed = times.errors.load(Relaxed);
    (samples, failed)
}

/// A histogram of query times. Its size is fixed, so that the measurement does not use more memory over time.
struct Histogram {
    counts: Vec<AtomicU64>,
    errors: AtomicU64,
}

/// Ratio of the upper limits of two neighbouring buckets.
const STEP: f64 = 1.08;

impl Histogram {
    fn new() -> Self {
        Self { counts: (0..256).map(|_| AtomicU64::new(0)).collect(), errors: AtomicU64::new(0) }
    }
    fn add(&self, took: Duration, failed: bool) {
        let at = (took.as_micros().max(1) as f64).log(STEP) as usize;
        self.counts[at.min(255)].fetch_add(1, Relaxed);
        self.errors.fetch_add(u64::from(failed), Relaxed);
    }
    /// Returns the measurements since the last call, and resets the histogram. `since` is the time since the start.
    fn take_sample(&self, since: Duration) -> Sample {
        let counts: Vec<u64> = self.counts.iter().map(|n| n.swap(0, Relaxed)).collect();
        let (all, mut counted) = (counts.iter().sum::<u64>(), 0);
        let slowest = counts.iter().position(|n| {
            counted += n;
            counted * 100 >= all * 99
        });
        let p99 = STEP.powi(slowest.unwrap_or(0) as i32 + 1) / 1e3;
        let megabytes = pool::peers::resident_bytes() / f64::from(1 << 20);
        // Rounded to whole intervals: a sample that is slightly late would add another tick to the axis.
        let minutes = (since.as_secs_f64() / INTERVAL.as_secs_f64()).round() * INTERVAL.as_secs_f64() / 60.0;
        Sample { minutes, megabytes, p99, rate: all as f64 / INTERVAL.as_secs_f64() }
    }
}

fn rows(samples: &[Sample], failed: u64) -> Vec<Row> {
    let filled = samples.iter().position(|s| s.minutes * 60.0 >= WARM_UP.as_secs_f64()).unwrap_or(0);
    // The mean of three samples, because a single one varies too much.
    let mean = |of: &[Sample], figure: fn(&Sample) -> f64| of.iter().map(figure).sum::<f64>() / of.len() as f64;
    let first = &samples[filled..(filled + 3).min(samples.len())];
    let last = &samples[samples.len().saturating_sub(3)..];
    let pair = |figure| [(mean(last, figure), mean(first, figure))];
    vec![
        Row::of("memory at the end / after a minute", "MB", Goal::AtMost(1.05), &pair(|s| s.megabytes)),
        Row::of("p99 at the end / after a minute", "ms", Goal::AtMost(1.5), &pair(|s| s.p99)),
        Row::of("requests that failed", "  ", Goal::AtMost(0.0), &[(failed as f64, 1.0)]),
    ]
}

fn draw(samples: &[Sample], in_use: usize) -> String {
    let panel = |title, label, figure: fn(&Sample) -> f64| Panel {
        title,
        x: Axis { label: "minutes", logarithmic: false, ticks: vec![] },
        y: Axis { label, logarithmic: false, ticks: vec![] },
        series: vec![Series {
            name: title,
            points: samples.iter().map(|s| Point { x: s.minutes, y: figure(s), hollow: false }).collect(),
        }],
    };
    let caption = [
        format!(
            "One process resolves {REGISTERED} tenants again and again; a cached answer is valid for five seconds."
        ),
        format!("{TASKS} tasks query {in_use} of the tenants by Zipf's law; the limit is {BUDGET} connections."),
    ];
    let memory = panel("Resident memory", "megabytes", |s| s.megabytes);
    let p99 = panel("Latency", "99th percentile, in milliseconds", |s| s.p99);
    chart::svg(&[memory, p99], &caption)
}
