//! `tenants rename`: another slug or display name.
use crate::cli::arguments::TenantName;
use crate::cli::failure::CommandError;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::error::{NameConflict, StoreError};
use crate::names::Slug;

use clap::Args;

#[derive(Args, Debug)]
pub(in crate::cli) struct RenameArgs {
    /// Slug, id or domain
    tenant: TenantName,
    /// New slug
    #[arg(required_unless_present = "name")]
    new_slug: Option<Slug>,
    /// New display name
    #[arg(long)]
    name: Option<String>,
}

impl RenameArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        let before = self.tenant.find(session).await?;
        let after = match &self.new_slug {
            Some(slug) => before.clone().with_slug(slug.clone()),
            None => before.clone(),
        };
        let after = match &self.name {
            Some(name) => after.with_name(name),
            None => after,
        };
        let updated = session.tenantry.registry_writer().update(&before, &after, None).await;
        updated.map_err(|error| match error {
            StoreError::Taken(NameConflict::Slug(slug)) => {
                CommandError::failed(format!("another tenant has the slug {slug}")).next(format!("tenants show {slug}"))
            }
            StoreError::Conflict(_) => CommandError::failed("the tenant was changed meanwhile; repeat the command"),
            other => other.into(),
        })?;
        let text = format!("{} is now {}, with the name {}.", before.slug(), after.slug(), after.name());
        Ok(Output::new().line(text).field("tenant", &after).next(format!("tenants show {}", after.slug())))
    }
}
