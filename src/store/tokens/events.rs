//! History of setup links: which were shown, used or refused.
//!
//! The facade calls [`Events::note`] for each request with a link, and a background task runs [`Events::write_to`]. The
//! queue between them is bounded, and a full queue drops the event and counts it, so a request never waits for the
//! landlord because of its event.
use super::{LinkId, TokenStore};
use crate::error::{StoreError, UnknownValue};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc};

/// Maximum events that wait to be written. A full queue drops new events, and counts them.
const QUEUE_CAPACITY: usize = 1024;
/// Maximum events in one write.
const BATCH_SIZE: usize = 100;

crate::operation::stored_enum! {
    /// What happened to a link.
    TokenEventKind, "token event" {
        /// The page of the link was shown. Nothing was consumed.
        Shown = "shown",
        /// The link's operation succeeded.
        Followed = "followed",
        /// Refused: no such token exists.
        Unknown = "unknown",
        /// Refused: the token had expired.
        Expired = "expired",
        /// Refused: the token was revoked, by a call or because a newer one was issued.
        Revoked = "revoked",
        /// Refused: the token had been used before.
        Reused = "reused",
        /// Refused: an operation has claimed the token.
        Claimed = "claimed",
        /// Refused: the token is valid, but for another purpose.
        OtherPurpose = "other_purpose",
    }
}
/// An event that waits to be written: the hash of the token, the client and the time. It does not contain the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingEvent {
    /// SHA-256 of the text that the client sent as the token.
    pub hash: [u8; 32],
    /// What happened; `None` if the token was refused. Then the store finds the reason in the token's state.
    pub what: Option<TokenEventKind>,
    /// IP address of the client, if it is known.
    pub client: Option<IpAddr>,
    /// Time of the request, by this process's clock. The store converts it by its age.
    pub at: Instant,
}

/// A recorded event of a link.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenEvent {
    /// Time of the event, by the store's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What happened.
    pub what: TokenEventKind,
    /// The link; `None` if no such token exists.
    pub link: Option<LinkId>,
    /// IP address of the client, if it was known.
    pub client: Option<String>,
}
impl TokenEvent {
    /// Creates an event, for an application's own implementation of [`TokenStore`].
    pub fn new(at: OffsetDateTime, what: TokenEventKind, link: Option<LinkId>, client: Option<String>) -> Self {
        Self { at, what, link, client }
    }
}

/// Bounded queue of events that wait to be written. [`note`](Self::note) never waits for the store: a full queue drops
/// the event and counts it. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<PendingEvent>,
    receiver: Arc<Mutex<mpsc::Receiver<PendingEvent>>>,
    dropped: Arc<AtomicU64>,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        Self { sender, receiver: Arc::new(Mutex::new(receiver)), dropped: Arc::default() }
    }
}

impl Events {
    /// Adds an event to the queue without waiting. A full queue drops it.
    pub fn note(&self, hash: [u8; 32], what: Option<TokenEventKind>, client: Option<IpAddr>) {
        if self.sender.try_send(PendingEvent { hash, what, client, at: Instant::now() }).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
    /// Number of events that were dropped since the queue was created.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
    /// Writes the events to the store as they arrive. It runs until its future is dropped, and retries a failed write
    /// each second. A second call waits for the first one to end.
    ///
    /// # Cancel safety
    /// Events that were taken from the queue and not yet written are lost, and counted as dropped.
    pub async fn write_to(&self, store: &dyn TokenStore) -> StoreError {
        let mut receiver = self.receiver.lock().await;
        loop {
            let mut batch = Batch { events: Vec::with_capacity(BATCH_SIZE), dropped: &self.dropped };
            receiver.recv_many(&mut batch.events, BATCH_SIZE).await;
            while let Err(error) = store.record(&batch.events).await {
                tracing::warn!(%error, "cannot record events of setup links; the next try is in one second");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            batch.events.clear();
        }
    }
}

/// Events that were taken from the queue. Those that are left when this is dropped count as dropped.
struct Batch<'a> {
    events: Vec<PendingEvent>,
    dropped: &'a AtomicU64,
}
impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.dropped.fetch_add(self.events.len() as u64, Relaxed);
    }
}
