//! The command line: the program `tenantry`, and the same commands for an application's own program.
//!
//! `cargo install tenantry --features cli` installs the program. It reads its configuration from the environment, from
//! a file or from options: see `tenantry --help`. It does not have the application's steps, stores and key provider.
//! An application that has these mounts the commands in its own program, with its own builder:
//!
//! ```no_run
//! # fn configure(builder: tenantry::Builder) -> tenantry::Builder { builder }
//! # async fn example(landlord: sqlx::PgPool) -> std::process::ExitCode {
//! let program = clap::Command::new("notes").subcommand(tenantry::cli::command().name("admin"));
//! let matches = program.get_matches();
//! match matches.subcommand() {
//!     Some(("admin", admin)) => tenantry::cli::run(admin, landlord, configure).await,
//!     _ => std::process::ExitCode::SUCCESS, // serve
//! }
//! # }
//! ```
//!
//! # Exit codes
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | the arguments or the configuration are wrong; nothing was begun |
//! | 3 | an examination has found something: `doctor`, `status`, `migrate status` |
//! | 4 | partly done; the output lists what failed |
//! | 130 | interrupted; an operation that was begun stays in the journal |
//!
//! `sql` ends with the exit code of psql.
//!
//! # Invariants
//!
//! - Everything goes through [`Tenantry`]. A command does not run the background work of a node, so it
//!   takes over no operation unless it is asked to.
//! - The program `tenantry` does not have the application's steps. It refuses to continue an operation that has such
//!   steps, unless the option `--here` is given.
//! - Secrets are read from variables, files and the terminal, never from arguments. They are in no error and no JSON. The
//!   path of a setup link is printed once, because it is the result of its command.
//! - With `--json` stdout has one JSON object, with `next_steps`. Errors are such an object too.
use crate::facade::{Builder, Tenantry};
use crate::store::schema;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use commands::{Cli, CliCommand};
use config::{Config, ConfigArgs, VARIABLES};
use environment::Environment;
use exit::{EXIT_CODES, Exit};
use failure::CommandError;
use output::Output;
use progress::Progress;
use session::Session;
use sqlx::PgPool;
use std::process::ExitCode;
use tokio::sync::Notify;

mod admin;
mod arguments;
mod batch;
mod commands;
mod config;
mod confirm;
mod credentials;
mod doctor;
mod environment;
mod exit;
mod explain;
mod failure;
mod init;
mod interrupt;
mod links;
mod migrate;
mod operations;
mod output;
mod pages;
mod progress;
mod servers;
mod session;
mod sql;
mod status;
mod tenants;
mod url;

/// The commands, to be mounted as a subcommand of an application's program. [`run`] takes the matches of this command.
pub fn command() -> Command {
    Cli::command()
}

/// Runs the command of these matches with the application's landlord and builder, and returns the exit code of the
/// program. `configure` is the function that production uses: migrations, steps, key provider, limits.
///
/// `landlord` may be lazy (`connect_lazy_with`): commands like `completions` do not connect. The function prints to stdout
/// and stderr, and reads from stdin. While an operation runs, it catches Ctrl-C: the operation ends its step and stays in
/// the journal, and any node continues it.
pub async fn run(matches: &ArgMatches, landlord: PgPool, configure: impl FnOnce(Builder) -> Builder) -> ExitCode {
    let cli = match Cli::from_arg_matches(matches) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let program = name_program(std::env::args());
    if let Some(printed) = print_page(&cli, command(), &program) {
        return printed.into();
    }
    let target = url::describe(&landlord.connect_options());
    let opened = open_reachable(&cli, &landlord, configure).await.map(|tenantry| Session {
        tenantry,
        landlord,
        target,
        environment: Environment::of_process(),
        program: program.clone(),
        is_application: true,
        has_migrations: true,
        assume_yes: cli.yes,
        as_json: cli.json,
        progress: Progress::new(),
        begun: Notify::new(),
    });
    execute(&cli, &program, opened).await.into()
}

