//! `links`: one-time links, by which a tenant's admin sets a password.
use super::arguments::{TenantName, parse_id};
use super::explain::explain_change;
use super::failure::CommandError;
use super::output::{Output, Table, show_time, to_text};
use super::session::Session;
use super::tenants::describe_link;
use crate::store::tokens::{IssuedToken, LinkId};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use uuid::Uuid;

/// Setup links: issue, revoke, list
#[derive(Subcommand, Debug)]
pub(super) enum LinksCommand {
    /// Issues a link and prints its path, once. Earlier links of the same address become invalid
    Issue {
        /// Slug, id or domain
        tenant: TenantName,
        /// E-mail address of the admin
        email: String,
        /// What the link is for
        #[arg(long, value_enum, default_value_t = Purpose::Credentials)]
        purpose: Purpose,
    },
    /// Makes a link invalid
    Revoke {
        /// Slug, id or domain
        tenant: TenantName,
        /// Id of the link, as `links list` shows it
        #[arg(value_parser = parse_id::<Uuid>)]
        link: Uuid,
    },
    /// Lists the valid links of a tenant
    List {
        /// Slug, id or domain
        tenant: TenantName,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Purpose {
    /// Sets up the tenant: a new login of the database, then the first password
    Credentials,
    /// A new password for an admin that the tenant has already
    Password,
}

impl LinksCommand {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        match self {
            Self::Issue { tenant, email, purpose } => issue(session, tenant, email, *purpose).await,
            Self::Revoke { tenant, link } => revoke(session, tenant, LinkId::from_uuid(*link)).await,
            Self::List { tenant } => list(session, tenant).await,
        }
    }
}

async fn issue(session: &Session, tenant: &TenantName, email: &str, purpose: Purpose) -> Result<Output, CommandError> {
    let tokens = session.tenantry.tokens();
    let issued = match purpose {
        Purpose::Credentials => tokens.issue(tenant.reference(), email).await,
        Purpose::Password => tokens.issue_password(tenant.reference(), email).await,
    };
    let link = issued.map_err(|error| explain_change(error, tenant))?;
    let output = describe_link(Output::new(), &link.expose_path(), &link.email, link.expires_at);
    Ok(output.field("id", link.id).next(format!("links list {tenant}")))
}

/// Revokes and reads back. A link that an operation has claimed stays valid for it.
async fn revoke(session: &Session, tenant: &TenantName, link: LinkId) -> Result<Output, CommandError> {
    let (tokens, id) = (session.tenantry.tokens(), tenant.find(session).await?.id());
    let is_listed = async || Ok::<_, CommandError>(tokens.list(id).await?.iter().any(|issued| issued.id == link));
    if !is_listed().await? {
        return Err(
            CommandError::failed(format!("{tenant} has no valid link {link}")).next(format!("links list {tenant}"))
        );
    }
    tokens.revoke(link).await?;
    match is_listed().await? {
        true => Err(CommandError::failed(format!("an operation is using the link {link}; it ends when that is done"))
            .next(format!("operations list --tenant {tenant}"))),
        false => Ok(Output::new().line(format!("The link {link} is not valid any more.")).field("revoked", link)),
    }
}

async fn list(session: &Session, tenant: &TenantName) -> Result<Output, CommandError> {
    let tenant = tenant.find(session).await?;
    let links = session.tenantry.tokens().list(tenant.id()).await?;
    let rows = links.iter().map(|link| {
        let purpose = link.purpose.as_str().to_owned();
        [link.id.to_string(), purpose, link.email.clone(), show_time(link.expires_at), describe_use(link).into()]
    });
    let table = Table::new(["LINK", "PURPOSE", "EMAIL", "EXPIRES", "STATE"]).rows(rows);
    let table = table.or_empty(format!("{} has no valid links.", tenant.slug()));
    let output = Output::new().table(table).notes(links.unreadable.iter().map(ToString::to_string));
    let output = output.field("links", links.iter().map(to_json).collect::<Vec<_>>());
    Ok(match links.first() {
        Some(link) => output.next(format!("links revoke {} {}", tenant.slug(), link.id)),
        None => output.next(format!("links issue {} EMAIL", tenant.slug())),
    })
}

fn describe_use(link: &IssuedToken) -> &'static str {
    match (link.claimed_by, link.delivered) {
        (Some(_), _) => "in use",
        (None, true) => "delivered",
        (None, false) => "not delivered",
    }
}

fn to_json(link: &IssuedToken) -> Value {
    json!({
        "id": link.id, "purpose": link.purpose, "email": link.email, "expires_at": to_text(link.expires_at),
        "claimed_by": link.claimed_by, "delivered": link.delivered,
    })
}
