//! Tests of the server pool with random schedules and no server.
//!
//! Callers arrive, are dropped at any await, fail to open connections and break them, and the limit changes. After
//! every schedule no slot may be lost, every remaining waiter must be served, and the limit must never have been
//! exceeded.
use super::acquire::Acquired;
use super::connect_permits::PermitLimit;
use super::guards::CheckedOut;
use super::scheduler::SlotId;
use super::server::{Opener, PoolLimits, ServerPool};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Counts open connections. Opening and closing take a random time, and opening may fail.
struct FakeOpener {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// A connection that knows its tenant.
struct FakeConn {
    tenant: usize,
    open: Arc<AtomicUsize>,
}
impl Drop for FakeConn {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

impl Opener for FakeOpener {
    /// The tenant, and `n` such that one attempt in `n` fails on average.
    type Target = (usize, u32);
    type Conn = FakeConn;
    async fn open(&self, target: &(usize, u32), _: SlotId, _: Duration) -> Result<FakeConn, sqlx::Error> {
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..4))).await;
        if rand::random_ratio(1, target.1) {
            return Err(sqlx::Error::WorkerCrashed);
        }
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(open, SeqCst);
        Ok(FakeConn { tenant: target.0, open: self.open.clone() })
    }
    async fn close(&self, conn: FakeConn, _: &'static str) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..2))).await;
        drop(conn);
    }
    fn is_gone(_: &FakeConn) -> bool {
        false
    }
    fn take_back(server: &Arc<ServerPool<Self>>, slot: SlotId, conn: FakeConn) {
        server.give_back(slot, conn);
    }
}

type FakeCheckedOut = CheckedOut<'static, FakeOpener>;
type Caller = BoxFuture<'static, Result<Acquired<FakeOpener>, sqlx::Error>>;

struct Simulation {
    rng: StdRng,
    server: Arc<ServerPool<FakeOpener>>,
    keys: Vec<usize>,
    most: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    waiting: Vec<(usize, Caller)>,
    checked_out: Vec<(usize, FakeCheckedOut)>,
}

const BUDGET: u32 = 4;
const CAP: u32 = 2;

impl Simulation {
    fn new(seed: u64) -> Self {
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let limits =
            PoolLimits { budget: BUDGET, connect_permits: PermitLimit::Fixed(2), acquire: Duration::from_secs(5) };
        let server = Arc::new(ServerPool::new(FakeOpener { open: open.clone(), most: most.clone() }, limits));
        let keys = (0..6).map(|_| server.join(CAP)).collect();
        let (waiting, checked_out) = Default::default();
        Self { rng: StdRng::seed_from_u64(seed), server, keys, most, open, waiting, checked_out }
    }

    /// Acquires a connection of the tenant. Opening it does not fail.
    async fn acquire(&self, tenant: usize) -> FakeCheckedOut {
        match self.server.acquire(self.server.enter(self.keys[tenant]), &(tenant, u32::MAX)).await.unwrap() {
            Acquired::Connection(checked_out) => checked_out,
            Acquired::Retired => panic!("acquire reported a retired share, but no share was retired"),
        }
    }

    fn add_caller(&mut self) {
        let tenant = self.rng.random_range(0..self.keys.len());
        let (server, key) = (self.server.clone(), self.keys[tenant]);
        let caller = async move { server.acquire(server.enter(key), &(tenant, 8)).await };
        self.waiting.push((tenant, caller.boxed()));
    }

