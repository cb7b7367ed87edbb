use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use super::session::Patience;

/// A child process that clears up when this process is gone, however it ended.
///
/// It reads from a pipe whose write end only this process holds (close-on-exec, as std makes all pipes, so
/// no other child inherits it). The kernel closes it at the latest when the process dies, and a `static`,
/// which Rust never drops, is cleared up in the same way.
pub(super) struct Watcher {
    child: Child,
    lifeline: ChildStdin,
}

impl Watcher {
    /// Starts `command`; a process group of its own keeps the terminal's Ctrl-C and a runner's kill away
    /// from it.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.process_group(0).current_dir("/").spawn()?;
        let lifeline = child.stdin.take().ok_or_else(|| io::Error::other("the child has no stdin"))?;
        Ok(Self { child, lifeline })
    }

    /// Tells the watcher something: one line.
    pub(super) fn tell(&mut self, line: &str) -> io::Result<()> {
        self.lifeline.write_all(format!("{line}\n").as_bytes())
    }

    /// Whether it has already ended.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Lets go and waits until the watcher has cleared up.
    pub(super) async fn finish(self) -> io::Result<()> {
        let Self { mut child, lifeline } = self;
        drop(lifeline);
        let patience = Patience::new(Duration::from_secs(60));
        while child.try_wait()?.is_none() {
            if !patience.wait().await {
                let still = "the test server is still being cleared up";
                return Err(io::Error::new(io::ErrorKind::TimedOut, still));
            }
        }
        Ok(())
    }
}
