//! Sets up a server, provisions three tenants, uses, suspends and purges them: `cargo run --example quickstart`.
//!
//! The example uses the server at `TENANTRY_DATABASE_URL` and removes everything that it created there, also after Ctrl-C
//! and after an error. Without that variable it starts a throwaway server. With `-- --keep` it removes nothing and prints
//! how to connect.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its progress and its errors")]
use std::process::ExitCode;

#[path = "../example_server/mod.rs"]
mod example_server;
pub(crate) mod run;
mod tour;

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    example_server::exit::report(run::run(std::env::args().skip(1)).await)
}
