//! The request of a provisioning: the builder that the caller fills, and the parsed form that the journal stores.
//!
//! The facade turns calls of its own builder into a [`Provision`]. [`Provisioner::begin`](super::Provisioner::begin)
//! parses it before it writes anything, so that a stored request is always valid. The stored form holds no secret.
use crate::error::{EXCERPT, ProvisionError, shorten};
use crate::json;
use crate::names::{Domain, Email, InvalidName, ReservedDomains, ServerName, Slug, check_display_name};
use crate::tenant::{Tenant, TenantId, TenantStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::str::FromStr;

/// A request for a new tenant. Its values are parsed when the provisioning begins.
#[derive(Debug, Default)]
pub struct Provision {
    pub(crate) slug: String,
    pub(crate) name: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) domains: Vec<String>,
    pub(crate) metadata: Value,
    pub(crate) input: Option<Result<Value, serde_json::Error>>,
    pub(crate) server: Option<String>,
}

impl Provision {
    /// A request for a tenant with this slug, without an admin or a domain, on a server that the placement function
    /// chooses.
    pub fn new(slug: impl Into<String>) -> Self {
        Self { slug: slug.into(), ..Self::default() }
    }
    /// Sets the display name, 1 to 200 bytes without control characters and without characters that a reader cannot see
    /// (zero-width characters, controls of the direction of writing). Default: the slug.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
    /// Sets the email address of the tenant's first admin, who gets a setup link. Default: no admin.
    pub fn admin(mut self, email: impl Into<String>) -> Self {
        self.admin = Some(email.into());
        self
    }
    /// Adds a custom domain of the tenant. It must not be one that the application has
    /// [reserved](crate::Builder::reserve_domain), or below one.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domains.push(domain.into());
        self
    }
    /// Sets JSON that the registry stores with the tenant: at most 64 KiB and 100 levels, without NUL. It must not hold a
    /// secret. Default: `null`.
    pub fn metadata(mut self, metadata: Value) -> Self {
        self.metadata = metadata;
        self
    }
    /// Sets the value that the application's steps of this operation read by
    /// [`StepContext::input`](crate::step::StepContext::input). The journal stores it, so it must not hold a secret.
    pub fn input<T: Serialize>(mut self, input: &T) -> Self {
        self.input = Some(serde_json::to_value(input));
        self
    }
    /// Requires this server. The placement function may then only accept or refuse it.
    pub fn server(mut self, name: impl Into<String>) -> Self {
        self.server = Some(name.into());
        self
    }
    /// Parses all values. No domain may be one of `reserved`.
    pub(super) fn parse(self, reserved: &ReservedDomains) -> Result<Request, ProvisionError> {
        let mut domains: Vec<Domain> = self.domains.iter().map(|d| parse("domain", d)).collect::<Result<_, _>>()?;
        for domain in &domains {
            reserved.check(domain).map_err(|source| invalid("domain", domain.as_str(), source))?;
        }
        domains.sort();
        domains.dedup();
        let slug: Slug = parse("slug", &self.slug)?;
        let input = self.input.transpose().map_err(ProvisionError::Input)?.unwrap_or_default();
        require_storable("metadata", &self.metadata, json::MAX_METADATA)?;
        require_storable("input", &input, json::MAX_INPUT)?;
        Ok(Request {
            name: parse_display_name(self.name, &slug)?,
            slug,
            admin: self.admin.map(|a| parse("admin", &a)).transpose()?,
            domains,
            metadata: self.metadata,
            input,
            server: self.server.map(|s| parse("server", &s)).transpose()?,
        })
    }
}

/// The request as the journal stores it. A call whose key belongs to a different request is refused. It holds no
/// secret.
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
    /// The tenant to create from this request.
    pub(super) fn tenant(&self, id: TenantId) -> Tenant {
        Tenant::new(id, self.slug.clone(), TenantStatus::Provisioning)
            .with_name(&self.name)
            .with_metadata(self.metadata.clone())
    }
}

fn parse<T: FromStr<Err = InvalidName>>(field: &'static str, value: &str) -> Result<T, ProvisionError> {
    value.parse().map_err(|source| invalid(field, value, source))
}

fn parse_display_name(name: Option<String>, slug: &Slug) -> Result<String, ProvisionError> {
    let Some(value) = name else { return Ok(slug.to_string()) };
    check_display_name(&value).map_err(|source| invalid("name", &value, source))?;
    Ok(value)
}

/// Fails if the value cannot be stored and read back.
fn require_storable(field: &'static str, value: &Value, max_bytes: usize) -> Result<(), ProvisionError> {
    json::check(value, max_bytes).map_err(|source| invalid(field, &value.to_string(), source))
}

fn invalid(field: &'static str, value: &str, source: InvalidName) -> ProvisionError {
    ProvisionError::Invalid { field, value: shorten(value, EXCERPT), source }
}
