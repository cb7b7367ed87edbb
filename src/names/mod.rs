//! Names as types. Parsing happens at the edge, once; an error names the rule that was broken.
//!
//! Nothing is mapped: upper case and Unicode are refused, so two spellings never mean one tenant.
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Which rule a name breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Too short or too long, counted in bytes (which are characters where only ASCII is allowed).
    #[error("it has {length} bytes, allowed are {min} to {max}")]
    Length {
        /// Bytes found.
        length: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed.
        max: usize,
    },
    /// A character that may not stand there.
    #[error("{found:?} at byte {at} is not allowed; {allowed}")]
    Character {
        /// The character.
        found: char,
        /// Its byte offset.
        at: usize,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// A DNS label begins or ends with a hyphen.
    #[error("a label may not begin or end with a hyphen")]
    Hyphen,
    /// Hyphens in the third and fourth place are kept for encoded names such as `xn--…` (RFC 5890, 2.3.1).
    #[error("hyphens in the third and fourth place are kept for encoded names (xn--)")]
    Encoded,
    /// A word that hosts need for themselves, or that PostgreSQL keeps.
    #[error("{0:?} is reserved")]
    Reserved(Box<str>),
    /// Not of the form that is asked for.
    #[error("it must be {0}")]
    Shape(&'static str),
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $rule:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);
        impl $name {
            /// The text.
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

word!(
    /// A tenant's short name: one lower-case ASCII DNS label (RFC 1035, 2.3.1) of 3 to 40 characters, since it becomes
    /// a subdomain. No `xn--`, no reserved word.
    ///
    /// ```
    /// use tenantry::names::{InvalidName, Slug};
    /// assert!("acme".parse::<Slug>().is_ok());
    /// assert!(matches!("www".parse::<Slug>(), Err(InvalidName::Reserved(_))));
    /// assert!("Acme".parse::<Slug>().is_err(), "refused, not mapped");
    /// ```
    Slug,
    slug
);
word!(
    /// A tenant's own host name: lower-case ASCII, at least two labels, at most 253 bytes, no port, no final dot.
    /// Internationalised names come in their encoded form (`xn--…`).
    Domain,
    domain
);
word!(
    /// The name a host gives to a PostgreSQL server: 1 to 40 of `a-z 0-9 - _`.
    ServerName,
    server
);
word!(
    /// A database's name: 1 to 63 bytes (PostgreSQL cuts longer ones silently, and then they collide), no control
    /// character, not one of PostgreSQL's own.
    DatabaseName,
    database
);
impl DatabaseName {
    /// The name of a database that the catalog lists: one of PostgreSQL's own, too.
    pub(crate) fn existing(name: &str) -> Self {
        Self(name.into())
    }
}
word!(
    /// A role's name: 1 to 63 bytes, no control character, not `pg_…`, not a keyword that stands for a role. Nor a
    /// comma, an emoji or right-to-left writing, which SCRAM logins of sqlx cannot carry.
    RoleName,
    role
);
word!(
    /// An e-mail address, checked for shape only: one `@` with something on both sides, no white space, at most 254
    /// bytes (RFC 5321, 4.5.3.1).
    Email,
    email
);

const LDH: &str = "allowed are a-z, 0-9 and the hyphen";
/// Subdomains that hosts, mail, browsers or certificates give a meaning of their own.
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

fn slug(text: &str) -> Result<(), InvalidName> {
    length(text, 3, 40)?;
    label(text)?;
    if text.as_bytes().get(2..4) == Some(b"--") {
        return Err(InvalidName::Encoded);
    }
    if RESERVED.binary_search(&text).is_ok() { Err(InvalidName::Reserved(text.into())) } else { Ok(()) }
}

fn domain(text: &str) -> Result<(), InvalidName> {
    length(text, 4, 253)?;
    let mut labels = 0;
    for part in text.split('.') {
        length(part, 1, 63)?;
        label(part)?;
        labels += 1;
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if labels < 2 || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidName::Shape("a host name of at least two labels, no address"));
    }
    Ok(())
}

fn server(text: &str) -> Result<(), InvalidName> {
    length(text, 1, 40)?;
    only(text, "allowed are a-z, 0-9, - and _", |c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
}

fn database(text: &str) -> Result<(), InvalidName> {
    pg_name(text)?;
    let own = matches!(text, "postgres" | "template0" | "template1");
    if own { Err(InvalidName::Reserved(text.into())) } else { Ok(()) }
}

fn role(text: &str) -> Result<(), InvalidName> {
    pg_name(text)?;
    let keyword = matches!(text, "public" | "none" | "current_user" | "session_user" | "current_role");
    if keyword || text.starts_with("pg_") {
        return Err(InvalidName::Reserved(text.into()));
    }
    can_log_in(text)
}

/// sqlx puts the name into the first SCRAM message (RFC 5802, 5.1) behind `n=`, as SASLprep (RFC 4013) leaves it and
/// without escaping: some names could be made, and could never log in.
fn can_log_in(text: &str) -> Result<(), InvalidName> {
    only(text, "no comma: it would end the name in a SCRAM message", |c| c != ',')?;
    match stringprep::saslprep(&format!("n={text}")) {
        Ok(_) => Ok(()),
        Err(_) => Err(InvalidName::Shape("of characters that SASLprep (RFC 4013) allows, in left-to-right writing")),
    }
}

fn email(text: &str) -> Result<(), InvalidName> {
    length(text, 3, 254)?;
    only(text, "no white space or control character", |c| !c.is_whitespace() && !c.is_control())?;
    match text.split_once('@') {
        Some((local, host)) if !local.is_empty() && !host.is_empty() && !host.contains('@') => Ok(()),
        _ => Err(InvalidName::Shape("an address with one @ and something on both sides")),
    }
}

fn pg_name(text: &str) -> Result<(), InvalidName> {
    length(text, 1, 63)?;
    only(text, "no control character", |c| !c.is_control())
}

fn label(text: &str) -> Result<(), InvalidName> {
    only(text, LDH, |c| matches!(c, 'a'..='z' | '0'..='9' | '-'))?;
    if text.starts_with('-') || text.ends_with('-') { Err(InvalidName::Hyphen) } else { Ok(()) }
}

fn length(text: &str, min: usize, max: usize) -> Result<(), InvalidName> {
    let length = text.len();
    if (min..=max).contains(&length) { Ok(()) } else { Err(InvalidName::Length { length, min, max }) }
}

fn only(text: &str, allowed: &'static str, ok: impl Fn(char) -> bool) -> Result<(), InvalidName> {
    match text.char_indices().find(|(_, c)| !ok(*c)) {
        Some((at, found)) => Err(InvalidName::Character { found, at, allowed }),
        None => Ok(()),
    }
}

mod tenant;
pub use tenant::{GroupRoles, TenantNames};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        let slug = |s: &str| s.parse::<Slug>().unwrap_err();
        assert!(matches!(slug("ab"), InvalidName::Length { length: 2, min: 3, max: 40 }));
        assert!(matches!(slug(&"a".repeat(41)), InvalidName::Length { length: 41, .. }));
        assert!(matches!(slug("аcme"), InvalidName::Character { found: 'а', at: 0, .. }), "a Cyrillic look-alike");
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
    fn a_stored_name_is_parsed_again_when_it_is_read() {
        assert!(serde_json::from_str::<Slug>("\"acme\"").is_ok());
        assert!(serde_json::from_str::<Slug>("\"Acme\"").is_err());
    }
}
