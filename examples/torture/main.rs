//! Injects faults into operations, at statements that a seed chooses among all that the operations send:
//! `cargo run --release --example torture -- [--runs N] [--seed S] [--saga NAME] [--lanes N] [--json]`, or `-- --once`.
//!
//! A child process runs one saga through proxies that understand the PostgreSQL protocol. A point is one statement: a
//! saga, a step, a kind of session, and the number of the statement. At one point the driver injects one fault: it
//! kills the child, cuts the connection, answers with an SQLSTATE, crashes the server, or stops the child past its
//! lease while another worker takes over. Then recovery runs, and an auditor, which uses its own SQL, checks what is
//! left. The servers are started from local binaries (`TENANTRY_TEST_PG_BIN`).
//!
//! With `--once` the program injects no faults. Many clients claim the same tokens and follow the same links at the
//! same time, and each token and link must be consumed exactly once.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its progress and its errors")]

#[path = "../example_server/exit.rs"]
mod exit;
mod torture;

fn main() -> std::process::ExitCode {
    exit::report(run().map_err(|error| error as Box<dyn std::error::Error>))
}

fn run() -> Result<(), torture::AnyError> {
    if let Some(task) = torture::Task::from_env()? {
        return torture::run_child(task);
    }
    let options = torture::Options::parse(std::env::args().skip(1)).inspect_err(|_| eprintln!("{}", torture::USAGE))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if options.once {
        return match runtime.block_on(torture::once::run(|line| println!("{line}")))? {
            0 => Ok(()),
            wrong => Err(format!("{wrong} violations").into()),
        };
    }
    let child = || Ok(tokio::process::Command::new(std::env::current_exe()?));
    let json = options.json;
    let result = runtime.block_on(torture::torture(&options, child, |line| println!("{line}")))?;
    println!("\n{}", result.table());
    result.violations().for_each(|v| println!("{v}"));
    if json {
        println!("{}", result.json());
    }
    if result.is_clean() { Ok(()) } else { Err("there were violations".into()) }
}
