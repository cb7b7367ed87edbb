//! A proxy between a client and PostgreSQL that injects faults. It can delay a statement, cut the connection before or
//! after it, answer with an SQLSTATE, or make the connection half-open.
//!
//! A test implements [`Director`], which decides at each stage of each statement, and connects its clients to
//! [`Proxy::port`]:
//!
//! ```no_run
//! use tenantry::testing::proxy::{Director, Point, Proxy, Stage, Verdict};
//!
//! /// Cuts the connection after the server has run an INSERT and before the client gets the answer.
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
//! let options = tenantry::testing::connect_options("127.0.0.1", proxy.port(), "app", "password", "app");
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

/// Decides what happens at each stage of each statement.
#[async_trait]
pub trait Director: Send + Sync + 'static {
    /// Returns what the proxy does at this point. The proxy withholds the message until this returns, so an
    /// implementation can delay it.
    async fn at(&self, point: Point) -> Verdict;
}

#[async_trait]
impl<D: Director + ?Sized> Director for Arc<D> {
    async fn at(&self, point: Point) -> Verdict {
        (**self).at(point).await
    }
}

/// A statement of a connection and its stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Point {
    /// Number of the connection. The proxy counts its connections from 1.
    pub connection: u64,
    /// User name of the session.
    pub user: String,
    /// Database of the session.
    pub database: String,
    /// The `application_name` of the startup packet. A later `SET` does not change it.
    pub application: String,
    /// Number of the statement. The proxy counts the statements of a connection from 1: a simple query is one, and so
    /// are all messages up to a `Sync`. Preparing and running a statement are two. At [`Stage::Connect`] it is 0.
    pub statement: u32,
    /// Text of the statement, also if it was prepared before. Empty at [`Stage::Connect`].
    pub sql: String,
    /// The stage of the statement.
    pub stage: Stage,
}

/// How far a statement has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The client has connected to the proxy. The proxy has not connected to the server.
    Connect,
    /// The client has sent the statement. The server has not received it.
    Before,
    /// The server has run the statement. The client has not received the answer.
    Sent,
    /// The client has received the answer.
    Answered,
}

/// What the proxy does at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forwards the message.
    Forward,
    /// Closes both sides.
    Cut,
    /// Closes the client's side. Before the statement, the server still gets the statement and finishes it; at the
    /// other stages this is the same as `Cut`.
    CutClient,
    /// Sends an error with this SQLSTATE instead of forwarding the statement ([`Stage::Before`]) or its answer
    /// ([`Stage::Sent`]). Closes the connection if PostgreSQL does so with this SQLSTATE (57P01, 57P02, 57P03, 53300,
    /// 28xxx).
    Answer(&'static str),
    /// Makes the connection half-open: it forwards nothing in either direction until [`Proxy::cut_all`] or
    /// [`Proxy::stop`].
    Stall,
}

/// A director that forwards everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass;
#[async_trait]
impl Director for Pass {
    async fn at(&self, _: Point) -> Verdict {
        Verdict::Forward
    }
}

/// A running proxy, on a port of 127.0.0.1. Dropping it cuts all connections and stops it in the background.
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
    /// Starts a proxy in front of the server at `upstream`.
    ///
    /// # Errors
    /// If it cannot bind a port.
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
        shared.tasks.spawn(accept_loop(shared.clone(), listener));
        Ok(Self { port, shared })
    }
    /// The port of 127.0.0.1 on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Cuts all current connections. It still accepts new ones.
    pub fn cut_all(&self) {
        let mut cut = self.shared.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *cut, self.shared.stop.child_token()).cancel();
    }
    /// Cuts all connections, accepts no more, and waits until its tasks have ended.
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

/// Accepts connections until the proxy stops.
async fn accept_loop(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else { continue };
        let cut = shared.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let number = shared.count.fetch_add(1, Ordering::Relaxed) + 1;
        let connection_shared = shared.clone();
        shared.tasks.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                // The client notices an error as a closed connection, so it is not reported here.
                _ = relay::serve(&connection_shared, client, number) => {}
            }
        });
    }
}
