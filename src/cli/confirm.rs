//! Asks before something is lost.
use super::failure::CommandError;
use super::output::{clean, print_status, style};
use super::session::Session;
use std::io::{self, BufRead, IsTerminal, Write};

/// Names what will be lost or changed, and asks the person to type `answer`. With `--yes` it does not ask.
///
/// # Errors
/// Usage if there is no terminal to ask on, and `failed` if the person types something else. Nothing was changed then.
pub(super) fn confirm(session: &Session, question: &str, items: &[String], answer: &str) -> Result<(), CommandError> {
    session.progress.clear();
    if session.assume_yes {
        session.catch_interrupts();
        return Ok(());
    }
    print_status(&style::warn(question));
    items.iter().for_each(|item| print_status(&format!("  {}", clean(item))));
    if !io::stdin().is_terminal() {
        return Err(CommandError::usage("this must be confirmed, and stdin is no terminal; nothing was changed")
            .hint("Add --yes to confirm without being asked."));
    }
    match ask(answer) {
        Ok(typed) if typed.trim() == answer => {
            session.catch_interrupts();
            Ok(())
        }
        Ok(_) => Err(CommandError::failed("not confirmed; nothing was changed")),
        Err(error) => Err(CommandError::failed(format!("the terminal cannot be read: {error}; nothing was changed"))),
    }
}

fn ask(answer: &str) -> io::Result<String> {
    let mut out = anstream::stderr();
    write!(out, "Type {} to confirm: ", style::heading(&clean(answer)))?;
    out.flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    Ok(typed)
}
