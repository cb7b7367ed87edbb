//! The configuration of the program `tenantry`: the landlord, the keys, the migrations.
//!
//! An application that mounts the commands passes its own builder instead.
use super::environment::{Environment, read_secret_file};
use super::failure::CommandError;
use super::url;
use crate::directory::AppAccess;
use crate::facade::Builder;
use crate::store::schema;
use crate::store::vault::LocalKeyring;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnectOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

// Not a doc comment: clap would take it as the description of the program.
#[derive(Args, Debug)]
#[command(next_help_heading = "Configuration")]
pub(super) struct ConfigArgs {
    /// Variables that the process does not have, as NAME=value [env: TENANTRY_ENV_FILE]
    #[arg(long, value_name = "FILE", global = true)]
    env_file: Option<PathBuf>,
    /// The landlord's URL [else TENANTRY_LANDLORD_URL]
    #[arg(long, value_name = "FILE", global = true)]
    landlord_url_file: Option<PathBuf>,
    /// The sealing keys [env: TENANTRY_KEY_FILE, else TENANTRY_KEYS]
    #[arg(long, value_name = "FILE", global = true)]
    key_file: Option<PathBuf>,
    /// The migrations of the tenants' databases [env: TENANTRY_MIGRATIONS]
    #[arg(long, value_name = "DIR", global = true)]
    migrations: Option<PathBuf>,
    /// Prints the library's log to stderr
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(super) verbose: bool,
}

/// For `--help`.
pub(super) const VARIABLES: &str = "\
Environment:
  TENANTRY_LANDLORD_URL
      postgres://USER:PASSWORD@HOST:PORT/DATABASE
      DATABASE_URL is not used, because it often names
      another database
  TENANTRY_KEYS
      The keys that seal stored credentials, as
      id:base64,id:base64. To create one:
      export TENANTRY_KEYS=\"k1:$(openssl rand -base64 32)\"
  TENANTRY_KEY_FILE
      A file with such keys, one on each line
  TENANTRY_ADMIN_URL
      A server admin's URL, for init, servers set-up and
      doctor --admin
  TENANTRY_MIGRATIONS
      Directory of sqlx migrations for tenants' databases
  TENANTRY_APP_ACCESS
      Rights of the tenants' logins, as in the application:
      app (default) or owner
  TENANTRY_ENV_FILE
      A file of lines NAME=value. A variable of the process
      is used first
  NO_COLOR
      No colours

Secrets are read from variables, files or the terminal,
never from arguments.

First steps:
  export TENANTRY_LANDLORD_URL=...
  export TENANTRY_KEYS=... TENANTRY_ADMIN_URL=...
  tenantry init
  tenantry tenants create acme";

/// The parts that `run` needs.
pub(super) struct Config {
    pub(super) landlord: PgPool,
    pub(super) target: String,
    pub(super) environment: Environment,
    pub(super) has_migrations: bool,
    keys: Option<LocalKeyring>,
    migrations: Option<&'static Migrator>,
    access: Option<AppAccess>,
}

impl Config {
    /// Reads the configuration and connects to the landlord.
    pub(super) async fn read(arguments: &ConfigArgs) -> Result<Self, CommandError> {
        let environment =
            match arguments.env_file.clone().or_else(|| Environment::of_process().path("TENANTRY_ENV_FILE")) {
                Some(path) => Environment::with_file(&path)?,
                None => Environment::of_process(),
            };
        let options = read_landlord(arguments, &environment)?;
        let keys = read_keys(arguments, &environment)?;
        let migrations = read_migrations(arguments, &environment).await?;
        let access = read_access(&environment)?;
        url::verify_landlord(&options).await?;
        let target = url::describe(&options);
        let pool = schema::pool_options().max_connections(8).acquire_timeout(Duration::from_secs(10));
        let landlord = pool.connect_lazy_with(options.application_name("tenantry cli"));
        Ok(Self { landlord, target, environment, has_migrations: migrations.is_some(), keys, migrations, access })
    }

