//! Databases on a test server, each with an unprivileged login that owns it.
use std::fmt;

use sqlx::postgres::PgConnectOptions;

use super::TestServer;
use super::session::{Session, quote_literal, quote_name, random_password, random_suffix};

/// A database with a login of the same name, which owns it and has no other right. An application's landlord is such a
/// database.
pub struct TestDatabase {
    name: String,
    options: PgConnectOptions,
}

/// The error for a test database that could not be created or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The prefix contains characters that would need quoting, or it is too short or too long.
    #[error("{prefix:?} is not a valid database prefix; use 1 to 40 characters of a-z, 0-9 and _")]
    Prefix {
        /// The refused prefix.
        prefix: String,
    },
    /// A statement on the server failed.
    #[error("database {name} could not be created or dropped")]
    Server {
        /// Name of the database.
        name: String,
        /// The server's error.
        #[source]
        source: sqlx::Error,
    },
}

impl TestDatabase {
    /// Name of the database and of its login.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Options to connect to the database as its login.
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
    /// Creates an empty database with a new name, and a login of the same name that owns it. The name is `prefix` and a
    /// random suffix.
    ///
    /// It is removed with the server. On a server named by URL it stays until [`drop_database`](Self::drop_database).
    /// If the future is dropped, the login and the database may stay there.
    ///
    /// # Errors
    /// [`DatabaseError::Prefix`] unless the prefix has 1 to 40 characters of `a-z`, `0-9` and `_`;
    /// [`DatabaseError::Server`].
    pub async fn create_database(&self, prefix: &str) -> Result<TestDatabase, DatabaseError> {
        let name = format!("{}_{}", validate_prefix(prefix)?, random_suffix());
        let password = random_password();
        let failed = |source| DatabaseError::Server { name: name.clone(), source };
        create(&self.admin, &name, &password).await.map_err(failed)?;
        let options = self.admin.clone().username(&name).password(&password).database(&name);
        Ok(TestDatabase { name, options })
    }

    /// Terminates the sessions in the database, and drops the database and its login. Absent ones are `Ok`.
    pub async fn drop_database(&self, database: TestDatabase) -> Result<(), DatabaseError> {
        let failed = |source| DatabaseError::Server { name: database.name.clone(), source };
        drop_both(&self.admin, &database.name).await.map_err(failed)
    }
}

fn validate_prefix(prefix: &str) -> Result<&str, DatabaseError> {
    let is_plain = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if is_plain && (1..=40).contains(&prefix.len()) {
        Ok(prefix)
    } else {
        Err(DatabaseError::Prefix { prefix: prefix.to_owned() })
    }
}

async fn create(admin: &PgConnectOptions, name: &str, password: &str) -> Result<(), sqlx::Error> {
    let mut session = Session::open(admin).await?;
    // Keeps the password out of the server's log, which some tests search for passwords. The result is ignored: only a
    // superuser may set this, and if the given URL names an admin that is no superuser, the tests cannot read the log
    // either.
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
