//! Relays one connection between a client and the server, and applies the director's verdicts.
//!
//! [`serve`] reads the startup packet, connects to the server, and then handles one unit at a time. Invariant: the
//! client gets the answer of a unit only after the server has sent all of it and the director has decided.
use super::block::{Handling, TransactionState, error_response, is_fatal};
use super::unit::{Unit, Units};
use super::wire::{Message, Reader, Startup};
use super::{Point, Shared, Stage, Verdict};
use std::io;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The event that ends the relay. Dropping it closes both sides.
enum End {
    /// One side has closed, or the director has cut the connection.
    Closed,
    /// Reading or writing failed.
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
    transaction: TransactionState,
    units: Units,
}

/// Serves one connection until it ends. `connection` is its number.
pub(super) async fn serve(shared: &Shared, client: TcpStream, connection: u64) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let mut client = Reader::new(from_client);
    let (start, point) = loop {
        let Some(packet) = client.read_startup().await? else { return Ok(()) };
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
        Verdict::Answer(code) => return to_client.write_all(&error_response(code)).await,
        Verdict::Stall => std::future::pending().await,
        Verdict::Cut | Verdict::CutClient => return Ok(()),
    }
    let upstream = TcpStream::connect(shared.upstream).await?;
    upstream.set_nodelay(true)?;
    let (server, mut to_server) = upstream.into_split();
    to_server.write_all(&start).await?;
    let (server, transaction, units) = (Reader::new(server), TransactionState::new(), Units::default());
    let mut relay = Relay { shared, point, client, to_client, server, to_server, transaction, units };
    relay.log_in().await?;
    while let Ok(()) = relay.relay_next().await {}
    Ok(())
}

impl Relay<'_> {
    /// Forwards all messages until the first `ReadyForQuery`.
    async fn log_in(&mut self) -> io::Result<()> {
        loop {
            tokio::select! {
                message = self.client.read_message() => match message? {
                    Some(message) => self.to_server.write_all(message.bytes()).await?,
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                message = self.server.read_message() => match message? {
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

    /// Handles the next message of either side. A message that the server sends between units is forwarded.
    async fn relay_next(&mut self) -> Result<(), End> {
        tokio::select! {
            message = self.server.read_message() => {
                let message = message?.ok_or(End::Closed)?;
                Ok(self.to_client.write_all(message.bytes()).await?)
            }
            message = self.client.read_message() => {
                let message = message?.ok_or(End::Closed)?;
                if message.tag() == b'X' {
                    self.to_server.write_all(message.bytes()).await?;
                    return Err(End::Closed);
                }
                match self.units.add(&message) {
                    Some(unit) => self.handle_unit(unit).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Sends a unit to the server and its answer to the client, and asks the director at each stage.
    async fn handle_unit(&mut self, mut unit: Unit) -> Result<(), End> {
        match self.transaction.handling(&unit.sql) {
            Handling::Forward => {}
            Handling::Answer(bytes) => return Ok(self.to_client.write_all(&bytes).await?),
            Handling::RollBack if unit.simple => unit.bytes = Message::new(b'Q', b"ROLLBACK\0").bytes().to_vec(),
            Handling::RollBack => {}
        }
        self.point.statement += 1;
        self.point.sql.clone_from(&unit.sql);
        match self.ask_director(Stage::Before).await {
            Verdict::Forward => {}
            Verdict::Answer(code) => {
                let bytes = self.transaction.refuse(code, &unit.sql);
                return self.send_error(code, &bytes).await;
            }
            Verdict::CutClient => return self.finish_without_client(&unit).await,
            other => return self.end_with(other).await,
        }
        self.to_server.write_all(&unit.bytes).await?;
        let answer = self.read_answer().await?;
        match self.ask_director(Stage::Sent).await {
            Verdict::Forward => self.to_client.write_all(&answer).await?,
            Verdict::Answer(code) => {
                let bytes = self.transaction.replace_answer(code);
                return self.send_error(code, &bytes).await;
            }
            other => return self.end_with(other).await,
        }
        match self.ask_director(Stage::Answered).await {
            Verdict::Forward => Ok(()),
            other => self.end_with(other).await,
        }
    }

    async fn ask_director(&mut self, stage: Stage) -> Verdict {
        self.point.stage = stage;
        self.shared.director.at(self.point.clone()).await
    }

    /// Ends the connection, or never returns if the verdict is `Stall`.
    async fn end_with(&self, verdict: Verdict) -> Result<(), End> {
        if verdict == Verdict::Stall {
            std::future::pending::<()>().await;
        }
        Err(End::Closed)
    }

    /// Sends an injected error. If it is fatal, closes the connection as PostgreSQL does.
    async fn send_error(&mut self, code: &str, answer: &[u8]) -> Result<(), End> {
        if !is_fatal(code) {
            return Ok(self.to_client.write_all(answer).await?);
        }
        self.to_client.write_all(&error_response(code)).await?;
        self.to_client.shutdown().await?;
        Err(End::Closed)
    }

    /// Closes the connection to the client, sends the unit to the server, and reads the server's answer to its end.
    async fn finish_without_client(&mut self, unit: &Unit) -> Result<(), End> {
        self.to_client.shutdown().await?;
        self.to_server.write_all(&unit.bytes).await?;
        while self.server.read_message().await?.ok_or(End::Closed)?.tag() != b'Z' {}
        Err(End::Closed)
    }

    /// Reads the server's whole answer to a unit and returns it. `CopyInResponse` is forwarded at once, because the
    /// client sends its data only after it.
    async fn read_answer(&mut self) -> Result<Vec<u8>, End> {
        let mut withheld = vec![];
        let mut copying = false;
        loop {
            let message = tokio::select! {
                message = self.server.read_message() => message?.ok_or(End::Closed),
                data = self.client.read_message(), if copying => {
                    self.to_server.write_all(data?.ok_or(End::Closed)?.bytes()).await?;
                    continue;
                }
            };
            let message = match message {
                Ok(message) => message,
                // The server has closed the connection. Its last messages usually contain the reason, so the client
                // gets them.
                Err(end) => {
                    self.to_client.write_all(&withheld).await?;
                    return Err(end);
                }
            };
            withheld.extend(message.bytes());
            match message.tag() {
                b'Z' => {
                    self.transaction.set_status(message.body().first().copied().unwrap_or(b'I'));
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
