//! What the client sends, cut into statements.
use super::wire::Message;
use std::collections::HashMap;

/// One simple query, or everything up to a `Sync`: the server answers it with one `ReadyForQuery`.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) bytes: Vec<u8>,
    pub(super) sql: String,
    pub(super) simple: bool,
}

/// Collects messages until a unit is whole. It remembers what was prepared: a later `Bind` names it alone.
#[derive(Debug, Default)]
pub(super) struct Units {
    prepared: HashMap<String, String>,
    open: Unit,
}

impl Units {
    /// The unit that this message completes.
    pub(super) fn add(&mut self, message: &Message) -> Option<Unit> {
        self.open.bytes.extend(message.bytes());
        match message.tag() {
            b'Q' => {
                self.open.sql = Message::text(message.body()).0;
                self.open.simple = true;
                Some(std::mem::take(&mut self.open))
            }
            b'S' => Some(std::mem::take(&mut self.open)),
            b'P' => {
                let (name, rest) = Message::text(message.body());
                let sql = Message::text(rest).0;
                self.open.sql.clone_from(&sql);
                self.prepared.insert(name, sql);
                None
            }
            b'B' => {
                let (_portal, rest) = Message::text(message.body());
                if let Some(sql) = self.prepared.get(&Message::text(rest).0) {
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
    fn each_unit_has_its_text() {
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
