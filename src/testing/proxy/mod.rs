//! A proxy that speaks the PostgreSQL protocol, for faults from outside: it holds a statement while something else
//! happens, cuts before or after it, answers with an SQLSTATE of its own, or goes half-open.
//!
//! What it does is decided by a [`Director`], statement by statement:
//!
//! ```no_run
//! use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
//!
//! /// Cuts the connection after each INSERT was done and before its answer arrives.
//! struct Unanswered;
//! #[async_trait::async_trait]
//! impl Director for Unanswered {
//!     async fn at(&self, point: Point) -> Verdict {
//!         match point.stage {
//!             Stage::Sent if point.sql.starts_with("INSERT") => Verdict::Cut,
//!             _ => Verdict::Forward,
//!         }
//!     }
//! }
//! # async fn example(server: std::net::SocketAddr) -> std::io::Result<()> {
//! let proxy = Proxy::start(server, Unanswered).await?;
//! let options = sqlx::postgres::PgConnectOptions::new().host("127.0.0.1").port(proxy.port());
//! # Ok(()) }
//! ```
use async_trait::async_trait;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod block;
mod relay;
mod unit;
mod wire;

/// Decides what happens at each point. It may take its time: the message is held meanwhile.
#[async_trait]
pub trait Director: Send + Sync + 'static {
    /// What is to be done here.
    async fn at(&self, point: Point) -> Verdict;
}

#[async_trait]
impl<D: Director + ?Sized> Director for Arc<D> {
    async fn at(&self, point: Point) -> Verdict {
        (**self).at(point).await
    }
}

/// A moment in the life of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Point {
    /// Counts the connections of this proxy, from 1.
    pub connection: u64,
    /// As whom it connects.
    pub user: String,
    /// Into which database.
    pub database: String,
    /// The `application_name` that it began with.
    pub application: String,
    /// Counts the statements of this connection, from 1: one simple query, or everything up to one `Sync`. Preparing and
    /// running a statement are two. 0: connecting.
    pub statement: u32,
    /// The statement's text, also of one that was prepared before.
    pub sql: String,
    /// Where the statement is.
    pub stage: Stage,
}

/// Where a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The client wants to connect; the server knows nothing of it yet.
    Connect,
    /// The client has sent it; the server knows nothing of it yet.
    Before,
    /// The server has done it; the client knows nothing of its answer yet.
    Sent,
    /// The client has the answer.
    Answered,
}

/// What is done at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it goes its way.
    Forward,
    /// Both sides are closed.
    Cut,
    /// The client's side is closed; the server gets the statement and finishes it.
    CutClient,
    /// An error with this SQLSTATE in place of the statement (before it) or of its answer (after it). Where a server
    /// would close the connection with it (57P01, 57P02, 57P03, 53300, 28xxx), so does this.
    Answer(&'static str),
    /// Half-open: from now on nothing goes either way, until somebody cuts.
    Stall,
}

/// Nothing ever happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass;
#[async_trait]
impl Director for Pass {
    async fn at(&self, _: Point) -> Verdict {
        Verdict::Forward
    }
}

/// Listens on a port of the loopback interface. Dropping it cuts all connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: SocketAddr,
    director: Box<dyn Director>,
    count: AtomicU64,
    cut: Mutex<CancellationToken>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Proxy {
    /// In front of the server at `upstream`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(upstream: SocketAddr, director: impl Director) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            upstream,
            director: Box::new(director),
            count: AtomicU64::new(0),
            cut: Mutex::new(stop.child_token()),
            stop,
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(accept(shared.clone(), listener));
        Ok(Self { port, shared })
    }
    /// Where it listens, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Cuts every connection that there is; new ones are taken.
    pub fn cut_all(&self) {
        let mut cut = self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *cut, self.shared.stop.child_token()).cancel();
    }
    /// Cuts every connection and takes no more; nothing runs any more afterwards.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy(127.0.0.1:{} -> {})", self.port, self.shared.upstream)
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else { continue };
        let cut = shared.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let number = shared.count.fetch_add(1, Ordering::Relaxed) + 1;
        let serving = shared.clone();
        shared.tasks.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                // A connection that ends in an error has ended.
                _ = relay::serve(&serving, client, number) => {}
            }
        });
    }
}