    /// Whether a key is configured. Only `init` works without one, to say how to create it.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Adds the configuration to a builder. Without keys the builder refuses to build.
    pub(super) fn configure(&self, builder: Builder) -> Builder {
        let builder = builder.for_tool();
        let builder = match &self.keys {
            Some(keys) => builder.keys(keys.clone()),
            None => builder,
        };
        let builder = match self.migrations {
            Some(migrations) => builder.tenant_migrations(migrations),
            None => builder,
        };
        match self.access {
            Some(access) => builder.app_access(access),
            None => builder,
        }
    }
}

fn read_landlord(arguments: &ConfigArgs, environment: &Environment) -> Result<PgConnectOptions, CommandError> {
    if let Some(path) = &arguments.landlord_url_file {
        return url::parse(&read_secret_file(path)?, &format!("the URL in {}", path.display()));
    }
    match environment.secret("TENANTRY_LANDLORD_URL") {
        Some(url) => url::parse(&url, "TENANTRY_LANDLORD_URL"),
        None => Err(CommandError::usage("the landlord is not configured: TENANTRY_LANDLORD_URL is not set")
            .hint("export TENANTRY_LANDLORD_URL='postgres://app:secret@localhost:5432/landlord'")
            .hint("Or --landlord-url-file FILE, or --env-file FILE with that line. See --help.")),
    }
}

fn read_keys(arguments: &ConfigArgs, environment: &Environment) -> Result<Option<LocalKeyring>, CommandError> {
    let file = arguments.key_file.clone();
    if let Some(path) = file.or_else(|| environment.path("TENANTRY_KEY_FILE")) {
        let keys = LocalKeyring::from_file(&path);
        let refused =
            |error| CommandError::usage(format!("the key file {}: {}", path.display(), crate::error::chain(&error)));
        return keys.map(Some).map_err(refused);
    }
    let Some(text) = environment.secret("TENANTRY_KEYS") else { return Ok(None) };
    let keys = LocalKeyring::from_text(text.expose_secret());
    keys.map(Some).map_err(|error| {
        let text = format!("TENANTRY_KEYS: {}", crate::error::chain(&error));
        CommandError::usage(text).hint(KEY_HINT)
    })
}

/// How to create a key.
pub(super) const KEY_HINT: &str = "export TENANTRY_KEYS=\"k1:$(openssl rand -base64 32)\"";

/// No key is configured.
pub(super) fn no_keys() -> CommandError {
    CommandError::usage("no key is configured: TENANTRY_KEYS and TENANTRY_KEY_FILE are not set")
        .hint("Use the keys of the application. For a new installation create one, and keep it where you keep secrets:")
        .hint(KEY_HINT)
}

async fn read_migrations(
    arguments: &ConfigArgs, environment: &Environment,
) -> Result<Option<&'static Migrator>, CommandError> {
    let Some(path) = arguments.migrations.clone().or_else(|| environment.path("TENANTRY_MIGRATIONS")) else {
        return Ok(None);
    };
    let migrator = load_migrations(&path).await?;
    // The builder needs a migrator that lives as long as the process. There is one.
    Ok(Some(Box::leak(Box::new(migrator))))
}

async fn load_migrations(path: &Path) -> Result<Migrator, CommandError> {
    let refused = |what: String| CommandError::usage(format!("the migrations in {} {what}", path.display()));
    let migrator = Migrator::new(path)
        .await
        .map_err(|error| refused(format!("cannot be read: {}", crate::error::chain(&error))))?;
    match migrator.iter().next() {
        Some(_) => Ok(migrator),
        // An empty directory would make every tenant look migrated.
        None => Err(refused("are missing: the directory has no file like 1_notes.sql".into())),
    }
}

fn read_access(environment: &Environment) -> Result<Option<AppAccess>, CommandError> {
    let Some(text) = environment.text("TENANTRY_APP_ACCESS") else { return Ok(None) };
    let refused = |_| CommandError::usage(format!("TENANTRY_APP_ACCESS is {text:?}; it must be app or owner"));
    text.parse().map(Some).map_err(refused)
}

/// The value of a variable or a file, for [`admin`](super::admin).
pub(super) fn secret_of(
    file: Option<&Path>, environment: &Environment, variable: &'static str,
) -> Result<Option<(SecretString, String)>, CommandError> {
    match file {
        Some(path) => Ok(Some((read_secret_file(path)?, format!("the URL in {}", path.display())))),
        None => Ok(environment.secret(variable).map(|secret| (secret, variable.to_owned()))),
    }
}
