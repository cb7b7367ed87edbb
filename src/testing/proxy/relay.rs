//! One connection, from its first byte to its end.
use super::block::{Block, Next, error, is_fatal};
use super::unit::{Unit, Units};
use super::wire::{Message, Reader, Startup};
use super::{Point, Shared, Stage, Verdict};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The connection is over, or is to be cut: both sides close when their halves are dropped.
enum End {
    Over,
    Io,
}
impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

struct Relay<'a> {
    shared: &'a Shared,
    point: Point,
    client: Reader<OwnedReadHalf>,
    to_client: OwnedWriteHalf,
    server: Reader<OwnedReadHalf>,
    to_server: OwnedWriteHalf,
    block: Block,
    units: Units,
}

pub(super) async fn serve(shared: &Shared, client: TcpStream, connection: u64) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let mut client = Reader::new(from_client);
    let (start, point) = loop {
        let Some(packet) = client.startup().await? else { return Ok(()) };
        match Startup::parse(&packet) {
            Startup::Encryption => to_client.write_all(b"N").await?,
            Startup::Cancel => return TcpStream::connect(shared.upstream).await?.write_all(&packet).await,
            Startup::Session { user, database, application } => {
                let (sql, stage) = (String::new(), Stage::Connect);
                break (packet, Point { connection, user, database, application, statement: 0, sql, stage });
            }
        }
    };
    match shared.director.at(point.clone()).await {
        Verdict::Forward => {}
        Verdict::Answer(code) => return to_client.write_all(&error(code)).await,
        Verdict::Stall => std::future::pending().await,
        Verdict::Cut | Verdict::CutClient => return Ok(()),
    }
    let upstream = TcpStream::connect(shared.upstream).await?;
    upstream.set_nodelay(true)?;
    let (server, mut to_server) = upstream.into_split();
    to_server.write_all(&start).await?;
    let (server, block, units) = (Reader::new(server), Block::new(), Units::default());
    let mut relay = Relay { shared, point, client, to_client, server, to_server, block, units };
    relay.log_in().await?;
    while let Ok(()) = relay.turn().await {}
    Ok(())
}

impl Relay<'_> {
    /// Until the server is ready for the first time, messages go through as they are.
    async fn log_in(&mut self) -> io::Result<()> {
        loop {
            tokio::select! {
                message = self.client.message() => match message? {
                    Some(message) => self.to_server.write_all(message.bytes()).await?,
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                message = self.server.message() => match message? {
                    Some(message) => {
                        self.to_client.write_all(message.bytes()).await?;
                        if message.tag() == b'Z' {
                            return Ok(());
                        }
                    }
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
            }
        }
    }

    /// One message from either side. What the server says unasked goes through.
    async fn turn(&mut self) -> Result<(), End> {
        tokio::select! {
            message = self.server.message() => {
                let message = message?.ok_or(End::Over)?;
                Ok(self.to_client.write_all(message.bytes()).await?)
            }
            message = self.client.message() => {
                let message = message?.ok_or(End::Over)?;
                if message.tag() == b'X' {
                    self.to_server.write_all(message.bytes()).await?;
                    return Err(End::Over);
                }
                match self.units.add(&message) {
                    Some(unit) => self.unit(unit).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn unit(&mut self, mut unit: Unit) -> Result<(), End> {
        match self.block.next(&unit.sql) {
            Next::Forward => {}
            Next::Answer(bytes) => return Ok(self.to_client.write_all(&bytes).await?),
            Next::RollBack if unit.simple => unit.bytes = Message::new(b'Q', b"ROLLBACK\0").bytes().to_vec(),
            Next::RollBack => {}
        }
        self.point.statement += 1;
        self.point.sql.clone_from(&unit.sql);
        match self.ask(Stage::Before).await {
            Verdict::Forward => {}
            Verdict::Answer(code) => {
                let bytes = self.block.refuse(code, &unit.sql);
                return self.say(code, &bytes).await;
            }
            Verdict::CutClient => return self.finish_alone(&unit).await,
            other => return self.end(other).await,
        }
        self.to_server.write_all(&unit.bytes).await?;
        let answer = self.answer().await?;
        match self.ask(Stage::Sent).await {
            Verdict::Forward => self.to_client.write_all(&answer).await?,
            Verdict::Answer(code) => {
                let bytes = self.block.replace(code);
                return self.say(code, &bytes).await;
            }
            other => return self.end(other).await,
        }
        match self.ask(Stage::Answered).await {
            Verdict::Forward => Ok(()),
            other => self.end(other).await,
        }
    }

    async fn ask(&mut self, stage: Stage) -> Verdict {
        self.point.stage = stage;
        self.shared.director.at(self.point.clone()).await
    }

    async fn end(&self, verdict: Verdict) -> Result<(), End> {
        if verdict == Verdict::Stall {
            std::future::pending::<()>().await;
        }
        Err(End::Over)
    }

    async fn say(&mut self, code: &str, answer: &[u8]) -> Result<(), End> {
        if !is_fatal(code) {
            return Ok(self.to_client.write_all(answer).await?);
        }
        self.to_client.write_all(&error(code)).await?;
        self.to_client.shutdown().await?;
        Err(End::Over)
    }

    /// The client hears nothing any more; the server does all of it.
    async fn finish_alone(&mut self, unit: &Unit) -> Result<(), End> {
        self.to_client.shutdown().await?;
        self.to_server.write_all(&unit.bytes).await?;
        while self.server.message().await?.ok_or(End::Over)?.tag() != b'Z' {}
        Err(End::Over)
    }

    /// The server's answer, withheld up to the end. Only a COPY that wants data is let through: nobody would send any.
    async fn answer(&mut self) -> Result<Vec<u8>, End> {
        let mut withheld = vec![];
        let mut copying = false;
        loop {
            let message = tokio::select! {
                message = self.server.message() => message?.ok_or(End::Over),
                data = self.client.message(), if copying => {
                    self.to_server.write_all(data?.ok_or(End::Over)?.bytes()).await?;
                    continue;
                }
            };
            let message = match message {
                Ok(message) => message,
                // The server has gone: what it said last is for the client.
                Err(end) => {
                    self.to_client.write_all(&withheld).await?;
                    return Err(end);
                }
            };
            withheld.extend(message.bytes());
            match message.tag() {
                b'Z' => {
                    self.block.ready(message.body().first().copied().unwrap_or(b'I'));
                    return Ok(withheld);
                }
                b'G' => {
                    self.to_client.write_all(&withheld).await?;
                    withheld.clear();
                    copying = true;
                }
                b'C' | b'E' => copying = false,
                _ => {}
            }
        }
    }
}
