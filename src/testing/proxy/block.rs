//! Injected errors and the client's transaction block.
//!
//! The relay injects errors that the server does not know about. Invariant: the client sees what PostgreSQL would do
//! after such an error. In a transaction block every statement fails with 25P02 until the block ends, and its end rolls
//! back.
use super::wire::Message;

/// The transaction state that the client sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TransactionState {
    /// The status of the last `ReadyForQuery`: `I`, `T` or `E`.
    status: u8,
    /// Whether an injected error has failed the block for the client. The server does not know about it.
    failed: bool,
}

/// What the relay does with a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Handling {
    /// Sends it to the server.
    Forward,
    /// Ends the server's transaction with ROLLBACK, even if the unit is a COMMIT: the block has failed for the client.
    RollBack,
    /// Sends this answer to the client. The server gets nothing.
    Answer(Vec<u8>),
}

impl TransactionState {
    pub(super) fn new() -> Self {
        Self { status: b'I', failed: false }
    }
    /// Takes over the status of a `ReadyForQuery` from the server.
    pub(super) fn set_status(&mut self, status: u8) {
        (self.status, self.failed) = (status, false);
    }
    /// Decides what to do with a unit of this text.
    pub(super) fn handling(&self, sql: &str) -> Handling {
        if !self.failed {
            Handling::Forward
        } else if ["ROLLBACK", "COMMIT", "END", "ABORT"].iter().any(|w| begins_with(sql, w)) {
            Handling::RollBack
        } else {
            Handling::Answer(error_and_ready("25P02", b'E'))
        }
    }
    /// Returns the error for a unit that is not sent to the server. Inside a block, and if the unit begins one, the
    /// block has failed from now on.
    pub(super) fn refuse(&mut self, code: &str, sql: &str) -> Vec<u8> {
        if self.status != b'I' || begins_with(sql, "BEGIN") {
            (self.status, self.failed) = (b'E', true);
        }
        error_and_ready(code, self.status)
    }
    /// Returns the error that replaces the server's answer. The server has run the unit, so its status stays valid.
    pub(super) fn replace_answer(&self, code: &str) -> Vec<u8> {
        error_and_ready(code, self.status)
    }
}

fn begins_with(sql: &str, word: &str) -> bool {
    sql.trim_start().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Whether PostgreSQL closes the connection after an error with this SQLSTATE.
pub(super) fn is_fatal(code: &str) -> bool {
    matches!(code, "57P01" | "57P02" | "57P03" | "53300") || code.starts_with("28")
}

/// `ErrorResponse` with this SQLSTATE.
pub(super) fn error_response(code: &str) -> Vec<u8> {
    let severity = if is_fatal(code) { "FATAL" } else { "ERROR" };
    let fields = [('S', severity), ('V', severity), ('C', code), ('M', "error injected by the test proxy")];
    let mut body = vec![];
    for (field, value) in fields {
        body.push(field as u8);
        body.extend(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    Message::new(b'E', &body).bytes().to_vec()
}

/// `ErrorResponse` and `ReadyForQuery`.
fn error_and_ready(code: &str, status: u8) -> Vec<u8> {
    let mut bytes = error_response(code);
    bytes.extend(Message::new(b'Z', &[status]).bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn injected_error_in_a_block_fails_every_statement_until_the_block_ends() {
        let mut state = TransactionState::new();
        state.set_status(b'T');
        assert!(state.refuse("40P01", "INSERT").ends_with(b"E"));
        assert!(matches!(state.handling("SELECT 1"), Handling::Answer(a) if a.windows(5).any(|w| w == b"25P02")));
        assert_eq!(state.handling(" commit"), Handling::RollBack);
        state.set_status(b'I');
        assert_eq!(state.handling("SELECT 1"), Handling::Forward);
        assert!(
            state.refuse("55P03", "SELECT 1").ends_with(b"I"),
            "an error outside a block must leave the session idle"
        );
        assert_eq!(state.handling("SELECT 1"), Handling::Forward);
        state.refuse("42501", "BEGIN; CREATE ROLE x; COMMIT");
        assert_eq!(
            state.handling("ROLLBACK"),
            Handling::RollBack,
            "an injected error for a unit that begins a block must fail that block"
        );
    }
}
