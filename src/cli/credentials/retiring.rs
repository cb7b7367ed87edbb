//! `credentials retiring`.
use crate::cli::failure::CommandError;
use crate::cli::output::{Output, Table, show_time, to_text};
use crate::cli::session::Session;
use crate::store::registry::{Retirement, TenantRegistry};
use clap::Args;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub(in crate::cli) struct RetiringArgs {
    /// Most logins to show
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

impl RetiringArgs {
    pub(super) async fn run(&self, session: &Session) -> Result<Output, CommandError> {
        retiring(session, self.limit).await
    }
}

async fn retiring(session: &Session, limit: u32) -> Result<Output, CommandError> {
    let rows = session.tenantry.retiring(limit).await?;
    let mut table = Table::new(["TENANT", "LOGIN", "SERVER", "ATTEMPTS", "NEXT", "REASON"])
        .or_empty("No login waits to be dropped.");
    for retirement in rows.iter() {
        let tenant = session.tenantry.registry().find(retirement.user.tenant.into()).await?;
        let tenant = tenant.map_or_else(|| retirement.user.tenant.to_string(), |tenant| tenant.slug().to_string());
        let next = retirement.retry_at.map_or_else(|| "by its operation".into(), show_time);
        let (user, attempts) = (&retirement.user, retirement.attempts.to_string());
        let reason = user.reason.clone().unwrap_or_default();
        table = table.row([tenant, user.role.to_string(), user.server.to_string(), attempts, next, reason]);
    }
    let output = Output::new().table(table).notes(rows.unreadable.iter().map(ToString::to_string));
    let output = output.field("retiring", rows.iter().map(retirement_to_json).collect::<Vec<_>>());
    Ok(if rows.is_empty() {
        output
    } else {
        output.hint("A node that runs the application drops them; it retries at least once an hour.")
    })
}

fn retirement_to_json(retirement: &Retirement) -> Value {
    json!({
        "user": retirement.user, "attempts": retirement.attempts,
        "retry_at": retirement.retry_at.map(to_text), "operation": retirement.by,
    })
}
