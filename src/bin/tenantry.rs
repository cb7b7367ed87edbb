//! The program `tenantry`: see [`tenantry::cli`].
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tenantry::cli::main().await
}
