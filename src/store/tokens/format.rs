//! The text form of a token: creates, parses and hashes it.
//!
//! Setup links contain the text. The store keeps only [`Token::hash`] of it.
use super::TokenPurpose;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// Digits of base 62, in ASCII order. 43 digits can represent 256 bits, and 6 can represent 32.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET: usize = 43;
const CHECK: usize = 6;

/// A token in its text form: `tny_<purpose>_<43 characters><6 characters>`. The 43 characters are 32 random bytes in
/// base 62. The 6 characters are a CRC-32 over everything before them, for secret scanners and to detect typing errors.
/// `Debug` shows only the purpose.
#[derive(Clone)]
pub struct Token {
    purpose: TokenPurpose,
    text: SecretString,
}

/// The error for a text that is not a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidToken {
    /// The text does not have the form `tny_<purpose>_<49 characters>`.
    #[error("a token has the form tny_<purpose>_<49 characters>")]
    Shape,
    /// The purpose does not have 1 to 20 characters of `a-z`.
    #[error("a token's purpose is 1 to 20 characters of a-z")]
    Purpose,
    /// The text has a typing error or was cut off.
    #[error("the token's checksum is wrong: the text has a typing error or was cut off")]
    Checksum,
}

impl Token {
    /// Creates a random token.
    pub fn random(purpose: TokenPurpose) -> Self {
        let secret = Zeroizing::new(rand::rng().random::<[u8; 32]>());
        Self::from_bytes(purpose, &secret)
    }

    fn from_bytes(purpose: TokenPurpose, secret: &[u8; 32]) -> Self {
        let mut text = Zeroizing::new(format!("tny_{}_", purpose.as_str()));
        text.reserve_exact(SECRET + CHECK);
        push_base62(&mut text, &mut Zeroizing::new(secret.to_vec()), SECRET);
        let check = crc32fast::hash(text.as_bytes()).to_be_bytes();
        push_base62(&mut text, &mut Zeroizing::new(check.to_vec()), CHECK);
        Self { purpose, text: SecretString::from(text.as_str()) }
    }

    /// Parses and checks a text. A server need not call this: the hash of a text that is not a token matches no stored
    /// one.
    ///
    /// # Errors
    /// The broken rule. The error does not contain the text.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidToken> {
        let (purpose, digits) = text.strip_prefix("tny_").and_then(|t| t.split_once('_')).ok_or(InvalidToken::Shape)?;
        if digits.len() != SECRET + CHECK || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(InvalidToken::Shape);
        }
        let (body, check) = text.split_at(text.len() - CHECK);
        let mut expected = String::with_capacity(CHECK);
        push_base62(&mut expected, &mut crc32fast::hash(body.as_bytes()).to_be_bytes().to_vec(), CHECK);
        if check != expected {
            return Err(InvalidToken::Checksum);
        }
        Ok(Self { purpose: purpose.parse().map_err(|_| InvalidToken::Purpose)?, text: SecretString::from(text) })
    }
    /// SHA-256 of any text, whether it is a token or not. With it a server looks up a mistyped token by the same
    /// statement as a valid one, so the time does not reveal the difference.
    pub fn hash_of(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }
    /// Purpose of the token.
    pub fn purpose(&self) -> &TokenPurpose {
        &self.purpose
    }
    /// The text of the token, which goes into a link.
    pub fn expose(&self) -> &SecretString {
        &self.text
    }
    /// SHA-256 of the text, which the store keeps. A slow password hash is not needed: 256 random bits cannot be
    /// guessed.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose_secret().as_bytes()).into()
    }
}

/// Appends a big-endian number with `width` digits of base 62, by repeated division in place. `number` is 0 afterwards.
fn push_base62(text: &mut String, number: &mut [u8], width: usize) {
    let start = text.len();
    for _ in 0..width {
        let mut rest = 0u32;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        text.insert(start, char::from(DIGITS[rest as usize]));
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(tny_{}_…)", self.purpose.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_text_parses_back_and_has_a_fixed_length() {
        let token = Token::from_bytes(TokenPurpose::password(), &[0xff; 32]);
        let text = token.expose().expose_secret();
        assert_eq!(text.len(), "tny_password_".len() + 49);
        let again = Token::parse(text).unwrap();
        assert_eq!(again.hash(), token.hash());
        assert_eq!(
            Token::from_bytes(TokenPurpose::password(), &[0; 32]).expose().expose_secret()[13..56],
            "0".repeat(43)
        );
        assert!(!format!("{token:?}").contains(&text[20..40]));
    }

    #[test]
    fn parse_distinguishes_a_typo_from_a_wrong_shape() {
        let token = Token::random(TokenPurpose::credentials());
        let text = token.expose().expose_secret();
        let mut typo = text.to_owned();
        let last = if typo.pop() == Some('a') { 'b' } else { 'a' };
        typo.push(last);
        assert_eq!(Token::parse(&typo).unwrap_err(), InvalidToken::Checksum);
        assert_eq!(Token::parse(&text[1..]).unwrap_err(), InvalidToken::Shape);
        assert_eq!(Token::parse("").unwrap_err(), InvalidToken::Shape);
    }
}
