use crate::error::ProvisionError;
use crate::names::{Domain, Email, InvalidName, ServerName, Slug};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::str::FromStr;

/// What a caller asks for: plain data, parsed when the call is made.
#[derive(Debug, Default)]
pub struct Provision {
    pub(crate) slug: String,
    pub(crate) name: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) domains: Vec<String>,
    pub(crate) metadata: Value,
    pub(crate) input: Option<Result<Value, serde_json::Error>>,
    pub(crate) server: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Provision {
    /// A tenant of this slug, with no admin and no domain, wherever there is room.
    pub fn new(slug: impl Into<String>) -> Self {
        Self { slug: slug.into(), ..Self::default() }
    }
    /// Its display name; the slug if none is given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
    /// Its first admin, who gets a setup link.
    pub fn admin(mut self, email: impl Into<String>) -> Self {
        self.admin = Some(email.into());
        self
    }
    /// A domain of its own.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domains.push(domain.into());
        self
    }
    /// What the host keeps with the tenant; no secret.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }
    /// For the host's steps of this operation; stored, so no secret.
    pub fn input<T: Serialize>(mut self, input: &T) -> Self {
        self.input = Some(serde_json::to_value(input));
        self
    }
    /// Overrides placement.
    pub fn server(mut self, name: impl Into<String>) -> Self {
        self.server = Some(name.into());
        self
    }
    /// The caller's idempotency key.
    pub fn key(mut self, key: impl std::fmt::Display) -> Self {
        self.key = Some(key.to_string());
        self
    }
    /// Who and why, for the history.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(super) fn parse(self) -> Result<Asked, ProvisionError> {
        let mut domains: Vec<Domain> = self.domains.iter().map(|d| parse("domain", d)).collect::<Result<_, _>>()?;
        domains.sort();
        domains.dedup();
        let slug: Slug = parse("slug", &self.slug)?;
        let input = self.input.transpose().map_err(ProvisionError::Input)?.unwrap_or_default();
        storable("metadata", &self.metadata)?;
        storable("input", &input)?;
        let request = Request {
            name: display_name(self.name, &slug)?,
            slug,
            admin: self.admin.map(|a| parse("admin", &a)).transpose()?,
            domains,
            metadata: self.metadata,
            input,
            server: self.server.map(|s| parse("server", &s)).transpose()?,
        };
        Ok(Asked { request, key: self.key, reason: self.reason })
    }
}

/// A call that broke no rule.
pub(super) struct Asked {
    pub(super) request: Request,
    pub(super) key: Option<String>,
    pub(super) reason: Option<String>,
}

/// The stored request: one key stands for one of these. No secret in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) slug: Slug,
    pub(super) name: String,
    pub(super) admin: Option<Email>,
    pub(super) domains: Vec<Domain>,
    pub(super) metadata: Value,
    pub(super) input: Value,
    pub(super) server: Option<ServerName>,
}

impl Request {
    pub(super) fn tenant(&self, id: TenantId) -> Tenant {
        Tenant::new(id, self.slug.clone(), TenantStatus::Provisioning)
            .with_name(&self.name)
            .with_metadata(self.metadata.clone())
    }
}

fn parse<T: FromStr<Err = InvalidName>>(field: &'static str, value: &str) -> Result<T, ProvisionError> {
    value.parse().map_err(|source| ProvisionError::Invalid { field, value: value.into(), source })
}

/// PostgreSQL's text holds everything but NUL; a name that breaks lines breaks every list that shows it.
fn display_name(name: Option<String>, slug: &Slug) -> Result<String, ProvisionError> {
    let Some(value) = name else { return Ok(slug.to_string()) };
    let source = match value.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, found)) => InvalidName::Character { found, at, allowed: "no control character" },
        None if value.is_empty() || value.len() > 200 => InvalidName::Length { length: value.len(), min: 1, max: 200 },
        None => return Ok(value),
    };
    Err(ProvisionError::Invalid { field: "name", value, source })
}

/// `jsonb` holds every JSON text but one with a NUL in it (22P05).
fn storable(field: &'static str, value: &Value) -> Result<(), ProvisionError> {
    let nul = |text: &str| text.contains('\0');
    let found = match value {
        Value::String(text) => nul(text),
        Value::Array(items) => return items.iter().try_for_each(|v| storable(field, v)),
        Value::Object(map) => {
            map.values().try_for_each(|v| storable(field, v))?;
            map.keys().any(|k| nul(k))
        }
        _ => false,
    };
    let source = InvalidName::Shape("JSON without the character NUL");
    if found { Err(ProvisionError::Invalid { field, value: String::from("NUL"), source }) } else { Ok(()) }
}