/// The program `tenantry`: reads the arguments of the process and the configuration, and runs the command.
pub async fn main() -> ExitCode {
    let command = ConfigArgs::augment_args(command()).after_help(format!("{VARIABLES}\n\n{EXIT_CODES}"));
    let parsed = command
        .clone()
        .try_get_matches()
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, ConfigArgs::from_arg_matches(&matches)?)));
    let (cli, arguments) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return report_usage(&error),
    };
    if arguments.verbose {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    let program = command.get_name().to_owned();
    if let Some(printed) = print_page(&cli, command, &program) {
        return printed.into();
    }
    let opened = open_from_environment(&cli, &arguments, &program).await;
    execute(&cli, &program, opened).await.into()
}

fn report_usage(error: &clap::Error) -> ExitCode {
    // The error of a pipe that was closed.
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// `notes admin`: the name of the program and the words before the command.
fn name_program(arguments: impl Iterator<Item = String>) -> String {
    let words = arguments.take_while(|word| !CliCommand::is_first_word(word));
    let words = words.filter(|word| !word.starts_with('-'));
    let name = |word: String| word.rsplit('/').next().map(str::to_owned).unwrap_or_default();
    let words: Vec<_> = words.enumerate().map(|(at, word)| if at == 0 { name(word) } else { word }).collect();
    words.join(" ")
}

/// Runs a command that needs no installation; `None` for the others.
fn print_page(cli: &Cli, command: Command, program: &str) -> Option<Exit> {
    let page = match &cli.command {
        CliCommand::Completions(arguments) => Ok(arguments.run(command, program)),
        CliCommand::Man(arguments) => arguments.run(command),
        _ => return None,
    };
    Some(print(page, cli, program))
}

/// As [`open`], after the landlord has answered.
async fn open_reachable(
    cli: &Cli, landlord: &PgPool, configure: impl FnOnce(Builder) -> Builder,
) -> Result<Tenantry, CommandError> {
    url::verify_landlord(&landlord.connect_options()).await?;
    open(cli, landlord, configure).await
}

/// Builds the facade. `init` installs the schema first.
async fn open(
    cli: &Cli, landlord: &PgPool, configure: impl FnOnce(Builder) -> Builder,
) -> Result<Tenantry, CommandError> {
    if let CliCommand::Init(_) = cli.command {
        schema::install(landlord).await?;
    }
    Ok(configure(Tenantry::builder(landlord.clone())).build().await?)
}

async fn open_from_environment(cli: &Cli, arguments: &ConfigArgs, program: &str) -> Result<Session, CommandError> {
    let config = Config::read(arguments).await?;
    if !config.has_keys() {
        return Err(config::no_keys());
    }
    let tenantry = open(cli, &config.landlord, |builder| config.configure(builder)).await?;
    Ok(Session {
        tenantry,
        landlord: config.landlord,
        target: config.target,
        environment: config.environment,
        program: program.to_owned(),
        is_application: false,
        has_migrations: config.has_migrations,
        assume_yes: cli.yes,
        as_json: cli.json,
        progress: Progress::new(),
        begun: Notify::new(),
    })
}

/// Runs the command, prints its result and closes the facade.
async fn execute(cli: &Cli, program: &str, opened: Result<Session, CommandError>) -> Exit {
    let session = match opened {
        Ok(session) => session,
        Err(error) => return error.print(program, cli.json),
    };
    let result = tokio::select! {
        result = cli.command.run(&session) => Some(result),
        () = interrupt::wait(&session) => None,
    };
    session.progress.clear();
    let Some(result) = result else { return interrupt::leave(&session).await };
    session.tenantry.close().await;
    print(result, cli, program)
}

fn print(result: Result<Output, CommandError>, cli: &Cli, program: &str) -> Exit {
    match result {
        Ok(output) => output.print(program, cli.json),
        Err(error) => error.print(program, cli.json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_every_command_are_consistent() {
        command().debug_assert();
        ConfigArgs::augment_args(command()).debug_assert();
    }

    #[test]
    fn next_steps_begin_with_the_words_that_the_person_has_typed() {
        let named = |line: &str| name_program(line.split(' ').map(str::to_owned));
        assert_eq!(named("/usr/local/bin/notes admin tenants list"), "notes admin");
        assert_eq!(named("notes --quiet admin --json status"), "notes admin");
        assert_eq!(named("tenantry doctor"), "tenantry");
    }
}
