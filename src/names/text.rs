//! Rules for texts that are not names: display names, idempotency keys, reasons and addresses.
//!
//! The operations and the registry check each text before anything is written, so that PostgreSQL never has to refuse
//! it: `text` cannot hold NUL, and a long key does not fit into an index.
use super::{InvalidName, check_characters, check_length, check_visible};

/// Maximum bytes of an idempotency key. A B-tree entry of PostgreSQL has at most 2704 bytes, and a key longer than a URL
/// path or two UUIDs is most likely a mistake.
pub(crate) const MAX_KEY: usize = 200;
/// Maximum bytes of a reason. Every list of operations returns the reasons.
pub(crate) const MAX_REASON: usize = 4096;
/// Maximum bytes of trusted certificates in PEM format: some two hundred authorities.
pub(crate) const MAX_CERTIFICATES: usize = 512 * 1024;
/// Maximum bytes of a host name (RFC 1035, 2.3.4) or a socket directory.
const MAX_HOST: usize = 253;

/// Fails unless the text has `min` to `max` bytes and no NUL character.
pub(crate) fn check_text(text: &str, min: usize, max: usize) -> Result<(), InvalidName> {
    check_length(text, min, max)?;
    check_characters(text, "the character NUL is forbidden", |c| c != '\0')
}

/// Fails unless the text can be a display name: 1 to 200 bytes, without control characters, because a line break would
/// garble every list of tenants, and without characters that a reader cannot see.
pub(crate) fn check_display_name(text: &str) -> Result<(), InvalidName> {
    check_length(text, 1, 200)?;
    check_characters(text, "control characters are forbidden", |c| !c.is_control())?;
    check_visible(text)
}

/// Fails unless the text can be the host of a server: a name, an address or a socket directory.
pub(crate) fn check_host(text: &str) -> Result<(), InvalidName> {
    check_length(text, 1, MAX_HOST)?;
    check_characters(text, "white space and control characters are forbidden", |c| {
        !c.is_whitespace() && !c.is_control()
    })
}
