#![expect(clippy::disallowed_methods, reason = "the statements of the test server are put together and quoted here")]

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use tokio::time::Instant;

/// One connection of the superuser, which writes no statement to this process's log: some hold passwords.
pub(super) struct Session(PgConnection);

impl Session {
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        options.clone().disable_statement_logging().connect().await.map(Self)
    }

    /// Runs one statement whose names and literals the caller has quoted.
    pub(super) async fn run(&mut self, sql: String) -> Result<(), sqlx::Error> {
        self.0.execute(AssertSqlSafe(sql)).await.map(drop)
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// `server_version` and `server_version_num`.
pub(super) async fn version(session: &mut Session) -> Result<(String, u32), sqlx::Error> {
    let sql = "SELECT current_setting('server_version'), current_setting('server_version_num')::int";
    let (text, number): (String, i32) = sqlx::query_as(sql).fetch_one(session.connection()).await?;
    Ok((text, number.unsigned_abs()))
}

/// For loops that ask again until there is an answer or the time is up.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// Lets 50 ms pass; false when the time is up.
    pub(super) async fn wait(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Instant::now() < self.0
    }
}

/// Connects as soon as the server lets us; after `limit` its last refusal.
pub(super) async fn connects(options: &PgConnectOptions, limit: Duration) -> Result<(), sqlx::Error> {
    let patience = Patience::new(limit);
    loop {
        match Session::open(options).await {
            Ok(_) => return Ok(()),
            Err(error) if !patience.wait().await => return Err(error),
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

/// A password that needs no quoting anywhere.
pub(super) fn random_password() -> String {
    base62::encode(rand::random::<u128>())
}

/// What tells one run's names from another's.
pub(super) fn random_suffix() -> String {
    format!("{:012x}", rand::random::<u64>() >> 16)
}
