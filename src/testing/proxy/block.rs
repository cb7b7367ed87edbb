//! Errors as a server gives them: inside a transaction block nothing but its end works after one.
use super::wire::Message;

/// Where the client believes its session to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The status of the last `ReadyForQuery`: `I`, `T` or `E`.
    status: u8,
    /// The client was told of an error inside a block that the server knows nothing of.
    failed: bool,
}

/// What is to be done with a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It goes to the server.
    Forward,
    /// The end of a block that has failed for the client alone: whatever it says, the server rolls back.
    RollBack,
    /// Answered here.
    Answer(Vec<u8>),
}

impl Block {
    pub(super) fn new() -> Self {
        Self { status: b'I', failed: false }
    }
    /// The server is ready again, in this status.
    pub(super) fn ready(&mut self, status: u8) {
        (self.status, self.failed) = (status, false);
    }
    pub(super) fn next(&self, sql: &str) -> Next {
        if !self.failed {
            Next::Forward
        } else if ["ROLLBACK", "COMMIT", "END", "ABORT"].iter().any(|w| begins_with(sql, w)) {
            Next::RollBack
        } else {
            Next::Answer(answer("25P02", b'E'))
        }
    }
    /// An error in place of a unit that the server never saw.
    pub(super) fn refuse(&mut self, code: &str, sql: &str) -> Vec<u8> {
        if self.status != b'I' || begins_with(sql, "BEGIN") {
            (self.status, self.failed) = (b'E', true);
        }
        answer(code, self.status)
    }
    /// An error in place of the server's answer: the session is where the server says.
    pub(super) fn replace(&mut self, code: &str) -> Vec<u8> {
        answer(code, self.status)
    }
}

fn begins_with(sql: &str, word: &str) -> bool {
    sql.trim_start().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Whether a server closes the connection with this error.
pub(super) fn is_fatal(code: &str) -> bool {
    matches!(code, "57P01" | "57P02" | "57P03" | "53300") || code.starts_with("28")
}

/// `ErrorResponse`.
pub(super) fn error(code: &str) -> Vec<u8> {
    let severity = if is_fatal(code) { "FATAL" } else { "ERROR" };
    let fields = [('S', severity), ('V', severity), ('C', code), ('M', "said by the proxy")];
    let mut body = vec![];
    for (field, value) in fields {
        body.push(field as u8);
        body.extend(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    Message::new(b'E', &body).bytes().to_vec()
}

fn answer(code: &str, status: u8) -> Vec<u8> {
    let mut bytes = error(code);
    bytes.extend(Message::new(b'Z', &[status]).bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_error_in_a_block_only_its_end_works() {
        let mut block = Block::new();
        block.ready(b'T');
        assert!(block.refuse("40P01", "INSERT").ends_with(b"E"));
        assert!(matches!(block.next("SELECT 1"), Next::Answer(a) if a.windows(5).any(|w| w == b"25P02")));
        assert_eq!(block.next(" commit"), Next::RollBack);
        block.ready(b'I');
        assert_eq!(block.next("SELECT 1"), Next::Forward);
        assert!(block.refuse("55P03", "SELECT 1").ends_with(b"I"), "outside a block there is nothing to end");
        assert_eq!(block.next("SELECT 1"), Next::Forward);
        block.refuse("42501", "BEGIN; CREATE ROLE x; COMMIT");
        assert_eq!(block.next("ROLLBACK"), Next::RollBack, "a unit may begin its block itself");
    }
}
