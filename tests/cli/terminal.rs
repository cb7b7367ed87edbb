//! What a person is asked on a terminal.
use crate::installation::{Installation, Ran};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::Stdio;

/// A terminal: the end of the person, and the end of the program.
fn open_terminal() -> (File, File) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let path = ptsname(&person, vec![]).unwrap().into_string().unwrap();
    let program = OpenOptions::new().read(true).write(true).open(path).unwrap();
    (File::from(person), program)
}

/// Runs the program with a person at its terminal who types this line.
fn run_and_type(installation: &Installation, arguments: &[&str], line: &str) -> Ran {
    let (mut person, program) = open_terminal();
    // The terminal keeps the line until the program reads it.
    writeln!(person, "{line}").unwrap();
    let mut command = installation.command(arguments);
    command.stdin(program).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ran::new(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_asks_for_the_slug_and_does_nothing_for_another_text() {
    let installation = Installation::start().await;
    installation.run(&["tenants", "create", "acme"]).succeed();
    for typed in ["", "yes", "acm"] {
        let refused = run_and_type(&installation, &["tenants", "purge", "acme", "--force"], typed).exit(1);
        assert!(refused.stderr.contains("Type acme to confirm"), "{}", refused.stderr);
        assert!(refused.stderr.contains("nothing was changed"), "{}", refused.stderr);
    }
    installation.run(&["tenants", "show", "acme"]).succeed();
    run_and_type(&installation, &["tenants", "purge", "acme", "--force"], "acme").succeed();
    installation.run(&["tenants", "show", "acme"]).exit(1);
}