    /// Polls every waiting caller once, so that each may stop at any of its awaits.
    fn poll_callers(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() {
            match (&mut self.waiting[at].1).now_or_never() {
                None => at += 1,
                Some(Ok(Acquired::Connection(checked_out))) => {
                    let tenant = self.waiting.swap_remove(at).0;
                    let of = checked_out.conn.as_ref().map(|c| c.tenant);
                    assert_eq!(of, Some(tenant), "a caller was given another tenant's connection");
                    self.checked_out.push((tenant, checked_out));
                    let of_tenant = self.checked_out.iter().filter(|(t, _)| *t == tenant).count();
                    assert!(
                        of_tenant <= CAP as usize,
                        "tenant {tenant} has {of_tenant} connections, more than its cap"
                    );
                }
                Some(_) => drop(self.waiting.swap_remove(at)),
            }
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => self.add_caller(),
            4 if !self.waiting.is_empty() => {
                let at = self.rng.random_range(0..self.waiting.len());
                drop(self.waiting.swap_remove(at));
            }
            5 | 6 if !self.checked_out.is_empty() => {
                let at = self.rng.random_range(0..self.checked_out.len());
                drop(self.checked_out.swap_remove(at));
            }
            7 if !self.checked_out.is_empty() => {
                // The connection broke while it was in use.
                let at = self.rng.random_range(0..self.checked_out.len());
                let (_, mut checked_out) = self.checked_out.swap_remove(at);
                let (slot, conn) = (checked_out.slot, checked_out.conn.take());
                drop((conn, checked_out));
                self.server.lock_scheduler().abandon(slot);
            }
            8 => {
                let budget = self.rng.random_range(1..=BUDGET);
                self.server.resize(budget);
            }
            _ => tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..5))).await,
        }
        self.poll_callers();
    }

    /// Serves all remaining waiters, closes the pool, and checks that no slot is lost and no connection stays open.
    async fn finish(mut self) {
        self.server.resize(BUDGET);
        self.checked_out.clear();
        let waiting = std::mem::take(&mut self.waiting);
        let all_served = futures_util::future::join_all(waiting.into_iter().map(|(tenant, caller)| async move {
            match caller.await {
                Ok(Acquired::Connection(checked_out)) => {
                    let of = checked_out.conn.as_ref().map(|c| c.tenant);
                    assert_eq!(of, Some(tenant), "a caller was given another tenant's connection");
                }
                Ok(Acquired::Retired) => panic!("acquire reported a retired share, but no share was retired"),
                Err(sqlx::Error::WorkerCrashed) => {}
                Err(error) => panic!("a waiter was not served although slots were free: {error}"),
            }
        }));
        all_served.await;
        self.server.wait_for_tasks().await;
        let stats = self.server.stats();
        assert_eq!((stats.open, stats.waiting), (stats.idle, 0), "a slot is lost or a waiter is left: {stats:?}");
        assert_eq!(self.open.load(SeqCst), stats.idle as usize, "open connections differ from idle slots: {stats:?}");
        self.server.close();
        self.server.wait_until_closed().await;
        self.server.wait_for_tasks().await;
        assert_eq!(self.open.load(SeqCst), 0, "connections are open after the pool was closed");
        assert!(self.most.load(SeqCst) <= BUDGET as usize, "more connections were open than the limit allows");
    }
}

#[test]
fn random_schedules_lose_no_slot_and_serve_every_waiter() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for seed in 0..10_000 {
        runtime.block_on(async {
            let mut simulation = Simulation::new(seed);
            for _ in 0..40 {
                simulation.step().await;
            }
            simulation.finish().await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn resize_to_a_lower_limit_takes_effect_when_connections_are_returned() {
    let mut simulation = Simulation::new(0);
    let mut checked_out = vec![];
    while checked_out.len() < BUDGET as usize {
        let tenant = checked_out.len();
        checked_out.push(simulation.acquire(tenant).await);
    }
    simulation.server.resize(1);
    assert_eq!(simulation.server.stats().open, BUDGET, "a lower limit must not close connections in use");
    checked_out.clear();
    simulation.server.wait_for_tasks().await;
    let open = (simulation.server.stats().open, simulation.open.load(SeqCst));
    assert_eq!(open, (1, 1), "returned connections above the lower limit must be closed");
    simulation.server.resize(BUDGET);
    simulation.keys.truncate(2);
    for tenant in [0, 0, 1, 1] {
        checked_out.push(simulation.acquire(tenant).await);
    }
    assert_eq!(checked_out.len(), BUDGET as usize, "the raised limit must be usable");
}

#[tokio::test(start_paused = true)]
async fn reopen_ends_although_every_permit_is_held_by_a_caller_that_waits_for_a_slot() {
    let mut simulation = Simulation::new(0);
    let (server, keys) = (simulation.server.clone(), simulation.keys.clone());
    let mut checked_out = vec![];
    for tenant in 0..BUDGET as usize {
        checked_out.push(simulation.acquire(tenant).await);
    }
    // Two tenants without a connection take both permits and wait for a slot.
    for tenant in [4, 5] {
        let (server, key) = (server.clone(), keys[tenant]);
        let caller = async move { server.acquire(server.enter(key), &(tenant, u32::MAX)).await };
        simulation.waiting.push((tenant, caller.boxed()));
    }
    for _ in 0..5 {
        simulation.poll_callers();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(simulation.waiting.len(), 2, "all slots are in use");

    let began = tokio::time::Instant::now();
    for (tenant, broken) in checked_out.into_iter().enumerate() {
        drop(broken.reopen(&(tenant, u32::MAX)).await.unwrap());
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "reopening {BUDGET} broken connections took {took:?}");
    simulation.finish().await;
}
