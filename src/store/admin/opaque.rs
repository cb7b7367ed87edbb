//! One Unicode form for each password: the profile OpaqueString of PRECIS (RFC 8265, section 4.2).
//!
//! One text can reach the server as different bytes: macOS and some keyboards send `é` as two code points (NFD), others
//! as one (NFC). [`to_opaque_string`] maps both to one form. The setup links apply it to a password before they store
//! or compare it, and [`PgAdminStore`](super::PgAdminStore) applies it before it hashes one.
//!
//! The result differs from the RFC in two points, so that no usable password is refused:
//! - The text is normalised before its characters are checked. The RFC checks first, and so refuses Korean text in NFD.
//! - A code point that the tables call unassigned is accepted. The tables are those of the IANA registry, for Unicode
//!   6.3. They would refuse every emoji since 2014.
use super::PasswordError;
use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::Rules;
use precis_profiles::precis_core::{DerivedPropertyValue, FreeformClass, StringClass};
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
use zeroize::Zeroizing;

/// Maximum bytes of a text that is checked. The time to check some characters grows with the square of the length.
const MAX_BYTES: usize = 4096;

/// Converts a password to the form in which it is stored and compared: other spaces become ASCII spaces, and the text
/// is normalised to NFC. Spaces at the ends and the case stay. Converting a converted password changes nothing. An
/// empty text stays empty; [`PasswordPolicy`](super::PasswordPolicy) refuses it.
///
/// # Errors
/// [`PasswordError::Character`] for control characters and others that PRECIS disallows; [`PasswordError::Long`] for
/// more than 4096 bytes.
pub fn to_opaque_string(password: &SecretString) -> Result<SecretString, PasswordError> {
    let text = password.expose_secret();
    if text.len() > MAX_BYTES {
        return Err(PasswordError::Long { max: MAX_BYTES });
    }
    let profile = OpaqueString::new();
    let to_error = |_| PasswordError::Character;
    let mapped = to_zeroizing(profile.additional_mapping_rule(text).map_err(to_error)?);
    let form = to_zeroizing(profile.normalization_rule(&**mapped).map_err(to_error)?);
    // U+25A1 replaces each code point that is newer than the tables. The check accepts it, and no rule about
    // neighbouring characters names it.
    let replace_unassigned =
        |c| if FreeformClass::default().get_value_from_char(c) == UNASSIGNED { '\u{25a1}' } else { c };
    let checked = Zeroizing::new(form.chars().map(replace_unassigned).collect::<String>());
    FreeformClass::default().allows(&**checked).map_err(to_error)?;
    Ok(SecretString::from(form.as_str()))
}

const UNASSIGNED: DerivedPropertyValue = DerivedPropertyValue::Unassigned;

/// Copies the text into memory that is overwritten when it is dropped.
fn to_zeroizing(text: Cow<'_, str>) -> Zeroizing<String> {
    match text {
        Cow::Borrowed(text) => Zeroizing::new(text.to_owned()),
        Cow::Owned(text) => Zeroizing::new(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<String, PasswordError> {
        to_opaque_string(&SecretString::from(text)).map(|form| form.expose_secret().to_owned())
    }

    #[test]
    fn opaque_string_of_nfd_and_nfc_is_equal() {
        // Latin with accents, Hangul, a singleton (Ångström sign), and an emoji that is newer than the tables.
        let pairs = [
            ("e\u{301}te\u{301} et hiver", "\u{e9}t\u{e9} et hiver"),
            ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "\u{d55c}\u{ae00}"),
            ("\u{212b}ngstrom", "\u{c5}ngstrom"),
            ("cafe\u{301} \u{1F980}", "caf\u{e9} \u{1F980}"),
        ];
        for (decomposed, composed) in pairs {
            assert_ne!(decomposed, composed);
            assert_eq!(form(decomposed), Ok(composed.into()));
            assert_eq!(form(composed), Ok(composed.into()), "converting a converted password changes nothing");
        }
    }

    #[test]
    fn opaque_string_keeps_ends_and_case_and_maps_spaces() {
        assert_eq!(form("  Correct Horse  "), Ok("  Correct Horse  ".into()));
        assert_eq!(form("a\u{a0}b\u{3000}c"), Ok("a b c".into()));
        assert_eq!(form(""), Ok(String::new()));
        // RFC 8265, section 4.3: the examples of valid passwords.
        for valid in ["correct horse battery staple", "\u{3c0}\u{df}\u{e5}", "Jack of \u{2666}s"] {
            assert_eq!(form(valid), Ok(valid.into()));
        }
        assert_eq!(form("foo\u{1680}bar"), Ok("foo bar".into()));
    }

    #[test]
    fn opaque_string_of_a_disallowed_character_is_refused() {
        for text in ["my cat is a \u{9}by", "nul\0", "\u{7f}delete", "soft\u{ad}hyphen", "\u{fdd0}", "join\u{200d}er"] {
            assert_eq!(form(text), Err(PasswordError::Character), "{text:?}");
        }
        assert_eq!(form(&"\u{b7}".repeat(2049)), Err(PasswordError::Long { max: MAX_BYTES }));
    }
}
