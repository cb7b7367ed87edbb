//! Random schedules of a budget without a server: callers come, are dropped at any await, fail, lend, and the budget
//! itself changes. Whatever happens, no slot is lost and nobody who waits is forgotten.
use super::scheduler::SlotId;
use super::server::{Lease, Limits, Opener, ServerPool};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Counts what is open; opening and closing take their time and may fail.
struct Fake {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// A connection that knows whose it is.
struct Conn {
    tenant: usize,
    open: Arc<AtomicUsize>,
}
impl Drop for Conn {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

impl Opener for Fake {
    /// Whose, and one of so many attempts fails.
    type Target = (usize, u32);
    type Conn = Conn;
    async fn open(&self, target: &(usize, u32), _: SlotId, _: Duration) -> Result<Conn, sqlx::Error> {
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..4))).await;
        if rand::random_ratio(1, target.1) {
            return Err(sqlx::Error::WorkerCrashed);
        }
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(open, SeqCst);
        Ok(Conn { tenant: target.0, open: self.open.clone() })
    }
    async fn close(&self, conn: Conn, _: &'static str) {
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..2))).await;
        drop(conn);
    }
    fn is_gone(_: &Conn) -> bool {
        false
    }
}

type Caller = BoxFuture<'static, Result<Option<Lease<Fake>>, sqlx::Error>>;

struct World {
    rng: StdRng,
    server: Arc<ServerPool<Fake>>,
    keys: Vec<usize>,
    most: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    waiting: Vec<(usize, Caller)>,
    held: Vec<(usize, Lease<Fake>)>,
}

const BUDGET: u32 = 4;
const CAP: u32 = 2;

impl World {
    fn new(seed: u64) -> Self {
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let limits = Limits { budget: BUDGET, connect_permits: 2, acquire: Duration::from_secs(5) };
        let server = Arc::new(ServerPool::new(Fake { open: open.clone(), most: most.clone() }, limits));
        let keys = (0..6).map(|_| server.join(CAP)).collect();
        let (waiting, held) = Default::default();
        Self { rng: StdRng::seed_from_u64(seed), server, keys, most, open, waiting, held }
    }

    fn comes(&mut self) {
        let tenant = self.rng.random_range(0..self.keys.len());
        let (server, key) = (self.server.clone(), self.keys[tenant]);
        let caller = async move { server.acquire(key, &(tenant, 8)).await };
        self.waiting.push((tenant, caller.boxed()));
    }

    /// Whoever waits is polled once: it may have come to any of its awaits.
    fn polls(&mut self) {
        let mut at = 0;
        while at < self.waiting.len() {
            match (&mut self.waiting[at].1).now_or_never() {
                None => at += 1,
                Some(Ok(Some(lease))) => {
                    let tenant = self.waiting.swap_remove(at).0;
                    assert_eq!(lease.conn.as_ref().map(|c| c.tenant), Some(tenant), "another tenant's connection");
                    self.held.push((tenant, lease));
                    let of_tenant = self.held.iter().filter(|(t, _)| *t == tenant).count();
                    assert!(of_tenant <= CAP as usize, "a tenant has more than it may");
                }
                Some(_) => drop(self.waiting.swap_remove(at)),
            }
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => self.comes(),
            4 if !self.waiting.is_empty() => {
                let at = self.rng.random_range(0..self.waiting.len());
                drop(self.waiting.swap_remove(at));
            }
            5 | 6 if !self.held.is_empty() => {
                let at = self.rng.random_range(0..self.held.len());
                drop(self.held.swap_remove(at));
            }
            7 if !self.held.is_empty() => {
                // It broke while it was used.
                let at = self.rng.random_range(0..self.held.len());
                let (_, mut lease) = self.held.swap_remove(at);
                let (slot, conn) = (lease.slot, lease.conn.take());
                drop((conn, lease));
                self.server.scheduler().abandon(slot);
            }
            8 => {
                let budget = self.rng.random_range(1..=BUDGET);
                self.server.resize(budget);
            }
            _ => tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..5))).await,
        }
        self.polls();
    }

    /// Nothing is lost: everybody who waits is served, and all that is open can be closed.
    async fn ends(mut self) {
        self.server.resize(BUDGET);
        self.held.clear();
        let waiting = std::mem::take(&mut self.waiting);
        let served = futures_util::future::join_all(waiting.into_iter().map(|(tenant, caller)| async move {
            match caller.await {
                Ok(Some(lease)) => assert_eq!(lease.conn.as_ref().map(|c| c.tenant), Some(tenant)),
                Ok(None) => panic!("nobody was retired"),
                Err(sqlx::Error::WorkerCrashed) => {}
                Err(forgotten) => panic!("forgotten in the queue: {forgotten}"),
            }
        }));
        served.await;
        self.server.settled().await;
        let stats = self.server.stats();
        assert_eq!((stats.open, stats.waiting), (stats.idle, 0), "a slot is lost: {stats:?}");
        assert_eq!(self.open.load(SeqCst), stats.idle as usize);
        self.server.close();
        self.server.closed().await;
        self.server.settled().await;
        assert_eq!(self.open.load(SeqCst), 0);
        assert!(self.most.load(SeqCst) <= BUDGET as usize, "more were open than the budget allows");
    }
}

#[test]
fn ten_thousand_schedules_lose_no_slot_and_forget_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    for seed in 0..10_000 {
        runtime.block_on(async {
            let mut world = World::new(seed);
            for _ in 0..40 {
                world.step().await;
            }
            world.ends().await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_shrinks_is_kept_as_soon_as_connections_come_back() {
    let mut world = World::new(0);
    let mut held = vec![];
    while held.len() < BUDGET as usize {
        held.extend(world.server.acquire(world.keys[held.len()], &(held.len(), u32::MAX)).await.unwrap());
    }
    world.server.resize(1);
    assert_eq!(world.server.stats().open, BUDGET, "nobody's connection is taken away");
    held.clear();
    world.server.settled().await;
    assert_eq!((world.server.stats().open, world.open.load(SeqCst)), (1, 1));
    world.server.resize(BUDGET);
    world.keys.truncate(2);
    for tenant in [0, 0, 1, 1] {
        held.extend(world.server.acquire(world.keys[tenant], &(tenant, u32::MAX)).await.unwrap());
    }
    assert_eq!(held.len(), BUDGET as usize, "and what it gains is used");
}
