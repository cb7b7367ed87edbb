use std::fmt;

use sqlx::postgres::PgConnectOptions;

use super::TestServer;
use super::session::{Session, quote_literal, quote_name, random_password, random_suffix};

/// A database with a login of its own that owns it and has no other right: what a host's landlord is.
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
}

/// Why a database for a test cannot be made or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The prefix does not make a plain name.
    #[error("{prefix:?} is no prefix for a database: take 1 to 40 of a-z, 0-9 and _")]
    Prefix {
        /// What was given.
        prefix: String,
    },
    /// The server refused.
    #[error("the server did not make or drop database {name}")]
    Server {
        /// The database.
        name: String,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
}

impl TestDatabase {
    /// The name of the database and of its login.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to connect to it as its own login.
    pub fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestDatabase").field("name", &self.name).finish_non_exhaustive()
    }
}

impl TestServer {
    /// Makes an empty database of a new name, with a login of the same name that owns it.
    ///
    /// It goes with the server; on one named by URL it stays until [`drop_database`](Self::drop_database).
    /// If the future is dropped, login and database may be left behind there.
    pub async fn create_database(&self, prefix: &str) -> Result<TestDatabase, DatabaseError> {
        let name = format!("{}_{}", checked(prefix)?, random_suffix());
        let password = random_password();
        let failed = |source| DatabaseError::Server { name: name.clone(), source };
        create(&self.admin, &name, &password).await.map_err(failed)?;
        let options = self.admin.clone().username(&name).password(&password).database(&name);
        Ok(TestDatabase { name, options })
    }

    /// Drops the database, ending the sessions in it, and its login.
    pub async fn drop_database(&self, database: TestDatabase) -> Result<(), DatabaseError> {
        let failed = |source| DatabaseError::Server { name: database.name.clone(), source };
        drop_both(&self.admin, &database.name).await.map_err(failed)
    }
}

fn checked(prefix: &str) -> Result<&str, DatabaseError> {
    let plain = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain && (1..=40).contains(&prefix.len()) {
        Ok(prefix)
    } else {
        Err(DatabaseError::Prefix { prefix: prefix.to_owned() })
    }
}

async fn create(admin: &PgConnectOptions, name: &str, password: &str) -> Result<(), sqlx::Error> {
    let mut session = Session::open(admin).await?;
    // So that tests which read the server's log find no password of the harness. Who is no superuser may
    // not say so, and has no log to read either.
    let _ = session.run("SET log_statement = none".to_owned()).await;
    let (name, password) = (quote_name(name), quote_literal(password));
    session.run(format!("CREATE ROLE {name} LOGIN PASSWORD {password}")).await?;
    session.run(format!("GRANT {name} TO CURRENT_USER")).await?;
    session.run(format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0")).await
}

async fn drop_both(admin: &PgConnectOptions, name: &str) -> Result<(), sqlx::Error> {
    let mut session = Session::open(admin).await?;
    let name = quote_name(name);
    session.run(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    session.run(format!("DROP ROLE IF EXISTS {name}")).await
}
