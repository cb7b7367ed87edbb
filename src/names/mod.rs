//! Types for validated names: slugs, domains, servers, databases, roles and e-mail addresses.
//!
//! Callers parse a text once, at the boundary of the crate; the layers above accept only the types. A value that is
//! read from a store is parsed again.
//!
//! Invariant: a text is either accepted unchanged or rejected. Upper case and Unicode are not normalized in slugs and
//! domains, so that two spellings never name the same tenant. An error names the rule that the text breaks.
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The rule that a name breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The name is too short or too long.
    #[error("it has {length} bytes, but {min} to {max} are allowed")]
    Length {
        /// Length of the given name in bytes.
        length: usize,
        /// Minimum length in bytes.
        min: usize,
        /// Maximum length in bytes.
        max: usize,
    },
    /// The name contains a character that is not allowed.
    #[error("the character {found:?} at byte {at} is not allowed; {allowed}")]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// Byte offset of the character.
        at: usize,
        /// A description of the allowed characters.
        allowed: &'static str,
    },
    /// A DNS label begins or ends with a hyphen.
    #[error("a label must not begin or end with a hyphen")]
    Hyphen,
    /// The third and fourth characters are hyphens. They are reserved for encoded names such as `xn--…` (RFC 5890,
    /// 2.3.1).
    #[error("hyphens as the third and fourth characters are reserved for encoded names (xn--)")]
    Encoded,
    /// The name is reserved, for the application or by PostgreSQL.
    #[error("{0:?} is reserved")]
    Reserved(Box<str>),
    /// The name does not have the required form.
    #[error("it must be {0}")]
    Shape(&'static str),
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $rule:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $rule(text)?;
                Ok(Self(text.into()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// A tenant's short name, which also serves as a subdomain: one lower-case ASCII DNS label (RFC 1035, 2.3.1) of 3
    /// to 40 characters, without the prefix `xn--`, and no reserved word.
    ///
    /// ```
    /// use tenantry::names::{InvalidName, Slug};
    /// assert!("acme".parse::<Slug>().is_ok());
    /// assert!(matches!("www".parse::<Slug>(), Err(InvalidName::Reserved(_))));
    /// assert!("Acme".parse::<Slug>().is_err(), "upper case is rejected, not converted");
    /// ```
    Slug,
    check_slug
);
name_type!(
    /// A tenant's custom host name: lower-case ASCII, at least two labels, at most 253 bytes, without a port and
    /// without a final dot. An internationalised name must be in its encoded form (`xn--…`).
    Domain,
    check_domain
);
name_type!(
    /// The name that the application gives to a PostgreSQL server: 1 to 40 characters of `a-z 0-9 - _`.
    ServerName,
    check_server_name
);
name_type!(
    /// The name of a database: 1 to 63 bytes, without control characters, and not `postgres`, `template0` or
    /// `template1`. PostgreSQL silently truncates longer names, so two of them could become equal.
    DatabaseName,
    check_database_name
);
impl DatabaseName {
    /// A name that was read from PostgreSQL's catalog. It is not checked, so it may be `postgres` or `template1`.
    pub(crate) fn from_catalog(name: &str) -> Self {
        Self(name.into())
    }
}
name_type!(
    /// The name of a role: 1 to 63 bytes, without control characters, not beginning with `pg_`, and not a keyword such
    /// as `public` or `current_user`. Commas, emoji and right-to-left text are rejected too, because a SCRAM login of
    /// sqlx fails with them.
    RoleName,
    check_role_name
);
name_type!(
    /// An e-mail address of at most 254 bytes (RFC 5321, 4.5.3.1). Only its form is checked: one `@` with text on both
    /// sides, no white space, and no character that a reader cannot see (zero-width characters, controls of the
    /// direction of writing).
    ///
    /// Two addresses are the same admin if they differ only in the case of ASCII letters. Other letters are compared
    /// exactly: Unicode's lower case of `\u{212A}` (the Kelvin sign) is `k`, so with it `mi\u{212A}e@…`, whose mailbox
    /// may be another person's, would be `mike@…`.
    Email,
    check_email
);

const LABEL_CHARACTERS: &str = "allowed are a-z, 0-9 and the hyphen";
/// Subdomains that applications, mail systems, browsers or certificate authorities use for their own purposes. Sorted,
/// because `check_slug` uses a binary search.
const RESERVED: &[&str] = &[
    "abuse",
    "account",
    "admin",
    "administrator",
    "api",
    "app",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "broadcasthost",
    "cdn",
    "dashboard",
    "default",
    "demo",
    "dev",
    "docs",
    "email",
    "ftp",
    "git",
    "health",
    "help",
    "hostmaster",
    "imap",
    "internal",
    "isatap",
    "landlord",
    "localdomain",
    "localhost",
    "login",
    "logout",
    "mail",
    "metrics",
    "mta-sts",
    "news",
    "noc",
    "null",
    "operations",
    "pop",
    "pop3",
    "postgres",
    "postmaster",
    "private",
    "public",
    "register",
    "root",
    "security",
    "setup",
    "shop",
    "signup",
    "smtp",
    "ssl",
    "sso",
    "staging",
    "static",
    "status",
    "support",
    "system",
    "tenant",
    "tenantry",
    "tenants",
    "test",
    "undefined",
    "usenet",
    "webmail",
    "webmaster",
    "wpad",
    "www",
];

fn check_slug(text: &str) -> Result<(), InvalidName> {
    check_length(text, 3, 40)?;
    check_label(text)?;
    if text.as_bytes().get(2..4) == Some(b"--") {
        return Err(InvalidName::Encoded);
    }
    if RESERVED.binary_search(&text).is_ok() { Err(InvalidName::Reserved(text.into())) } else { Ok(()) }
}

fn check_domain(text: &str) -> Result<(), InvalidName> {
    check_length(text, 4, 253)?;
    let mut labels = 0;
    for part in text.split('.') {
        check_length(part, 1, 63)?;
        check_label(part)?;
        labels += 1;
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if labels < 2 || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidName::Shape("a host name of at least two labels, not an IP address"));
    }
    Ok(())
}

fn check_server_name(text: &str) -> Result<(), InvalidName> {
    check_length(text, 1, 40)?;
    check_characters(text, "allowed are a-z, 0-9, - and _", |c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
}

fn check_database_name(text: &str) -> Result<(), InvalidName> {
    check_pg_name(text)?;
    let is_system = matches!(text, "postgres" | "template0" | "template1");
    if is_system { Err(InvalidName::Reserved(text.into())) } else { Ok(()) }
}

fn check_role_name(text: &str) -> Result<(), InvalidName> {
    check_pg_name(text)?;
    let is_keyword = matches!(text, "public" | "none" | "current_user" | "session_user" | "current_role");
    if is_keyword || text.starts_with("pg_") {
        return Err(InvalidName::Reserved(text.into()));
    }
    check_scram_user(text)
}

/// Rejects names with which PostgreSQL would create a role that can never log in. sqlx normalizes the name with
/// SASLprep (RFC 4013) and inserts it unescaped into the first SCRAM message (RFC 5802, 5.1), after `n=`.
fn check_scram_user(text: &str) -> Result<(), InvalidName> {
    check_characters(text, "a comma would end the name in a SCRAM message", |c| c != ',')?;
    match stringprep::saslprep(&format!("n={text}")) {
        Ok(_) => Ok(()),
        Err(_) => Err(InvalidName::Shape("left-to-right text of characters that SASLprep (RFC 4013) allows")),
    }
}

fn check_email(text: &str) -> Result<(), InvalidName> {
    check_length(text, 3, 254)?;
    let allowed = "white space and control characters are forbidden";
    check_characters(text, allowed, |c| !c.is_whitespace() && !c.is_control())?;
    check_visible(text)?;
    match text.split_once('@') {
        Some((local, host)) if !local.is_empty() && !host.is_empty() && !host.contains('@') => Ok(()),
        _ => Err(InvalidName::Shape("an address with one @ and text on both sides of it")),
    }
}

fn check_pg_name(text: &str) -> Result<(), InvalidName> {
    check_length(text, 1, 63)?;
    check_characters(text, "control characters are forbidden", |c| !c.is_control())
}

fn check_label(text: &str) -> Result<(), InvalidName> {
    check_characters(text, LABEL_CHARACTERS, |c| matches!(c, 'a'..='z' | '0'..='9' | '-'))?;
    if text.starts_with('-') || text.ends_with('-') { Err(InvalidName::Hyphen) } else { Ok(()) }
}

fn check_length(text: &str, min: usize, max: usize) -> Result<(), InvalidName> {
    let length = text.len();
    if (min..=max).contains(&length) { Ok(()) } else { Err(InvalidName::Length { length, min, max }) }
}

/// Fails at the first character for which `is_allowed` is false. `allowed` describes the rule in the error.
fn check_characters(text: &str, allowed: &'static str, is_allowed: impl Fn(char) -> bool) -> Result<(), InvalidName> {
    match text.char_indices().find(|(_, c)| !is_allowed(*c)) {
        Some((at, found)) => Err(InvalidName::Character { found, at, allowed }),
        None => Ok(()),
    }
}

mod reserved_domains;
mod tenant;
mod text;
mod visible;
pub(crate) use reserved_domains::ReservedDomains;
#[cfg(any(feature = "axum", feature = "actix"))]
pub(crate) use reserved_domains::is_at_or_below;
pub use tenant::GroupRoles;
pub(crate) use tenant::TenantNames;
pub(crate) use text::{MAX_CERTIFICATES, MAX_KEY, MAX_REASON, check_display_name, check_host, check_text};
pub(crate) use visible::check_visible;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted() {
        assert!(RESERVED.is_sorted(), "RESERVED must be sorted for the binary search in check_slug");
    }

    #[test]
    fn parse_of_an_invalid_name_returns_the_broken_rule() {
        let slug = |s: &str| s.parse::<Slug>().unwrap_err();
        assert!(matches!(slug("ab"), InvalidName::Length { length: 2, min: 3, max: 40 }));
        assert!(matches!(slug(&"a".repeat(41)), InvalidName::Length { length: 41, .. }));
        assert!(
            matches!(slug("аcme"), InvalidName::Character { found: 'а', at: 0, .. }),
            "a Cyrillic letter that looks like a Latin one must be rejected"
        );
        assert!(matches!(slug("acme\0"), InvalidName::Character { found: '\0', at: 4, .. }));
        assert!(matches!(slug("ac'me"), InvalidName::Character { found: '\'', .. }));
        assert_eq!(slug("-acme"), InvalidName::Hyphen);
        assert_eq!(slug("xn--acme"), InvalidName::Encoded);
        assert!(matches!(slug("admin"), InvalidName::Reserved(_)));
        assert!(matches!("a".repeat(64).parse::<DatabaseName>(), Err(InvalidName::Length { length: 64, .. })));
        assert!(matches!("pg_x".parse::<RoleName>(), Err(InvalidName::Reserved(_))));
        assert!(matches!("a,b".parse::<RoleName>(), Err(InvalidName::Character { found: ',', at: 1, .. })));
        for cannot_log_in in ["שלום", "a\u{1f600}"] {
            assert!(matches!(cannot_log_in.parse::<RoleName>(), Err(InvalidName::Shape(_))), "{cannot_log_in}");
        }
        assert!("Größe \"½\" = 租户".parse::<RoleName>().is_ok());
        assert!(matches!("127.0.0.1".parse::<Domain>(), Err(InvalidName::Shape(_))));
        assert!(matches!("acme.example.".parse::<Domain>(), Err(InvalidName::Length { length: 0, .. })));
        assert!("shop.acme.example".parse::<Domain>().is_ok());
        assert!("ada@acme@x".parse::<Email>().is_err());
    }

    #[test]
    fn deserialize_checks_a_stored_name() {
        assert!(serde_json::from_str::<Slug>("\"acme\"").is_ok());
        assert!(serde_json::from_str::<Slug>("\"Acme\"").is_err());
    }
}
