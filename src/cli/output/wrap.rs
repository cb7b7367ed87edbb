//! Breaks sentences between words, so that a terminal does not break them within one.

/// The text with lines of at most `width` columns; later lines begin with `indent`. A longer word stays whole, because a
/// person may copy it. Without a width the text stays as it is.
pub(super) fn wrap(text: &str, width: Option<u16>, indent: &str) -> String {
    let Some(width) = width.map(usize::from) else { return text.to_owned() };
    text.split('\n').map(|line| wrap_line(line, width, indent)).collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, width: usize, indent: &str) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let (mut wrapped, mut column) = (String::new(), 0);
    for (at, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if at > 0 && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(indent);
            column = indent.len();
        } else if at > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn sentence_is_broken_between_words_and_a_long_word_stays_whole() {
        assert_eq!(wrap("one two three", Some(8), "  "), "one two\n  three");
        assert_eq!(
            wrap("see 0198f1c2-0000-7000-8000-000000000000", Some(10), ""),
            "see\n0198f1c2-0000-7000-8000-000000000000"
        );
        assert_eq!(wrap("one two three", None, ""), "one two three");
    }
}
