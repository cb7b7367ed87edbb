//! The commands of `tenantry` in an application's own program, with its migrations and settings:
//!
//! ```sh
//! export TENANTRY_LANDLORD_URL=postgres://app:secret@localhost:5432/landlord
//! export TENANTRY_KEYS="k1:$(openssl rand -base64 32)"
//! cargo run --example admin --features cli -- admin init
//! cargo run --example admin --features cli -- admin tenants create acme
//! ```
#![allow(clippy::print_stderr, reason = "an example prints its errors")]
use clap::Command;
use std::process::ExitCode;
use tenantry::vault::LocalKeyring;
use tenantry::{Builder, schema};

type AnyError = Box<dyn std::error::Error>;

/// The function that the nodes of the application use too, so that the commands do what the nodes would do.
fn configure(builder: Builder, keys: LocalKeyring) -> Builder {
    // Steps, a delivery of links and an admin store of the application follow here.
    builder.keys(keys).tenant_migrations(&sqlx::migrate!("examples/tenant_migrations")).max_nodes(4)
}

#[tokio::main]
async fn main() -> ExitCode {
    let admin = tenantry::cli::command().name("admin").about("Operates the tenants");
    let program = Command::new("notes").about("A small application").subcommand_required(true).subcommand(admin);
    let matches = program.get_matches();
    match matches.subcommand() {
        Some(("admin", matches)) => run_admin(matches).await.unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }),
        _ => ExitCode::SUCCESS,
    }
}

async fn run_admin(matches: &clap::ArgMatches) -> Result<ExitCode, AnyError> {
    let url = std::env::var("TENANTRY_LANDLORD_URL").map_err(|_| "TENANTRY_LANDLORD_URL is not set")?;
    let landlord = schema::pool_options().connect_lazy(&url).map_err(|_| "TENANTRY_LANDLORD_URL is no URL")?;
    let keys = LocalKeyring::from_env("TENANTRY_KEYS")?;
    Ok(tenantry::cli::run(matches, landlord, |builder| configure(builder, keys)).await)
}
