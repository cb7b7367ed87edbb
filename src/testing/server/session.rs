//! Sessions of the superuser, and small helpers that the other modules of the test server share.
#![expect(
    clippy::disallowed_methods,
    reason = "callers quote every name and literal with the functions of this module"
)]

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tokio::time::Instant;

/// A connection of the superuser. It logs no statement in this process, because some contain passwords.
pub(super) struct Session(PgConnection);

impl Session {
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        options.clone().disable_statement_logging().connect().await.map(Self)
    }

    /// Runs one statement. The caller must have quoted its names and literals.
    pub(super) async fn run(&mut self, sql: String) -> Result<(), sqlx::Error> {
        self.0.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Reads `server_version` and `server_version_num`.
pub(super) async fn read_version(session: &mut Session) -> Result<(String, u32), sqlx::Error> {
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int";
    let (text, number): (String, i32) = sqlx::query_as(sql).fetch_one(session.connection()).await?;
    Ok((text, number.unsigned_abs()))
}

/// A deadline for loops that poll.
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn new(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// Sleeps for 50 ms. Returns false if the deadline has passed then.
    pub(super) async fn sleep(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Instant::now() < self.0
    }
}

/// Tries to connect until the server accepts. After `limit` it returns the error of the last attempt.
pub(super) async fn wait_until_accepting(options: &PgConnectOptions, limit: Duration) -> Result<(), sqlx::Error> {
    let deadline = Deadline::new(limit);
    loop {
        match Session::open(options).await {
            Ok(_) => return Ok(()),
            Err(error) if !deadline.sleep().await => return Err(error),
            Err(_) => {}
        }
    }
}

pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A password of letters and digits, which needs no quoting in SQL, URLs or shells.
pub(super) fn random_password() -> String {
    base62::encode(rand::random::<u128>())
}

/// Twelve random hexadecimal digits that make a name unique.
pub(super) fn random_suffix() -> String {
    format!("{:012x}", rand::random::<u64>() >> 16)
}
