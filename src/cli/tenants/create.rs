//! `tenants create`.
use crate::cli::arguments::{apply, parse_json};
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, show_time, to_text};
use crate::cli::session::Session;
use crate::facade::Call;
use crate::operations::provision::{Provision, Provisioned};
use clap::Args;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub(in crate::cli) struct CreateArgs {
    /// Short name, which is also a subdomain: a-z, 0-9 and -
    slug: String,
    /// Display name. Default: the slug
    #[arg(long)]
    name: Option<String>,
    /// E-mail address of the first admin, who gets a setup link
    #[arg(long, value_name = "EMAIL")]
    admin: Option<String>,
    /// A domain that identifies the tenant. May be repeated
    #[arg(long)]
    domain: Vec<String>,
    /// Server for the database. Default: the one that the placement chooses
    #[arg(long)]
    server: Option<String>,
    /// JSON that is stored with the tenant. Not for secrets
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    metadata: Option<Value>,
    /// Idempotency key: a repeated command with the same key joins the first one
    #[arg(long)]
    key: Option<String>,
    /// Who wants this and why, for the history
    #[arg(long)]
    reason: Option<String>,
}

impl CreateArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        session.catch_interrupts();
        let call = session.tenantry.provision(&*self.slug).on_event(session.progress.observer(&*self.slug));
        let call = apply(call, self.name.as_ref(), Call::<Provision>::name);
        let call = apply(call, self.admin.as_ref(), Call::<Provision>::admin);
        let call = self.domain.iter().fold(call, Call::<Provision>::domain);
        let call = apply(call, self.server.as_ref(), Call::<Provision>::server);
        let call = apply(call, self.metadata.clone(), Call::<Provision>::metadata);
        let call = apply(call, self.key.as_ref(), Call::key);
        let call = apply(call, self.reason.as_ref(), Call::reason);
        Ok(describe(session, &call.await?))
    }
}

fn describe(session: &Session, provisioned: &Provisioned) -> Output {
    let (tenant, slug) = (&provisioned.tenant, provisioned.tenant.slug());
    let output = Output::new().line(format!("{slug} is active, with the id {}.", tenant.id()));
    let output = output.field("tenant", tenant).field("operation", provisioned.operation);
    let output = match session.has_migrations {
        true => output,
        false => output.note("this program has no migrations, so the database is empty. See `migrate --help`."),
    };
    let output = match &provisioned.link {
        Some(link) => describe_link(output, &link.expose_path(), &link.email, link.expires_at),
        None => output.field("link", None::<()>),
    };
    let output = match &provisioned.follow_up {
        Some(work) => output
            .note("the work after the activation is not done yet; the tenant can be used already")
            .next(format!("operations show {}", work.id)),
        None => output,
    };
    output.field("follow_up", &provisioned.follow_up).next(format!("tenants show {slug}"))
}

/// Shows a setup link. Its path is the only copy that can be read: the landlord has its hash.
pub(in crate::cli) fn describe_link(
    output: Output, path: &str, email: &str, expires_at: time::OffsetDateTime,
) -> Output {
    let until = show_time(expires_at);
    output
        .line(format!("Setup link for {email}, valid until {until}. It works once; put the tenant's origin before it:"))
        .line(format!("  {path}"))
        .field("link", json!({ "path": path, "email": email, "expires_at": to_text(expires_at) }))
}
