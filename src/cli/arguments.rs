//! Values of arguments that several commands take.
use super::explain::explain_unknown_tenant;
use super::failure::CommandError;
use super::session::Session;
use crate::store::registry::TenantRegistry;
use crate::tenant::{Tenant, TenantId, TenantRef};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A tenant as a person names it: by slug, id or domain.
#[derive(Clone, Debug)]
pub(super) struct TenantName(String);

impl TenantName {
    /// A slug has no dot, and a domain has one.
    pub(super) fn reference(&self) -> TenantRef<'_> {
        match self.0.parse::<TenantId>() {
            Ok(id) => TenantRef::Id(id),
            Err(_) if self.0.contains('.') => TenantRef::Domain((&*self.0).into()),
            Err(_) => TenantRef::Slug((&*self.0).into()),
        }
    }
    /// Reads the tenant.
    pub(super) async fn find(&self, session: &Session) -> Result<Tenant, CommandError> {
        let found = session.tenantry.registry().find(self.reference()).await?;
        found.ok_or_else(|| explain_unknown_tenant(self))
    }
}
impl FromStr for TenantName {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}
impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses a duration: a number with its unit, `s`, `m`, `h` or `d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let rule = || String::from("write a number with its unit: 30s, 15m, 12h or 90d");
    let unit = text.char_indices().last().ok_or_else(rule)?;
    let seconds: u64 = match unit.1 {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(rule()),
    };
    let number: u64 = text[..unit.0].parse().map_err(|_| rule())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".into())
}

/// Parses one of these texts, and lists them in the help and in the error.
pub(super) fn one_of<T>(texts: &[&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(texts.iter().copied()).try_map(|text| text.parse::<T>())
}

/// Parses the id of an operation or a link.
pub(super) fn parse_id<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "an id has the form 0198f1c2-0000-7000-8000-000000000000; the list shows it".into())
}

/// Parses JSON.
pub(super) fn parse_json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| format!("that is no JSON: {error}"))
}

/// Parses an address, `host:port` or `[::1]:port`.
pub(super) fn parse_address(text: &str) -> Result<(String, u16), String> {
    let rule = || String::from("write HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(rule)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match (host.is_empty(), port.parse()) {
        (false, Ok(port)) => Ok((host.to_owned(), port)),
        _ => Err(rule()),
    }
}

/// Sets one setting of a call, if the argument was given.
pub(super) fn apply<B, T>(call: B, value: Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(call, value),
        None => call,
    }
}

/// Singular or plural, with the number.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_without_a_unit_is_refused() {
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 24 * 3600)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        for text in ["", "90", "d", "-1d", "1.5h", "1w", "9999999999999999999d", "500000000000000d"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn address_without_a_port_is_refused() {
        assert_eq!(parse_address("[::1]:5432"), Ok(("::1".into(), 5432)));
        assert_eq!(parse_address("db:5432"), Ok(("db".into(), 5432)));
        for text in ["db", ":5432", "db:", "db:99999"] {
            assert!(parse_address(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn tenant_name_is_read_as_an_id_a_domain_or_a_slug() {
        let id = TenantId::new();
        let is = |text: &str, reference: TenantRef<'_>| assert_eq!(TenantName(text.into()).reference(), reference);
        is(&id.to_string(), TenantRef::Id(id));
        is("acme.example", TenantRef::Domain("acme.example".into()));
        is("acme", TenantRef::Slug("acme".into()));
    }
}
