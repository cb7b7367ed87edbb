//! How many connections are opened at the same time: the number that the pool chooses, compared with fixed ones.
//!
//! `cargo bench --bench permits` measures four loads without TLS and with TLS. `-- --only zipf` measures one of them: the
//! others are `uniform`, `shifting` and `bursts`. `-- --rounds 9` measures each setting nine times instead of three: the
//! same setting differs by a tenth or more from round to round.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use encryption::Encryption;
use pool::hosts::Hosts;
use pool::load::{Load, Zipf, run};
use pool::peers::{BUDGET, COUNTED, TASKS, WARM, print_load, query_by_name};
use ratio::{Goal, Row};
use std::time::{Duration, Instant};
use tenantry::ConnectionResolver;
use tenantry::resolver::PooledResolver;
use tenantry::testing;

mod encryption;
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
#[path = "pool/parts.rs"]
mod pool;
mod ratio;

const TENANTS: usize = 300;
/// How often each setting is measured if `--rounds` does not say otherwise.
const ROUNDS: usize = 3;
/// The fixed numbers. `None` is the pool's own choice.
const LIMITS: [Option<usize>; 5] = [None, Some(4), Some(8), Some(16), Some(32)];
/// How many tenants are queried at the same time, in the loads that have a hot set.
const HOT: usize = 15;

/// Which tenants are queried.
#[derive(Clone, Copy)]
enum Shape {
    /// By Zipf's law.
    Zipf,
    /// All equally often.
    Uniform,
    /// Fifteen of them, and each second the next fifteen.
    Shifting,
    /// The same fifteen, but in the first fifth of each second all of them.
    Bursts,
}

impl Shape {
    const ALL: [(&str, Self); 4] =
        [("zipf", Self::Zipf), ("uniform", Self::Uniform), ("shifting", Self::Shifting), ("bursts", Self::Bursts)];

    fn distribution(self) -> Zipf {
        if matches!(self, Self::Zipf) { Zipf::new(TENANTS) } else { Zipf::uniform(TENANTS) }
    }
    /// The tenant of a query, for the one that the distribution selected and the time since the start.
    fn tenant(self, selected: usize, since_start: Duration) -> usize {
        let (second, part) = (since_start.as_secs() as usize, since_start.subsec_millis());
        match self {
            Self::Zipf | Self::Uniform => selected,
            Self::Shifting => (second * HOT + selected % HOT) % TENANTS,
            Self::Bursts if part < 200 => selected,
            Self::Bursts => selected % HOT,
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let argument = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let only = argument("--only");
    let rounds = argument("--rounds").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut rows = vec![];
    for encryption in Encryption::from_arguments() {
        let server = encryption.server().setting("max_connections", "100").start().await.unwrap();
        let server: &'static testing::TestServer = Box::leak(Box::new(server));
        println!("{}", encryption.label(&server.describe()));
        let hosts = Hosts::new(server, TENANTS).await;
        for (name, shape) in Shape::ALL.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
        {
            rows.extend(measure(&hosts, &encryption.label(name), shape, rounds).await);
        }
    }
    ratio::report_rows("permits", &rows).unwrap();
}

/// All limits in turn, several times, and the pool's own choice compared with the best fixed one.
async fn measure(hosts: &Hosts, name: &str, shape: Shape, rounds: usize) -> [Row; 2] {
    println!("{name}: {TENANTS} tenants, {TASKS} tasks, {BUDGET} connections:");
    let mut loads: Vec<Vec<Load>> = LIMITS.iter().map(|_| vec![]).collect();
    for round in 0..rounds {
        // Each round begins with another setting, so that none always follows the same one.
        for place in 0..LIMITS.len() {
            let setting = (round + place) % LIMITS.len();
            loads[setting].push(run_shape(hosts, LIMITS[setting], shape).await);
        }
    }
    let total = |loads: &Vec<Load>| loads.iter().map(|load| load.rate).sum::<f64>();
    let best = loads[1..].iter().max_by(|a, b| total(a).total_cmp(&total(b))).unwrap();
    let pairs = |of: fn(&Load) -> f64| loads[0].iter().zip(best).map(|(a, b)| (of(a), of(b))).collect::<Vec<_>>();
    [
        Row::of(format!("{name}: own choice / best fixed"), "/s", Goal::AtLeast(0.95), &pairs(|load| load.rate)),
        Row::of(
            format!("{name}: p99 / of the best fixed"),
            "ms",
            Goal::AtMost(2.0),
            &pairs(|load| load.p99.as_secs_f64() * 1e3),
        ),
    ]
}

async fn run_shape(hosts: &Hosts, limit: Option<usize>, shape: Shape) -> Load {
    let builder = PooledResolver::builder(hosts.clone(), hosts.clone());
    let builder = builder.max_connections(BUDGET).pool(|p| p.fresh_for(Duration::from_secs(3600)));
    let resolver = match limit {
        Some(limit) => builder.pool(|p| p.max_opening(limit)).build(),
        None => builder.build(),
    };
    let (at, start) = (resolver.clone(), Instant::now());
    let load = run(TASKS, &shape.distribution(), WARM, COUNTED, move |n| {
        let resolver = at.clone();
        async move { query_by_name(&resolver, shape.tenant(n, start.elapsed())).await }
    })
    .await;
    let chosen = resolver.stats().iter().map(|(_, stats)| stats.connect_permits).max().unwrap_or_default();
    let name = limit.map_or(format!("own choice, {chosen} at the end"), |limit| format!("{limit} at the same time"));
    print_load(&name, &load);
    resolver.close().await;
    load
}
