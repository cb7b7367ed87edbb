//! Messages of the PostgreSQL protocol, version 3 (PostgreSQL manual, chapter "Frontend/Backend Protocol").
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer than any message of a test: what claims to be longer is no message.
const LONGEST: usize = 64 << 20;

/// One message as it stands on the wire, with its tag and its length.
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
    /// The next text of the body that ends with a zero, and what follows it.
    pub(super) fn text(body: &[u8]) -> (String, &[u8]) {
        let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
        let rest = body.get(end + 1..).unwrap_or_default();
        (String::from_utf8_lossy(&body[..end]).into_owned(), rest)
    }
}

/// Reads messages, and loses nothing when its future is dropped.
pub(super) struct Reader<R> {
    from: R,
    read: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, read: vec![] }
    }
    /// The next message; `None` at the end of the stream.
    pub(super) async fn message(&mut self) -> io::Result<Option<Message>> {
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
    /// The first message of a connection, which has no tag.
    pub(super) async fn startup(&mut self) -> io::Result<Option<Vec<u8>>> {
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
    fn take(&mut self, length: Option<usize>) -> io::Result<Option<Vec<u8>>> {
        match length {
            Some(length) if !(4..LONGEST).contains(&length) => Err(io::ErrorKind::InvalidData.into()),
            Some(length) if self.read.len() >= length => {
                let rest = self.read.split_off(length);
                Ok(Some(std::mem::replace(&mut self.read, rest)))
            }
            _ => Ok(None),
        }
    }
}

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Startup {
    /// SSLRequest or GSSENCRequest: answered with `N`, and asked again without.
    Encryption,
    /// CancelRequest.
    Cancel,
    /// Who connects.
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
            let (name, after) = Message::text(rest);
            let (value, after) = Message::text(after);
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
    async fn messages_are_read_whole_however_they_arrive() {
        let (query, sync) = (Message::new(b'Q', b"SELECT 1\0"), Message::new(b'S', b""));
        let bytes = [query.bytes(), sync.bytes()].concat();
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut reader = Reader::new(tokio::io::AsyncReadExt::chain(first, second));
            assert_eq!(reader.message().await.unwrap().as_ref(), Some(&query), "cut at {cut}");
            assert_eq!(reader.message().await.unwrap().as_ref(), Some(&sync), "cut at {cut}");
            assert_eq!(reader.message().await.unwrap(), None);
        }
        assert!(Reader::new(&b"Q\xff\xff\xff\xff"[..]).message().await.is_err(), "no message is so long");
    }

    #[test]
    fn a_start_says_who_connects() {
        let mut packet = 0u32.to_be_bytes().to_vec();
        packet.extend(196_608u32.to_be_bytes());
        packet.extend(b"user\0ada\0application_name\0tenantry/1\0\0");
        let (user, application) = (String::from("ada"), String::from("tenantry/1"));
        assert_eq!(Startup::parse(&packet), Startup::Session { database: user.clone(), user, application });
        let ssl = [8u32.to_be_bytes(), 80_877_103u32.to_be_bytes()].concat();
        assert_eq!(Startup::parse(&ssl), Startup::Encryption);
    }
}
