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

/// How many wait at most to be written down; what comes then is dropped, and counted.
const WAITING: usize = 1024;
/// Written at once.
const BATCH: usize = 100;

crate::operation::stored_enum! {
    /// What became of a link.
    TokenEventKind, "token event" {
        /// Its page was shown: nothing was consumed.
        Shown = "shown",
        /// Its work was done.
        Followed = "followed",
        /// Refused: nobody's.
        Unknown = "unknown",
        /// Refused: it came too late.
        Expired = "expired",
        /// Refused: another one was issued in its place, or somebody has revoked it.
        Revoked = "revoked",
        /// Refused: it had been used before.
        Reused = "reused",
        /// Refused while somebody was at it.
        Claimed = "claimed",
        /// Refused: good, but for another purpose.
        OtherPurpose = "other_purpose",
    }
}
/// What is to be written down: who came with which token, and when. No token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// SHA-256 of the text.
    pub hash: [u8; 32],
    /// `None`: it was refused, and why is told by the token's state.
    pub what: Option<TokenEventKind>,
    /// Who came, as far as it is known.
    pub client: Option<IpAddr>,
    /// When.
    pub at: Instant,
}

/// What became of a link, as it was written down.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenEvent {
    /// When, by the store's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What.
    pub what: TokenEventKind,
    /// Of which link; `None`: of nobody's.
    pub link: Option<LinkId>,
    /// Who came.
    pub client: Option<String>,
}
impl TokenEvent {
    /// For a store of the host's own.
    pub fn new(at: OffsetDateTime, what: TokenEventKind, link: Option<LinkId>, client: Option<String>) -> Self {
        Self { at, what, link, client }
    }
}

/// Events on their way: a bounded queue, so that no answer waits for them.
#[derive(Clone, Debug)]
pub struct Events {
    to: mpsc::Sender<Event>,
    from: Arc<Mutex<mpsc::Receiver<Event>>>,
    dropped: Arc<AtomicU64>,
}

impl Default for Events {
    fn default() -> Self {
        let (to, from) = mpsc::channel(WAITING);
        Self { to, from: Arc::new(Mutex::new(from)), dropped: Arc::default() }
    }
}

impl Events {
    /// Notes one; nothing is waited for.
    pub fn note(&self, hash: [u8; 32], what: Option<TokenEventKind>, client: Option<IpAddr>) {
        if self.to.try_send(Event { hash, what, client, at: Instant::now() }).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
    /// How many found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
    /// Writes them down as they come, for ever; a second one waits for the first.
    ///
    /// # Cancel safety
    /// What was taken and not written is lost, and is counted as dropped.
    pub async fn write_to(&self, store: &dyn TokenStore) -> StoreError {
        let mut from = self.from.lock().await;
        loop {
            let mut batch = Taken { events: Vec::with_capacity(BATCH), dropped: &self.dropped };
            from.recv_many(&mut batch.events, BATCH).await;
            while let Err(error) = store.record(&batch.events).await {
                tracing::warn!(%error, "what became of setup links is not written down yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            batch.events.clear();
        }
    }
}

struct Taken<'a> {
    events: Vec<Event>,
    dropped: &'a AtomicU64,
}
impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.dropped.fetch_add(self.events.len() as u64, Relaxed);
    }
}
