//! Tasks that ask tenants by Zipf's law, without a pause.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tenantry::sqlx;

/// Probabilities of tenants, added up.
#[derive(Clone)]
pub(crate) struct Zipf(Arc<Vec<f64>>);

impl Zipf {
    pub(crate) fn new(tenants: usize) -> Self {
        let mut sum = 0.0;
        let mut added = vec![];
        for n in 1..=tenants {
            sum += 1.0 / n as f64;
            added.push(sum);
        }
        added.iter_mut().for_each(|p| *p /= sum);
        Self(Arc::new(added))
    }
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    pub(crate) fn uniform(tenants: usize) -> Self {
        Self(Arc::new((1..=tenants).map(|n| n as f64 / tenants as f64).collect()))
    }
    pub(crate) fn pick(&self) -> usize {
        let at: f64 = rand::random();
        self.0.partition_point(|p| *p < at).min(self.0.len() - 1)
    }
    #[allow(dead_code, reason = "each benchmark uses only a part of this module")]
    /// Of requests for what is not among the `kept` most frequent ones: no eviction can do better.
    pub(crate) fn misses(&self, kept: usize) -> f64 {
        1.0 - self.0[kept.min(self.0.len()) - 1]
    }
}

pub(crate) struct Load {
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) errors: usize,
}

/// Runs `ask(tenant)` in so many tasks, a while to warm up and then to be counted.
pub(crate) async fn run<F, R>(tasks: usize, zipf: &Zipf, warm: Duration, counted: Duration, ask: F) -> Load
where
    F: Fn(usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    let (counts, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (ask, zipf, counts, over) = (ask.clone(), zipf.clone(), counts.clone(), over.clone());
            tokio::spawn(async move {
                let (mut took, mut errors) = (vec![], 0);
                while !over.load(Relaxed) {
                    let clock = Instant::now();
                    let done = ask(zipf.pick()).await;
                    if counts.load(Relaxed) {
                        took.push(clock.elapsed());
                        errors += usize::from(done.is_err());
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
        let (of_one, failed) = worker.await.unwrap();
        took.extend(of_one);
        errors += failed;
    }
    took.sort_unstable();
    let at = |part: f64| {
        took.get(((took.len() as f64 * part) as usize).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    Load { rate: (took.len() - errors) as f64 / counted.as_secs_f64(), p50: at(0.5), p99: at(0.99), errors }
}
