//! Load for a benchmark: tasks that query tenants without a pause, and the measured rate and latencies.
//!
//! [`Zipf`] selects the tenant of each query, and [`run`] runs the tasks.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::sqlx;

/// A probability distribution over tenants, as cumulative sums.
#[derive(Clone)]
pub(crate) struct Zipf(Arc<Vec<f64>>);

impl Zipf {
    /// Zipf's law: tenant `n` is queried with a frequency proportional to 1 / (n + 1).
    pub(crate) fn new(tenants: usize) -> Self {
        let mut sum = 0.0;
        let mut cumulative = vec![];
        for n in 1..=tenants {
            sum += 1.0 / n as f64;
            cumulative.push(sum);
        }
        cumulative.iter_mut().for_each(|p| *p /= sum);
        Self(Arc::new(cumulative))
    }
    /// All tenants are queried equally often.
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) fn uniform(tenants: usize) -> Self {
        Self(Arc::new((1..=tenants).map(|n| n as f64 / tenants as f64).collect()))
    }
    /// Selects a tenant at random.
    pub(crate) fn pick(&self) -> usize {
        let at: f64 = rand::random();
        self.0.partition_point(|p| *p < at).min(self.0.len() - 1)
    }
    /// Fraction of the queries that are not for one of the `kept` most frequent tenants. With `kept` connections, no
    /// eviction strategy that does not know the future can have fewer misses.
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) fn miss_ratio(&self, kept: usize) -> f64 {
        1.0 - self.0[kept.min(self.0.len()) - 1]
    }
}

/// The result of a load.
pub(crate) struct Load {
    /// Successful queries per second.
    pub(crate) rate: f64,
    /// Median time of a query, including failed ones.
    pub(crate) p50: Duration,
    /// 99th percentile of the times.
    pub(crate) p99: Duration,
    /// Number of failed queries.
    pub(crate) errors: usize,
}

/// Calls `query(tenant)` without a pause in `tasks` tasks. Queries of the time `warm` are not counted; those of the
/// time `counted` after it are.
pub(crate) async fn run<F, R>(tasks: usize, zipf: &Zipf, warm: Duration, counted: Duration, query: F) -> Load
where
    F: Fn(usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    let zipf = zipf.clone();
    run_with(tasks, warm, counted, move || {
        let (query, zipf) = (query.clone(), zipf.clone());
        move || query(zipf.pick())
    })
    .await
}

/// As [`run`]; `new_task` makes the function that one task calls without a pause.
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
pub(crate) async fn run_with<T, F, R>(tasks: usize, warm: Duration, counted: Duration, new_task: T) -> Load
where
    T: Fn() -> F,
    F: Fn() -> R + Send + 'static,
    R: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    let (counts, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (query, counts, over) = (new_task(), counts.clone(), over.clone());
            tokio::spawn(async move {
                let (mut took, mut errors) = (vec![], 0);
                while !over.load(Relaxed) {
                    let clock = Instant::now();
                    let answer = query().await;
                    if counts.load(Relaxed) {
                        took.push(clock.elapsed());
                        errors += usize::from(answer.is_err());
                    }
                }
                (took, errors)
            })
        })
        .collect();
    tokio::time::sleep(warm).await;
    counts.store(true, Relaxed);
    tokio::time::sleep(counted).await;
    counts.store(false, Relaxed);
    over.store(true, Relaxed);
    let (mut took, mut errors) = (vec![], 0);
    for worker in workers {
        let (times, failed) = worker.await.unwrap();
        took.extend(times);
        errors += failed;
    }
    took.sort_unstable();
    let percentile = |part: f64| {
        took.get(((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    Load {
        rate: (took.len() - errors) as f64 / counted.as_secs_f64(),
        p50: percentile(0.5),
        p99: percentile(0.99),
        errors,
    }
}
