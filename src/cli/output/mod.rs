//! What a command shows: text for people, or one JSON object.
//!
//! A command returns an [`Output`]; `run` prints it. The result goes to stdout. Next steps, progress and errors go to
//! stderr, so that the result can be piped.
//!
//! Invariants: with `--json` stdout has exactly one JSON object. Text that comes from a database contains no control
//! characters when it is printed.
use super::exit::Exit;
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{self, IsTerminal, Write};

mod moment;
pub(super) mod style;
mod table;
mod wrap;
pub(super) use moment::{show_time, to_text};
pub(super) use table::Table;

/// The result of a command.
pub(super) struct Output {
    json: Map<String, Value>,
    blocks: Vec<Block>,
    next_steps: Vec<NextStep>,
    exit: Exit,
}

enum Block {
    Line(String),
    Note(String),
    Heading(&'static str),
    Table(Table),
    /// Printed as it is, without cleaning: a script or a page.
    Raw(String),
}

/// What a person can do after a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NextStep {
    /// Arguments of this program.
    Command(String),
    /// Anything else, as a sentence.
    Hint(String),
}

impl NextStep {
    /// The full text, with the name of the program before a command.
    pub(super) fn text(&self, program: &str) -> String {
        match self {
            Self::Command(arguments) => format!("{program} {arguments}"),
            Self::Hint(hint) => hint.clone(),
        }
    }
}

impl Output {
    pub(super) fn new() -> Self {
        Self { json: Map::new(), blocks: vec![], next_steps: vec![], exit: Exit::Done }
    }
    /// A field of the JSON object. Text output does not show it.
    pub(super) fn field(mut self, key: &str, value: impl Serialize) -> Self {
        self.json.insert(key.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }
    pub(super) fn line(self, text: impl Into<String>) -> Self {
        self.block(Block::Line(text.into()))
    }
    /// Something that deserves attention and is no failure.
    pub(super) fn note(self, text: impl Into<String>) -> Self {
        self.block(Block::Note(text.into()))
    }
    pub(super) fn notes(self, texts: impl IntoIterator<Item = String>) -> Self {
        texts.into_iter().fold(self, Self::note)
    }
    pub(super) fn heading(self, text: &'static str) -> Self {
        self.block(Block::Heading(text))
    }
    pub(super) fn table(self, table: Table) -> Self {
        self.block(Block::Table(table))
    }
    pub(super) fn raw(self, text: impl Into<String>) -> Self {
        self.block(Block::Raw(text.into()))
    }
    fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
    /// A command of this program that a person probably types next.
    pub(super) fn next(mut self, arguments: impl Into<String>) -> Self {
        self.next_steps.push(NextStep::Command(arguments.into()));
        self
    }
    pub(super) fn hint(mut self, text: impl Into<String>) -> Self {
        self.next_steps.push(NextStep::Hint(text.into()));
        self
    }
    pub(super) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Prints the result. An error of the pipe is ignored: its reader has seen enough.
    pub(super) fn print(self, program: &str, as_json: bool) -> Exit {
        let _ = match as_json {
            true => self.print_json(program),
            false => self.print_text().and_then(|()| print_next_steps(&self.next_steps, program)),
        };
        self.exit
    }

    fn print_json(&self, program: &str) -> io::Result<()> {
        let mut json = self.json.clone();
        let steps = self.next_steps.iter().map(|step| step.text(program));
        json.insert("next_steps".into(), steps.collect());
        print_object(&Value::Object(json))
    }

    fn print_text(&self) -> io::Result<()> {
        let (mut out, width) = (anstream::stdout(), width_of_stdout());
        for (at, block) in self.blocks.iter().enumerate() {
            match block {
                Block::Line(text) => writeln!(out, "{}", wrap::wrap(&clean(text), width, ""))?,
                Block::Note(text) => writeln!(out, "{} {}", style::warn("note:"), wrap_after(text, width, "note: "))?,
                Block::Heading(text) => {
                    let space = if at > 0 { "\n" } else { "" };
                    writeln!(out, "{space}{}", style::heading(text))?;
                }
                Block::Table(table) => write!(out, "{}", table.render(width))?,
                Block::Raw(text) => write!(out, "{text}")?,
            }
        }
        out.flush()
    }
}

/// Prints one JSON object to stdout.
pub(super) fn print_object(object: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{object:#}")?;
    out.flush()
}

/// Prints what a person can type next, to stderr.
pub(super) fn print_next_steps(steps: &[NextStep], program: &str) -> io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    let mut out = anstream::stderr();
    writeln!(out, "\n{}", style::heading("Next:"))?;
    let width = width_of_stderr();
    for step in steps {
        match step {
            // A command stays on one line, so that it can be copied.
            NextStep::Command(_) => writeln!(out, "  {}", clean(&step.text(program)))?,
            NextStep::Hint(hint) => writeln!(out, "  {}", wrap_after(hint, width, "  "))?,
        }
    }
    Ok(())
}

/// Prints an error to stderr.
pub(super) fn print_error(message: &str) -> io::Result<()> {
    let text = wrap_after(message, width_of_stderr(), "error: ");
    writeln!(anstream::stderr(), "{} {text}", style::error("error:"))
}

/// The text, cleaned and wrapped for a line that begins with `before`.
fn wrap_after(text: &str, width: Option<u16>, before: &str) -> String {
    let wrapped = wrap::wrap(&format!("{before}{}", clean(text)), width, &" ".repeat(before.len()));
    wrapped[before.len()..].to_owned()
}

/// Prints one line to stderr, for progress and for what a person is asked.
pub(super) fn print_status(text: &str) {
    let _ = writeln!(anstream::stderr(), "{}", wrap::wrap(text, width_of_stderr(), "  "));
}

/// Columns of the terminal, or `None` if stdout is none: then each row is one line, whatever its length.
fn width_of_stdout() -> Option<u16> {
    let size = || terminal_size::terminal_size().map(|(width, _)| width.0);
    io::stdout().is_terminal().then(size).flatten()
}

fn width_of_stderr() -> Option<u16> {
    let size = || terminal_size::terminal_size().map(|(width, _)| width.0);
    io::stderr().is_terminal().then(size).flatten()
}

/// Replaces control characters, which a terminal would obey, except line feeds.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
