//! Messages of the PostgreSQL protocol, version 3 (PostgreSQL manual, chapter "Frontend/Backend Protocol").
//!
//! The relay reads both directions with a [`Reader`] and forwards each [`Message`] as the bytes that were received.
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Upper limit of a message's length in bytes. A longer one means that the stream is not the PostgreSQL protocol.
const LENGTH_LIMIT: usize = 64 << 20;

/// One message as it was received: tag, length and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new(tag: u8, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(body.len() + 5);
        bytes.push(tag);
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        Self(bytes)
    }
    pub(super) fn tag(&self) -> u8 {
        self.0.first().copied().unwrap_or_default()
    }
    pub(super) fn body(&self) -> &[u8] {
        self.0.get(5..).unwrap_or_default()
    }
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
    /// Splits a body into its first zero-terminated string and the rest.
    pub(super) fn split_text(body: &[u8]) -> (String, &[u8]) {
        let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
        let rest = body.get(end + 1..).unwrap_or_default();
        (String::from_utf8_lossy(&body[..end]).into_owned(), rest)
    }
}

/// Reads messages from a stream. It keeps bytes of an incomplete message, so a dropped future loses nothing.
pub(super) struct Reader<R> {
    from: R,
    read: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, read: vec![] }
    }
    /// Reads the next message; `None` at the end of the stream.
    pub(super) async fn read_message(&mut self) -> io::Result<Option<Message>> {
        loop {
            let length = self.read.get(1..5).and_then(|l| l.try_into().ok()).map(u32::from_be_bytes);
            if let Some(taken) = self.take(length.map(|l| l as usize + 1))? {
                return Ok(Some(Message(taken)));
            }
            if self.from.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }
    /// Reads the first packet of a connection, which has no tag; `None` at the end of the stream.
    pub(super) async fn read_startup(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let length = self.read.get(..4).and_then(|l| l.try_into().ok()).map(u32::from_be_bytes);
            if let Some(taken) = self.take(length.map(|l| l as usize))? {
                return Ok(Some(taken));
            }
            if self.from.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }
    /// Takes a message of this length from the buffer, if the buffer contains all of it.
    fn take(&mut self, length: Option<usize>) -> io::Result<Option<Vec<u8>>> {
        match length {
            Some(length) if !(4..LENGTH_LIMIT).contains(&length) => Err(io::ErrorKind::InvalidData.into()),
            Some(length) if self.read.len() >= length => {
                let rest = self.read.split_off(length);
                Ok(Some(std::mem::replace(&mut self.read, rest)))
            }
            _ => Ok(None),
        }
    }
}

/// The first packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Startup {
    /// SSLRequest or GSSENCRequest. The relay answers `N`, and the client continues without encryption.
    Encryption,
    /// CancelRequest, on a connection of its own.
    Cancel,
    /// StartupMessage, with the parameters of the session.
    Session { user: String, database: String, application: String },
}

impl Startup {
    pub(super) fn parse(packet: &[u8]) -> Self {
        let code = packet.get(4..8).and_then(|c| c.try_into().ok()).map(u32::from_be_bytes);
        match code {
            Some(80_877_103 | 80_877_104) => return Self::Encryption,
            Some(80_877_102) => return Self::Cancel,
            _ => {}
        }
        let (mut user, mut database, mut application) = (String::new(), None, String::new());
        let mut rest = packet.get(8..).unwrap_or_default();
        while rest.first().is_some_and(|b| *b != 0) {
            let (name, after) = Message::split_text(rest);
            let (value, after) = Message::split_text(after);
            match name.as_str() {
                "user" => user = value,
                "database" => database = Some(value),
                "application_name" => application = value,
                _ => {}
            }
            rest = after;
        }
        let database = database.unwrap_or_else(|| user.clone());
        Self::Session { user, database, application }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reader_returns_whole_messages_when_they_arrive_in_parts() {
        let (query, sync) = (Message::new(b'Q', b"SELECT 1\0"), Message::new(b'S', b""));
        let bytes = [query.bytes(), sync.bytes()].concat();
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut reader = Reader::new(tokio::io::AsyncReadExt::chain(first, second));
            assert_eq!(reader.read_message().await.unwrap().as_ref(), Some(&query), "cut at {cut}");
            assert_eq!(reader.read_message().await.unwrap().as_ref(), Some(&sync), "cut at {cut}");
            assert_eq!(reader.read_message().await.unwrap(), None);
        }
        assert!(
            Reader::new(&b"Q\xff\xff\xff\xff"[..]).read_message().await.is_err(),
            "a message above the length limit must be an error"
        );
    }

    #[test]
    fn parse_returns_the_parameters_of_a_startup_packet() {
        let mut packet = 0u32.to_be_bytes().to_vec();
        packet.extend(196_608u32.to_be_bytes());
        packet.extend(b"user\0ada\0application_name\0tenantry/1\0\0");
        let (user, application) = (String::from("ada"), String::from("tenantry/1"));
        assert_eq!(Startup::parse(&packet), Startup::Session { database: user.clone(), user, application });
        let ssl = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
        assert_eq!(Startup::parse(&ssl), Startup::Encryption);
    }
}
