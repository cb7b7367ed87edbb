//! The chart `benches/pool/tenants.svg`: throughput and latency by number of tenants, for tenantry, a pool for each
//! tenant, and PgBouncer.
//!
//! `cargo bench --bench picture`. The competitors are measured alternately in three rounds, and the chart shows the
//! medians. PgBouncer must be installed.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints its results and panics on errors")]
use chart::{Axis, Panel, Point, Series};
use pool::bouncer::Bouncer;
use pool::hosts::Hosts;
use pool::load::{Load, Zipf};
use pool::peers::{BUDGET, TASKS, bouncer_pools, create_pools, run_pools, run_tenantry};
use tenantry::testing::TestServer;

mod chart;
#[allow(dead_code, reason = "each benchmark uses only a part of this module")]
#[path = "pool/parts.rs"]
mod pool;

const TENANTS: [usize; 6] = [10, 30, 60, 100, 200, 300];
const ROUNDS: usize = 3;
const NAMES: [&str; 3] = ["tenantry: one shared limit", "a PgPool for each tenant", "PgBouncer, session mode"];

/// The measurements by competitor, number of tenants and round.
type Measured = Vec<Vec<Vec<Load>>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let builder = TestServer::builder().setting("max_connections", "100");
    let server: &'static TestServer = Box::leak(Box::new(builder.start().await.unwrap()));
    println!("{}", server.describe());
    let hosts = Hosts::new(server, TENANTS[TENANTS.len() - 1]).await;
    let mut measured: Measured = NAMES.iter().map(|_| TENANTS.iter().map(|_| vec![]).collect()).collect();
    for round in 0..ROUNDS {
        for (at, tenants) in TENANTS.into_iter().enumerate() {
            println!("{tenants} tenants, round {}:", round + 1);
            let zipf = Zipf::new(tenants);
            measured[0][at].push(run_tenantry(&hosts, &zipf).await);
            measured[1][at].push(run_pools(NAMES[1], create_pools(server, tenants), &zipf, true).await);
            let bouncer = Bouncer::start(server, "session", BUDGET).unwrap();
            measured[2][at]
                .push(run_pools(NAMES[2], bouncer_pools(&bouncer, server, tenants, true), &zipf, false).await);
        }
    }
    let to = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pool/tenants.svg");
    std::fs::write(to, draw(&measured)).unwrap();
    println!("wrote benches/pool/tenants.svg");
}

fn draw(measured: &Measured) -> String {
    let rate = Panel {
        title: "Throughput",
        x: tenants_axis(),
        y: Axis { label: "answered queries per second", logarithmic: true, ticks: vec![] },
        series: series(measured, |load| load.rate),
    };
    let latency = Panel {
        title: "Latency",
        x: tenants_axis(),
        y: Axis { label: "99th percentile, in milliseconds", logarithmic: true, ticks: vec![] },
        series: series(measured, |load| load.p99.as_secs_f64() * 1e3),
    };
    let caption = [
        format!(
            "{TASKS} tasks run SELECT 1 without a pause; tenants by Zipf's law; max_connections 100, limit {BUDGET}."
        ),
        format!(
            "Medians of {ROUNDS} rounds. Hollow points: some queries failed; the throughput counts answered queries."
        ),
    ];
    chart::svg(&[rate, latency], &caption)
}

fn tenants_axis() -> Axis {
    let ticks = TENANTS.iter().map(|n| *n as f64).collect();
    Axis { label: "tenants, each with its own database", logarithmic: true, ticks }
}

fn series(measured: &Measured, figure: fn(&Load) -> f64) -> Vec<Series> {
    let of = |(name, by_tenants): (&'static str, &Vec<Vec<Load>>)| Series {
        name,
        points: TENANTS.iter().zip(by_tenants).map(|(tenants, rounds)| point(*tenants, rounds, figure)).collect(),
    };
    NAMES.into_iter().zip(measured).map(of).collect()
}

fn point(tenants: usize, rounds: &[Load], figure: fn(&Load) -> f64) -> Point {
    let mut values: Vec<f64> = rounds.iter().map(figure).collect();
    values.sort_by(f64::total_cmp);
    Point { x: tenants as f64, y: values[values.len() / 2], hollow: rounds.iter().any(|load| load.errors > 0) }
}
