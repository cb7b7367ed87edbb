//! Progress of long work, on stderr: one line that changes on a terminal, one line for each step elsewhere.
//!
//! It also remembers which operations this command has begun, for the message after Ctrl-C.
use super::output::{clean, print_status};
use crate::operation::{OperationEvent, OperationId};
use indicatif::ProgressBar;
use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the sign of life on a terminal moves.
const TICK: Duration = Duration::from_millis(120);

/// Shows progress. Cheap to clone.
#[derive(Clone)]
pub(super) struct Progress(Arc<Inner>);

struct Inner {
    is_terminal: bool,
    /// The changing line, while there is one.
    bar: Mutex<Option<ProgressBar>>,
    begun: Mutex<BTreeSet<OperationId>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let is_terminal = io::stderr().is_terminal();
        Self(Arc::new(Inner { is_terminal, bar: Mutex::default(), begun: Mutex::default() }))
    }
    /// Shows what the command does now.
    pub(super) fn show(&self, text: &str) {
        let text = clean(text).replace('\n', " ");
        match self.0.is_terminal {
            true => self.bar().set_message(text),
            false => print_status(&text),
        }
    }
    /// Shows each event of an operation on `subject`. For `on_event` of a call.
    pub(super) fn observer(&self, subject: impl Into<String>) -> impl Fn(&OperationEvent) + Send + Sync + 'static {
        let (this, subject) = (self.clone(), subject.into());
        move |event| this.event(&subject, event)
    }
    pub(super) fn event(&self, subject: &str, event: &OperationEvent) {
        lock(&self.0.begun).insert(event.operation);
        self.show(&format!("{subject} {event}"));
    }
    /// Prints a line that stays.
    pub(super) fn line(&self, text: &str) {
        let text = clean(text).replace('\n', " ");
        match lock(&self.0.bar).as_ref() {
            Some(bar) => bar.suspend(|| print_status(&text)),
            None => print_status(&text),
        }
    }
    /// Removes the changing line, before the result is printed or a question is asked.
    pub(super) fn clear(&self) {
        if let Some(bar) = lock(&self.0.bar).take() {
            bar.finish_and_clear();
        }
    }
    /// The operations that this command has begun or followed.
    pub(super) fn begun(&self) -> Vec<OperationId> {
        lock(&self.0.begun).iter().copied().collect()
    }

    fn bar(&self) -> ProgressBar {
        let mut bar = lock(&self.0.bar);
        bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(TICK);
            bar
        })
        .clone()
    }
}

/// The value, also after a panic of another thread: it is only shown.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
