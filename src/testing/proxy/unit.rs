//! Groups the client's messages into units that the server answers with one `ReadyForQuery` each.
//!
//! The relay passes every message to [`Units::add`], and handles a unit when it is complete.
use super::wire::Message;
use std::collections::HashMap;

/// One simple query, or all messages up to a `Sync`.
#[derive(Debug, Default)]
pub(super) struct Unit {
    /// The messages as they were received.
    pub(super) bytes: Vec<u8>,
    /// Text of the statement, also if it was prepared before.
    pub(super) sql: String,
    /// Whether it is a simple query.
    pub(super) simple: bool,
}

/// Collects messages until a unit is complete. It remembers the texts of prepared statements, because a later `Bind`
/// contains only the name.
#[derive(Debug, Default)]
pub(super) struct Units {
    prepared: HashMap<String, String>,
    open: Unit,
}

impl Units {
    /// Adds a message. Returns the unit if this message completes it.
    pub(super) fn add(&mut self, message: &Message) -> Option<Unit> {
        self.open.bytes.extend(message.bytes());
        match message.tag() {
            b'Q' => {
                self.open.sql = Message::split_text(message.body()).0;
                self.open.simple = true;
                Some(std::mem::take(&mut self.open))
            }
            b'S' => Some(std::mem::take(&mut self.open)),
            b'P' => {
                let (name, rest) = Message::split_text(message.body());
                let sql = Message::split_text(rest).0;
                self.open.sql.clone_from(&sql);
                self.prepared.insert(name, sql);
                None
            }
            b'B' => {
                let (_portal, rest) = Message::split_text(message.body());
                if let Some(sql) = self.prepared.get(&Message::split_text(rest).0) {
                    self.open.sql.clone_from(sql);
                }
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_has_the_text_of_its_statement_also_if_prepared_before() {
        let mut units = Units::default();
        assert!(units.add(&Message::new(b'P', b"s1\0SELECT $1\0\0\0")).is_none());
        let prepared = units.add(&Message::new(b'S', b"")).unwrap();
        assert_eq!((prepared.sql.as_str(), prepared.simple), ("SELECT $1", false));
        assert!(units.add(&Message::new(b'B', b"\0s1\0\0\0")).is_none());
        assert!(units.add(&Message::new(b'E', b"\0\0\0\0\0")).is_none());
        assert_eq!(units.add(&Message::new(b'S', b"")).unwrap().sql, "SELECT $1");
        let simple = units.add(&Message::new(b'Q', b"BEGIN\0")).unwrap();
        assert_eq!((simple.sql.as_str(), simple.simple), ("BEGIN", true));
    }
}
