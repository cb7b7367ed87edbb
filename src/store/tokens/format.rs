use super::TokenPurpose;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

/// Base 62 in the order of ASCII; 43 digits hold 256 bits, 6 hold 32.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SECRET: usize = 43;
const CHECK: usize = 6;

/// `tny_<purpose>_<43 characters><6 characters>`: 32 random bytes in base 62, and a CRC-32 over everything before it,
/// for secret scanners and typos. Debug shows the purpose alone.
#[derive(Clone)]
pub struct Token {
    purpose: TokenPurpose,
    text: SecretString,
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Not `tny_<purpose>_<49 characters>`.
    #[error("a token has the form tny_<purpose>_<49 characters>")]
    Shape,
    /// Not 1 to 20 of `a-z`.
    #[error("a token's purpose is 1 to 20 of a-z")]
    Purpose,
    /// A typo, or cut off.
    #[error("the token's checksum is wrong: it is mistyped or cut off")]
    Checksum,
}

impl Token {
    /// A new one.
    pub fn random(purpose: TokenPurpose) -> Self {
        let secret = Zeroizing::new(rand::rng().random::<[u8; 32]>());
        Self::from_bytes(purpose, &secret)
    }

    fn from_bytes(purpose: TokenPurpose, secret: &[u8; 32]) -> Self {
        let mut text = Zeroizing::new(format!("tny_{}_", purpose.as_str()));
        text.reserve_exact(SECRET + CHECK);
        push(&mut text, &mut Zeroizing::new(secret.to_vec()), SECRET);
        let check = crc32fast::hash(text.as_bytes()).to_be_bytes();
        push(&mut text, &mut Zeroizing::new(check.to_vec()), CHECK);
        Self { purpose, text: SecretString::from(text.as_str()) }
    }

    /// Takes a text apart. The server need not: a text that is no token is nobody's.
    ///
    /// # Errors
    /// The rule that is broken; the text is not shown.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let (purpose, digits) = text.strip_prefix("tny_").and_then(|t| t.split_once('_')).ok_or(InvalidToken::Shape)?;
        if digits.len() != SECRET + CHECK || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(InvalidToken::Shape);
        }
        let (body, check) = text.split_at(text.len() - CHECK);
        let mut expected = String::with_capacity(CHECK);
        push(&mut expected, &mut crc32fast::hash(body.as_bytes()).to_be_bytes().to_vec(), CHECK);
        if check != expected {
            return Err(InvalidToken::Checksum);
        }
        Ok(Self { purpose: purpose.parse()?, text: SecretString::from(text) })
    }
    /// What the store would keep of a text, whether it is a token or not: so that one that is mistyped is looked for by the
    /// same statement.
    pub fn hash_of(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }
    /// What it is good for.
    pub fn purpose(&self) -> &TokenPurpose {
        &self.purpose
    }
    /// The text that goes into a link.
    pub fn expose(&self) -> &SecretString {
        &self.text
    }
    /// SHA-256 of the text: what the store keeps. With 256 random bits there is nothing to guess, so no slow hash.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose_secret().as_bytes()).into()
    }
}

/// Appends a big-endian number in `width` digits, by division in place.
fn push(text: &mut String, number: &mut [u8], width: usize) {
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
    fn a_token_has_one_form_and_reads_back() {
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
    fn a_typo_is_told_from_another_shape() {
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
