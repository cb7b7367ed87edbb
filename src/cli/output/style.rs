//! The few colours. The streams that print them remove them where a terminal does not show them, and with `NO_COLOR`.
use anstyle::{AnsiColor, Style};

/// The title of a part, and the names of columns.
pub(in crate::cli) fn heading(text: &str) -> String {
    paint(Style::new().bold(), text)
}
/// An error.
pub(in crate::cli) fn error(text: &str) -> String {
    paint(AnsiColor::Red.on_default().bold(), text)
}
/// A note that deserves attention.
pub(in crate::cli) fn warn(text: &str) -> String {
    paint(AnsiColor::Yellow.on_default().bold(), text)
}

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
