//! Refuses characters that a reader cannot see.
//!
//! E-mail addresses, display names and names of new databases call [`check_visible`]. Two texts that differ only in
//! such characters look equal, and a character that changes the direction of writing makes one text look like another.
//! Names that are read from a server or a store are not checked, so that an object with such a name can still be
//! operated on.
use super::{InvalidName, check_characters};

/// Fails at the first invisible character.
pub(crate) fn check_visible(text: &str) -> Result<(), InvalidName> {
    let allowed = "zero-width, formatting and direction characters are forbidden";
    check_characters(text, allowed, |c| !is_invisible(c))
}

/// Whether the character is a Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt), which includes every
/// zero-width character and every Bidi_Control, or a separator of lines or an annotation, which have no glyph either.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Email;

    #[test]
    fn check_visible_refuses_zero_width_and_direction_characters_and_no_letters() {
        for c in ["\u{200b}", "\u{200d}", "\u{202e}", "\u{2066}", "\u{feff}", "\u{ad}", "\u{e0061}", "\u{2028}"] {
            assert!(matches!(check_visible(c), Err(InvalidName::Character { at: 0, .. })), "{c:?} was accepted");
            let address = format!("ada{c}@acme.example");
            assert!(address.parse::<Email>().is_err(), "{address:?} was accepted");
        }
        for text in ["Größe ½", "租户", "שלום", "مرحبا", "\u{1F980} & Co", "mi\u{212a}e"] {
            assert_eq!(check_visible(text), Ok(()), "{text:?}");
        }
    }
}
