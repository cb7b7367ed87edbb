//! A child process that removes a test server when this process ends.
//!
//! `local` and `container` start one with a shell script. Invariant: the script learns that this process has ended from
//! the end of its standard input, so it works also after `kill -9`.
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::session::Deadline;

/// A child process that cleans up when its standard input ends.
///
/// Only this process has the write end of that pipe: std creates pipes close-on-exec, so no other child inherits it.
/// The kernel closes it when this process ends. So a `static` server, which Rust never drops, is cleaned up too.
pub(super) struct Watcher {
    child: Child,
    lifeline: ChildStdin,
}

impl Watcher {
    /// Starts `command` in a process group of its own: a Ctrl-C in the terminal, or a test runner that kills its group,
    /// must not end the cleanup. `PG*` variables of this process are not passed on, because PostgreSQL's programs read
    /// them.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.process_group(0).current_dir("/").spawn()?;
        let lifeline = child.stdin.take().ok_or_else(|| io::Error::other("the child process has no standard input"))?;
        Ok(Self { child, lifeline })
    }

    /// Writes one line to the standard input of the script.
    pub(super) fn send_line(&mut self, line: &str) -> io::Result<()> {
        self.lifeline.write_all(format!("{line}\n").as_bytes())
    }

    /// Whether the child has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The exit status of a child that has ended by itself.
    pub(super) fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten()?.code()
    }

    /// Closes the pipe and waits at most 60 s until the child has cleaned up and ended. If the future is dropped, the
    /// child cleans up all the same.
    pub(super) async fn finish(self) -> io::Result<()> {
        let Self { mut child, lifeline } = self;
        drop(lifeline);
        let deadline = Deadline::new(Duration::from_secs(60));
        while child.try_wait()?.is_none() {
            if !deadline.sleep().await {
                let message = "the test server was not removed within 60 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        Ok(())
    }
}
